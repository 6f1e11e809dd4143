//! The hosts of a run, from its launcher: one thread for each is the `worker` that takes it through its
//! phases; this end tells them all when to go, to stop and to be done. Every wait has a deadline, and no
//! host waits for another.

use super::hosts::HostSpec;
use super::machine::MachineIdentity;
use super::protocol::{Place, Settings};
use super::record::{HostRecord, HostState};
use super::transport::Link;
use super::worker::Worker;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For a thread that has libssh2 on its stack.
const STACK_BYTES: usize = 512 << 10;

/// How often it is said how far it is.
const REFRESH: Duration = Duration::from_millis(100);
/// Hosts that are named of those that are waited for.
const NAMED: usize = 3;

/// How soon the first sign of life of a host that records comes: its clock was measured while it was busy
/// with its start, as all others were.
pub const FIRST_HEARTBEAT: Duration = Duration::from_secs(10);

/// How an agent is reached and started.
pub trait Connect: Send + Sync {
    /// Nobody waits for any connection any more: what was started for them ends.
    fn end(&self) {}

    /// An authenticated way to a host.
    ///
    /// # Errors
    /// A sentence.
    fn connect(&self, host: &HostSpec, deadline: Instant) -> Result<Box<dyn Link>, String>;

    /// The line for a login shell there that runs ringstat, which is put there if need be, with these
    /// arguments. `sent` hears of bytes as they go there.
    ///
    /// # Errors
    /// A sentence.
    fn agent_line(
        &self,
        host: &HostSpec,
        link: &mut dyn Link,
        arguments: &str,
        deadline: Instant,
        sent: &mut dyn FnMut(u64),
    ) -> Result<String, String>;
}

/// How far the hosts of a run are that are not this machine, to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostProgress {
    /// All of them.
    pub hosts: usize,
    /// Those that are ready, or fetched from; or will never be.
    pub done: usize,
    /// What has been sent to them, or fetched from them.
    pub bytes: u64,
    /// Some that are waited for.
    pub awaited: Vec<String>,
}

/// What all hosts of a run have in common.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a host may take to be reached and to be ready, and to answer.
    pub timeout: Duration,
    /// Time between two signs of life; without it there are none but those without which recorders end.
    pub heartbeat: Option<Duration>,
    /// The first of those that are wanted comes no later.
    pub first_heartbeat: Duration,
    /// How long a host goes on without hearing of the launcher.
    pub orphan_timeout: Duration,
    /// Bytes that each may take here.
    pub host_bytes: u64,
    /// How long the stop waits for hosts that were given up, and have no samples.
    pub given_up: Duration,
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
    /// Nothing is to be done with it any more.
    Over,
}

/// What a host is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    /// Tick 0 is at this instant of our `CLOCK_MONOTONIC`.
    Go(u64),
    /// Stop, and be fetched from until then.
    Stop(Instant),
    /// Be done. Whether what is there is not needed any more.
    End { discard: bool },
}

/// A host that says which machine it is.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub name: String,
    /// `None` for this machine, which is recorded without an agent.
    pub remote: Option<RemoteClaim>,
}

/// One that is recorded by an agent.
#[derive(Debug, Clone)]
pub(super) struct RemoteClaim {
    /// Its number.
    pub index: usize,
    /// Its run there.
    pub place: Place,
    /// Who logs in there, if that is known.
    pub user: Option<String>,
}

/// What the threads of all hosts have in common.
pub(super) struct Shared {
    pub records: Mutex<Vec<HostRecord>>,
    /// Who was the first to say that it is this machine.
    pub machines: Mutex<HashMap<MachineIdentity, Claim>>,
    /// Bytes that have come.
    pub bytes: AtomicU64,
    /// Bytes that have gone.
    pub sent: AtomicU64,
    pub limits: Limits,
    pub connect: Arc<dyn Connect>,
}

/// What a mutex guards, whatever became of who held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
    over: Vec<bool>,
    /// From when on hosts that were given up are not waited for.
    patience: Option<Instant>,
}

impl Drop for Launch {
    fn drop(&mut self) {
        self.shared.connect.end();
    }
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
        here: Option<(String, MachineIdentity)>,
    ) -> io::Result<Launch> {
        let records = plans.iter().map(|plan| plan.record.clone()).collect();
        let machines = here
            .into_iter()
            .map(|(name, machine)| (machine, Claim { name, remote: None }))
            .collect();
        let shared = Arc::new(Shared {
            records: Mutex::new(records),
            machines: Mutex::new(machines),
            bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            limits,
            connect,
        });
        let (outbox, events) = unbounded();
        let count = plans.len();
        let mut commands = Vec::with_capacity(count);
        let deadline = Instant::now() + limits.timeout;
        for (index, plan) in plans.into_iter().enumerate() {
            let (sender, receiver) = unbounded();
            let worker = Worker::new(index, plan, shared.clone(), receiver, outbox.clone());
            // Without the thread of one host, its commands go nowhere, and so do the others' when this
            // returns.
            std::thread::Builder::new()
                .name(format!("rs-host-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || worker.run(deadline))?;
            commands.push(sender);
        }
        let [set_up, settled, over] = std::array::from_fn(|_| vec![false; count]);
        Ok(Launch { shared, commands, events, set_up, settled, over, patience: None })
    }

    /// Waits until every host is ready or has failed, or until `deadline`.
    pub fn wait_until_set_up(
        &mut self,
        deadline: Instant,
        progress: &mut dyn FnMut(&HostProgress),
    ) {
        loop {
            progress(&self.progress(&self.set_up, &self.shared.sent));
            if !self.set_up.contains(&false) || Instant::now() >= deadline {
                return;
            }
            self.next_event(deadline.min(Instant::now() + REFRESH));
        }
    }

    fn progress(&self, is_done: &[bool], bytes: &AtomicU64) -> HostProgress {
        let records = lock(&self.shared.records);
        let awaited = records.iter().zip(is_done).filter(|(_, is_done)| !**is_done);
        HostProgress {
            hosts: is_done.len(),
            done: is_done.iter().filter(|is_done| **is_done).count(),
            // Nothing is handed over by the count.
            bytes: bytes.load(Ordering::Relaxed),
            awaited: awaited.take(NAMED).map(|(record, _)| record.spec.name.clone()).collect(),
        }
    }

    /// All that are ready begin, with tick 0 at this instant of our `CLOCK_MONOTONIC`.
    pub fn go(&self, start_ns: u64) {
        self.tell(Command::Go(start_ns));
    }

    /// All stop, and are fetched from until `deadline`.
    pub fn stop(&mut self, deadline: Instant) {
        let patience = Instant::now().checked_add(self.shared.limits.given_up);
        self.patience = patience.or(Some(deadline));
        self.tell(Command::Stop(deadline));
    }

    /// Waits until every host has been fetched from or cannot be, or until `deadline`; for those that
    /// were given up, for no longer than the limits say.
    pub fn wait_until_settled(
        &mut self,
        deadline: Instant,
        progress: &mut dyn FnMut(&HostProgress),
    ) {
        loop {
            progress(&self.progress(&self.settled, &self.shared.bytes));
            let is_late = Instant::now() >= deadline;
            if !self.settled.contains(&false) || is_late || self.are_all_given_up() {
                return;
            }
            self.next_event(deadline.min(Instant::now() + REFRESH));
        }
    }

    /// Whether those that are still waited for have no samples, and have had their time.
    fn are_all_given_up(&self) -> bool {
        let records = lock(&self.shared.records);
        let mut waited = records.iter().zip(&self.settled).filter(|(_, settled)| !**settled);
        self.patience.is_some_and(|patience| Instant::now() >= patience)
            && waited.all(|(record, _)| record.state == HostState::GivenUp)
    }

    /// Ends all conversations. What has been fetched from a host is removed there, unless it is one of
    /// `kept`. Waits for that until `deadline`, and not for hosts that cannot be reached: what they owe
    /// stays with them.
    pub fn end(mut self, kept: &[String], deadline: Instant) -> Vec<HostRecord> {
        for (commands, record) in self.commands.iter().zip(self.records()) {
            let discard = !kept.contains(&record.spec.name);
            let _ = commands.send(Command::End { discard });
        }
        self.commands.clear();
        let is_awaited = |launch: &Launch| {
            let records = lock(&launch.shared.records);
            let mut all = records.iter().zip(&launch.over);
            all.any(|(record, over)| !over && record.state == HostState::Collected)
        };
        while is_awaited(&self) && self.next_event(deadline) {}
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
            Event::Over => &mut self.over,
        };
        if let Some(flag) = flags.get_mut(index) {
            *flag = true;
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::test_link::{TestLink, any_settings};
    use super::*;
    use std::path::Path;
    use std::sync::mpsc;
    use uuid::Uuid;

    const FAR: Duration = Duration::from_secs(60);

    /// Reaches nobody before its other end is gone.
    struct Blocked(Mutex<mpsc::Receiver<()>>, mpsc::Sender<()>);

    impl Connect for Blocked {
        fn connect(&self, _host: &HostSpec, _: Instant) -> Result<Box<dyn Link>, String> {
            let _ = self.1.send(());
            let _ = lock(&self.0).recv();
            Err("nobody".to_owned())
        }

        fn agent_line(
            &self,
            _host: &HostSpec,
            _link: &mut dyn Link,
            _arguments: &str,
            _deadline: Instant,
            _sent: &mut dyn FnMut(u64),
        ) -> Result<String, String> {
            Err("nobody".to_owned())
        }
    }

    const LIMITS: Limits = Limits {
        timeout: Duration::from_secs(600),
        heartbeat: None,
        first_heartbeat: FIRST_HEARTBEAT,
        orphan_timeout: Duration::from_secs(600),
        host_bytes: 0,
        given_up: Duration::from_millis(100),
    };

    fn plan(name: &str, state: HostState, dir: &Path) -> HostPlan {
        let spec: HostSpec = name.parse().unwrap();
        let place = Place { run_id: Uuid::nil(), ring_base: None, mirror_base: None };
        let record = HostRecord::new(spec.clone(), Uuid::nil(), state);
        HostPlan { spec, place, settings: None, dir: dir.to_owned(), record }
    }

    /// A launch with one host of this state that cannot be reached, which is being tried.
    fn unreachable(state: HostState, dir: &Path) -> (Launch, mpsc::Sender<()>) {
        let plan = plan("away", state, dir);
        let (release, blocked) = mpsc::channel();
        let (began, begun) = mpsc::channel();
        let connect = Arc::new(Blocked(Mutex::new(blocked), began));
        let mut launch = Launch::begin(vec![plan], connect, LIMITS, None).unwrap();
        launch.stop(Instant::now() + FAR);
        begun.recv().unwrap();
        (launch, release)
    }

    #[test]
    fn the_end_does_not_wait_for_a_host_that_cannot_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let (launch, release) = unreachable(HostState::Recording, dir.path());
        let far = Instant::now() + FAR;
        let records = launch.end(&[], far);
        assert!(Instant::now() < far, "it was waited for");
        assert!(records[0].state.owes(), "{:?}", records[0].state);
        drop(release);
    }

    #[test]
    fn the_stop_waits_for_samples_and_not_for_a_host_that_was_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let (mut launch, release) = unreachable(HostState::GivenUp, dir.path());
        let far = Instant::now() + FAR;
        launch.wait_until_settled(far, &mut |_| {});
        assert!(Instant::now() < far, "it was waited for");
        assert_eq!(launch.records()[0].state, HostState::GivenUp, "it is still owed");
        drop(release);
        let (mut launch, release) = unreachable(HostState::Recording, dir.path());
        // As long as it may take for one without.
        let soon = Instant::now() + Duration::from_millis(300);
        let mut last = HostProgress::default();
        launch.wait_until_settled(soon, &mut |progress| last = progress.clone());
        assert!(Instant::now() >= soon, "it may have samples");
        let awaited = vec!["away".to_owned()];
        assert_eq!(last, HostProgress { hosts: 1, done: 0, bytes: 0, awaited });
        drop(release);
    }

    /// Sends a program everywhere, and starts it nowhere.
    struct Sending;

    impl Connect for Sending {
        fn connect(&self, _host: &HostSpec, _: Instant) -> Result<Box<dyn Link>, String> {
            Ok(Box::new(TestLink::new(&["sh"], Path::new("/"))))
        }

        fn agent_line(
            &self,
            host: &HostSpec,
            _link: &mut dyn Link,
            _arguments: &str,
            _deadline: Instant,
            sent: &mut dyn FnMut(u64),
        ) -> Result<String, String> {
            sent(500);
            sent(200);
            Err(format!("{} has no room", host.name))
        }
    }

    #[test]
    fn it_is_said_what_is_sent_and_who_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let plans =
            (0..5).map(|index| plan(&format!("n{index}"), HostState::SettingUp, dir.path()));
        let plans = plans.map(|plan| HostPlan { settings: Some(any_settings()), ..plan });
        let mut launch = Launch::begin(plans.collect(), Arc::new(Sending), LIMITS, None).unwrap();
        let before = launch.progress(&[true, false, false, false, false], &AtomicU64::new(7));
        let awaited = ["n1", "n2", "n3"].map(str::to_owned).into();
        assert_eq!(before, HostProgress { hosts: 5, done: 1, bytes: 7, awaited });
        let mut last = HostProgress::default();
        launch.wait_until_set_up(Instant::now() + FAR, &mut |progress| last = progress.clone());
        let awaited = Vec::new();
        assert_eq!(last, HostProgress { hosts: 5, done: 5, bytes: 3500, awaited });
    }
}
