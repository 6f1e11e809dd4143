//! When the mirror is copied and synced, and how many slots that takes. Pure; times come in,
//! nothing is asked.

use std::time::{Duration, Instant};

/// Spare slots that a ring with a mirror may have however few samples it keeps: at the shortest
/// interval they last for the shortest time between two syncs, 10 ms.
const FEW_SPARE_SLOTS: u64 = 12;
/// Of the spare slots, those that no wake-up counts on: one for the record that is being written,
/// one for a wake-up that is late by a sample.
const RESERVE_SLOTS: u64 = 2;

/// Slots of a ring with a mirror beyond those for the newest `max_samples`: as many as are written
/// between two syncs, so that overwriting a slot never costs a record that was synced and is to be
/// kept. They no more than double the ring; what is then missing is made up for by syncing more
/// often.
pub fn spare_slots(interval: Duration, sync_interval: Duration, max_samples: u64) -> u64 {
    let between = sync_interval.as_nanos().div_ceil(interval.as_nanos().max(1));
    let between = u64::try_from(between).unwrap_or(u64::MAX);
    between.saturating_add(RESERVE_SLOTS).min(max_samples.max(FEW_SPARE_SLOTS))
}

/// The time between two syncs: what was asked for, or less if the spare slots are full sooner.
pub fn sync_interval(interval: Duration, asked: Duration, spare_slots: u64) -> Duration {
    let samples = spare_slots.saturating_sub(RESERVE_SLOTS).max(1);
    let lasting = interval.saturating_mul(u32::try_from(samples).unwrap_or(u32::MAX));
    asked.min(lasting)
}

/// When to copy next, and whether to sync then.
#[derive(Debug, Clone)]
pub struct Pace {
    copy_interval: Duration,
    sync_interval: Duration,
    next: Instant,
    last_sync: Instant,
}

impl Pace {
    /// A copy and a sync every `sync_interval`, from `now` on.
    pub fn new(sync_interval: Duration, now: Instant) -> Pace {
        Pace {
            copy_interval: sync_interval,
            sync_interval,
            next: now + sync_interval,
            last_sync: now,
        }
    }

    /// From now on a copy every `interval`, if that is more often.
    pub fn copy_every(&mut self, interval: Duration, now: Instant) {
        self.copy_interval = self.copy_interval.min(interval);
        self.next = self.next.min(now + self.copy_interval);
    }

    /// When the next copy is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// A copy begins; whether a sync is to follow. The time from sync to sync counts from here:
    /// what is written while the disk syncs is in the next one.
    pub fn begin(&mut self, now: Instant) -> bool {
        let is_due = now - self.last_sync + self.copy_interval / 2 >= self.sync_interval;
        if is_due {
            self.last_sync = now;
        }
        is_due
    }

    /// The copy has ended. Not "work, then sleep": but a slow disk does not make it run all the
    /// time either.
    pub fn end(&mut self, now: Instant) {
        self.next = (self.next + self.copy_interval).max(now + self.copy_interval / 2);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    #[test]
    fn spare_slots_last_from_sync_to_sync_and_no_more_than_double_the_ring() {
        // Interval, sync interval, samples to keep; spare slots, and the time between two syncs.
        let rows = [
            (10 * S, 30 * S, 3600, 5, 30 * S),
            (7 * S, 30 * S, 3600, 7, 30 * S),
            (S, 30 * S, 3600, 32, 30 * S),
            (100 * MS, 30 * S, 3600, 302, 30 * S),
            (10 * MS, 30 * S, 3600, 3002, 30 * S),
            (MS, 30 * S, 3600, 3600, 3598 * MS),
            (MS, 30 * S, 100_000, 30_002, 30 * S),
            (MS, 30 * S, 100, 100, 98 * MS),
            (MS, 30 * S, 1, 12, 10 * MS),
            (10 * S, 30 * S, 1, 5, 30 * S),
            (MS, 10 * MS, 1, 12, 10 * MS),
            (3600 * S, 30 * S, 3600, 3, 30 * S),
            (86400 * S, 86400 * S, 1, 3, 86400 * S),
        ];
        for (interval, asked, max_samples, spare, every) in rows {
            let row = format!("{interval:?} {asked:?} {max_samples}");
            assert_eq!(spare_slots(interval, asked, max_samples), spare, "{row}");
            assert_eq!(sync_interval(interval, asked, spare), every, "{row}");
            // What is taken from one sync to the next has room.
            assert!(every.as_nanos().div_ceil(interval.as_nanos()) < u128::from(spare), "{row}");
        }
    }

    #[test]
    fn a_sync_that_takes_long_does_not_put_off_the_next() {
        let start = Instant::now();
        let mut pace = Pace::new(30 * S, start);
        pace.copy_every(S, start);
        let mut syncs = Vec::new();
        for _ in 0..120 {
            let now = pace.next();
            let is_due = pace.begin(now);
            if is_due {
                syncs.push(now);
            }
            pace.end(now + if is_due { 5 * S } else { MS });
        }
        assert_eq!(syncs[0], start + 30 * S);
        for pair in syncs.windows(2) {
            assert!((29 * S..=30 * S).contains(&(pair[1] - pair[0])), "{:?}", pair[1] - pair[0]);
        }
        assert!(syncs.len() >= 3);
    }
}
