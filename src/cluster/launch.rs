//! The hosts of a run, from its launcher: one thread for each takes it through its phases, whatever
//! happens to the connection on the way; this end tells them all when to go, to stop and to be done.
//! Every wait has a deadline, and no host waits for another.

use super::clock::{self, Offset};
use super::collect::{CollectError, Collected, collect};
use super::hosts::HostSpec;
use super::protocol::{Place, RecorderState, Reply, Request, Settings};
use super::record::{Failure, FailureKind, HostRecord, HostState};
use super::session::{Session, SessionError, unexpected};
use super::transport::Link;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Round trips that measure a clock at the start and at the stop: the more, the likelier is one that
/// nothing held up.
const CLOCK_TRIPS: usize = 12;
/// And between: the first one also asks the recorder.
const BEAT_TRIPS: usize = 2;
/// Between two attempts to reach a host again.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);
/// For a thread that has libssh2 on its stack.
const STACK_BYTES: usize = 512 << 10;

/// How an agent is reached and started.
pub trait Connect: Send + Sync {
    /// An authenticated way to a host.
    ///
    /// # Errors
    /// A sentence.
    fn connect(&self, host: &HostSpec, deadline: Instant) -> Result<Box<dyn Link>, String>;

    /// The line for a login shell there that runs ringstat, which is put there if need be, with these
    /// arguments.
    ///
    /// # Errors
    /// A sentence.
    fn agent_line(
        &self,
        host: &HostSpec,
        link: &mut dyn Link,
        arguments: &str,
        deadline: Instant,
    ) -> Result<String, String>;
}

/// What all hosts of a run have in common.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a host may take to be reached and to be ready, and to answer.
    pub timeout: Duration,
    /// Time between two signs of life; none without it.
    pub heartbeat: Option<Duration>,
    /// Bytes that each may take here.
    pub host_bytes: u64,
}

/// One host that is to be recorded, or only to be fetched from.
#[derive(Debug, Clone)]
pub struct HostPlan {
    /// How it is reached.
    pub spec: HostSpec,
    /// The run there.
    pub place: Place,
    /// How it records; `None` if it has.
    pub settings: Option<Settings>,
    /// Where its rings go here; it is there and empty, or as an earlier attempt has left it.
    pub dir: PathBuf,
    /// What is known of it.
    pub record: HostRecord,
}

/// What a host has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is ready for its start, or it never will be: its record says which.
    SetUp,
    /// It has been fetched from, or it will not be before the deadline.
    Settled,
}

#[derive(Debug, Clone, Copy)]
enum Command {
    /// Tick 0 is at this instant of our `CLOCK_MONOTONIC`.
    Go(u64),
    /// Stop, and be fetched from until then.
    Stop(Instant),
    /// Be done. Whether what is there is not needed any more.
    End { discard: bool },
}

struct Shared {
    records: Mutex<Vec<HostRecord>>,
    /// Which machine goes by which name: the first that came.
    machines: Mutex<HashMap<String, String>>,
    bytes: AtomicU64,
    limits: Limits,
    connect: Arc<dyn Connect>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Everything in them is valid at any moment: a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The other hosts of a run.
pub struct Launch {
    shared: Arc<Shared>,
    commands: Vec<Sender<Command>>,
    events: Receiver<(usize, Event)>,
    set_up: Vec<bool>,
    settled: Vec<bool>,
}

impl Launch {
    /// Begins to set all of them up, for at most the limits' timeout. `here` is this machine, if it is
    /// recorded without an agent: the name that its samples have, and which machine it is.
    ///
    /// # Errors
    /// The kernel's, if there can be no threads: then none is left.
    pub fn begin(
        plans: Vec<HostPlan>,
        connect: Arc<dyn Connect>,
        limits: Limits,
        here: Option<(String, String)>,
    ) -> io::Result<Launch> {
        let records = plans.iter().map(|plan| plan.record.clone()).collect();
        let machines = here.into_iter().map(|(name, machine)| (machine, name)).collect();
        let shared = Arc::new(Shared {
            records: Mutex::new(records),
            machines: Mutex::new(machines),
            bytes: AtomicU64::new(0),
            limits,
            connect,
        });
        let (outbox, events) = unbounded();
        let count = plans.len();
        let mut commands = Vec::with_capacity(count);
        let deadline = Instant::now() + limits.timeout;
        for (index, plan) in plans.into_iter().enumerate() {
            let (sender, receiver) = unbounded();
            let worker = Worker {
                index,
                phase: if plan.settings.is_some() { Phase::SetUp } else { Phase::Collecting },
                plan,
                shared: shared.clone(),
                commands: receiver,
                events: outbox.clone(),
                go: None,
                stop: None,
                end: None,
                has_asked_to_stop: false,
                offset: Offset::default(),
            };
            // Without the thread of one host, its commands go nowhere, and so do the others' when this
            // returns.
            std::thread::Builder::new()
                .name(format!("rs-host-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || worker.run(deadline))?;
            commands.push(sender);
        }
        let (set_up, settled) = (vec![false; count], vec![false; count]);
        Ok(Launch { shared, commands, events, set_up, settled })
    }

    /// Waits until every host is ready or has failed, or until `deadline`.
    pub fn wait_until_set_up(&mut self, deadline: Instant) {
        while self.set_up.contains(&false) && self.next_event(deadline) {}
    }

    /// All that are ready begin, with tick 0 at this instant of our `CLOCK_MONOTONIC`.
    pub fn go(&self, start_ns: u64) {
        self.tell(Command::Go(start_ns));
    }

    /// All stop, and are fetched from until `deadline`.
    pub fn stop(&self, deadline: Instant) {
        self.tell(Command::Stop(deadline));
    }

    /// Waits until every host has been fetched from or cannot be, or until `deadline`. `progress`
    /// hears how many hosts are done, and how many bytes have come.
    pub fn wait_until_settled(&mut self, deadline: Instant, progress: &mut dyn FnMut(usize, u64)) {
        /// How often it is said how far it is.
        const REFRESH: Duration = Duration::from_millis(100);
        loop {
            let done = self.settled.iter().filter(|settled| **settled).count();
            // Nothing is handed over by the count.
            progress(done, self.shared.bytes.load(Ordering::Relaxed));
            if done == self.settled.len() || Instant::now() >= deadline {
                return;
            }
            self.next_event(deadline.min(Instant::now() + REFRESH));
        }
    }

    /// Ends all conversations. What has been fetched from a host is removed there, unless it is one of
    /// `kept`. Waits for them until `deadline`.
    pub fn end(mut self, kept: &[String], deadline: Instant) -> Vec<HostRecord> {
        for (commands, record) in self.commands.iter().zip(self.records()) {
            let discard = !kept.contains(&record.spec.name);
            let _ = commands.send(Command::End { discard });
        }
        self.commands.clear();
        // Each drops its end.
        while let Ok(_) | Err(RecvTimeoutError::Timeout) = self.events.recv_deadline(deadline) {
            if Instant::now() >= deadline {
                break;
            }
        }
        self.records()
    }

    /// What is known of each host.
    pub fn records(&self) -> Vec<HostRecord> {
        lock(&self.shared.records).clone()
    }

    /// Longest round trip that a clock was measured by, ns.
    pub fn longest_trip_ns(&self) -> u64 {
        let records = lock(&self.shared.records);
        let trips = records.iter().flat_map(|record| record.clocks.first());
        trips.map(|offset| offset.uncertainty_ns.saturating_mul(2)).max().unwrap_or(0)
    }

    fn tell(&self, command: Command) {
        for commands in &self.commands {
            // One that is over does not hear it.
            let _ = commands.send(command);
        }
    }

    /// Whether there was one before `deadline`.
    fn next_event(&mut self, deadline: Instant) -> bool {
        let Ok((index, event)) = self.events.recv_deadline(deadline) else { return false };
        let flags = match event {
            Event::SetUp => &mut self.set_up,
            Event::Settled => &mut self.settled,
        };
        if let Some(flag) = flags.get_mut(index) {
            *flag = true;
        }
        true
    }
}

/// How far a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// To be reached and made ready.
    SetUp,
    /// Waits for its start.
    Ready,
    /// Records by itself.
    Recording,
    /// To be stopped and fetched from.
    Collecting,
    /// Everything of it is here.
    Collected,
    /// Nothing is to be done any more.
    Over,
}

/// Why an attempt came to nothing.
struct Trouble {
    kind: FailureKind,
    what: String,
    /// Another connection may do better.
    is_lost: bool,
}

impl From<SessionError> for Trouble {
    fn from(error: SessionError) -> Trouble {
        let kind = match error {
            SessionError::NotStarted(_) | SessionError::Lost(_) | SessionError::TimedOut(_) => {
                FailureKind::Ssh
            }
            _ => FailureKind::Collection,
        };
        Trouble { kind, is_lost: error.is_lost(), what: error.to_string() }
    }
}

impl From<CollectError> for Trouble {
    fn from(error: CollectError) -> Trouble {
        Trouble { kind: FailureKind::Collection, is_lost: error.is_lost(), what: error.to_string() }
    }
}

struct Worker {
    index: usize,
    plan: HostPlan,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    events: Sender<(usize, Event)>,
    phase: Phase,
    go: Option<u64>,
    stop: Option<Instant>,
    end: Option<bool>,
    has_asked_to_stop: bool,
    /// As it was measured last.
    offset: Offset,
}

impl Worker {
    fn run(mut self, set_up_deadline: Instant) {
        let mut backoff = FIRST_BACKOFF;
        while self.phase != Phase::Over {
            let before = self.phase;
            let deadline = match self.phase {
                Phase::SetUp => set_up_deadline,
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
    }

    /// Whether it is worth another attempt.
    fn goes_on(&mut self, trouble: Trouble) -> bool {
        let Trouble { kind, what, is_lost } = trouble;
        let failure = Failure { kind, time_unix_ns: clock::now().wall_ns, message: what };
        let phase = self.phase;
        self.update(|record| record.trouble = Some(failure.clone()));
        match phase {
            Phase::SetUp => {
                self.fail(HostState::Failed);
                false
            }
            // What is not discarded stays there, and is said to.
            Phase::Collected | Phase::Over => false,
            Phase::Ready | Phase::Recording if is_lost => self.end.is_none(),
            Phase::Collecting if is_lost => {
                let is_late = self.stop.is_some_and(|deadline| Instant::now() >= deadline);
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

    /// What was in the way is what the host failed of.
    fn fail(&mut self, state: HostState) {
        self.update(|record| {
            record.state = state;
            if let Some(trouble) = record.trouble.take() {
                record.add_error(trouble);
            }
        });
    }

    /// One connection, for as long as it lasts.
    fn attempt(&mut self, deadline: Instant) -> Result<(), Trouble> {
        let ssh = |is_lost| move |what: String| Trouble { kind: FailureKind::Ssh, what, is_lost };
        let shared = self.shared.clone();
        let mut link = shared.connect.connect(&self.plan.spec, deadline).map_err(ssh(true))?;
        let nonce = Uuid::now_v7().simple().to_string();
        let arguments = format!("agent --nonce {nonce}");
        let command = shared
            .connect
            .agent_line(&self.plan.spec, &mut *link, &arguments, deadline)
            .map_err(ssh(false))?;
        let channel = link
            .exec(&command, deadline)
            .map_err(|error| ssh(true)(format!("the agent cannot be started: {error}")))?;
        let (mut session, hello) = Session::begin(channel, &nonce, deadline)?;
        let attach = Request::Attach(self.plan.place.clone());
        let there = match session.ask(&attach, deadline, "what there is of the run")? {
            Reply::Attached(state) => state,
            other => return Err(unexpected(&other, "what there is of the run").into()),
        };
        if self.phase == Phase::SetUp {
            self.update(|record| {
                record.hostname.clone_from(&hello.hostname);
                record.clock_synchronised = hello.clock_synchronised;
            });
            if let Some(first) = self.claim(&hello.machine) {
                self.update(|record| record.state = HostState::SameAs(first));
                self.phase = Phase::Over;
                return Ok(());
            }
            self.set_up(&mut session, deadline)?;
        } else if self.phase == Phase::Recording {
            self.find(there);
        }
        self.update(|record| record.trouble = None);
        self.tell(Event::SetUp);
        self.converse(&mut session)
    }

    /// The name that this machine goes by already; none if it is this one.
    fn claim(&self, machine: &str) -> Option<String> {
        let own = &self.plan.spec.name;
        let mut machines = lock(&self.shared.machines);
        let first = machines.entry(machine.to_owned()).or_insert_with(|| own.clone());
        (first != own).then(|| first.clone())
    }

    fn set_up(&mut self, session: &mut Session<'_>, deadline: Instant) -> Result<(), Trouble> {
        self.measure(session, CLOCK_TRIPS, false, deadline)?;
        let Some(settings) = self.plan.settings.clone() else { return Ok(()) };
        let prepare = Request::Prepare(Box::new(settings));
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
                Phase::SetUp | Phase::Over => return Ok(()),
                Phase::Ready => match (self.go, self.stop, self.end) {
                    (_, Some(_), _) => self.phase = Phase::Collecting,
                    (_, _, Some(_)) => self.leave(session),
                    (None, ..) => drop(self.hear(None)),
                    (Some(start_ns), ..) => {
                        let start_monotonic_ns = clock::theirs(&self.offset, start_ns);
                        let go = Request::Go { start_monotonic_ns };
                        match session.ask(&go, Instant::now() + timeout, "the start")? {
                            Reply::Going => {}
                            other => return Err(unexpected(&other, "the start").into()),
                        }
                        self.phase = Phase::Recording;
                        self.update(|record| record.state = HostState::Recording);
                    }
                },
                Phase::Recording => {
                    if self.stop.is_some() {
                        self.phase = Phase::Collecting;
                    } else if self.end.is_some() {
                        self.leave(session);
                    } else if !self.hear(self.shared.limits.heartbeat) {
                        let deadline = Instant::now() + timeout;
                        let there = self.measure(session, BEAT_TRIPS, true, deadline)?;
                        self.find(there);
                    }
                }
                Phase::Collecting => match self.stop {
                    None => drop(self.hear(None)),
                    Some(deadline) => self.collect(session, deadline)?,
                },
                Phase::Collected => match self.end {
                    None => drop(self.hear(None)),
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
        // The answer to an earlier one may have been lost: then that has ended it.
        let is_first = !std::mem::replace(&mut self.has_asked_to_stop, true);
        match session.ask(&Request::Stop, deadline, "the stop")? {
            Reply::Stopped { was_running: false } if is_first => self.find(RecorderState::Ended),
            Reply::Stopped { .. } => {}
            other => return Err(unexpected(&other, "the stop").into()),
        }
        self.measure(session, CLOCK_TRIPS, false, deadline)?;
        let shared = self.shared.clone();
        let most = shared.limits.host_bytes;
        let mut progress = |bytes| {
            shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        let Collected { files, bytes } =
            collect(session, &self.plan.dir, most, deadline, &mut progress)?;
        self.phase = Phase::Collected;
        self.update(|record| {
            record.state = HostState::Collected;
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

    fn measure(
        &mut self,
        session: &mut Session<'_>,
        trips: usize,
        beat: bool,
        deadline: Instant,
    ) -> Result<RecorderState, Trouble> {
        let (offset, there) = session.clock(trips, beat, deadline)?;
        self.offset = offset;
        self.update(|record| record.add_clock(offset));
        Ok(there)
    }

    /// What there is of the run on the host. A recorder that is not there any more is known of at once.
    fn find(&mut self, there: RecorderState) {
        let is_gone = matches!(there, RecorderState::None | RecorderState::Ended);
        if is_gone && matches!(self.phase, Phase::Recording | Phase::Collecting) {
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
