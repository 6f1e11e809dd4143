//! The arithmetic of deadlines: which tick a moment belongs to, how late it is, which ticks have
//! gone by without a sample. Pure; times come in, nothing is asked.
//!
//! Deadlines are absolute: tick n is due at start + n x interval, whatever happened before. Late
//! ticks are never made up for: a sampler that wakes after the next deadline takes one sample, for
//! the newest tick, and counts the others as missed. At every moment
//! `taken + missed = ticks that were due`.
//!
//! Where many hosts are to sample at the same instants, deadlines follow the clock of one of them: the
//! start that they count from moves, by no more than one [`MOST_SLEW`]th of the interval per tick, so that
//! there is one moment for every tick and one tick for every moment all the same.
//!
//! Moments are of `CLOCK_MONOTONIC`: setting the wall clock moves no tick. It stands still while
//! the host is suspended (`clock_gettime(2)`), and so do ticks: nothing could have been sampled, and
//! nothing ran that was to be observed. The decoder sees both as a step of the wall clock.

use crate::record::MOST_SLEW;
use crate::units::Tick;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The tick to sample.
    pub tick: Tick,
    /// When it was due, `CLOCK_MONOTONIC`.
    pub deadline_ns: u64,
    /// Its tick has a sample already (or was given up): it counts as an additional one.
    pub extra: bool,
}

/// The ticks of one run.
#[derive(Debug, Clone)]
pub struct Ticks {
    /// Where tick 0 would be by the distance of the ticks to come.
    start_ns: u64,
    interval_ns: u64,
    next: u64,
    missed: u64,
}

impl Ticks {
    /// Ticks from `start_ns` on, which is tick 0. An interval of 0 counts as 1.
    pub fn new(start_ns: u64, interval_ns: u64) -> Self {
        Ticks { start_ns, interval_ns: interval_ns.max(1), next: 0, missed: 0 }
    }

    /// Ticks without a sample so far.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// When the next tick is due.
    pub fn next_deadline_ns(&self) -> u64 {
        self.deadline_ns(self.next)
    }

    /// The sampler is awake at `now_ns`, and the next deadline has come.
    pub fn due(&mut self, now_ns: u64) -> Due {
        let current = self.at(now_ns).max(self.next);
        self.missed += current - self.next;
        self.next = current + 1;
        Due { tick: Tick(current), deadline_ns: self.deadline_ns(current), extra: false }
    }

    /// A sample has ended at `now_ns`: deadlines that came while it was taken are missed, so that
    /// the next one is in the future and a slow sample does not make the sampler run all the time.
    pub fn sampled(&mut self, now_ns: u64) {
        let current = self.at(now_ns);
        if current >= self.next {
            self.missed += current + 1 - self.next;
            self.next = current + 1;
        }
    }

    /// Between two ticks: those to come are to be counted from `start_ns`, to which the start moves a
    /// little.
    pub fn follow(&mut self, start_ns: u64) {
        let most_ns = self.interval_ns / MOST_SLEW;
        let [least_ns, last_ns] =
            [self.start_ns.saturating_sub(most_ns), self.start_ns.saturating_add(most_ns)];
        self.start_ns = start_ns.clamp(least_ns, last_ns);
    }

    /// The run stops at `now_ns`: its last sample belongs to the tick that is due and was not yet
    /// sampled, or is an additional one after the last.
    pub fn at_stop(&mut self, now_ns: u64) -> Due {
        // Of a start that has moved on since, the last tick that was sampled may be yet to come.
        let current = self.at(now_ns).max(self.next.saturating_sub(1));
        if current >= self.next {
            return self.due(now_ns);
        }
        Due { tick: Tick(current), deadline_ns: now_ns, extra: true }
    }

    fn at(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.start_ns) / self.interval_ns
    }

    fn deadline_ns(&self, tick: u64) -> u64 {
        self.start_ns.saturating_add(tick.saturating_mul(self.interval_ns))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn due(tick: u64, deadline_ns: u64) -> Due {
        Due { tick: Tick(tick), deadline_ns, extra: false }
    }

    #[test]
    fn deadlines_do_not_drift() {
        let mut ticks = Ticks::new(1000, 10);
        for tick in 0..5 {
            assert_eq!(ticks.next_deadline_ns(), 1000 + tick * 10);
            assert_eq!(ticks.due(1003 + tick * 10), due(tick, 1000 + tick * 10));
            ticks.sampled(1009 + tick * 10);
        }
        assert_eq!(ticks.missed(), 0);
    }

    #[test]
    fn late_ticks_are_counted_and_not_bunched() {
        let mut ticks = Ticks::new(0, 10);
        assert_eq!(ticks.due(0), due(0, 0));
        assert_eq!(ticks.due(47), due(4, 40), "ticks 1, 2 and 3 went by");
        assert_eq!(ticks.missed(), 3);
        ticks.sampled(72);
        assert_eq!((ticks.missed(), ticks.next_deadline_ns()), (6, 80), "5, 6, 7: while it read");
        assert_eq!(ticks.due(80), due(8, 80));
    }

    #[test]
    fn the_last_sample_takes_a_due_tick_or_stands_beside_it() {
        let mut ticks = Ticks::new(0, 10);
        ticks.due(0);
        let extra = Due { tick: Tick(0), deadline_ns: 7, extra: true };
        assert_eq!(ticks.clone().at_stop(7), extra);
        assert_eq!(ticks.at_stop(25), due(2, 20));
        assert_eq!(ticks.missed(), 1);
    }

    #[test]
    fn deadlines_follow_another_clock_a_thousandth_at_a_time() {
        let mut ticks = Ticks::new(10_000, 5000);
        let mut deadlines = Vec::new();
        for wanted_ns in [10_012, 10_012, 10_012, 10_012, 9_998, 9_998, 9_998] {
            deadlines.push(ticks.next_deadline_ns());
            let deadline_ns = ticks.next_deadline_ns();
            assert_eq!(ticks.due(deadline_ns), due(deadlines.len() as u64 - 1, deadline_ns));
            ticks.sampled(deadline_ns + 1);
            ticks.follow(wanted_ns);
        }
        assert_eq!(deadlines, [10_000, 15_005, 20_010, 25_012, 30_012, 35_007, 40_002]);
        assert_eq!((ticks.next_deadline_ns(), ticks.missed()), (44_998, 0));
    }

    #[test]
    fn a_stop_right_after_a_tick_that_has_moved_is_not_before_that_tick() {
        let mut ticks = Ticks::new(0, 5000);
        assert_eq!(ticks.due(0), due(0, 0));
        assert_eq!(ticks.due(5001), due(1, 5000));
        ticks.sampled(5002);
        ticks.follow(5);
        assert_eq!(ticks.at_stop(5003), Due { tick: Tick(1), deadline_ns: 5003, extra: true });
    }

    proptest! {
        #[test]
        fn ticks_that_follow_are_in_order_and_add_up(
            interval in 1000_u64..20_000,
            steps in prop::collection::vec((0_u64..50_000, 0_u64..50_000, any::<u16>()), 1..50),
        ) {
            let start = 100_000;
            let mut ticks = Ticks::new(start, interval);
            let (mut now, mut taken, mut last) = (start, 0, None);
            for (late, took, wanted) in steps {
                now = now.max(ticks.next_deadline_ns()) + late;
                let due = ticks.due(now);
                prop_assert!(last < Some(due.tick) && due.deadline_ns <= now);
                prop_assert!(now - due.deadline_ns < interval);
                let grid = start + due.tick.0 * interval;
                let most = due.tick.0 * (interval / MOST_SLEW);
                prop_assert!(due.deadline_ns.abs_diff(grid) <= most);
                last = Some(due.tick);
                taken += 1;
                prop_assert_eq!(taken + ticks.missed(), due.tick.0 + 1);
                now += took;
                ticks.sampled(now);
                ticks.follow(start - 30_000 + u64::from(wanted));
            }
            let due = ticks.at_stop(now);
            prop_assert_eq!(taken + ticks.missed() + u64::from(!due.extra), due.tick.0 + 1);
        }

        #[test]
        fn taken_and_missed_add_up(
            interval in 1_u64..50,
            steps in prop::collection::vec((0_u64..200, 0_u64..200), 1..50),
        ) {
            let mut ticks = Ticks::new(5, interval);
            let (mut now, mut taken, mut last) = (5, 0, None);
            for (late, took) in steps {
                now = now.max(ticks.next_deadline_ns()) + late;
                let due = ticks.due(now);
                prop_assert!(last < Some(due.tick) && due.deadline_ns <= now);
                prop_assert!(now - due.deadline_ns < interval);
                last = Some(due.tick);
                taken += 1;
                now += took;
                ticks.sampled(now);
                prop_assert!(ticks.next_deadline_ns() > now);
                prop_assert_eq!(taken + ticks.missed(), (now - 5) / interval + 1);
            }
        }
    }
}
