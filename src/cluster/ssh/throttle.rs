//! How many connections may be set up at once: servers drop those beyond their `MaxStartups`
//! (10 by default), and each costs them some 20 ms of a CPU.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// `MaxStartups 10:30:100`: from the eleventh on, a server drops at random.
pub const MAX_PER_PLACE: usize = 10;

/// Counts the connections that are being set up.
#[derive(Debug)]
pub struct Throttle {
    max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    by_place: HashMap<(String, u16), usize>,
}

/// Leave to set one up, until it is dropped.
#[derive(Debug)]
pub struct Permit<'t> {
    throttle: &'t Throttle,
    place: Option<(String, u16)>,
}

impl Throttle {
    /// At most `max` at once, which is at least one.
    pub fn new(max: usize) -> Throttle {
        Throttle { max: max.max(1), state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until one more may be set up; `None` at the deadline.
    pub fn any(&self, deadline: Instant) -> Option<Permit<'_>> {
        self.wait(deadline, |state| {
            let may = state.all < self.max;
            state.all += usize::from(may);
            may
        })?;
        Some(Permit { throttle: self, place: None })
    }

    /// Waits until one more may be set up to this server or bastion; `None` at the deadline.
    pub fn at(&self, host: &str, port: u16, deadline: Instant) -> Option<Permit<'_>> {
        let place = (host.to_ascii_lowercase(), port);
        self.wait(deadline, |state| {
            let count = state.by_place.entry(place.clone()).or_default();
            let may = *count < MAX_PER_PLACE;
            *count += usize::from(may);
            may
        })?;
        Some(Permit { throttle: self, place: Some(place) })
    }

    fn wait(&self, deadline: Instant, mut take: impl FnMut(&mut State) -> bool) -> Option<()> {
        let mut state = self.lock();
        loop {
            if take(&mut state) {
                return Some(());
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.throttle.lock();
        match &self.place {
            None => state.all -= 1,
            Some(place) => {
                if let Some(count) = state.by_place.get_mut(place) {
                    *count -= 1;
                    if *count == 0 {
                        state.by_place.remove(place);
                    }
                }
            }
        }
        drop(state);
        self.throttle.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn no_more_than_allowed_are_set_up_at_once() {
        let throttle = Throttle::new(12);
        let now = Instant::now();
        let all: Vec<_> = (0..12).map(|_| throttle.any(now).unwrap()).collect();
        assert!(throttle.any(now).is_none());
        let at: Vec<_> = (0..10).map(|_| throttle.at("Host", 22, now).unwrap()).collect();
        assert!(throttle.at("host", 22, now).is_none(), "in small letters");
        assert!(throttle.at("host", 23, now).is_some());

        std::thread::scope(|scope| {
            let (throttle, later) = (&throttle, now + Duration::from_secs(60));
            let waiting = scope.spawn(move || throttle.at("host", 22, later).is_some());
            drop(at);
            assert!(waiting.join().unwrap(), "as soon as there is room");
        });
        drop(all);
        assert!(throttle.any(now).is_some());
        assert!(throttle.lock().by_place.is_empty());
    }
}
