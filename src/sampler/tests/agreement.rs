//! A start that others decide upon, with real clocks and threads.

use super::super::clock::{Clock, Control, SystemClock};
use super::super::thread::{CpuChoice, Policy, ThreadSettings};
use super::super::{
    PreparedSampler, START_PATIENCE, Sampler, SamplerError, SamplerSettings, SegmentError,
    SegmentPlan,
};
use crate::source::SOURCES;

#[test]
fn a_start_that_is_agreed_upon_is_tick_0_and_is_waited_for() {
    let settings = || SamplerSettings {
        sources: SOURCES.to_vec(),
        procfs: "/proc".into(),
        thread: ThreadSettings { policy: Policy::Other, nice: None, cpu: CpuChoice::Unpinned },
        lock_process: false,
        plan: SegmentPlan {
            max_samples: 100,
            interval_ns: 3_600_000_000_000,
            ..SegmentPlan::in_memory()
        },
        mirror: None,
    };
    let now_ns = || SystemClock::new(Control::default()).monotonic_ns();
    let start_ns = now_ns() + 50_000_000;
    let (sampler, started) = Sampler::prepare(settings()).unwrap().go(start_ns).unwrap();
    assert!(now_ns() >= start_ns);
    assert_eq!(sampler.progress(), (1, 0));
    let end = sampler.stop();
    let header = end.segments[0].segment.header();
    assert_eq!((header.start_monotonic_ns, header.start_wall_ns), (start_ns, started.wall_ns));
    let wall_ns = SystemClock::new(Control::default()).realtime_ns();
    assert!(wall_ns >= started.wall_ns && wall_ns - started.wall_ns < 3_600_000_000_000);

    // One that has passed costs ticks, and no more.
    let mut late = settings();
    late.plan.interval_ns = 1_000_000_000;
    let start_ns = now_ns().saturating_sub(2_500_000_000);
    let (sampler, _) = Sampler::prepare(late).unwrap().go(start_ns).unwrap();
    assert!(sampler.progress().1 >= 2, "ticks 0 and 1 are over");
    assert_eq!(sampler.stop().segments[0].segment.header().start_monotonic_ns, start_ns);

    // Stopped before it begins, it has the last sample alone.
    let mut prepared = Sampler::prepare(settings()).unwrap();
    let control = prepared.starting.control.clone();
    control.stop();
    let (sampler, _) = prepared.go(now_ns() + 3_600_000_000_000).unwrap();
    assert_eq!(sampler.stop().segments.len(), 1);

    // Given up, it ends.
    prepared = Sampler::prepare(settings()).unwrap();
    let PreparedSampler { starting, start } = prepared;
    drop(start);
    let error = starting.first_sample(START_PATIENCE).err().unwrap();
    assert!(matches!(error, SamplerError::Segment(SegmentError::NoStart)), "{error}");
}
