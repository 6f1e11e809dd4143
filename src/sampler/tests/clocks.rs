//! Clocks that are set, samples that take longer than the interval, and counters that do not only
//! grow: in every case samples taken and ticks missed are the ticks that went by.

use super::*;
use crate::decode::{Decrease, HostSummary};
use crate::record::MOST_SLEW;
use proptest::prelude::*;
use std::sync::atomic::AtomicI64;

/// A clock whose wall clock can be set, and on which every look at the time takes some.
struct Odd<C> {
    clock: C,
    now_ns: Arc<AtomicU64>,
    wall_moved_ns: Arc<AtomicI64>,
    look_ns: u64,
}

impl<C: Clock> Clock for Odd<C> {
    fn monotonic_ns(&self) -> u64 {
        self.now_ns.fetch_add(self.look_ns, Ordering::Relaxed);
        self.clock.monotonic_ns()
    }

    fn realtime_ns(&self) -> u64 {
        self.clock.realtime_ns().saturating_add_signed(self.wall_moved_ns.load(Ordering::Relaxed))
    }

    fn thread_cpu_ns(&self) -> u64 {
        self.clock.thread_cpu_ns()
    }

    fn wait_until(&mut self, deadline_ns: u64) -> Wake {
        // As the kernel's, it never wakes before the deadline, nor sets the clock back to it.
        let deadline_ns = deadline_ns.max(self.clock.monotonic_ns());
        self.clock.wait_until(deadline_ns)
    }
}

/// Records with a look at the time taking `look_ns`; `script` may move the wall clock.
fn odd_record(
    host: &Host,
    look_ns: u64,
    mut script: impl FnMut(u64, &AtomicI64) -> Option<u64> + Send,
) -> Vec<Kept> {
    let now_ns = Arc::new(AtomicU64::new(START_NS));
    let wall_moved_ns = Arc::new(AtomicI64::new(0));
    let moved = wall_moved_ns.clone();
    let script = move |wake| script(wake, &moved);
    let clock = FakeClock { now_ns: now_ns.clone(), wakes: 0, script };
    let clock = Odd { clock, now_ns, wall_moved_ns, look_ns };
    let settings = host.settings(200);
    Sleeper::begin(settings, clock, Control::default(), None, None).unwrap().0.run().segments
}

/// Every sample has a tick of its own, but for an additional one at the stop; all others are missed.
fn assert_they_add_up(segments: &[Kept]) -> HostSummary {
    let summary = decoder(segments).summary().clone();
    assert_eq!((summary.ticks_inconsistent, summary.samples_lost), (0, 0));
    let samples = samples(segments);
    let extra = samples.iter().filter(|sample| sample.collection.as_ref().unwrap().extra).count();
    let taken = summary.samples_taken - extra as u64;
    assert_eq!(taken + summary.ticks_missed, summary.ticks_elapsed);
    let in_gaps: u64 = summary.gaps.iter().map(|gap| gap.ticks).sum();
    assert_eq!(in_gaps, summary.ticks_missed);
    summary
}

#[test]
fn a_wall_clock_that_is_set_moves_timestamps_and_no_tick() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    for (step_ns, at, seconds) in
        [(HOUR_NS, "2026-01-02T04:04:08Z", 3600.0), (-HOUR_NS, "2026-01-02T02:04:08Z", -3600.0)]
    {
        let host = Host::new();
        let segments = odd_record(&host, 0, |wake, wall_moved_ns| {
            if wake == 3 {
                wall_moved_ns.store(step_ns, Ordering::Relaxed);
            }
            (wake <= 5).then_some(0)
        });
        let summary = assert_they_add_up(&segments);
        assert_eq!((summary.ticks_missed, summary.ticks_elapsed), (0, 6));
        let steps: Vec<_> =
            summary.clock_steps.iter().map(|step| (step.tick, step.seconds)).collect();
        assert_eq!((steps, summary.clock_steps_total), (vec![(3, seconds)], 1));
        let samples = samples(&segments);
        assert_eq!(samples[2].timestamp, "2026-01-02T03:04:07Z");
        assert_eq!(samples[3].timestamp, at);
        let data = data(&segments);
        assert_eq!(data.end_time, samples[6].timestamp, "as the wall clock was");
        let monotonic_ns = |at: usize| samples[at].collection.as_ref().unwrap().monotonic_ns;
        assert_eq!(monotonic_ns(3) - monotonic_ns(2), INTERVAL_NS);
        assert_eq!(decoder(&segments).duration_ns(), 5 * INTERVAL_NS);
        let [warning] = &decoder(&segments).outline().warnings()[..] else { panic!() };
        assert!(warning.contains(&format!("{seconds:+} s at tick 3")), "{warning}");
    }
}

#[test]
fn a_sampler_that_stood_still_has_missed_its_ticks_and_the_clock_was_not_set() {
    let host = Host::new();
    let segments = odd_record(&host, 0, |wake, _| match wake {
        1 | 3 => Some(0),
        2 => Some(5000 * INTERVAL_NS),
        _ => None,
    });
    let summary = assert_they_add_up(&segments);
    assert_eq!((summary.ticks_missed, summary.clock_steps_total), (5000, 0));
}

#[test]
fn a_suspended_host_has_no_ticks_and_a_step() {
    // The monotonic clock stands still meanwhile, the wall clock goes on.
    let host = Host::new();
    let segments = odd_record(&host, 0, |wake, wall_moved_ns| {
        wall_moved_ns.store(if wake > 2 { 600_000_000_000 } else { 0 }, Ordering::Relaxed);
        (wake <= 4).then_some(0)
    });
    let summary = assert_they_add_up(&segments);
    assert_eq!((summary.ticks_missed, summary.ticks_elapsed), (0, 5));
    assert_eq!(summary.clock_steps.len(), 1);
    assert_eq!((summary.clock_steps[0].tick, summary.clock_steps[0].seconds), (3, 600.0));
}

#[test]
fn ticks_that_follow_another_clock_add_up_and_are_said_to_be_moved() {
    const STEP_NS: u64 = INTERVAL_NS / MOST_SLEW;
    let host = Host::new();
    let control = Control::default();
    let now_ns = Arc::new(AtomicU64::new(START_NS));
    let follow = control.clone();
    let script = move |wake| {
        match wake {
            2 => follow.follow(START_NS + 5 * STEP_NS / 2),
            8 => follow.follow(START_NS - STEP_NS),
            _ => {}
        }
        // In the end right after a tick that is then put off.
        (wake <= 10).then_some(0)
    };
    let clock = FakeClock { now_ns, wakes: 0, script };
    let mut settings = host.settings(200);
    settings.plan.description.sampler.follows_clock = true;
    let sleeper = Sleeper::begin(settings, clock, control, None, None).unwrap().0;
    let segments = sleeper.run().segments;
    let summary = assert_they_add_up(&segments);
    assert_eq!((summary.ticks_missed, summary.ticks_elapsed), (0, 11));
    let samples = samples(&segments);
    let moved: Vec<i64> = (0..11)
        .map(|tick| {
            let collection = samples[tick as usize].collection.as_ref().unwrap();
            assert_eq!((collection.tick, collection.lateness_us), (tick, 0.0));
            let due_ns = START_NS + tick * INTERVAL_NS;
            collection.monotonic_ns.cast_signed() - due_ns.cast_signed()
        })
        .collect();
    let step_ns = STEP_NS.cast_signed();
    let at = |halves: i64| halves * step_ns / 2;
    let expected = [0, 0, 0, 2, 4, 5, 5, 5, 5, 3, 1].map(at);
    assert_eq!(moved, expected);
    assert_eq!(summary.ticks_moved_us, at(1) as f64 / 1000.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_sample_takes_ticks_add_up(
        look_ns in 0..9 * INTERVAL_NS,
        late_ns in prop::collection::vec(0..40 * INTERVAL_NS, 1..30),
        on_time in any::<bool>(),
    ) {
        let host = Host::new();
        let segments = odd_record(&host, look_ns, |wake, _| {
            let late_ns = late_ns.get(wake as usize - 1)?;
            Some(if on_time { 0 } else { *late_ns })
        });
        let summary = assert_they_add_up(&segments);
        prop_assert_eq!(summary.samples_taken, late_ns.len() as u64 + 2);
    }
}

#[test]
fn counters_are_kept_exactly_and_their_decreases_are_told_apart() {
    let host = Host::new();
    let all_bits = u64::from(u32::MAX);
    let segments = host.record(100, |wake| {
        let (disk, interface, pages) = match wake {
            1 => (all_bits, u64::MAX, "nr_free_pages 10\npgpgin 20\n"),
            // The disk's six times have wrapped, its ten other counters were reset.
            2 => (3, 5, "nr_free_pages 1\npgpgin 20\n"),
            3 => (u64::MAX, 4, "nr_free_pages 9\npgpgin 7\n"),
            _ => (0, 4, "nr_free_pages 0\npgpgin 8\n"),
        };
        host.disks(&[(8, 0, "sda", disk)]);
        host.interfaces(&[("lo", interface)]);
        host.write("vmstat", pages);
        host.write("meminfo", &format!("MemTotal:  {} kB\nHugePages_Total:  3\n", 900 - wake));
        (wake <= 4).then_some(0)
    });
    let samples = samples(&segments);
    assert_eq!(disks(&samples[1]), [("sda", all_bits.into())]);
    assert_eq!(disks(&samples[3]), [("sda", u64::MAX.into())]);
    assert_eq!(samples[1].netdev.as_ref().unwrap()[0].rx_bytes, u64::MAX.into());
    let found = decoder(&segments).summary().counter_decreases.clone();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["diskstats", "vmstat", "netdev"]);
    let counts = |source: &str| {
        let of = &found[source];
        (of.wrapped_at_32_bits, of.wrapped_at_64_bits, of.went_backwards)
    };
    assert_eq!(counts("diskstats"), (6, 16, 10), "never that of those in flight");
    assert_eq!(counts("netdev"), (0, 16, 16));
    assert_eq!(counts("vmstat"), (0, 0, 1));
    let first = &found["vmstat"].first[0];
    assert_eq!((first.tick, first.from, first.to), (3, 20, 7));
    assert_eq!((first.field.as_str(), &first.instance), ("pgpgin", &None));
    let disk = &found["diskstats"].first;
    assert_eq!(disk.len(), 10);
    assert_eq!((disk[0].field.as_str(), disk[0].how), ("reads_completed", Decrease::WentBackwards));
    assert_eq!(
        (disk[3].field.as_str(), disk[3].how),
        ("time_reading_ms", Decrease::WrappedAt32Bits)
    );
    assert_eq!((disk[3].instance.as_deref(), disk[3].tick), (Some("sda"), 2));
}

#[test]
fn a_device_that_returns_with_less_and_one_of_another_segment_are_followed() {
    let host = Host::new();
    let segments = host.record(100, |wake| {
        match wake {
            1 => host.disks(&[]),
            3 => host.disks(&[(8, 0, "sda", 0), (8, 16, "sdb", 9)]),
            4 => {
                host.write("vmstat", "pgpgin 19\nanother 5\nnr_free_pages 1\n");
                host.disks(&[(8, 16, "sdb", 9), (8, 0, "sda", 0)]);
            }
            5 => host.disks(&[(8, 16, "sdb", 8)]),
            _ => {}
        }
        (wake <= 5).then_some(0)
    });
    assert_eq!(segments.len(), 2);
    let found = decoder(&segments).summary().counter_decreases.clone();
    assert_eq!(found["diskstats"].went_backwards, 32);
    let first = &found["diskstats"].first[0];
    assert_eq!((first.instance.as_deref(), first.tick), (Some("sda"), 3));
    assert_eq!((found["vmstat"].went_backwards, found["vmstat"].first[0].tick), (1, 4));
}
