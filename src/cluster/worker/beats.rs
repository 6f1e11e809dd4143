//! Signs of life while a host waits or records, and answers to its server in between.

use super::{PING_PATIENCE, Phase, Trouble, Worker};
use crate::cluster::clock::{has_drifted, theirs};
use crate::cluster::protocol::{RecorderState, Reply, Request};
use crate::cluster::session::{Session, unexpected};
use std::time::{Duration, Instant};

/// A host may always take so long to answer.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at what a server asks: it may close a connection on which nothing is answered for
/// longer (`ClientAliveInterval`, sshd_config(5)).
const LISTENING: Duration = Duration::from_secs(10);
/// The first sign of life of a host that records comes no later: its clock was measured while it was busy
/// with its start, as all others were.
const FIRST: Duration = Duration::from_secs(10);
/// Round trips that measure a clock that has run away.
const TRIPS: usize = 4;
/// How far one may, ns, and no farther than a tenth of the interval: each time costs the host some wake-ups.
const WORTH_NS: u64 = 1_000_000;

impl Worker {
    /// How long between two signs of life: one that is lost must not end an orphan.
    pub(super) fn beat_interval(&self, wanted: Duration) -> Duration {
        wanted.min(self.shared.limits.orphan_timeout / 3)
    }

    /// Waits for a command while the host records, or for the time of a sign of life, which it is given.
    /// Without a heartbeat that is one only where its recorder would end for want of it.
    pub(super) fn watch(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let limits = self.shared.limits;
        let longest = self.plan.settings.as_ref().and_then(|settings| settings.max_duration);
        let ends_before = longest.is_some_and(|longest| longest <= limits.orphan_timeout);
        let interval = match limits.heartbeat {
            Some(heartbeat) if self.has_kept_time => Some(self.beat_interval(heartbeat)),
            Some(heartbeat) => Some(self.beat_interval(heartbeat.min(FIRST))),
            None if ends_before => None,
            None => Some(self.beat_interval(Duration::MAX)),
        };
        let since = Instant::now();
        match self.attend(session, interval) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.has_kept_time = true;
                self.beat(session)
            }
            Err(trouble) if limits.heartbeat.is_some() => Err(trouble),
            // Nobody asks for the connection before that, whatever becomes of it.
            Err(trouble) => {
                let left = interval.map(|interval| interval.saturating_sub(since.elapsed()));
                if self.hear(left) { Ok(()) } else { Err(trouble) }
            }
        }
    }

    /// A sign of life; its answer is waited for no longer than until the next one is due, and not for long
    /// when there is something else to be done: the connection may be one that was cut and not ended.
    pub(super) fn beat(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let patience = self.beat_interval(self.shared.limits.timeout).max(LEAST_PATIENCE);
        let mut deadline = Instant::now() + patience;
        let mut until = |worker: &mut Worker| {
            if worker.hear(Some(Duration::ZERO)) {
                deadline = deadline.min(Instant::now() + PING_PATIENCE);
            }
            deadline
        };
        let (offset, there) = session.beat(&mut || until(self))?;
        self.has_measured(offset);
        self.find(there);
        if matches!(there, RecorderState::Running { .. }) {
            self.keep_time(session, &mut until)?;
        }
        Ok(())
    }

    /// Where its clock has run away from ours, its ticks follow ours.
    fn keep_time(
        &mut self,
        session: &mut Session<'_>,
        until: &mut dyn FnMut(&mut Worker) -> Instant,
    ) -> Result<(), Trouble> {
        let interval = self.plan.settings.as_ref().map_or(Duration::ZERO, |it| it.interval);
        let tenth_ns = u64::try_from(interval.as_nanos() / 10).unwrap_or(u64::MAX);
        let is_off = |worker: &Worker| {
            let taken = worker.taken.filter(|_| worker.phase == Phase::Recording);
            taken.is_some_and(|taken| has_drifted(&taken, &worker.offset, WORTH_NS.min(tenth_ns)))
        };
        let Some(start_ns) = self.go.filter(|_| is_off(self)) else { return Ok(()) };
        // One trip says that it is; some say how much better.
        let offset = session.clock(TRIPS, &mut || until(self))?;
        self.has_measured(offset);
        if !is_off(self) {
            return Ok(());
        }
        match self.go(session, start_ns, until) {
            // It has just ended: the next sign of life says so.
            Err(trouble) if trouble.is_refused => Ok(()),
            other => other,
        }
    }

    /// Tells the host the instant of tick 0 by its clock, as that was measured last.
    pub(super) fn go(
        &mut self,
        session: &mut Session<'_>,
        start_ns: u64,
        until: &mut dyn FnMut(&mut Worker) -> Instant,
    ) -> Result<(), Trouble> {
        let taken = self.offset;
        let go = Request::Go { start_monotonic_ns: theirs(&taken, start_ns) };
        match session.ask_until(&go, &mut || until(self), "the start")? {
            Reply::Going => {}
            other => return Err(unexpected(&other, "the start").into()),
        }
        self.taken = Some(taken);
        Ok(())
    }

    /// Waits for a command, or for as long as that, and answers the server meanwhile: many close a
    /// connection that does not. Whether a command came.
    pub(super) fn attend(
        &mut self,
        session: &mut Session<'_>,
        patience: Option<Duration>,
    ) -> Result<bool, Trouble> {
        let since = Instant::now();
        loop {
            let left =
                patience.map_or(LISTENING, |patience| patience.saturating_sub(since.elapsed()));
            if self.hear(Some(left.min(LISTENING))) {
                return Ok(true);
            }
            session.listen()?;
            if patience.is_some_and(|patience| since.elapsed() >= patience) {
                return Ok(false);
            }
        }
    }
}
