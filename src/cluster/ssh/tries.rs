//! Which connections are tried again, and when: those that a server dropped before it said who it is.
//! One that has too many connections, or has had too many bad ones, drops some (`MaxStartups`,
//! `PerSourcePenalties`). Whatever comes later, keys, names and logging in, is never tried again.

use super::throttle::Turn;
use std::time::{Duration, Instant};
use uuid::Uuid;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_TRIES: u32 = 8;

/// The tries of one connection.
#[derive(Debug, Default)]
pub struct Tries(u32);

impl Tries {
    /// How many there have been that came to nothing.
    #[cfg_attr(not(feature = "ssh"), allow(dead_code))]
    pub fn count(&self) -> u32 {
        self.0
    }

    /// One more came to nothing. If it was dropped, and there is time, this waits for the next; whether
    /// there is to be one. Others have the turn meanwhile.
    pub fn again(&mut self, is_dropped: bool, turn: &Turn, deadline: Instant) -> bool {
        self.0 += 1;
        // Half of it at random, so that those who were dropped together do not come together. Of a
        // UUID the last bits are.
        let random = f64::from(Uuid::now_v7().as_u128() as u16) / f64::from(u16::MAX);
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.0 - 1).min(MAX_TRIES));
        let pause = pause.mul_f64(0.5 + random);
        if !is_dropped || self.0 >= MAX_TRIES || Instant::now() + pause >= deadline {
            return false;
        }
        turn.leave();
        std::thread::sleep(pause);
        turn.take(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::super::throttle::{LONGEST_SILENCE, Throttle};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn only_what_was_dropped_is_tried_again_and_only_in_time() {
        let turn = Arc::new(Throttle::new(1, LONGEST_SILENCE)).turn(Instant::now()).unwrap();
        let far = Instant::now() + Duration::from_secs(600);
        let mut tries = Tries::default();
        assert!(tries.again(true, &turn, far));
        assert!(!tries.again(false, &turn, far));
        assert!(!Tries::default().again(true, &turn, Instant::now()));
        assert!(!Tries(MAX_TRIES - 1).again(true, &turn, far));
        assert_eq!(tries.count(), 2);
    }
}
