//! A front that is driven by bytes, on a machine that starts nothing, beside a recorder that answers as it
//! was told to: for the fuzz target of what launchers say, and its seeds.

use super::front::Front;
use super::machine::Machine;
use super::recorder::RecorderOrder;
use super::socket::{Ask, Listener, Told, answer, ask};
use crate::cluster::protocol::RecorderState;
use crate::run::{RunDir, Taken};
use crossbeam::channel::{Sender, bounded};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Of the machine's other user, who has a recorder of every run.
pub const GUEST: &str = "guest";
/// A recorder that is not asked anything for so long is gone.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than a line may be.
const LONG: usize = 70 << 10;

/// What became of a conversation.
pub struct Heard {
    /// What the front has said.
    pub bytes: Vec<u8>,
    /// Whether all that it heard was the protocol.
    pub is_understood: bool,
    /// Recorders that it wanted started.
    pub started: usize,
}

/// A front hears `said`, so many bytes at a time. If there is a `recorder`, it has that directory, and a
/// byte for each question is how it answers: one that is told to stop ends, and so does one without an
/// answer.
pub fn converse(said: &[u8], step: usize, nonce: &str, recorder: Option<(&Path, &[u8])>) -> Heard {
    std::thread::scope(|scope| {
        let (is_ready, ready) = bounded(1);
        let recorder = recorder
            .map(|(dir, answers)| (dir, scope.spawn(move || record(dir, answers, &is_ready))));
        // It comes also from one that cannot begin, by its end.
        let _ = ready.recv();
        let mut bytes = Vec::new();
        let mut started = 0;
        let mut front = Front::new(Made(&mut started), &mut bytes);
        let is_understood = front.run(nonce, &mut Pieces { said, step: step.max(1) }).is_ok();
        drop(front);
        if let Some((dir, thread)) = recorder {
            while !thread.is_finished() {
                let _ = ask(dir, Ask::Stop, PATIENCE);
            }
        }
        Heard { bytes, is_understood, started }
    })
}

/// A machine on which every other recorder cannot be started.
struct Made<'m>(&'m mut usize);

impl Machine for Made<'_> {
    fn hears(&self, _patience: Duration) -> bool {
        true
    }

    fn start(&mut self, _order: &RecorderOrder) -> Result<(), String> {
        *self.0 += 1;
        if *self.0 % 2 == 1 { Ok(()) } else { Err("there is no room".to_owned()) }
    }

    fn is_recorded_by(&self, user: &str, _run_id: Uuid) -> bool {
        user == GUEST
    }
}

/// Bytes that come so many at a time.
struct Pieces<'p> {
    said: &'p [u8],
    step: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.step);
        self.said.read(&mut bytes[..count])
    }
}

fn record(dir: &Path, answers: &[u8], is_ready: &Sender<()>) {
    let Ok(Taken::Ours(_lock)) = RunDir::take(dir) else { return };
    let Ok(listener) = Listener::bind(dir) else { return };
    let _ = is_ready.send(());
    for how in answers {
        let Some((asked, mut stream)) = listener.next(Instant::now() + PATIENCE) else { break };
        let told = match how % 8 {
            // Killed meanwhile.
            0 => None,
            1 => {
                let _ = stream.write_all(b"\xff?\n");
                None
            }
            2 => {
                let _ = stream.write_all(&[b'x'; LONG]);
                None
            }
            3 => Some(Told::Failed("it cannot".to_owned())),
            4 => Some(Told::Stopped),
            5 => Some(Told::State(RecorderState::Prepared)),
            _ if asked == Ask::Stop => Some(Told::Stopped),
            _ => Some(Told::State(RecorderState::Running { samples: 7, missed: u64::MAX })),
        };
        if let Some(told) = told {
            answer(&stream, &told);
        }
        if asked == Ask::Stop {
            // Some leave their socket.
            return if how & 8 == 0 {
                listener.close()
            };
        }
    }
}
