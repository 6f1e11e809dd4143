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
    use crate::cluster::clock::now;
    use crate::cluster::hosts::HostSpec;
    use crate::cluster::launch::{Connect, HostPlan, Launch, Limits};
    use crate::cluster::protocol::{
        Frames, Hello, Marker, Message, Place, RecorderState, Reply, Request, put_control,
    };
    use crate::cluster::record::{HostRecord, HostState};
    use crate::cluster::test_link::any_settings;
    use crate::cluster::transport::{Channel, End, Link};
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};
    use uuid::Uuid;

    /// A host on which the recorder is ready only when its launcher has given it up.
    #[derive(Default)]
    struct Slow {
        asked: Mutex<Vec<Request>>,
    }

    struct SlowLink(Arc<Slow>);

    struct SlowChannel {
        host: Arc<Slow>,
        said: Vec<u8>,
        heard: Frames,
    }

    struct Way(Arc<Slow>);

    impl Connect for Way {
        fn connect(&self, _host: &HostSpec, _deadline: Instant) -> Result<Box<dyn Link>, String> {
            Ok(Box::new(SlowLink(self.0.clone())))
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

    impl Link for SlowLink {
        fn exec<'l>(
            &'l mut self,
            command: &str,
            _deadline: Instant,
        ) -> io::Result<Box<dyn Channel + 'l>> {
            let nonce = command.rsplit(' ').next().unwrap();
            let mut said = Marker::line(nonce).into_bytes();
            let hello = Reply::Hello(Box::new(Hello::here("slow".into(), None)));
            put_control(&hello, &mut said).unwrap();
            Ok(Box::new(SlowChannel { host: self.0.clone(), said, heard: Frames::default() }))
        }
    }

    impl SlowChannel {
        fn answer(&self, request: &Request) -> Option<Reply> {
            let asked = self.host.asked.lock().unwrap();
            let is_there = asked.iter().any(|each| matches!(each, Request::Prepare(_)));
            let is_gone = asked.contains(&Request::Stop);
            Some(match request {
                Request::Ping { id, .. } => Reply::Pong { id: *id, now: now(), recorder: None },
                Request::Attach(_) if is_there => Reply::Attached(RecorderState::Prepared),
                Request::Attach(_) => Reply::Attached(RecorderState::None),
                Request::Stop => Reply::Stopped { was_running: is_there && !is_gone },
                Request::Discard => Reply::Discarded,
                Request::Bye => Reply::Goodbye,
                // It is on its way.
                Request::Prepare(_) => return None,
                other => Reply::Failed { what: format!("{other:?}") },
            })
        }
    }

    impl Channel for SlowChannel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.push(bytes);
            while let Some(message) = self.heard.take().unwrap() {
                let Message::Control(request) = message else { panic!("a ring") };
                if let Some(reply) = self.answer(&request) {
                    put_control(&reply, &mut self.said).unwrap();
                }
                self.host.asked.lock().unwrap().push(request);
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

    #[test]
    fn a_recorder_that_is_ready_too_late_is_ended() {
        let spec: HostSpec = "slow".parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let plan = HostPlan {
            place: Place { run_id: Uuid::nil(), ring_base: None, mirror_base: None },
            record: HostRecord::new(spec.clone(), Uuid::nil(), HostState::SettingUp),
            spec,
            settings: Some(any_settings()),
            dir: dir.path().to_owned(),
        };
        let limits = Limits {
            timeout: Duration::from_millis(500),
            heartbeat: None,
            orphan_timeout: Duration::from_secs(600),
            host_bytes: 0,
            given_up: Duration::MAX,
        };
        let host = Arc::new(Slow::default());
        let way = Arc::new(Way(host.clone()));
        let mut launch = Launch::begin(vec![plan], way, limits, None).unwrap();
        let far = Instant::now() + Duration::from_secs(60);
        launch.wait_until_set_up(far, &mut |_| {});
        let record = launch.records().remove(0);
        assert!(record.errors[0].message.contains("the recorder to be ready"), "{record:?}");
        launch.go(1);
        launch.stop(far);
        launch.wait_until_settled(far, &mut |_| {});
        let record = launch.end(&[], far).remove(0);
        assert_eq!((record.state, record.errors.len()), (HostState::Failed, 1));
        assert!(Instant::now() < far);
        let asked = host.asked.lock().unwrap();
        let after: Vec<&Request> = asked
            .iter()
            .skip_while(|each| !matches!(each, Request::Prepare(_)))
            .filter(|each| !matches!(each, Request::Prepare(_) | Request::Attach(_)))
            .collect();
        assert_eq!(after, [&Request::Stop, &Request::Discard, &Request::Bye]);
    }
}
