//! The hosts of a run, from its launcher: one thread for each is the `worker` that takes it through its
//! phases; this end tells them all when to go, to stop and to be done. Every wait has a deadline, and no
//! host waits for another.

use super::machine::MachineIdentity;
use super::record::{HostRecord, HostState};
use super::shared::{Claim, Command, Connect, Event, HostPlan, Limits, Shared, lock};
use super::worker::Worker;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// For a thread that has libssh2 on its stack.
const STACK_BYTES: usize = 512 << 10;

/// How often it is said how far it is.
const REFRESH: Duration = Duration::from_millis(100);
/// Hosts that are named of those that are waited for.
const NAMED: usize = 3;

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
    use super::super::hosts::HostSpec;
    use super::super::protocol::Place;
    use super::super::shared::FIRST_HEARTBEAT;
    use super::super::test_link::{TestLink, any_settings};
    use super::super::transport::Link;
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
