//! What becomes of a host when an attempt with it has come to nothing: whether another one is made, and
//! what is kept of the reason.

use super::{Phase, Worker};
use crate::cluster::clock;
use crate::cluster::collect::CollectError;
use crate::cluster::record::{Failure, FailureKind, HostState};
use crate::cluster::session::SessionError;
use crate::cluster::shared::Event;
use std::time::Instant;

/// Why an attempt came to nothing.
pub(super) struct Trouble {
    pub kind: FailureKind,
    pub what: String,
    /// Another connection may do better.
    pub is_lost: bool,
    /// The agent cannot do it, at least not now.
    pub is_refused: bool,
}

impl From<SessionError> for Trouble {
    fn from(error: SessionError) -> Trouble {
        let is_refused = matches!(error, SessionError::Refused(_));
        let kind = match error {
            SessionError::NotStarted(_) | SessionError::Lost(_) | SessionError::TimedOut(_) => {
                FailureKind::Ssh
            }
            _ => FailureKind::Collection,
        };
        Trouble { kind, is_lost: error.is_lost(), is_refused, what: error.to_string() }
    }
}

impl From<CollectError> for Trouble {
    fn from(error: CollectError) -> Trouble {
        let (is_lost, kind) = (error.is_lost(), FailureKind::Collection);
        Trouble { kind, is_lost, is_refused: false, what: error.to_string() }
    }
}

impl Worker {
    /// Whether it is worth another attempt.
    pub(super) fn goes_on(&mut self, trouble: Trouble) -> bool {
        let Trouble { kind, what, is_lost, is_refused } = trouble;
        // A recorder that did not hear of the start or the stop may do so later, or would go on for hours.
        let may_hear =
            is_refused && matches!(self.phase, Phase::Ready | Phase::Recording | Phase::Collecting);
        // What is wrong with a connection now may be right with another one later.
        let is_lost = is_lost || may_hear || kind == FailureKind::Ssh;
        let failure = Failure { kind, time_unix_ns: clock::now().wall_ns, message: what };
        let phase = self.phase;
        if phase != Phase::GivenUp {
            self.update(|record| record.trouble = Some(failure.clone()));
        }
        let is_late = self.stop.is_some_and(|deadline| Instant::now() >= deadline);
        match phase {
            Phase::SetUp if is_lost && self.gives_up() => {
                // Nobody waits for it.
                self.tell(Event::SetUp);
                self.end.is_none()
            }
            Phase::GivenUp => !is_late && self.end.is_none(),
            Phase::SetUp => {
                self.fail(HostState::Failed);
                false
            }
            Phase::Ready | Phase::Recording | Phase::Collected if is_lost => self.end.is_none(),
            // What is not discarded stays there, and is said to.
            Phase::Collected | Phase::Over => false,
            Phase::Collecting if is_lost => {
                if is_late {
                    self.fail(HostState::Owing);
                }
                !is_late && self.end.is_none()
            }
            _ => {
                self.fail(HostState::Owing);
                false
            }
        }
    }

    /// What was in the way is what the host failed of, unless it may still hand over what it has.
    pub(super) fn fail(&mut self, state: HostState) {
        self.update(|record| {
            let is_passing = |trouble: &mut Failure| {
                state != HostState::Owing || trouble.kind == FailureKind::Ssh
            };
            if let Some(trouble) = record.trouble.take_if(is_passing) {
                record.add_error(trouble);
            }
            record.state = state;
        });
    }
}
