//! The first pass over a run's records: what was taken, missed and lost, what it cost, which
//! devices there were, what counters and clocks did. Its memory depends on the devices, up to a
//! bound, and not on the samples.

use super::counters::Counters;
use super::deadlines::Deadlines;
use super::error::DecodeError;
use super::facts::{Cost, Gap, HostSummary, SamplerSummary, Spread};
use super::instances::Instances;
use super::notes::MAX_NOTES_BYTES;
use super::rings::{Record, Rings};
use super::text_bound::TextBound;
use super::wall::WallClock;
use crate::record::{Common, FLAG_AT_STOP, FLAG_EXTRA, RowHead};
use crate::ring::Header;
use crate::schema::Shape;
use crate::units::Seq;
use hdrhistogram::Histogram;

/// Longest time that a figure can be, a day in ns; longer ones count as this.
const LONGEST_NS: u64 = 86_400_000_000_000;

/// How much is listed one by one, of one host of a run. What is listed of all hosts is in memory at
/// once, so that one of many has less room than one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Devices and interfaces of one source.
    pub instances_of_a_source: usize,
    /// Gaps.
    pub gaps: usize,
    /// Steps of the wall clock.
    pub clock_steps: usize,
    /// Text of notes.
    pub notes_bytes: usize,
}

impl Limits {
    /// Those of each of so many hosts.
    pub fn of_hosts(hosts: usize) -> Limits {
        let share = |of_all: usize, least, most| (of_all / hosts.max(1)).clamp(least, most);
        Limits {
            instances_of_a_source: share(1_000_000, 256, 10_000),
            gaps: share(100_000, 50, 1000),
            clock_steps: share(100_000, 50, 1000),
            notes_bytes: share(1 << 26, 1 << 13, MAX_NOTES_BYTES),
        }
    }
}

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
    /// Its samples are no more text than that.
    pub text_bytes: u64,
}

impl Survey {
    /// Reads all records once.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn of(rings: &Rings, limits: &Limits) -> Result<Survey, DecodeError> {
        let mut pass = Pass::new(rings, limits);
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
    missed: u64,
    extra: bool,
    cpu_ns: u64,
    begin_ns: u64,
    lateness_ns: u64,
}

struct Pass {
    summary: HostSummary,
    has_data: bool,
    end_wall_ns: u64,
    instances: Instances,
    counters: Counters,
    wall_clock: WallClock,
    text: TextBound,
    /// That of the last record.
    segment: Option<usize>,
    deadlines: Deadlines,
    first: Option<Moment>,
    last: Option<Moment>,
    /// Behind the number of the last record.
    end: u64,
    /// Samples before the oldest one that is left.
    overwritten: u64,
    window: Times,
    lateness: Times,
    max_gaps: usize,
    max_notes_bytes: usize,
}

impl Pass {
    fn new(rings: &Rings, limits: &Limits) -> Pass {
        let Header { start_monotonic_ns, interval_ns, .. } = *rings.header();
        let may_move = rings.description().sampler.follows_clock;
        Pass {
            summary: HostSummary::default(),
            has_data: false,
            end_wall_ns: 0,
            instances: Instances::new(limits.instances_of_a_source),
            counters: Counters::default(),
            wall_clock: WallClock::new(limits.clock_steps),
            text: TextBound::default(),
            segment: None,
            deadlines: Deadlines::new(start_monotonic_ns, interval_ns, may_move),
            first: None,
            last: None,
            end: 0,
            overwritten: rings.seqs.start,
            window: Times::new(),
            lateness: Times::new(),
            max_gaps: limits.gaps,
            max_notes_bytes: limits.notes_bytes,
        }
    }

    fn record(&mut self, record: Record<'_>) {
        let common = |which| record.view.common(which);
        let flags = common(Common::Flags);
        let tick = common(Common::Tick);
        let begin_ns = common(Common::BeginNs);
        let missed = common(Common::MissedTicks);
        let extra = flags & FLAG_EXTRA != 0;
        let lateness_ns = common(Common::LatenessNs);
        let now =
            Moment { tick, missed, extra, cpu_ns: common(Common::CpuNs), begin_ns, lateness_ns };
        let adds_up = self.adds_up(record.seq, now);
        let summary = &mut self.summary;
        summary.samples_kept += 1;
        summary.ended_cleanly = flags & FLAG_AT_STOP != 0;
        summary.ticks_missed = missed;
        summary.ticks_elapsed = tick.saturating_add(1);
        summary.ticks_inconsistent += u64::from(!adds_up);
        // An additional sample leaves its own tick to the one before it, or to the gap.
        let end_tick = tick.saturating_add(u64::from(extra));
        // At the beginning only what was missed, not what was overwritten, is a gap.
        let next_tick = match self.last {
            Some(last) => last.tick.saturating_add(1),
            None if self.overwritten == 0 => 0,
            None => end_tick,
        };
        if end_tick > next_tick {
            summary.gaps_total += 1;
            if summary.gaps.len() < self.max_gaps {
                summary.gaps.push(Gap { first_tick: next_tick, ticks: end_tick - next_tick });
            }
        }
        self.window.add(common(Common::EndNs).saturating_sub(begin_ns));
        if !extra {
            // One that is taken between two ticks has no deadline to be late for.
            self.lateness.add(lateness_ns);
        }
        self.end_wall_ns = common(Common::WallNs);
        self.wall_clock.sample(tick, self.end_wall_ns, begin_ns);
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.end = record.seq.0.saturating_add(1);
        self.blocks(&record, tick);
    }

    /// Whether a record is one that a sampler can have written where it is.
    fn adds_up(&mut self, seq: Seq, now: Moment) -> bool {
        // Every sample before this one took a tick of its own, every other tick was missed; an
        // additional sample shares its tick with one of them.
        let ticks_behind = seq.0.saturating_add(now.missed);
        let is_counted = ticks_behind == now.tick.saturating_add(u64::from(now.extra));
        let is_later = self.last.is_none_or(|last| {
            let is_next = now.tick > last.tick || (now.extra && now.tick == last.tick);
            is_next && now.missed >= last.missed && now.begin_ns >= last.begin_ns
        });
        // Ticks go by the clock: what one was late for is its deadline. Without one it was begun
        // at a moment of its tick.
        let due_ns = now.begin_ns.checked_sub(now.lateness_ns);
        let is_due = due_ns.is_some_and(|ns| self.deadlines.add(now.tick, ns, now.extra));
        is_counted && is_later && is_due
    }

    fn blocks(&mut self, record: &Record<'_>, tick: u64) {
        if self.segment != Some(record.segment) {
            self.segment = Some(record.segment);
            self.instances.begin_segment();
            self.counters.begin_segment(&record.description.schema);
            self.text.begin_segment(record.description);
        }
        self.text.sample();
        for block in record.view.blocks() {
            self.text.block(&block);
            if block.fault_word != 0 {
                *self.summary.errors.entry(block.source.name.clone()).or_default() += 1;
            }
            self.has_data |= block.rows > 0;
            match &block.source.shape {
                Some(shape @ Shape::Table { columns, .. }) => {
                    for row in block.data.chunks_exact(shape.row_words()) {
                        let head = RowHead::from_word(row[0]);
                        let Some(place) =
                            self.instances.meet(&record.names, block.index, head.entry, tick)
                        else {
                            continue;
                        };
                        let present = columns.len().min(head.columns as usize);
                        let name = || Some(self.instances.name(place));
                        self.counters.row(block.index, place, &row[1..=present], tick, name);
                    }
                }
                Some(Shape::Scalars { .. }) if block.rows > 0 => {
                    self.counters.scalars(block.index, block.data, tick);
                }
                _ => {}
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
        if self.last.is_some() {
            // A newer segment tells of samples behind the last that is there: a tick each, at least.
            let behind = rings.seqs.end.saturating_sub(self.end);
            summary.ticks_elapsed = summary.ticks_elapsed.saturating_add(behind);
        }
        summary.ticks_moved_us = self.deadlines.moved_ns() as f64 / 1000.0;
        summary.samples_overwritten = rings.seqs.start;
        summary.samples_lost =
            (rings.seqs.end - rings.seqs.start).saturating_sub(summary.samples_kept);
        summary.slots_torn = rings.torn;
        summary.segments = rings.segments_begun();
        summary.notes = rings.notes.sentences(self.max_notes_bytes);
        summary.notes.extend(rings.unread.iter().map(|why| format!("samples are missing: {why}")));
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
        (summary.clock_steps_total, summary.clock_steps) = self.wall_clock.finish();
        summary.counter_decreases = self.counters.finish();
        (summary.instances, summary.instances_unlisted) =
            self.instances.finish(&description.schema);
        let duration_ns =
            self.last.map_or(0, |last| last.begin_ns.saturating_sub(header.start_monotonic_ns));
        let Pass { summary, has_data, end_wall_ns, text, .. } = self;
        let end_wall_ns =
            if summary.samples_kept == 0 { header.start_wall_ns } else { end_wall_ns };
        Survey { summary, has_data, end_wall_ns, duration_ns, text_bytes: text.bytes() }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_host_of_many_lists_less_so_that_all_together_are_bounded() {
        let limits = |hosts| {
            let Limits { instances_of_a_source, gaps, clock_steps, notes_bytes } =
                Limits::of_hosts(hosts);
            (instances_of_a_source, gaps, clock_steps, notes_bytes)
        };
        assert_eq!(limits(0), (10_000, 1000, 1000, 262_144));
        assert_eq!(limits(1), (10_000, 1000, 1000, 262_144));
        assert_eq!(limits(100), (10_000, 1000, 1000, 262_144));
        assert_eq!(limits(1000), (1000, 100, 100, 67_108));
        assert_eq!(limits(10_000), (256, 50, 50, 8192));
    }
}
