//! Whether records are where a sampler takes them: at the deadline of their tick. Deadlines may follow
//! another host's clock, a little with every tick; how far they have come is told here too. Numbers alone;
//! what else must add up is the survey's.

use crate::record::MOST_SLEW;

/// The deadlines of one run, record by record.
#[derive(Debug)]
pub(super) struct Deadlines {
    start_ns: u64,
    interval_ns: u64,
    /// How far they may be moved from one tick to the next, ns.
    slew_ns: i128,
    /// Tick of the last record with a deadline of its own, and how far that was moved.
    last: Option<(u64, i128)>,
}

impl Deadlines {
    /// Those of a run with tick 0 at `start_ns` of `CLOCK_MONOTONIC`; whether they `may_move`.
    pub fn new(start_ns: u64, interval_ns: u64, may_move: bool) -> Deadlines {
        let interval_ns = interval_ns.max(1);
        let slew_ns = if may_move { i128::from(interval_ns / MOST_SLEW) } else { 0 };
        Deadlines { start_ns, interval_ns, slew_ns, last: None }
    }

    /// The next record: whether `tick` can have been due at `due_ns`, or a sample that was taken
    /// between two ticks, an `extra` one, have begun at it.
    pub fn add(&mut self, tick: u64, due_ns: u64, extra: bool) -> bool {
        let grid_ns = i128::from(self.start_ns)
            .saturating_add(i128::from(tick).saturating_mul(i128::from(self.interval_ns)));
        let moved_ns = i128::from(due_ns).saturating_sub(grid_ns);
        // Tick 0 is where it is.
        let (last_tick, last_ns) = self.last.unwrap_or((0, 0));
        let beside_ns = moved_ns.saturating_sub(last_ns);
        let most_ns = self.slew_ns * i128::from(tick.saturating_sub(last_tick));
        if extra {
            // The deadline may have moved once more since.
            let most_ns = most_ns + self.slew_ns;
            return (-most_ns..i128::from(self.interval_ns) + most_ns).contains(&beside_ns);
        }
        let is_due = beside_ns.saturating_abs() <= most_ns;
        if is_due {
            self.last = Some((tick, moved_ns));
        }
        is_due
    }

    /// How far the last deadline was from where it would have been by the host's own clock, ns.
    pub fn moved_ns(&self) -> i128 {
        self.last.map_or(0, |(_, moved_ns)| moved_ns)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_by_a_thousandth_of_the_interval_per_tick_at_most() {
        let mut deadlines = Deadlines::new(10_000, 5000, true);
        assert!(!deadlines.add(0, 10_001, false) && !deadlines.add(0, 9999, false));
        assert!(deadlines.add(0, 10_000, false));
        assert!(deadlines.add(1, 15_005, false));
        assert!(!deadlines.add(2, 20_011, false), "it was moved by 6");
        assert!(deadlines.add(2, 20_003, false));
        assert_eq!(deadlines.moved_ns(), 3);
        assert!(!deadlines.add(12, 70_054, false) && deadlines.add(12, 70_053, false));
        assert_eq!(deadlines.moved_ns(), 53);
        // From the first that is left of a ring on.
        let mut deadlines = Deadlines::new(10_000, 5000, true);
        assert!(!deadlines.add(100, 510_501, false) && deadlines.add(100, 509_500, false));
        assert_eq!(deadlines.moved_ns(), -500);
    }

    #[test]
    fn an_additional_sample_is_between_two_deadlines_wherever_they_have_moved() {
        let mut deadlines = Deadlines::new(0, 5000, true);
        assert!(deadlines.add(100, 500_400, false));
        for (due_ns, is_so) in
            [(500_394, false), (500_395, true), (505_404, true), (505_405, false)]
        {
            assert_eq!(deadlines.add(100, due_ns, true), is_so, "{due_ns}");
        }
        assert_eq!(deadlines.moved_ns(), 400);
    }

    #[test]
    fn deadlines_of_a_host_alone_do_not_move() {
        let mut deadlines = Deadlines::new(0, 5000, false);
        assert!(deadlines.add(1, 5000, false) && !deadlines.add(2, 10_001, false));
        assert!(deadlines.add(2, 14_999, true) && !deadlines.add(2, 15_000, true));
        assert!(!deadlines.add(2, 9999, true) && deadlines.add(3, 15_000, false));
    }

    #[test]
    fn no_number_is_too_large() {
        let mut deadlines = Deadlines::new(u64::MAX, u64::MAX, true);
        for (tick, due_ns) in [(u64::MAX, u64::MAX), (0, 0), (u64::MAX, 0), (1, u64::MAX)] {
            deadlines.add(tick, due_ns, false);
            deadlines.add(tick, due_ns, true);
        }
        assert!(!Deadlines::new(5, 0, true).add(7, 3, false));
    }
}
