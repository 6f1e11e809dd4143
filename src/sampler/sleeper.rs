//! The sampler's thread: sleep, sample, commit, again; and the same single sample for who wants to
//! measure it. Everything that may take time or memory (a new segment, a larger buffer) happens
//! between samples, when something no longer fits.

use super::clock::{Clock, Control, SystemClock, Wake};
use super::mirror::MirrorFeed;
use super::segments::{Agreement, Kept, SegmentError, Segments};
use super::take::{Fit, Retake, SampleTaker};
use super::thread::{InForce, apply, lock_process, rehearse};
use super::ticks::{Due, Ticks};
use super::{SamplerSettings, SegmentPlan};
use crate::record::{Common, FLAG_AT_STOP, FLAG_EXTRA, RecordWriter};
use crate::ring::{Draft, RingWriter};
use crate::source::SourceDef;
use crate::units::Seq;
use rustix::thread::{Pid, gettid};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What a run began as.
#[derive(Debug, Clone)]
pub struct Started {
    /// `CLOCK_REALTIME` at tick 0, ns.
    pub wall_ns: u64,
    /// The thread's number in the kernel.
    pub thread_id: Pid,
    /// How the thread is run.
    pub thread: InForce,
    /// What could not be had, in sentences.
    pub notes: Vec<String>,
}

/// What the thread leaves.
#[derive(Default)]
pub(super) struct LoopEnd {
    pub segments: Vec<Kept>,
    pub notes: Vec<String>,
}

/// Writes samples into the segments of a run.
struct Recorder<C> {
    clock: C,
    taker: SampleTaker,
    segments: Segments,
    ring: RingWriter,
    /// Where a record is made.
    draft: Draft,
    seq: Seq,
    notes: Vec<String>,
    /// There was no new segment when one was needed: until this record there is no other attempt.
    give_up_until: Seq,
    cpu: CpuTime,
}

/// The thread's CPU time as it was last asked for: the kernel takes longer to tell it than a small
/// source costs altogether.
#[derive(Default)]
struct CpuTime {
    cpu_ns: u64,
    asked_ns: Option<u64>,
}

/// How old a thread's CPU time in a record may be.
const MAX_CPU_TIME_AGE_NS: u64 = 10_000_000_000;

impl CpuTime {
    #[inline]
    fn at(&mut self, now_ns: u64, clock: &impl Clock) -> u64 {
        let is_fresh = |asked_ns| now_ns.saturating_sub(asked_ns) < MAX_CPU_TIME_AGE_NS;
        if !self.asked_ns.is_some_and(is_fresh) {
            *self = CpuTime { cpu_ns: clock.thread_cpu_ns(), asked_ns: Some(now_ns) };
        }
        self.cpu_ns
    }
}

/// When and why a sample is taken.
#[derive(Clone, Copy)]
struct Occasion {
    /// `CLOCK_MONOTONIC`, now.
    now_ns: u64,
    due: Due,
    missed: u64,
    flags: u64,
}

/// Samples that are taken as they fit before a new segment is tried for again.
const SAMPLES_BETWEEN_ATTEMPTS: u64 = 100;

impl<C: Clock> Recorder<C> {
    fn new(
        clock: C,
        mut taker: SampleTaker,
        plan: SegmentPlan,
        mirror: Option<MirrorFeed>,
        agreement: Option<Agreement>,
    ) -> Result<Self, SegmentError> {
        let mut segments = Segments::new(plan, mirror).with_agreement(agreement);
        let ring = segments.begin(&mut taker, Seq(0), &clock)?;
        Ok(Recorder {
            clock,
            taker,
            segments,
            draft: draft_for(&ring),
            ring,
            seq: Seq(0),
            notes: Vec::new(),
            give_up_until: Seq(0),
            cpu: CpuTime::default(),
        })
    }

    /// Records one sample; returns when its last read was over.
    #[inline]
    fn record(&mut self, occasion: Occasion) -> u64 {
        let fit = if self.seq < self.give_up_until { Fit::WhatCan } else { Fit::All };
        match self.try_record(occasion, fit) {
            Ok(end_ns) => end_ns,
            Err(retake) => self.record_again(retake, occasion),
        }
    }

    /// A text outgrew its buffer, or the host its segment.
    #[cold]
    fn record_again(&mut self, first: Retake, occasion: Occasion) -> u64 {
        let mut retake = first;
        // Once for the buffer and twice for the segment: whatever needs more in one tick changes
        // faster than it can be read, and the sample then says what it lacks.
        for _ in 0..3 {
            if retake == Retake::InNewSegment
                && let Err(error) = self.next_segment()
            {
                let note = format!("no new segment of the ring: {error}");
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                self.give_up_until = Seq(self.seq.0 + SAMPLES_BETWEEN_ATTEMPTS);
                break;
            }
            let occasion = Occasion { now_ns: self.clock.monotonic_ns(), ..occasion };
            match self.try_record(occasion, Fit::All) {
                Ok(end_ns) => return end_ns,
                Err(again) => retake = again,
            }
        }
        let occasion = Occasion { now_ns: self.clock.monotonic_ns(), ..occasion };
        // Cannot fail: what does not fit is left out.
        self.try_record(occasion, Fit::WhatCan).unwrap_or(occasion.now_ns)
    }

    fn next_segment(&mut self) -> Result<(), SegmentError> {
        self.ring = self.segments.begin(&mut self.taker, self.seq, &self.clock)?;
        self.draft = draft_for(&self.ring);
        Ok(())
    }

    #[inline]
    fn try_record(&mut self, occasion: Occasion, fit: Fit) -> Result<u64, Retake> {
        let Occasion { now_ns: begin_ns, due, missed, flags } = occasion;
        if fit == Fit::All && self.segments.is_spoiled() {
            return Err(Retake::InNewSegment);
        }
        let mut record = RecordWriter::new(self.draft.record(), self.taker.sources())
            .map_err(|_| Retake::InNewSegment)?;
        let wall_ns = self.clock.realtime_ns();
        let cpu_ns = match flags {
            FLAG_AT_STOP => self.clock.thread_cpu_ns(),
            _ => self.cpu.at(begin_ns, &self.clock),
        };
        self.taker.take(&mut record, &self.ring, self.seq, fit)?;
        let end_ns = self.clock.monotonic_ns();
        let extra = if due.extra { FLAG_EXTRA } else { 0 };
        record.set(Common::Tick, due.tick.0);
        record.set(Common::WallNs, wall_ns);
        record.set(Common::BeginNs, begin_ns);
        record.set(Common::EndNs, end_ns);
        record.set(Common::LatenessNs, begin_ns.saturating_sub(due.deadline_ns));
        record.set(Common::MissedTicks, missed);
        record.set(Common::CpuNs, cpu_ns);
        record.set(Common::Flags, flags | extra);
        let used = record.used_words();
        let slot = self.ring.begin(self.seq).ok_or(Retake::InNewSegment)?;
        slot.commit_draft(&self.draft, used);
        if fit == Fit::All && self.ring.segment().is_lost() {
            // Cut off just now: what is in memory of our own alone is gone with the process.
            return Err(Retake::InNewSegment);
        }
        self.seq.0 += 1;
        Ok(end_ns)
    }
}

fn draft_for(ring: &RingWriter) -> Draft {
    Draft::new(ring.segment().header().layout.record())
}

/// The loop of the sampler's thread.
pub(super) struct Sleeper<C> {
    recorder: Recorder<C>,
    ticks: Ticks,
    control: Control,
}

impl<C: Clock> Sleeper<C> {
    /// Sets the thread up, makes the first segment and takes the sample of tick 0, unless it is
    /// stopped before that.
    pub(super) fn begin(
        settings: SamplerSettings,
        clock: C,
        control: Control,
        mirror: Option<MirrorFeed>,
        agreement: Option<Agreement>,
    ) -> Result<(Self, Started), SegmentError> {
        // What will be in force is learnt on a thread that ends with it, and is applied to this one
        // only when the ring is there: making it as SCHED_IDLE on busy CPUs takes half a minute,
        // and there is no way back from there without privileges.
        let thread = rehearse(settings.thread);
        let mut plan = settings.plan;
        let facts = &mut plan.description.sampler;
        facts.policy = thread.policy.name().to_owned();
        facts.nice = thread.nice;
        facts.cpu = thread.cpu;
        facts.timer_slack_ns = thread.timer_slack_ns;
        facts.notes.extend(thread.notes.iter().cloned());
        let interval_ns = plan.interval_ns;
        let taker = SampleTaker::new(&settings.sources, &settings.procfs);
        // Before the ring is made, for its header to say so, and again for what that adds.
        facts.process_locked = settings.lock_process && lock_process();
        let is_agreed = agreement.is_some();
        let mut recorder = Recorder::new(clock, taker, plan, mirror, agreement)?;
        if settings.lock_process {
            lock_process();
        }
        apply(&settings.thread);
        let (wall_ns, monotonic_ns) = recorder.segments.start_ns();
        let ticks = Ticks::new(monotonic_ns, interval_ns);
        let is_due = !is_agreed || recorder.clock.wait_until(monotonic_ns) == Wake::Deadline;
        let mut sleeper = Sleeper { recorder, ticks, control };
        if is_due {
            sleeper.tick();
        }
        let notes = [thread.notes.clone(), sleeper.recorder.segments.notes().to_vec()].concat();
        Ok((sleeper, Started { wall_ns, thread_id: gettid(), thread, notes }))
    }

    /// Sleeps and samples until the stop, and once more then. A panic on the way, which is a bug, costs
    /// the samples that it keeps from being taken, and none that was.
    pub(super) fn run(mut self) -> LoopEnd {
        // Unwind safe: of what it leaves only the segments are used, and slots judge themselves.
        let ended = catch_unwind(AssertUnwindSafe(|| self.sample_until_stop()));
        let taken = self.recorder.seq.0;
        let (segments, mut notes) = self.recorder.segments.finish();
        notes.append(&mut self.recorder.notes);
        if ended.is_err() {
            notes.push(format!(
                "the sampler's thread panicked after {taken} samples, which are kept; there are no \
                 others. Please report this"
            ));
        }
        LoopEnd { segments, notes }
    }

    fn sample_until_stop(&mut self) {
        while self.recorder.clock.wait_until(self.ticks.next_deadline_ns()) == Wake::Deadline {
            self.tick();
        }
        let now_ns = self.recorder.clock.monotonic_ns();
        let due = self.ticks.at_stop(now_ns);
        let missed = self.ticks.missed();
        self.recorder.record(Occasion { now_ns, due, missed, flags: FLAG_AT_STOP });
        self.control.set_progress(self.recorder.seq.0, self.ticks.missed());
    }

    #[inline]
    fn tick(&mut self) {
        let now_ns = self.recorder.clock.monotonic_ns();
        let due = self.ticks.due(now_ns);
        let missed = self.ticks.missed();
        let end_ns = self.recorder.record(Occasion { now_ns, due, missed, flags: 0 });
        self.ticks.sampled(end_ns);
        if let Some(start_ns) = self.control.to_follow() {
            self.ticks.follow(start_ns);
        }
        self.control.set_progress(self.recorder.seq.0, self.ticks.missed());
    }
}

/// Takes samples on the calling thread, into a ring in private memory: for measuring what one
/// costs. The code is the sampler's own.
pub struct Probe {
    recorder: Recorder<SystemClock>,
    ticks: Ticks,
}

impl Probe {
    /// A ring for `max_samples` of `sources` below `procfs`.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn new(
        sources: &[&'static SourceDef],
        procfs: &Path,
        max_samples: u64,
    ) -> Result<Probe, SegmentError> {
        let plan = SegmentPlan { max_samples, ..SegmentPlan::in_memory() };
        let interval_ns = plan.interval_ns;
        let taker = SampleTaker::new(sources, procfs);
        let clock = SystemClock::new(Control::default());
        let recorder = Recorder::new(clock, taker, plan, None, None)?;
        let ticks = Ticks::new(recorder.segments.start_ns().1, interval_ns);
        Ok(Probe { recorder, ticks })
    }

    /// Takes one sample.
    #[inline]
    pub fn sample(&mut self) {
        let now_ns = self.recorder.clock.monotonic_ns();
        let due = self.ticks.due(now_ns);
        self.recorder.record(Occasion { now_ns, due, missed: 0, flags: 0 });
    }

    /// Reads and parses as for a sample, and commits nothing. Whether all of it fitted.
    #[inline]
    pub fn parse(&mut self) -> bool {
        let Recorder { taker, ring, draft, seq, .. } = &mut self.recorder;
        RecordWriter::new(draft.record(), taker.sources())
            .is_ok_and(|mut record| taker.take(&mut record, ring, *seq, Fit::All).is_ok())
    }

    /// Samples taken so far.
    pub fn samples(&self) -> u64 {
        self.recorder.seq.0
    }

    /// Segments begun so far; more than one says that the host changed.
    pub fn segments(&self) -> u64 {
        self.recorder.segments.begun()
    }
}
