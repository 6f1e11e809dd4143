//! The wall clock beside the monotonic one. The kernel slews both alike (`adjtimex(2)`), so that
//! their difference changes only when the wall clock is set, by a leap second, or while the host is
//! suspended, which the monotonic clock does not count.

use super::facts::ClockStep;

/// A difference that the reading of two clocks, one after the other, does not explain.
const LEAST_STEP_NS: i128 = 10_000_000;

/// Follows the difference of the clocks from sample to sample.
pub(super) struct WallClock {
    /// Wall minus monotonic, ns.
    offset: Option<i128>,
    /// Since this tick it seems to be another. A sampler that loses its CPU between the readings
    /// makes it smaller, for one sample: a step is one that stays.
    doubted: Option<(u64, i128)>,
    total: u64,
    steps: Vec<ClockStep>,
    max_steps: usize,
}

impl WallClock {
    /// Lists so many steps one by one.
    pub fn new(max_steps: usize) -> WallClock {
        WallClock { offset: None, doubted: None, total: 0, steps: Vec::new(), max_steps }
    }

    /// The clocks as the sample of `tick` has them.
    pub fn sample(&mut self, tick: u64, wall_ns: u64, monotonic_ns: u64) {
        let now = i128::from(wall_ns) - i128::from(monotonic_ns);
        let is_near = |offset: i128| (now - offset).abs() < LEAST_STEP_NS;
        let Some(offset) = self.offset.filter(|offset| !is_near(*offset)) else {
            self.offset = Some(now);
            self.doubted = None;
            return;
        };
        let is_confirmed = self.doubted.is_some_and(|(_, doubted)| is_near(doubted));
        self.settle(offset);
        if is_confirmed {
            self.offset = Some(now);
        } else {
            self.doubted = Some((tick, now));
        }
    }

    /// What was doubted is taken for a step.
    fn settle(&mut self, offset: i128) {
        let Some((tick, doubted)) = self.doubted.take() else { return };
        self.offset = Some(doubted);
        self.total += 1;
        if self.steps.len() < self.max_steps {
            self.steps.push(ClockStep { tick, seconds: (doubted - offset) as f64 / 1e9 });
        }
    }

    /// How many steps there were, and the first of them.
    pub fn finish(mut self) -> (u64, Vec<ClockStep>) {
        if let Some(offset) = self.offset {
            self.settle(offset);
        }
        (self.total, self.steps)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Steps of a recording whose samples have these differences, in ms.
    fn steps(offsets_ms: &[i64]) -> Vec<(u64, f64)> {
        let mut clock = WallClock::new(1000);
        for (tick, offset_ms) in (0..).zip(offsets_ms) {
            let monotonic_ns = 1_000_000_000 * (tick + 1);
            let wall_ns = 1_800_000_000_000_000_000 + monotonic_ns;
            clock.sample(tick, wall_ns.saturating_add_signed(offset_ms * 1_000_000), monotonic_ns);
        }
        let (total, steps) = clock.finish();
        assert_eq!(total, steps.len() as u64);
        steps.iter().map(|step| (step.tick, step.seconds)).collect()
    }

    #[test]
    fn steps_are_told_from_a_lost_cpu() {
        assert_eq!(steps(&[0, 1, -1, 0, 5, 9]), [], "small differences are none");
        assert_eq!(steps(&[0, 0, 3_600_000, 3_600_000]), [(2, 3600.0)]);
        assert_eq!(steps(&[0, -3_600_000, -3_600_000, 0, 0]), [(1, -3600.0), (3, 3600.0)]);
        assert_eq!(steps(&[0, -50, 0, 0]), [], "for one sample");
        assert_eq!(steps(&[0, 0, 7000]), [(2, 7.0)], "the last one counts");
        assert_eq!(steps(&[0, 1000, 3000, 3000]), [(1, 1.0), (2, 2.0)]);
        assert_eq!(steps(&[0, -50, 3000, 3000, 3000]), [(1, -0.05), (2, 3.05)]);
        assert_eq!(steps(&[]), []);
    }
}
