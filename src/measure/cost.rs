//! What one sample costs, back to back: CPU time of the calling thread for the floor, for a whole
//! sample, and for its parts, in blocks that take turns.

use super::stats::Median;
use super::{Attendant, Floor, MeasureError, PROCFS};
use crate::sampler::Probe;
use crate::source::text::{KeptFile, NoText};
use crate::source::{SOURCES, SourceDef};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::fmt;
use std::hint::black_box;
use std::path::Path;

/// Rounds behind each other of one kind.
const BLOCK: u64 = 50;
/// Samples that the ring of a measured sampler keeps: `--max-samples` unless told otherwise.
const MAX_SAMPLES: u64 = 3600;
const BUFFER_BYTES: usize = 64 << 10;

/// What samples cost back to back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HotCost {
    /// Rounds of each kind.
    pub rounds: u64,
    /// All sources together, and then each.
    pub sources: Vec<SourceCost>,
}

/// What a sample of some sources costs; us of CPU time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceCost {
    /// `all`, or the source's name.
    pub source: &'static str,
    /// Length of the text.
    pub text_bytes: u64,
    /// Reading to the end and throwing away.
    pub floor_us: Median,
    /// The whole sample.
    pub sample_us: Median,
    /// Of sample to floor, block by block.
    pub ratio: Median,
    /// Of the sample, reading: the kernel, and how it is asked.
    pub read_us: f64,
    /// Of the sample, parsing.
    pub parse_us: f64,
    /// Of the sample, the rest: clocks, checksum, and the way into the ring.
    pub commit_us: f64,
    /// Whether the host had other devices before the end, so that a new segment had to be begun.
    pub host_changed: bool,
}

/// The floor and a sampler of the same files.
pub struct Pair {
    /// `all` or the source's name.
    pub name: &'static str,
    /// Reads alone.
    pub floor: Floor,
    /// Reads, parses, and commits a record.
    pub probe: Probe,
    /// Reads as the sampler does.
    files: Vec<KeptFile>,
    buffer: Box<[u8]>,
}

impl Pair {
    /// All sources together, and then each.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn all() -> Result<Vec<Pair>, MeasureError> {
        let sets = std::iter::once(("all", SOURCES.to_vec()));
        let sets = sets.chain(SOURCES.iter().map(|def| (def.name, vec![*def])));
        let procfs = Path::new(PROCFS);
        sets.map(|(name, sources)| Pair::new(name, &sources, procfs, MAX_SAMPLES)).collect()
    }

    /// `sources` below `procfs`, and a ring for `max_samples`.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(
        name: &'static str,
        sources: &[&'static SourceDef],
        procfs: &Path,
        max_samples: u64,
    ) -> Result<Pair, MeasureError> {
        let file = |def: &&SourceDef| KeptFile::new(procfs.join(def.file), def.records);
        Ok(Pair {
            name,
            floor: Floor::new(sources, procfs)?,
            probe: Probe::new(sources, procfs, max_samples)?,
            files: sources.iter().map(file).collect(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
        })
    }

    #[inline]
    fn read(&mut self) {
        for file in &mut self.files {
            if let Err(NoText::BufferFull) = black_box(file.read(&mut self.buffer)) {
                // More devices than it was made for; the sampler has grown its own.
                self.buffer = vec![0; self.buffer.len() * 2].into_boxed_slice();
            }
        }
    }

    /// Measures so many rounds of each kind.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn measure(
        &mut self,
        rounds: u64,
        attendant: &Attendant,
    ) -> Result<SourceCost, MeasureError> {
        let text_bytes = self.floor.read()?;
        let mut times = Times::default();
        let warm_up = (rounds / 10).div_ceil(BLOCK);
        for block in 0..warm_up + rounds.div_ceil(BLOCK) {
            attendant.interrupt.check()?;
            if block == warm_up {
                times = Times::default();
            }
            let mut floor = Ok(0);
            times.floor.push(us_per_round(|| {
                if floor.is_ok() {
                    floor = self.floor.read();
                }
            }));
            floor?;
            times.sample.push(us_per_round(|| self.probe.sample()));
            times.read.push(us_per_round(|| self.read()));
            times.parse.push(us_per_round(|| {
                black_box(self.probe.parse());
            }));
        }
        Ok(times.cost(self.name, text_bytes, self.probe.segments() > 1))
    }
}

/// Each block's mean, us per round.
#[derive(Default)]
struct Times {
    floor: Vec<f64>,
    sample: Vec<f64>,
    read: Vec<f64>,
    parse: Vec<f64>,
}

impl Times {
    fn cost(&self, source: &'static str, text_bytes: u64, host_changed: bool) -> SourceCost {
        let ratios: Vec<f64> =
            self.floor.iter().zip(&self.sample).map(|(floor, sample)| sample / floor).collect();
        let sample_us = Median::of(&self.sample);
        let read_us = Median::of(&self.read).median;
        let parsed_us = Median::of(&self.parse).median;
        SourceCost {
            source,
            text_bytes,
            floor_us: Median::of(&self.floor),
            sample_us,
            ratio: Median::of(&ratios),
            read_us,
            parse_us: parsed_us - read_us,
            commit_us: sample_us.median - parsed_us,
            host_changed,
        }
    }
}

/// CPU time of the calling thread for a block of rounds.
#[inline]
fn us_per_round(mut round: impl FnMut()) -> f64 {
    let begin_ns = thread_cpu_ns();
    for _ in 0..BLOCK {
        round();
    }
    (thread_cpu_ns() - begin_ns) as f64 / 1e3 / BLOCK as f64
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Measures all sources together, and then each.
///
/// # Errors
/// [`MeasureError`].
pub fn hot(rounds: u64, attendant: &Attendant) -> Result<HotCost, MeasureError> {
    // Measured, and only to tell how long it takes.
    const ROUND_US: u64 = 400;
    let seconds = (rounds * ROUND_US).div_ceil(1_000_000);
    attendant.tell(format_args!("cost back to back: {rounds} rounds of each, about {seconds} s"));
    let mut pairs = Pair::all()?;
    let sources: Result<_, _> =
        pairs.iter_mut().map(|pair| pair.measure(rounds, attendant)).collect();
    Ok(HotCost { rounds, sources: sources? })
}

impl fmt::Display for HotCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "one sample, back to back: us of CPU time, median [10 % .. 90 %] of blocks of {BLOCK}, \
             {} rounds of each in turns",
            self.rounds
        )?;
        writeln!(
            f,
            "{:<10} {:>6} {:>22} {:>22} {:>6} {:>7} {:>7} {:>7}",
            "source", "bytes", "floor", "sample", "ratio", "read", "parse", "commit"
        )?;
        let shown = |us: &Median| format!("{:.2} [{:.2} .. {:.2}]", us.median, us.p10, us.p90);
        for cost in &self.sources {
            writeln!(
                f,
                "{:<10} {:>6} {:>22} {:>22} {:>6.3} {:>7.2} {:>7.2} {:>7.2}{}",
                cost.source,
                cost.text_bytes,
                shown(&cost.floor_us),
                shown(&cost.sample_us),
                cost.ratio.median,
                cost.read_us,
                cost.parse_us,
                cost.commit_us,
                if cost.host_changed { "  the host changed meanwhile" } else { "" }
            )?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_sample() {
        let times = Times {
            floor: vec![10.0, 20.0, 10.0],
            sample: vec![12.0, 20.0, 11.0],
            read: vec![9.0, 9.0, 9.0],
            parse: vec![10.5, 10.5, 99.0],
        };
        let cost = times.cost("all", 1, false);
        assert_eq!(cost.ratio.median, 1.1, "the median of the ratios, not the ratio of medians");
        assert_eq!((cost.floor_us.median, cost.sample_us.median), (10.0, 12.0));
        assert_eq!((cost.read_us, cost.parse_us, cost.commit_us), (9.0, 1.5, 1.5));
    }

    #[test]
    fn every_source_is_measured_and_the_table_has_a_row_for_each() {
        let cost = hot(100, &Attendant::new(|_| {})).unwrap();
        let names: Vec<&str> = cost.sources.iter().map(|cost| cost.source).collect();
        assert_eq!(names, ["all", "diskstats", "vmstat", "meminfo", "loadavg", "netdev"]);
        assert!(cost.sources.iter().all(|cost| cost.floor_us.median > 0.0 && cost.text_bytes > 0));
        let table = cost.to_string();
        assert!(names.iter().all(|name| table.contains(&format!("\n{name} "))), "{table}");
    }
}
