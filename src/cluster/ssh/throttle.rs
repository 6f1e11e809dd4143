//! How many connections may be set up at once: servers drop those beyond their `MaxStartups`
//! (10 by default), and each costs them some 20 ms of a CPU. A peer that says nothing costs the
//! others nothing either: whoever waits for one is outside until it speaks.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// `MaxStartups 10:30:100`: from the eleventh on, a server drops at random.
pub const MAX_PER_PLACE: usize = 10;
/// A peer that has been silent for so long makes room for others, unless told otherwise.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(2);
/// Part of the time that is left in which all who wait now have had their turn, one of so many.
const SHARE: u32 = 4;
/// Between two looks whether others wait.
const LOOK: Duration = Duration::from_millis(50);

/// A server or a bastion: its name or address, in small letters, and its port.
pub type Place = (String, u16);

/// Counts the connections that are being set up.
#[derive(Debug)]
pub struct Throttle {
    max: usize,
    longest_silence: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    by_place: HashMap<Place, usize>,
    /// Who waits for one of `all`, the first to come at the front.
    queue: VecDeque<u64>,
    tickets: u64,
}

impl Throttle {
    /// At most `max` at once, which is at least one, but for peers that have been silent for
    /// `longest_silence`: these make room for others.
    pub fn new(max: usize, longest_silence: Duration) -> Throttle {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Throttle { max: max.max(1), longest_silence, state, changed }
    }

    /// Waits until one more may be set up; `None` at the deadline.
    pub fn turn(self: &Arc<Self>, deadline: Instant) -> Option<Turn> {
        let held = Mutex::new(Held { is_held: false, heard: Instant::now() });
        let turn = Turn { throttle: self.clone(), held };
        turn.take(deadline).then_some(turn)
    }

    /// Waits until one more may be set up to each of these; `None` at the deadline. Where that takes
    /// long, others have the turn meanwhile.
    pub fn at(
        self: &Arc<Self>,
        places: &[Place],
        turn: &Turn,
        deadline: Instant,
    ) -> Option<PlacePermit> {
        let mut places: Vec<Place> =
            places.iter().map(|(host, port)| (host.to_ascii_lowercase(), *port)).collect();
        places.sort();
        places.dedup();
        let take = |state: &mut State| {
            let count = |place| state.by_place.get(place).copied().unwrap_or(0);
            let may = places.iter().all(|place| count(place) < MAX_PER_PLACE);
            if may {
                for place in &places {
                    *state.by_place.entry(place.clone()).or_default() += 1;
                }
            }
            may
        };
        let may = take(&mut self.lock());
        if !may {
            // Nobody waits for a place and keeps others from theirs.
            turn.leave();
            self.wait(deadline, take)?;
        }
        let permit = PlacePermit { throttle: self.clone(), places };
        turn.take(deadline).then_some(permit)
    }

    /// In the order in which they come; whether its turn came before the deadline.
    fn enter(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        let ticket = state.tickets;
        state.tickets += 1;
        state.queue.push_back(ticket);
        drop(state);
        let entered = self.wait(deadline, |state| {
            let may = state.all < self.max && state.queue.front() == Some(&ticket);
            if may {
                state.queue.pop_front();
                state.all += 1;
            }
            may
        });
        if entered.is_none() {
            self.lock().queue.retain(|other| *other != ticket);
        }
        // The next one is the first now.
        self.changed.notify_all();
        entered.is_some()
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

    /// How long a silent peer keeps its turn, if others wait: all of them are to have theirs in time,
    /// however many peers are silent.
    fn patience(&self, deadline: Instant) -> Option<Duration> {
        let waiting = self.lock().queue.len();
        let left = deadline.saturating_duration_since(Instant::now());
        let share = (left / SHARE).mul_f64(self.max as f64 / waiting.max(1) as f64);
        (waiting > 0).then_some(share.min(self.longest_silence))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to set one connection up, through all servers on its way, until it is dropped; had as long as
/// its peers speak, or nobody else wants it.
#[derive(Debug)]
pub struct Turn {
    throttle: Arc<Throttle>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    is_held: bool,
    heard: Instant,
}

impl Turn {
    /// Has it again, if it was given up; `false` at the deadline.
    pub fn take(&self, deadline: Instant) -> bool {
        let mut held = self.lock();
        held.is_held = held.is_held || self.throttle.enter(deadline);
        held.heard = Instant::now();
        held.is_held
    }

    /// Gives it up, until it is taken again.
    pub fn leave(&self) {
        if std::mem::take(&mut self.lock().is_held) {
            self.throttle.lock().all -= 1;
            self.throttle.changed.notify_all();
        }
    }

    /// Waits for a peer until `deadline`: `look` waits until the instant that it is given, and says what
    /// it found. A silent one has no turn as long as others wait for theirs; who goes on with what was
    /// found [takes](Self::take) it first.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn watch<T, E>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(Instant) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        loop {
            let is_held = self.lock().is_held;
            let soon = Instant::now() + LOOK;
            if let Some(found) = look(if is_held { deadline.min(soon) } else { deadline })? {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let silence = self.lock().heard.elapsed();
            if is_held && self.throttle.patience(deadline).is_some_and(|most| silence >= most) {
                self.leave();
            }
        }
    }

    /// What another thread sends before the deadline.
    ///
    /// # Errors
    /// As of a receiver.
    pub fn receive<T>(
        &self,
        receiver: &Receiver<T>,
        deadline: Instant,
    ) -> Result<T, RecvTimeoutError> {
        let found = self.watch(deadline, |until| {
            match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(found) => Ok(Some(found)),
                Err(RecvTimeoutError::Timeout) => Ok(None),
                Err(ended) => Err(ended),
            }
        });
        match found? {
            Some(found) if self.take(deadline) => Ok(found),
            _ => Err(RecvTimeoutError::Timeout),
        }
    }

    /// How long a peer may be silent before it makes room for others.
    pub fn longest_silence(&self) -> Duration {
        self.throttle.longest_silence
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Leave to connect to some servers, until it is dropped.
#[derive(Debug)]
pub struct PlacePermit {
    throttle: Arc<Throttle>,
    places: Vec<Place>,
}

impl Drop for PlacePermit {
    fn drop(&mut self) {
        let mut state = self.throttle.lock();
        for place in &self.places {
            if let Some(count) = state.by_place.get_mut(place) {
                *count -= 1;
                if *count == 0 {
                    state.by_place.remove(place);
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

    const LONG: Duration = Duration::from_secs(60);

    fn at(throttle: &Arc<Throttle>, port: u16, turn: &Turn, by: Instant) -> Option<PlacePermit> {
        throttle.at(&[("Host".into(), port)], turn, by)
    }

    #[test]
    fn no_more_than_allowed_are_set_up_at_once() {
        let throttle = Arc::new(Throttle::new(12, LONGEST_SILENCE));
        let now = Instant::now();
        let turns: Vec<_> = (0..12).map(|_| throttle.turn(now).unwrap()).collect();
        assert!(throttle.turn(now).is_none());
        assert!(throttle.lock().queue.is_empty(), "who gave up does not wait");
        let permits: Vec<_> =
            turns[..10].iter().map(|turn| at(&throttle, 22, turn, now).unwrap()).collect();
        assert!(throttle.at(&[("host".into(), 22)], &turns[10], now).is_none(), "small letters");
        let two = [("other".into(), 22), ("host".into(), 22)];
        assert!(throttle.at(&two, &turns[10], now).is_none(), "all of them, or none");
        assert_eq!(throttle.lock().by_place.len(), 1);
        assert!(at(&throttle, 23, &turns[11], now).is_some());

        std::thread::scope(|scope| {
            let (throttle, turn, later) = (&throttle, &turns[10], now + LONG);
            let waiting = scope.spawn(move || at(throttle, 22, turn, later).is_some());
            drop(permits);
            assert!(waiting.join().unwrap(), "as soon as there is room");
        });
        drop(turns);
        assert!(throttle.turn(now).is_some());
        let state = throttle.lock();
        assert!(state.by_place.is_empty() && state.all == 0, "{state:?}");
    }

    #[test]
    fn who_waits_for_a_place_or_a_silent_peer_keeps_nobody_waiting() {
        let throttle = Arc::new(Throttle::new(1, LONGEST_SILENCE));
        let by = Instant::now() + LONG;
        let silent = throttle.turn(by).unwrap();
        let (mouth, ear) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let silent = &silent;
            let waits = scope.spawn(move || silent.receive(&ear, by));
            // Would wait for as long as that one is silent.
            let turn = throttle.turn(by).unwrap();
            mouth.send(7).unwrap();
            while throttle.lock().queue.is_empty() && Instant::now() < by {
                std::thread::yield_now();
            }
            assert!(!waits.is_finished(), "it speaks, and waits for its turn");
            drop(turn);
            assert_eq!(waits.join().unwrap(), Ok(7));
        });
        // It is its turn, and nobody else's.
        assert!(throttle.turn(Instant::now()).is_none());

        let many: Vec<_> =
            (0..MAX_PER_PLACE).map(|_| at(&throttle, 22, &silent, by).unwrap()).collect();
        std::thread::scope(|scope| {
            let (throttle, silent) = (&throttle, &silent);
            let waits = scope.spawn(move || at(throttle, 22, silent, by).is_some());
            drop(throttle.turn(by).unwrap());
            drop(many);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn all_who_wait_have_their_turn_in_time() {
        let throttle = Throttle::new(32, LONGEST_SILENCE);
        let by = Instant::now() + Duration::from_secs(30);
        let patience = |waiting| {
            throttle.lock().queue = (0..waiting).collect();
            throttle.patience(by)
        };
        assert_eq!(patience(0), None, "nobody wants it");
        assert_eq!(patience(1), Some(LONGEST_SILENCE));
        for waiting in [1000, 10_000] {
            let turns = (waiting as f64 / 32.0).ceil();
            let all = patience(waiting).unwrap().mul_f64(turns);
            assert!(all <= Duration::from_secs(8), "{waiting}: {all:?}");
        }
    }
}
