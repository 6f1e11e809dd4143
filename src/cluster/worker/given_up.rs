//! A host that was given up when it had been asked for a recorder already: what may wait there for its
//! start is ended, over a later connection, and nothing of it is left.

use super::{Phase, Trouble, Worker};
use crate::cluster::protocol::{Reply, Request};
use crate::cluster::record::HostState;
use crate::cluster::session::{Session, unexpected};
use std::time::{Duration, Instant};

/// A recorder that is not there may still be on its way, since the host need not know of the end of the
/// connection over which it was asked for: it is looked for as long as the run lasts, and for so long.
const LATE: Duration = Duration::from_secs(5);
/// Between two looks for it, at first and at last.
const FIRST_LOOK: Duration = Duration::from_millis(200);
const LAST_LOOK: Duration = Duration::from_secs(10);

impl Worker {
    /// Whether a recorder may be waiting there, since nobody knows what became of the request.
    pub(super) fn gives_up(&mut self) -> bool {
        if !self.has_asked_to_prepare {
            return false;
        }
        self.fail(HostState::GivenUp);
        self.phase = Phase::GivenUp;
        true
    }

    /// Ends the recorder that waits there, as soon as there is one, and removes what it has made.
    pub(super) fn withdraw(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let mut pause = FIRST_LOOK;
        let (begin, mut patience) = (Instant::now(), None);
        loop {
            if let (Some(stop), None) = (self.stop, patience) {
                let now = Instant::now();
                let stop =
                    now.checked_add(self.shared.limits.given_up).map_or(stop, |it| it.min(stop));
                // However short the time is, the last look comes before its end.
                let soon = stop.checked_sub(2 * FIRST_LOOK).unwrap_or(stop);
                patience = Some((begin + LATE).min(soon));
            }
            let deadline = Instant::now() + self.shared.limits.timeout;
            let deadline = self.stop.map_or(deadline, |stop| stop.min(deadline));
            let was_running = match session.ask(&Request::Stop, deadline, "the stop")? {
                Reply::Stopped { was_running } => was_running,
                other => return Err(unexpected(&other, "the stop").into()),
            };
            match session.ask(&Request::Discard, deadline, "the removal of rings")? {
                Reply::Discarded => {}
                other => return Err(unexpected(&other, "the removal of rings").into()),
            }
            let is_over = patience.is_some_and(|patience| Instant::now() >= patience);
            if was_running || is_over || self.end.is_some() {
                break;
            }
            self.attend(session, Some(if patience.is_some() { FIRST_LOOK } else { pause }))?;
            pause = (pause * 2).min(LAST_LOOK);
        }
        self.update(|record| record.state = HostState::Failed);
        self.leave(session);
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::made_host::{FAR, MadeHost};
    use super::*;
    use crate::cluster::protocol::RecorderState;

    #[test]
    fn a_recorder_that_is_ready_too_late_is_ended() {
        let host = MadeHost::new(|request, asked| {
            let is_there = asked.iter().any(|each| matches!(each, Request::Prepare(_)));
            let is_gone = asked.contains(&Request::Stop);
            match request {
                Request::Attach(_) if is_there => Some(Reply::Attached(RecorderState::Prepared)),
                Request::Stop => Some(Reply::Stopped { was_running: is_there && !is_gone }),
                // It is on its way.
                Request::Prepare(_) => None,
                _ => MadeHost::usual(request),
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let mut launch = host.launch(dir.path());
        let far = Instant::now() + FAR;
        launch.wait_until_set_up(far, &mut |_| ());
        let record = launch.records().remove(0);
        assert!(record.errors[0].message.contains("the recorder to be ready"), "{record:?}");
        launch.go(1);
        launch.stop(far);
        launch.wait_until_settled(far, &mut |_| ());
        let record = launch.end(&[], far).remove(0);
        assert_eq!((record.state, record.errors.len()), (HostState::Failed, 1));
        assert!(Instant::now() < far);
        let after: Vec<Request> = host
            .asked()
            .into_iter()
            .skip_while(|each| !matches!(each, Request::Prepare(_)))
            .filter(|each| !matches!(each, Request::Prepare(_) | Request::Attach(_)))
            .collect();
        assert_eq!(after, [Request::Stop, Request::Discard, Request::Bye]);
    }
}
