//! Time, as the sampler sees it: two clocks, the thread's own CPU time, and a sleep that a stop
//! ends at once. A trait, so that tests bring their own time.

use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Why a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The deadline has come.
    Deadline,
    /// The run is to stop.
    Stop,
}

/// What the sampler asks of time. All times in ns.
pub trait Clock: Send {
    /// `CLOCK_MONOTONIC`.
    fn monotonic_ns(&self) -> u64;
    /// `CLOCK_REALTIME`.
    fn realtime_ns(&self) -> u64;
    /// CPU time of the calling thread.
    fn thread_cpu_ns(&self) -> u64;
    /// Sleeps until `deadline_ns` of the monotonic clock, or until a stop. A stop that was asked
    /// for before the sleep counts too.
    fn wait_until(&mut self, deadline_ns: u64) -> Wake;
}

/// The few words that the sampler's thread shares with the others, in one cache line.
#[derive(Debug, Clone, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shared {
    stopped: AtomicU32,
    taken: AtomicU64,
    missed: AtomicU64,
    /// Where tick 0 is to be counted from; 0 for where it was.
    start_ns: AtomicU64,
}

const RUNNING: u32 = 0;
const STOPPED: u32 = 1;

impl Control {
    /// From now on [`Clock::wait_until`] returns [`Wake::Stop`], at once if it sleeps.
    pub fn stop(&self) {
        // Pairs with the load in `is_stopped`. Nothing else is handed over by it.
        self.shared.stopped.store(STOPPED, Ordering::Release);
        // Fails only for an address that is not mapped, or on a kernel without futexes.
        let _ = futex::wake(&self.shared.stopped, futex::Flags::PRIVATE, u32::MAX >> 1);
    }

    /// Samples taken and ticks missed so far; for showing to people.
    pub fn progress(&self) -> (u64, u64) {
        (self.shared.taken.load(Ordering::Relaxed), self.shared.missed.load(Ordering::Relaxed))
    }

    pub(super) fn set_progress(&self, taken: u64, missed: u64) {
        self.shared.taken.store(taken, Ordering::Relaxed);
        self.shared.missed.store(missed, Ordering::Relaxed);
    }

    /// Ticks to come are to be counted from `start_ns` of `CLOCK_MONOTONIC`.
    pub fn follow(&self, start_ns: u64) {
        // Here and where it is looked at: the number alone is handed over.
        self.shared.start_ns.store(start_ns, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn to_follow(&self) -> Option<u64> {
        match self.shared.start_ns.load(Ordering::Relaxed) {
            0 => None,
            start_ns => Some(start_ns),
        }
    }

    fn is_stopped(&self) -> bool {
        // Pairs with the store in `stop`.
        self.shared.stopped.load(Ordering::Acquire) == STOPPED
    }
}

/// The kernel's clocks.
pub struct SystemClock {
    control: Control,
}

impl SystemClock {
    /// A clock whose sleeps `control` ends.
    pub fn new(control: Control) -> Self {
        SystemClock { control }
    }
}

impl Clock for SystemClock {
    fn monotonic_ns(&self) -> u64 {
        ns(clock_gettime(ClockId::Monotonic))
    }

    fn realtime_ns(&self) -> u64 {
        ns(clock_gettime(ClockId::Realtime))
    }

    fn thread_cpu_ns(&self) -> u64 {
        ns(clock_gettime(ClockId::ThreadCPUTime))
    }

    fn wait_until(&mut self, deadline_ns: u64) -> Wake {
        let deadline = Timespec {
            tv_sec: (deadline_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (deadline_ns % 1_000_000_000).cast_signed(),
        };
        loop {
            if self.control.is_stopped() {
                return Wake::Stop;
            }
            if self.monotonic_ns() >= deadline_ns {
                return Wake::Deadline;
            }
            // FUTEX_WAIT_BITSET takes an absolute deadline of CLOCK_MONOTONIC (futex(2)), so that
            // neither a late wake-up nor an interrupted sleep shifts it. However it returns, the
            // loop looks again.
            let _ = futex::wait_bitset(
                &self.control.shared.stopped,
                futex::Flags::PRIVATE,
                RUNNING,
                Some(&deadline),
                NonZeroU32::MAX,
            );
        }
    }
}

/// A time that is never before the epoch; 0 if it is.
fn ns(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_has_passed_is_not_waited_for() {
        let mut clock = SystemClock::new(Control::default());
        assert_eq!(clock.wait_until(0), Wake::Deadline);
        let deadline = clock.monotonic_ns() + 1_000_000;
        assert_eq!(clock.wait_until(deadline), Wake::Deadline);
        assert!(clock.monotonic_ns() >= deadline, "never woken early");
    }

    #[test]
    fn a_stop_ends_a_sleep_and_stays() {
        let control = Control::default();
        let mut clock = SystemClock::new(control.clone());
        let sleeper = std::thread::spawn(move || {
            let far = clock.monotonic_ns() + 3_600_000_000_000;
            (clock.wait_until(far), clock.wait_until(0))
        });
        control.stop();
        assert_eq!(sleeper.join().unwrap(), (Wake::Stop, Wake::Stop));
    }
}
