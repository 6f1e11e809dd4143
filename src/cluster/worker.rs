//! One host from the launcher's side: a thread that takes it through its phases, whatever happens to the
//! connection on the way. What all hosts are told, and what they have come to, is `launch`'s,
//! which this knows nothing of: what both have in common is `shared`.

mod beats;
mod claims;
mod given_up;
#[cfg(all(test, not(loom)))]
mod made_host;
mod trouble;

use super::clock::{Offset, has_leapt, tells_more};
use super::collect::{Collected, collect};
use super::protocol::{RecorderState, Reply, Request};
use super::record::{Failure, FailureKind, HostRecord, HostState};
use super::session::{Session, unexpected};
use super::shared::{Command, Event, HostPlan, Shared, lock};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use trouble::Trouble;
use uuid::Uuid;

/// Round trips that measure a clock at the start and at the stop: the more, the likelier is one that
/// nothing held up.
const CLOCK_TRIPS: usize = 12;
/// Between two signs of life to a host that waits for its start.
const BEFORE_START: Duration = Duration::from_secs(60);
/// Between two attempts to reach a host again.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);
/// How long an agent may take to say what time it is, before the stop.
const PING_PATIENCE: Duration = Duration::from_secs(5);

/// How far a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// To be reached and made ready.
    SetUp,
    /// Waits for its start.
    Ready,
    /// Records by itself.
    Recording,
    /// Was not ready in time: a recorder that may wait there is to be ended.
    GivenUp,
    /// To be stopped and fetched from.
    Collecting,
    /// Everything of it is here.
    Collected,
    /// Nothing is to be done any more.
    Over,
}

/// Whether a run has no recorder any more.
fn is_gone(there: RecorderState) -> bool {
    matches!(there, RecorderState::None | RecorderState::Ended)
}

/// What takes one host through its phases.
pub(super) struct Worker {
    index: usize,
    plan: HostPlan,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    events: Sender<(usize, Event)>,
    phase: Phase,
    go: Option<u64>,
    stop: Option<Instant>,
    end: Option<bool>,
    has_asked_to_prepare: bool,
    has_asked_to_stop: bool,
    /// As it was measured last, or best before the start.
    offset: Offset,
    /// By which its ticks are, once it has been told its start, as long as they follow our clock.
    taken: Option<Offset>,
    /// It was looked at since its start whether they are where they belong.
    has_kept_time: bool,
}

impl Worker {
    /// For host number `index` of those that `shared` has the records of.
    pub fn new(
        index: usize,
        plan: HostPlan,
        shared: Arc<Shared>,
        commands: Receiver<Command>,
        events: Sender<(usize, Event)>,
    ) -> Worker {
        Worker {
            index,
            phase: match plan.record.state {
                HostState::GivenUp => Phase::GivenUp,
                _ if plan.settings.is_some() => Phase::SetUp,
                _ => Phase::Collecting,
            },
            // By an earlier launcher.
            has_asked_to_stop: plan.record.is_stopped,
            plan,
            shared,
            commands,
            events,
            go: None,
            stop: None,
            end: None,
            has_asked_to_prepare: false,
            offset: Offset::default(),
            taken: None,
            has_kept_time: false,
        }
    }

    /// Until there is nothing to be done with the host any more. It is to be ready by `set_up_deadline`.
    pub fn run(mut self, set_up_deadline: Instant) {
        let mut backoff = FIRST_BACKOFF;
        while self.phase != Phase::Over {
            let before = self.phase;
            let deadline = match self.phase {
                Phase::SetUp => set_up_deadline,
                Phase::GivenUp => {
                    self.stop.unwrap_or_else(|| Instant::now() + self.shared.limits.timeout)
                }
                Phase::Collecting => match self.stop {
                    Some(deadline) => deadline,
                    None => {
                        self.hear(None);
                        continue;
                    }
                },
                _ => Instant::now() + self.shared.limits.timeout,
            };
            let Err(trouble) = self.attempt(deadline) else { break };
            if self.phase != before {
                backoff = FIRST_BACKOFF;
            }
            if !self.goes_on(trouble) {
                break;
            }
            self.hear(Some(backoff));
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
        self.tell(Event::SetUp);
        self.tell(Event::Settled);
        self.tell(Event::Over);
    }

    /// One connection, for as long as it lasts.
    fn attempt(&mut self, deadline: Instant) -> Result<(), Trouble> {
        let ssh = |is_lost| {
            let kind = FailureKind::Ssh;
            move |what: String| Trouble { kind, what, is_lost, is_refused: false }
        };
        let shared = self.shared.clone();
        let mut link = shared.connect.connect(&self.plan.spec, deadline).map_err(ssh(true))?;
        let user = link.user().map(str::to_owned);
        let nonce = Uuid::now_v7().simple().to_string();
        let arguments = format!("agent --nonce {nonce}");
        let command = shared
            .connect
            .agent_line(&self.plan.spec, &mut *link, &arguments, deadline, &mut |bytes| {
                shared.sent.fetch_add(bytes, Ordering::Relaxed);
            })
            .map_err(ssh(false))?;
        let channel = link
            .exec(&command, deadline)
            .map_err(|error| ssh(true)(format!("the agent cannot be started: {error}")))?;
        let (mut session, hello) = Session::begin(channel, &nonce, deadline)?;
        let there = self.attach(&mut session, deadline)?;
        if self.phase == Phase::GivenUp {
            return self.withdraw(&mut session);
        }
        if self.phase == Phase::SetUp {
            self.update(|record| {
                record.hostname.clone_from(&hello.hostname);
                record.clock_synchronised = hello.clock_synchronised;
            });
            if let Some(first) = self.first_of(hello.machine, user, &mut session, deadline)? {
                self.update(|record| record.state = HostState::SameAs(first));
                self.phase = Phase::Over;
                return Ok(());
            }
            self.set_up(&mut session, deadline)?;
        } else if self.phase == Phase::Recording {
            self.find(there);
        } else if self.phase == Phase::Ready && is_gone(there) {
            let what = "its recorder had ended before its start".to_owned();
            let kind = FailureKind::Collection;
            return Err(Trouble { kind, what, is_lost: false, is_refused: false });
        }
        self.update(|record| record.trouble = None);
        self.tell(Event::SetUp);
        self.converse(&mut session)
    }

    /// What there is of the run on the host; what follows is about that run.
    fn attach(
        &self,
        session: &mut Session<'_>,
        deadline: Instant,
    ) -> Result<RecorderState, Trouble> {
        let attach = Request::Attach(self.plan.place.clone());
        match session.ask(&attach, deadline, "what there is of the run")? {
            Reply::Attached(state) => Ok(state),
            other => Err(unexpected(&other, "what there is of the run").into()),
        }
    }

    fn set_up(&mut self, session: &mut Session<'_>, deadline: Instant) -> Result<(), Trouble> {
        self.measure(session, deadline)?;
        let Some(settings) = self.plan.settings.clone() else { return Ok(()) };
        let prepare = Request::Prepare(Box::new(settings));
        self.has_asked_to_prepare = true;
        match session.ask(&prepare, deadline, "the recorder to be ready")? {
            Reply::Prepared => {}
            other => return Err(unexpected(&other, "a recorder that is ready").into()),
        }
        self.phase = Phase::Ready;
        self.update(|record| record.state = HostState::Ready);
        Ok(())
    }

    fn converse(&mut self, session: &mut Session<'_>) -> Result<(), Trouble> {
        let timeout = self.shared.limits.timeout;
        loop {
            match self.phase {
                Phase::SetUp | Phase::GivenUp | Phase::Over => return Ok(()),
                Phase::Ready => match (self.go, self.stop, self.end) {
                    (_, Some(_), _) => self.phase = Phase::Collecting,
                    (_, _, Some(_)) => self.leave(session),
                    // It may be long until all others are ready, and an orphan ends.
                    (None, ..) => {
                        if !self.attend(session, Some(self.beat_interval(BEFORE_START)))? {
                            self.beat(session)?;
                        }
                    }
                    (Some(start_ns), ..) => {
                        let deadline = Instant::now() + timeout;
                        self.go(session, start_ns, &mut |_| deadline)?;
                        self.phase = Phase::Recording;
                        self.update(|record| record.state = HostState::Recording);
                    }
                },
                Phase::Recording => {
                    if self.stop.is_some() {
                        self.phase = Phase::Collecting;
                    } else if self.end.is_some() {
                        self.leave(session);
                    } else {
                        self.watch(session)?;
                    }
                }
                Phase::Collecting => match self.stop {
                    None => drop(self.attend(session, None)?),
                    Some(deadline) => self.collect(session, deadline)?,
                },
                Phase::Collected => match self.end {
                    None => drop(self.attend(session, None)?),
                    Some(true) => {
                        let deadline = Instant::now() + timeout;
                        match session.ask(&Request::Discard, deadline, "the removal of rings")? {
                            Reply::Discarded => {}
                            other => return Err(unexpected(&other, "the removal of rings").into()),
                        }
                        self.update(|record| record.is_discarded = true);
                        self.leave(session);
                    }
                    Some(false) => self.leave(session),
                },
            };
        }
    }

    fn collect(&mut self, session: &mut Session<'_>, deadline: Instant) -> Result<(), Trouble> {
        // A connection that was cut and not ended says so only by its silence: a new one is sooner there
        // than the deadline.
        let soon = deadline.min(Instant::now() + PING_PATIENCE);
        session.clock(1, &mut || soon)?;
        // The answer to an earlier one may have been lost: then that has ended it.
        let is_first = !std::mem::replace(&mut self.has_asked_to_stop, true);
        match session.ask(&Request::Stop, deadline, "the stop")? {
            Reply::Stopped { was_running: false } if is_first => self.find(RecorderState::Ended),
            Reply::Stopped { .. } => {}
            other => return Err(unexpected(&other, "the stop").into()),
        }
        self.update(|record| record.is_stopped = true);
        self.measure(session, deadline)?;
        let shared = self.shared.clone();
        let most = shared.limits.host_bytes;
        let mut progress = |bytes| {
            shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        let Collected { files, bytes } =
            collect(session, &self.plan.dir, most, deadline, &mut progress)?;
        self.phase = Phase::Collected;
        // Of one that was fetched from before, what was there may be here already.
        let is_again = self.plan.record.state == HostState::Collected && files == 0;
        self.update(|record| {
            record.state = HostState::Collected;
            if is_again {
                return;
            }
            record.collected_bytes = bytes;
            if files == 0 {
                record.add_error(Failure::now(
                    FailureKind::Collection,
                    "nothing is left of its samples: no ring, and no mirror",
                ));
            }
        });
        self.tell(Event::Settled);
        Ok(())
    }

    /// Nothing that goes wrong with it matters.
    fn leave(&mut self, session: &mut Session<'_>) {
        let deadline = Instant::now() + self.shared.limits.timeout;
        let _ = session.ask(&Request::Bye, deadline, "goodbye");
        self.phase = Phase::Over;
    }

    fn measure(&mut self, session: &mut Session<'_>, deadline: Instant) -> Result<(), Trouble> {
        let offset = session.clock(CLOCK_TRIPS, &mut || deadline)?;
        self.has_measured(offset);
        Ok(())
    }

    fn has_measured(&mut self, offset: Offset) {
        if has_leapt(&self.offset, &offset) {
            // Its ticks go by its own clock from here on.
            self.taken = None;
        }
        if self.phase != Phase::Ready || tells_more(&self.offset, &offset) {
            self.offset = offset;
        }
        self.update(|record| record.add_clock(offset));
    }

    /// What there is of the run on the host. A recorder that is not there any more is known of at once.
    fn find(&mut self, there: RecorderState) {
        if is_gone(there) && matches!(self.phase, Phase::Recording | Phase::Collecting) {
            self.update(|record| {
                if !record.has_lost_recorder {
                    record.has_lost_recorder = true;
                    record.add_error(Failure::now(
                        FailureKind::Collection,
                        "its recorder had ended before it was told to: it was killed, the host went \
                         down, or nothing was heard of the launcher for too long",
                    ));
                }
            });
        }
    }

    /// Waits for a command, or for as long as that; whether one came.
    fn hear(&mut self, patience: Option<Duration>) -> bool {
        let heard = match patience {
            Some(patience) => self.commands.recv_timeout(patience),
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match heard {
            Ok(Command::Go(start_ns)) => self.go = Some(start_ns),
            Ok(Command::Stop(deadline)) => {
                self.stop = Some(deadline);
                if matches!(self.phase, Phase::Ready | Phase::Recording) {
                    self.phase = Phase::Collecting;
                }
            }
            Ok(Command::End { discard }) => self.end = Some(discard),
            Err(RecvTimeoutError::Timeout) => return false,
            // The launcher is gone: the hosts go on without.
            Err(RecvTimeoutError::Disconnected) => {
                self.end.get_or_insert(false);
                if matches!(self.phase, Phase::Collecting) {
                    self.phase = Phase::Over;
                }
            }
        }
        true
    }

    fn update(&self, change: impl FnOnce(&mut HostRecord)) {
        if let Some(record) = lock(&self.shared.records).get_mut(self.index) {
            change(record);
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send((self.index, event));
    }
}
