//! Signs of life while a host waits or records, and answers to its server in between.

use super::{PING_PATIENCE, Phase, Trouble, Worker};
use crate::cluster::clock::{has_drifted, theirs};
use crate::cluster::protocol::{RecorderState, Reply, Request};
use crate::cluster::session::{Session, unexpected};
use crate::cluster::shared::Limits;
use std::time::{Duration, Instant};

/// A host may always take so long to answer.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at what a server asks: it may close a connection on which nothing is answered for
/// longer (`ClientAliveInterval`, sshd_config(5)).
const LISTENING: Duration = Duration::from_secs(10);
/// Round trips that measure a clock that has run away.
const TRIPS: usize = 4;
/// How far one may, ns, and no farther than a tenth of the interval: each time costs the host some wake-ups.
const WORTH_NS: u64 = 1_000_000;

/// How long after the last sign of life of a host that records, or after its start, the next one is due;
/// never, if `None`. Without a heartbeat there are only those without which its recorder would end before
/// it has recorded for as long as it may at most.
fn due(limits: &Limits, max_duration: Option<Duration>, is_first: bool) -> Option<Duration> {
    let wanted = match limits.heartbeat {
        Some(heartbeat) if is_first => heartbeat.min(limits.first_heartbeat),
        Some(heartbeat) => heartbeat,
        None if max_duration.is_some_and(|longest| longest <= limits.orphan_timeout) => {
            return None;
        }
        None => Duration::MAX,
    };
    Some(in_time(limits, wanted))
}

/// One sign of life that is lost must not end an orphan.
fn in_time(limits: &Limits, wanted: Duration) -> Duration {
    wanted.min(limits.orphan_timeout / 3)
}

impl Worker {
    /// How long between two signs of life.
    pub(super) fn beat_interval(&self, wanted: Duration) -> Duration {
        in_time(&self.shared.limits, wanted)
    }

    /// Waits for a command while the host records, or for the time of a sign of life, which it is given.
    pub(super) fn watch(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let limits = self.shared.limits;
        let longest = self.plan.settings.as_ref().and_then(|settings| settings.max_duration);
        let interval = due(&limits, longest, !self.has_kept_time);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::made_host::{FAR, MadeHost, wait_for};
    use super::*;
    use crate::cluster::clock::now;
    use crate::cluster::shared::FIRST_HEARTBEAT;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_first_sign_of_life_comes_soon_and_the_others_when_they_are_wanted() {
        let limits = |heartbeat, orphan_timeout| Limits {
            timeout: SECOND,
            heartbeat,
            first_heartbeat: FIRST_HEARTBEAT,
            orphan_timeout,
            host_bytes: 0,
            given_up: SECOND,
        };
        for (heartbeat, orphan_timeout, max_duration, expected) in [
            // Whatever is wanted, the clock of a host is looked at 10 s after its start.
            (Some(300 * SECOND), HOUR, None, [Some(10 * SECOND), Some(300 * SECOND)]),
            (Some(300 * SECOND), HOUR, Some(HOUR), [Some(10 * SECOND), Some(300 * SECOND)]),
            (
                Some(Duration::MAX),
                Duration::MAX,
                None,
                [Some(10 * SECOND), Some(Duration::MAX / 3)],
            ),
            // It may be wanted sooner.
            (Some(5 * SECOND), HOUR, None, [Some(5 * SECOND); 2]),
            (Some(10 * SECOND), HOUR, None, [Some(10 * SECOND); 2]),
            // One may be lost, and no recorder ends for that.
            (Some(300 * SECOND), 60 * SECOND, None, [Some(10 * SECOND), Some(20 * SECOND)]),
            (Some(300 * SECOND), 15 * SECOND, None, [Some(5 * SECOND); 2]),
            // None are wanted: those that recorders live by, and none of a run that is shorter.
            (None, HOUR, None, [Some(HOUR / 3); 2]),
            (None, HOUR, Some(2 * HOUR), [Some(HOUR / 3); 2]),
            (None, HOUR, Some(HOUR), [None; 2]),
        ] {
            let limits = limits(heartbeat, orphan_timeout);
            let found = [true, false].map(|is_first| due(&limits, max_duration, is_first));
            assert_eq!(found, expected, "{limits:?} {max_duration:?}");
        }
    }

    fn beats(host: &MadeHost) -> usize {
        let asked = host.asked();
        asked.iter().filter(|it| matches!(it, Request::Ping { beat: true, .. })).count()
    }

    #[test]
    fn a_host_that_records_hears_of_its_launcher_soon_and_then_not_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let far = Instant::now() + FAR;
        let [mut rare, mut often] = [HOUR, Duration::from_millis(5)].map(|heartbeat| {
            let host = MadeHost::new(|request, _| match request {
                Request::Ping { id, beat: true } => {
                    let recorder = Some(RecorderState::Running { samples: 1, missed: 0 });
                    Some(Reply::Pong { id: *id, now: now(), recorder })
                }
                _ => MadeHost::usual(request),
            });
            let limits = Limits { heartbeat: Some(heartbeat), ..MadeHost::LIMITS };
            let mut launch = host.launch_with(dir.path(), limits);
            launch.wait_until_set_up(far, &mut |_| ());
            (host, launch)
        });
        rare.1.go(1);
        wait_for(&rare.1, |_| beats(&rare.0) > 0);
        // As long as many take that are wanted as soon as the first one.
        often.1.go(1);
        wait_for(&often.1, |_| beats(&often.0) > 20);
        for (_, launch) in [&mut rare, &mut often] {
            launch.stop(far);
            launch.wait_until_settled(far, &mut |_| ());
        }
        assert_eq!(beats(&rare.0), 1, "{:?}", rare.0.asked());
    }
}
