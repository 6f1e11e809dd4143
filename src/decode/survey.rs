//! The first pass over a run's records: what was taken, missed and lost, what it cost, which
//! devices there were. Its memory depends on the devices, not on the samples.

use super::facts::{Cost, Gap, HostSummary, InstanceSummary, SamplerSummary, Spread};
use super::rings::{DecodeError, Record, Rings};
use crate::record::{Common, FLAG_AT_STOP, FLAG_EXTRA, RowHead};
use crate::ring::Entry;
use crate::schema::Shape;
use hdrhistogram::Histogram;
use indexmap::{IndexMap, IndexSet};
use std::collections::BTreeMap;

/// Gaps that are listed one by one.
const MAX_GAPS: usize = 1000;
/// Devices that are listed one by one, by source.
const MAX_INSTANCES: usize = 10_000;
/// Longest time that a figure can be, a day in ns; longer ones count as this.
const LONGEST_NS: u64 = 86_400_000_000_000;

/// What the first pass found.
pub(super) struct Survey {
    /// For the output.
    pub summary: HostSummary,
    /// Whether any sample has a value.
    pub has_data: bool,
    /// `CLOCK_REALTIME` of the last sample, ns.
    pub end_wall_ns: u64,
    /// From tick 0 to the last sample, by the monotonic clock, ns.
    pub duration_ns: u64,
}

impl Survey {
    /// Reads all records once.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn of(rings: &mut Rings) -> Result<Survey, DecodeError> {
        let mut pass = Pass::new(rings.seqs.start);
        rings.each(|record| {
            pass.record(record);
            Ok::<_, DecodeError>(())
        })?;
        Ok(pass.finish(rings))
    }
}

/// How one time spreads, in bounded memory.
struct Times {
    histogram: Option<Histogram<u64>>,
    max_ns: u64,
}

impl Times {
    fn new() -> Times {
        // Two significant digits: about 80 kB. The bounds are constants that the crate accepts.
        Times { histogram: Histogram::new_with_bounds(1, LONGEST_NS, 2).ok(), max_ns: 0 }
    }

    fn add(&mut self, ns: u64) {
        self.max_ns = self.max_ns.max(ns);
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(ns.max(1));
        }
    }

    fn spread(&self) -> Spread {
        let percentile = |percent| {
            let ns = self.histogram.as_ref().map_or(0, |all| all.value_at_percentile(percent));
            microseconds(ns.min(self.max_ns))
        };
        Spread { p50: percentile(50.0), p99: percentile(99.0), max: microseconds(self.max_ns) }
    }
}

#[derive(Clone, Copy)]
struct Moment {
    tick: u64,
    cpu_ns: u64,
    begin_ns: u64,
}

struct Pass {
    summary: HostSummary,
    has_data: bool,
    end_wall_ns: u64,
    /// First and last tick, by segment and entry of its dictionary.
    seen: BTreeMap<(usize, u32), (u64, u64, Entry)>,
    first: Option<Moment>,
    last: Option<Moment>,
    /// Samples before the oldest one that is left.
    overwritten: u64,
    window: Times,
    lateness: Times,
}

impl Pass {
    fn new(overwritten: u64) -> Pass {
        Pass {
            summary: HostSummary::default(),
            has_data: false,
            end_wall_ns: 0,
            seen: BTreeMap::new(),
            first: None,
            last: None,
            overwritten,
            window: Times::new(),
            lateness: Times::new(),
        }
    }

    fn record(&mut self, mut record: Record<'_>) {
        let common = |which| record.view.common(which);
        let flags = common(Common::Flags);
        let tick = common(Common::Tick);
        let begin_ns = common(Common::BeginNs);
        let missed = common(Common::MissedTicks);
        let now = Moment { tick, cpu_ns: common(Common::CpuNs), begin_ns };
        let summary = &mut self.summary;
        summary.samples_kept += 1;
        summary.ended_cleanly = flags & FLAG_AT_STOP != 0;
        summary.ticks_missed = missed;
        summary.ticks_elapsed = tick.saturating_add(1);
        // Every sample before this one took a tick of its own, every other tick was missed; an
        // additional sample shares its tick with one of them.
        let ticks_behind = record.seq.0.saturating_add(missed);
        let extra = flags & FLAG_EXTRA != 0;
        if ticks_behind != tick.saturating_add(u64::from(extra)) {
            summary.ticks_inconsistent += 1;
        }
        // At the beginning only what was missed, not what was overwritten, is a gap.
        let next_tick = match self.last {
            Some(last) => last.tick.saturating_add(1),
            None if self.overwritten == 0 => 0,
            None => tick,
        };
        if tick > next_tick {
            summary.gaps_total += 1;
            if summary.gaps.len() < MAX_GAPS {
                summary.gaps.push(Gap { first_tick: next_tick, ticks: tick - next_tick });
            }
        }
        self.window.add(common(Common::EndNs).saturating_sub(begin_ns));
        if !extra {
            // One that is taken between two ticks has no deadline to be late for.
            self.lateness.add(common(Common::LatenessNs));
        }
        self.end_wall_ns = common(Common::WallNs);
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.blocks(&mut record, tick);
    }

    fn blocks(&mut self, record: &mut Record<'_>, tick: u64) {
        for block in record.view.blocks() {
            if block.fault_word != 0 {
                *self.summary.errors.entry(block.source.name.clone()).or_default() += 1;
            }
            self.has_data |= block.rows > 0;
            let Some(shape @ Shape::Table { .. }) = &block.source.shape else { continue };
            for row in block.data.chunks_exact(shape.row_words()) {
                let entry = RowHead::from_word(row[0]).entry;
                if let Some((_, last, _)) = self.seen.get_mut(&(record.segment, entry)) {
                    *last = tick;
                } else if let Some(name) = record.names.load(block.index, entry) {
                    self.seen.insert((record.segment, entry), (tick, tick, name.clone()));
                }
            }
        }
    }

    fn finish(mut self, rings: &Rings) -> Survey {
        let description = rings.description();
        let header = rings.header();
        let sampler = &description.sampler;
        let summary = &mut self.summary;
        summary.hostname.clone_from(&description.hostname);
        summary.kernel.clone_from(&description.system.kernel);
        summary.boot_id = header.boot_id.to_string();
        summary.samples_taken = rings.seqs.end;
        summary.samples_overwritten = rings.seqs.start;
        summary.samples_lost =
            (rings.seqs.end - rings.seqs.start).saturating_sub(summary.samples_kept);
        summary.slots_torn = rings.torn;
        summary.segments = rings.segments.last().map_or(0, |last| last.header().segment + 1);
        summary.notes = rings
            .segments
            .iter()
            .flat_map(|segment| segment.description.sampler.notes.iter().cloned())
            .collect::<IndexSet<_>>()
            .into_iter()
            .collect();
        summary.sampler = SamplerSummary {
            policy: sampler.policy.clone(),
            nice: sampler.nice,
            cpu: sampler.cpu,
            timer_slack_ns: sampler.timer_slack_ns,
            memory_locked: sampler.memory_locked,
            process_locked: sampler.process_locked,
            storage: sampler.storage.clone(),
            mirror: sampler.mirror.clone(),
            sync_interval_seconds: sampler.sync_interval_ns.map(|ns| ns as f64 / 1e9),
        };
        summary.cost = cost(self.first, self.last, summary.samples_kept);
        summary.cost.window_us = self.window.spread();
        summary.cost.lateness_us = self.lateness.spread();
        summary.instances = instances(rings, self.seen);
        let duration_ns =
            self.last.map_or(0, |last| last.begin_ns.saturating_sub(header.start_monotonic_ns));
        let Pass { summary, has_data, end_wall_ns, .. } = self;
        let end_wall_ns =
            if summary.samples_kept == 0 { header.start_wall_ns } else { end_wall_ns };
        Survey { summary, has_data, end_wall_ns, duration_ns }
    }
}

/// CPU time is read at the begin of each sample, so that of the last one is not in it.
fn cost(first: Option<Moment>, last: Option<Moment>, samples: u64) -> Cost {
    let (Some(first), Some(last)) = (first, last) else { return Cost::default() };
    let cpu_ns = last.cpu_ns.saturating_sub(first.cpu_ns);
    let wall_ns = last.begin_ns.saturating_sub(first.begin_ns);
    let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    Cost {
        cpu_us: microseconds(cpu_ns),
        cpu_us_per_sample: ratio(cpu_ns, samples.saturating_sub(1)) / 1000.0,
        cpu_percent: ratio(cpu_ns, wall_ns) * 100.0,
        ..Cost::default()
    }
}

/// The same device in several segments is one.
fn instances(
    rings: &Rings,
    seen: BTreeMap<(usize, u32), (u64, u64, Entry)>,
) -> IndexMap<String, Vec<InstanceSummary>> {
    let mut merged: IndexMap<(u32, u64, Vec<u8>), (u64, u64)> = IndexMap::new();
    for (first, last, entry) in seen.into_values() {
        merged
            .entry((entry.source, entry.identity, entry.name))
            .and_modify(|ticks| *ticks = (ticks.0.min(first), ticks.1.max(last)))
            .or_insert((first, last));
    }
    let sources = &rings.description().schema.sources;
    let mut listed: IndexMap<String, Vec<InstanceSummary>> = IndexMap::new();
    for ((source, identity, name), (first_tick, last_tick)) in merged {
        let Some(source) = sources.get(source as usize) else { continue };
        let list = listed.entry(source.name.clone()).or_default();
        if list.len() < MAX_INSTANCES {
            let is_device = identity != 0;
            list.push(InstanceSummary {
                name: text(&name),
                major: is_device.then_some((identity >> 32) as u32),
                minor: is_device.then_some(identity as u32),
                first_tick,
                last_tick,
            });
        }
    }
    listed
}

/// A name for JSON: bytes that are not UTF-8 are shown as `\xNN`.
pub(super) fn text(name: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in name.utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

pub(super) fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}
