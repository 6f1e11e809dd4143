//! A host for tests of what a worker does: it answers as the test says, and keeps what it was asked.

use crate::cluster::clock::now;
use crate::cluster::frames::{Frames, Marker, Message, put_control};
use crate::cluster::hosts::HostSpec;
use crate::cluster::launch::Launch;
use crate::cluster::protocol::{Hello, Place, RecorderState, Reply, Request};
use crate::cluster::record::{HostRecord, HostState};
use crate::cluster::shared::{Connect, HostPlan, Limits};
use crate::cluster::test_link::any_settings;
use crate::cluster::transport::{Channel, End, Link};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Longer than any test takes.
pub const FAR: Duration = Duration::from_secs(60);

/// What it says to a request, by what it was asked before; it may say nothing.
type Answer = dyn Fn(&Request, &[Request]) -> Option<Reply> + Send + Sync;

/// The host. Clones are the same.
#[derive(Clone)]
pub struct MadeHost {
    asked: Arc<Mutex<Vec<Request>>>,
    answer: Arc<Answer>,
}

struct MadeLink(MadeHost);

struct MadeChannel {
    host: MadeHost,
    said: Vec<u8>,
    heard: Frames,
}

impl MadeHost {
    pub fn new(
        answer: impl Fn(&Request, &[Request]) -> Option<Reply> + Send + Sync + 'static,
    ) -> MadeHost {
        MadeHost { asked: Arc::default(), answer: Arc::new(answer) }
    }

    /// What a host says on which there is no run, and nothing goes wrong.
    pub fn usual(request: &Request) -> Option<Reply> {
        Some(match request {
            Request::Ping { id, .. } => Reply::Pong { id: *id, now: now(), recorder: None },
            Request::Attach(_) => Reply::Attached(RecorderState::None),
            Request::Look { .. } => Reply::Seen(false),
            Request::Prepare(_) => Reply::Prepared,
            Request::Go { .. } => Reply::Going,
            Request::Stop => Reply::Stopped { was_running: true },
            Request::List => Reply::Files(Vec::new()),
            Request::Fetch { .. } => Reply::Failed { what: "there is no file".to_owned() },
            Request::Discard => Reply::Discarded,
            Request::Bye => Reply::Goodbye,
        })
    }

    /// What it was asked, over all connections.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// It has half a second to be set up, and a beat comes every few milliseconds.
    pub const LIMITS: Limits = Limits {
        timeout: Duration::from_millis(500),
        heartbeat: Some(Duration::from_millis(5)),
        first_heartbeat: Duration::from_millis(5),
        orphan_timeout: Duration::from_secs(3600),
        host_bytes: 0,
        given_up: Duration::MAX,
    };

    /// A run on it alone, of which rings go to `dir`.
    pub fn launch(&self, dir: &Path) -> Launch {
        self.launch_with(dir, MadeHost::LIMITS)
    }

    /// The same with other limits.
    pub fn launch_with(&self, dir: &Path, limits: Limits) -> Launch {
        let settings = any_settings();
        let spec: HostSpec = "made".parse().unwrap();
        let plan = HostPlan {
            place: Place { run_id: Uuid::nil(), ring_base: None, mirror_base: None },
            record: HostRecord::new(spec.clone(), Uuid::nil(), HostState::SettingUp),
            spec,
            settings: Some(settings),
            dir: dir.to_owned(),
        };
        Launch::begin(vec![plan], Arc::new(self.clone()), limits, None).unwrap()
    }
}

impl Connect for MadeHost {
    fn connect(&self, _host: &HostSpec, _deadline: Instant) -> Result<Box<dyn Link>, String> {
        Ok(Box::new(MadeLink(self.clone())))
    }

    fn agent_line(
        &self,
        _host: &HostSpec,
        _link: &mut dyn Link,
        arguments: &str,
        _deadline: Instant,
        _sent: &mut dyn FnMut(u64),
    ) -> Result<String, String> {
        Ok(arguments.to_owned())
    }
}

impl Link for MadeLink {
    fn exec<'l>(
        &'l mut self,
        command: &str,
        _deadline: Instant,
    ) -> io::Result<Box<dyn Channel + 'l>> {
        let nonce = command.rsplit(' ').next().unwrap();
        let mut said = Marker::line(nonce).into_bytes();
        let hello = Reply::Hello(Box::new(Hello::here("made".into(), None)));
        put_control(&hello, &mut said).unwrap();
        Ok(Box::new(MadeChannel { host: self.0.clone(), said, heard: Frames::default() }))
    }
}

impl Channel for MadeChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.push(bytes);
        while let Some(message) = self.heard.take().unwrap() {
            let Message::Control(request) = message else { panic!("a ring") };
            let mut asked = self.host.asked.lock().unwrap();
            if let Some(reply) = (self.host.answer)(&request, &asked) {
                put_control(&reply, &mut self.said).unwrap();
            }
            asked.push(request);
        }
        Ok(bytes.len())
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.said.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.said.len());
        bytes[..count].copy_from_slice(&self.said[..count]);
        self.said.drain(..count);
        Ok(count)
    }

    fn read_stderr(&mut self, _bytes: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn end_input(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wait(&mut self, _to_write: bool, deadline: Instant) -> io::Result<()> {
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        Ok(())
    }

    fn end(&mut self, _deadline: Instant) -> End {
        End::Status(0)
    }
}

/// Waits until the host's record is so.
pub fn wait_for(launch: &Launch, is_so: impl Fn(&HostRecord) -> bool) {
    let far = Instant::now() + FAR;
    while !launch.records().first().is_some_and(&is_so) {
        assert!(Instant::now() < far, "{:?}", launch.records());
        std::thread::sleep(Duration::from_millis(2));
    }
}

mod tests {
    use super::*;
    use crate::cluster::clock::Offset;
    use std::mem::discriminant;

    fn count(of: &[Request], is: impl Fn(&Request) -> bool) -> usize {
        of.iter().filter(|each| is(each)).count()
    }

    #[test]
    fn a_recorder_that_does_not_answer_is_told_again_and_is_not_dead() {
        let host = MadeHost::new(|request, asked| {
            let is_same = |each: &Request| discriminant(each) == discriminant(request);
            let is_new = !asked.iter().any(is_same);
            match request {
                Request::Attach(_) if !asked.is_empty() => {
                    Some(Reply::Attached(RecorderState::Silent))
                }
                Request::Ping { id, beat: true } => {
                    let recorder = Some(RecorderState::Silent);
                    Some(Reply::Pong { id: *id, now: now(), recorder })
                }
                Request::Go { .. } | Request::Stop if is_new => {
                    Some(Reply::Failed { what: "the recorder does not answer".to_owned() })
                }
                _ => MadeHost::usual(request),
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let mut launch = host.launch(dir.path());
        let far = Instant::now() + FAR;
        launch.wait_until_set_up(far, &mut |_| ());
        launch.go(1);
        wait_for(&launch, |record| record.state != HostState::Ready);
        assert_eq!(launch.records()[0].state, HostState::Recording);
        // It is asked how it is.
        wait_for(&launch, |record| record.clocks.len() > 3);
        launch.stop(far);
        launch.wait_until_settled(far, &mut |_| ());
        let record = launch.end(&[], far).remove(0);
        assert_eq!(record.state, HostState::Collected, "{record:?}");
        let errors: Vec<&str> = record.errors.iter().map(|it| &*it.message).collect();
        assert!(matches!(errors[..], [nothing] if nothing.contains("no ring")), "{errors:?}");
        let asked = host.asked();
        assert_eq!(count(&asked, |each| matches!(each, Request::Go { .. })), 2, "{asked:?}");
        assert_eq!(count(&asked, |each| *each == Request::Stop), 2);
    }

    #[test]
    fn a_recorder_that_is_gone_before_its_start_is_not_asked_for_again() {
        let host = MadeHost::new(|request, _| match request {
            Request::Go { .. } => Some(Reply::Failed { what: "there is no recorder".to_owned() }),
            _ => MadeHost::usual(request),
        });
        let dir = tempfile::tempdir().unwrap();
        let mut launch = host.launch(dir.path());
        launch.wait_until_set_up(Instant::now() + FAR, &mut |_| ());
        launch.go(1);
        wait_for(&launch, |record| record.state == HostState::Owing);
        let trouble = launch.records()[0].trouble.clone().unwrap().message;
        assert!(trouble.contains("before its start"), "{trouble}");
        assert_eq!(count(&host.asked(), |each| matches!(each, Request::Go { .. })), 1);
    }

    /// What a host says whose monotonic clock is moved as `moved_ns` has it for a moment of ours,
    /// and whether it has been told its start.
    fn with_clock(moved_ns: impl Fn(u64, bool) -> i64 + Send + Sync + 'static) -> MadeHost {
        MadeHost::new(move |request, asked| match request {
            Request::Ping { id, beat } => {
                let mut now = now();
                let has_begun = asked.iter().any(|each| matches!(each, Request::Go { .. }));
                let moved_ns = moved_ns(now.monotonic_ns, has_begun);
                now.monotonic_ns = now.monotonic_ns.saturating_add_signed(moved_ns);
                let running = RecorderState::Running { samples: 1, missed: 0 };
                Some(Reply::Pong { id: *id, now, recorder: beat.then_some(running) })
            }
            _ => MadeHost::usual(request),
        })
    }

    fn starts(host: &MadeHost) -> Vec<u64> {
        let asked = host.asked();
        let starts = asked.iter().filter_map(|request| match request {
            Request::Go { start_monotonic_ns } => Some(*start_monotonic_ns),
            _ => None,
        });
        starts.collect()
    }

    #[test]
    fn a_clock_that_runs_away_is_told_where_its_ticks_are() {
        let since_ns = now().monotonic_ns;
        let host = with_clock(move |now_ns, _| (now_ns - since_ns).cast_signed() / 1250);
        let dir = tempfile::tempdir().unwrap();
        let mut launch = host.launch(dir.path());
        launch.wait_until_set_up(Instant::now() + FAR, &mut |_| ());
        launch.go(since_ns);
        wait_for(&launch, |_| starts(&host).len() > 1);
        let took_ns = now().monotonic_ns - since_ns;
        let starts = starts(&host);
        assert!(starts.is_sorted() && starts[1] > starts[0], "{starts:?}");
        let drift_ns = starts.last().unwrap() - since_ns;
        // By the least of some round trips.
        assert!(drift_ns <= took_ns / 1250 + 1_000_000, "{drift_ns} in {took_ns}");
        drop(launch);
    }

    #[test]
    fn a_clock_that_leaps_is_another_one_and_moves_no_tick() {
        let since_ns = now().monotonic_ns;
        let leap_ns = 3_600_000_000_000;
        let host = with_clock(move |_, has_begun| if has_begun { leap_ns } else { 0 });
        let dir = tempfile::tempdir().unwrap();
        let mut launch = host.launch(dir.path());
        launch.wait_until_set_up(Instant::now() + FAR, &mut |_| ());
        launch.go(since_ns);
        let has_leapt = |clock: &Offset| clock.monotonic_ns > leap_ns / 2;
        wait_for(&launch, |record| record.clocks.iter().filter(|it| has_leapt(it)).count() > 3);
        assert_eq!(starts(&host).len(), 1);
        drop(launch);
    }
}
