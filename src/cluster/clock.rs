//! The arithmetic of clocks on several hosts: what a round trip says about the other clock, the best
//! of many, how it drifts, and which of its instants one of ours is. Pure, but for [`now`] and
//! [`after`]; times come in.
//!
//! A reply was made at some time between asking and hearing it. Taken to be in the middle, it is
//! wrong by at most half the round trip: the trip that took least says most.

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Longest time that anybody waits for another host: no clock that deadlines are told by ends before.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Beyond what any clock drifts, and any kernel corrects (adjtimex(2)), parts per million: it was set, or
/// started anew.
pub const MOST_DRIFT_PPM: u64 = 1000;

/// Hardly any clock drifts more than this, parts per million.
const USUAL_DRIFT_PPM: u64 = 100;

/// The clocks of one host, read together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// `CLOCK_REALTIME`, ns.
    pub wall_ns: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub monotonic_ns: u64,
}

/// The clocks of this host.
pub fn now() -> Moment {
    let ns = |time: Timespec| {
        // Neither is ever before its epoch.
        let [seconds, rest] = [time.tv_sec, time.tv_nsec].map(|it| u64::try_from(it).unwrap_or(0));
        seconds.saturating_mul(1_000_000_000).saturating_add(rest)
    };
    Moment {
        wall_ns: ns(clock_gettime(ClockId::Realtime)),
        monotonic_ns: ns(clock_gettime(ClockId::Monotonic)),
    }
}

/// The deadline of a time that begins now, and may be longer than any clock counts.
pub fn after(time: Duration) -> Instant {
    Instant::now() + time.min(LONGEST)
}

/// One question and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// Ours, when we asked.
    pub asked: Moment,
    /// Theirs.
    pub answer: Moment,
    /// Ours, when we had it.
    pub heard: Moment,
}

/// Another host's clocks against ours, at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// When, by our `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    /// Their `CLOCK_REALTIME` minus ours, ns.
    pub wall_ns: i64,
    /// Their `CLOCK_MONOTONIC` minus ours, ns.
    pub monotonic_ns: i64,
    /// Both are right within this, ns.
    pub uncertainty_ns: u64,
}

/// Offset and uncertainty of one trip.
pub fn offset(trip: &RoundTrip) -> Offset {
    let RoundTrip { asked, answer, heard } = trip;
    let round_ns = heard.monotonic_ns.saturating_sub(asked.monotonic_ns);
    let half_ns = round_ns / 2;
    let middle_ns = asked.monotonic_ns + half_ns;
    // Our wall clock may be set on the way; the monotonic one says how long it took.
    let middle_wall_ns = asked.wall_ns.saturating_add(half_ns);
    Offset {
        at_ns: middle_ns,
        wall_ns: difference(answer.wall_ns, middle_wall_ns),
        monotonic_ns: difference(answer.monotonic_ns, middle_ns),
        uncertainty_ns: round_ns - half_ns,
    }
}

/// What the trips say together: the one that took least.
pub fn best<'t>(trips: impl IntoIterator<Item = &'t RoundTrip>) -> Option<Offset> {
    trips.into_iter().map(offset).min_by_key(|offset| offset.uncertainty_ns)
}

/// How much faster their clock ran than ours from `start` to `end`, in parts per million; `None`
/// if that cannot be told from the uncertainty of the two.
pub fn drift_ppm(start: &Offset, end: &Offset) -> Option<f64> {
    let elapsed_ns = end.at_ns.checked_sub(start.at_ns).filter(|ns| *ns > 0)?;
    let moved_ns = i128::from(end.monotonic_ns) - i128::from(start.monotonic_ns);
    let doubt_ns = i128::from(start.uncertainty_ns) + i128::from(end.uncertainty_ns);
    (moved_ns.abs() > doubt_ns).then(|| moved_ns as f64 / elapsed_ns as f64 * 1e6)
}

/// Whether their clock, as it was `found`, is farther from where it was `taken` to be than is in doubt, and
/// than is `worth` anything, ns.
pub fn has_drifted(taken: &Offset, found: &Offset, worth_ns: u64) -> bool {
    let moved_ns = taken.monotonic_ns.abs_diff(found.monotonic_ns);
    moved_ns > found.uncertainty_ns.max(worth_ns)
}

/// Whether a clock has moved between two measurements by more than any drifts ([`MOST_DRIFT_PPM`]): one of
/// the two hosts was suspended, or started anew, and it is another clock.
pub fn has_leapt(before: &Offset, found: &Offset) -> bool {
    let moved_ns = before.monotonic_ns.abs_diff(found.monotonic_ns);
    let elapsed_ns = found.at_ns.saturating_sub(before.at_ns);
    let doubt_ns = before.uncertainty_ns.saturating_add(found.uncertainty_ns);
    moved_ns > (elapsed_ns / 1_000_000).saturating_mul(MOST_DRIFT_PPM).saturating_add(doubt_ns)
}

/// Whether what was `found` tells more than what was `known` before: one trip may say less than many did, as
/// long as a clock can hardly have drifted so far since.
pub fn tells_more(known: &Offset, found: &Offset) -> bool {
    let elapsed_ns = found.at_ns.saturating_sub(known.at_ns);
    let drifted_ns = (elapsed_ns / 1_000_000).saturating_mul(USUAL_DRIFT_PPM);
    found.uncertainty_ns <= known.uncertainty_ns.saturating_add(drifted_ns)
}

/// Their `CLOCK_MONOTONIC` at an instant of ours.
pub fn theirs(offset: &Offset, ours_monotonic_ns: u64) -> u64 {
    ours_monotonic_ns.saturating_add_signed(offset.monotonic_ns)
}

fn difference(one: u64, other: u64) -> i64 {
    let wide = i128::from(one) - i128::from(other);
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn moment(wall_ns: u64, monotonic_ns: u64) -> Moment {
        Moment { wall_ns, monotonic_ns }
    }

    #[test]
    fn the_trip_that_took_least_decides() {
        let asked = moment(1000 * SECOND, 10 * SECOND);
        let trip = |took: u64, answer| RoundTrip {
            asked,
            answer,
            heard: moment(asked.wall_ns + took, asked.monotonic_ns + took),
        };
        let slow = trip(8000, moment(1049 * SECOND, 500 * SECOND));
        let fast = trip(200, moment(1049 * SECOND + 100, 500 * SECOND + 100));
        let found = best([&slow, &fast, &slow]).unwrap();
        assert_eq!(found.wall_ns, 49 * SECOND as i64);
        assert_eq!(found.monotonic_ns, 490 * SECOND as i64);
        assert_eq!(found.uncertainty_ns, 100);
        assert_eq!(theirs(&found, 20 * SECOND), 510 * SECOND);
        assert_eq!(best(&[]), None);
    }

    fn at(at_ns: u64, monotonic_ns: i64, uncertainty_ns: u64) -> Offset {
        Offset { at_ns, wall_ns: 0, monotonic_ns, uncertainty_ns }
    }

    #[test]
    fn drift_is_told_only_where_it_is_more_than_the_doubt() {
        let start = at(0, 1000, 50_000);
        assert_eq!(drift_ppm(&start, &at(100 * SECOND, 2_001_000, 50_000)), Some(20.0));
        assert_eq!(drift_ppm(&start, &at(100 * SECOND, -1_999_000, 50_000)), Some(-20.0));
        assert_eq!(drift_ppm(&start, &at(100 * SECOND, 100_000, 50_000)), None);
        assert_eq!(drift_ppm(&start, &at(0, 9_000_000, 0)), None);
    }

    #[test]
    fn a_clock_has_drifted_or_leapt_only_where_no_doubt_explains_it() {
        let taken = at(0, 1000, 5000);
        let drifted = |found, worth_ns| has_drifted(&taken, &found, worth_ns);
        assert!(!drifted(at(SECOND, 1000, 0), 0) && !drifted(at(SECOND, 3000, 2000), 0));
        assert!(drifted(at(SECOND, 3001, 2000), 2000) && drifted(at(SECOND, -1001, 2000), 0));
        assert!(!drifted(at(SECOND, 3001, 2000), 2001));
        // 1000 ppm of a second, and the doubts of both.
        let leapt = |found| has_leapt(&taken, &found);
        assert!(!leapt(at(SECOND, 1_008_000, 2000)) && leapt(at(SECOND, 1_008_001, 2000)));
        assert!(leapt(at(SECOND, i64::MIN, 0)) && !leapt(at(0, i64::MAX, u64::MAX)));
    }

    #[test]
    fn one_trip_tells_more_than_many_only_after_a_while() {
        let at = |at_ns, uncertainty_ns| at(at_ns, 0, uncertainty_ns);
        let known = at(SECOND, 100_000);
        assert!(tells_more(&known, &at(SECOND, 100_000)));
        assert!(!tells_more(&known, &at(SECOND, 100_001)));
        // 6 ms in a minute.
        assert!(tells_more(&known, &at(61 * SECOND, 6_100_000)));
        assert!(!tells_more(&known, &at(61 * SECOND, 6_100_001)));
        assert!(!tells_more(&at(0, 0), &at(u64::MAX, u64::MAX)));
    }

    proptest! {
        #[test]
        fn the_truth_lies_within_the_uncertainty(
            there_ns in 0_u64..SECOND,
            back_ns in 0_u64..SECOND,
            ours: u32,
            ahead in -1_000_000_000_000_i64..1_000_000_000_000,
        ) {
            let begin = u64::from(ours) + 2000 * SECOND;
            let arrived = begin + there_ns;
            let trip = RoundTrip {
                asked: moment(begin, begin),
                answer: moment(
                    arrived.saturating_add_signed(ahead),
                    arrived.saturating_add_signed(ahead),
                ),
                heard: moment(arrived + back_ns, arrived + back_ns),
            };
            let found = offset(&trip);
            prop_assert!((found.monotonic_ns - ahead).unsigned_abs() <= found.uncertainty_ns);
            prop_assert!((found.wall_ns - ahead).unsigned_abs() <= found.uncertainty_ns);
        }

        #[test]
        fn no_answer_is_too_wild(numbers: [u64; 6]) {
            let [a, b, c, d, e, f] = numbers;
            let trip = RoundTrip { asked: moment(a, b / 2), answer: moment(c, d), heard: moment(e, f / 2) };
            let found = offset(&trip);
            let _ = theirs(&found, a);
        }
    }
}
