//! The thread that keeps the durable copy of a run's rings: it is told of new segments, and copies
//! and syncs in time. The sampler never waits for it and does not know how far it is; when its
//! disk stops, only this thread stops.

use super::copier::Copier;
use super::copy::{Original, Queued};
use super::disk::{Dir, Disk};
use super::pace::{Pace, spare_slots, sync_interval};
use super::thread::stay_behind;
use crate::ring;
use crate::units::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a mirror is kept.
#[derive(Debug, Clone)]
pub struct MirrorSettings {
    /// The run's directory on the disk; it exists.
    pub dir: PathBuf,
    /// Time between two samples.
    pub interval: Duration,
    /// Time between two syncs: what a power cut may cost. It is less where the ring's spare slots
    /// do not last so long.
    pub sync_interval: Duration,
    /// Time between two copies without a sync, if the ring is in private memory: what a crash of
    /// the recorder alone may cost.
    pub copy_interval: Duration,
    /// The newest samples that are kept.
    pub max_samples: u64,
}

impl MirrorSettings {
    /// Slots that the segments have beyond those of the samples that are kept.
    pub fn spare_slots(&self) -> u64 {
        spare_slots(self.interval, self.sync_interval, self.max_samples)
    }
}

/// What the mirror has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorEnd {
    /// What went wrong, the first time.
    pub error: Option<String>,
    /// Whether everything was written and synced.
    pub complete: bool,
    /// Whether the disk has answered to the end.
    pub answered: bool,
    /// What others have done to it, in sentences.
    pub notes: Vec<String>,
}

pub(super) enum Message {
    /// The file for segment number so-and-so is to be made, of so many bytes.
    Prepare(u64, Bytes, Sender<io::Result<()>>),
    /// A segment, and whether it lies in private memory.
    Segment(Queued, bool),
    /// All that the run has left: there will be no more, and nobody else may hold on to it.
    Last(Vec<Original>),
    Finish,
}

/// A running mirror.
pub struct Mirror {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
    end: Receiver<MirrorEnd>,
}

/// Tells the mirror of new segments; the sampler's end.
#[derive(Clone)]
pub struct MirrorFeed(Sender<Message>);

/// How long the start of a run waits for the mirror's disk.
const PREPARE_PATIENCE: Duration = Duration::from_secs(2);

impl MirrorFeed {
    /// A feed to whatever takes the place of the thread.
    #[cfg(all(test, not(loom)))]
    pub(super) fn over(messages: Sender<Message>) -> MirrorFeed {
        MirrorFeed(messages)
    }

    /// Makes the file for segment number `number`, before the run starts: what goes wrong with it
    /// is known then. Does not wait long for a disk that does not answer.
    ///
    /// # Errors
    /// The kernel's, `TimedOut`.
    pub fn prepare(&self, number: u64, bytes: Bytes) -> io::Result<()> {
        let (reply, made) = bounded(1);
        let _ = self.0.send(Message::Prepare(number, bytes, reply));
        match made.recv_timeout(PREPARE_PATIENCE) {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")),
        }
    }

    /// A segment that is to be mirrored. One in private memory is copied more often, since its
    /// mirror is all that a crash leaves. Does not wait, and does not keep it: it is copied as long as
    /// somebody else does.
    pub fn segment(&self, original: &Original, is_private: bool) {
        // Fails only if the thread is gone, and then its end says why.
        let _ = self.0.send(Message::Segment(original.downgrade(), is_private));
    }

    /// The run has ended, and left these. They are kept until they are copied, however long the disk
    /// takes and whatever becomes of whoever recorded.
    pub fn last(&self, originals: Vec<Original>) {
        let _ = self.0.send(Message::Last(originals));
    }
}

impl Mirror {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel's, if there can be no thread.
    pub fn start(settings: MirrorSettings) -> io::Result<Mirror> {
        Self::start_on(Dir(settings.dir.clone()), settings)
    }

    /// The same on any disk.
    pub(super) fn start_on<D: Disk + Send + 'static>(
        disk: D,
        settings: MirrorSettings,
    ) -> io::Result<Mirror> {
        let (messages, inbox) = unbounded();
        let (outbox, end) = unbounded();
        let thread = std::thread::Builder::new().name("rs-mirror".to_owned()).spawn(move || {
            ring::let_through();
            let copier = Copier::new(disk, settings.max_samples);
            let _ = outbox.send(run(copier, &settings, &inbox));
        })?;
        Ok(Mirror { messages, thread: Some(thread), end })
    }

    /// The sampler's end.
    pub fn feed(&self) -> MirrorFeed {
        MirrorFeed(self.messages.clone())
    }

    /// Asks for the last copy and sync and waits for it, but no longer than `patience`: a disk
    /// that does not answer must not hold up whoever recorded.
    pub fn finish(mut self, patience: Duration) -> MirrorEnd {
        let _ = self.messages.send(Message::Finish);
        match self.end.recv_timeout(patience) {
            Ok(end) => {
                if let Some(thread) = self.thread.take() {
                    let _ = thread.join();
                }
                MirrorEnd { answered: true, ..end }
            }
            Err(RecvTimeoutError::Timeout) => {
                let error = format!("the mirror's disk has not answered for {patience:?}");
                MirrorEnd { error: Some(error), ..MirrorEnd::default() }
            }
            Err(RecvTimeoutError::Disconnected) => {
                let error = "the mirror's thread ended early".to_owned();
                MirrorEnd { error: Some(error), ..MirrorEnd::default() }
            }
        }
    }
}

/// Copies and syncs until it is told to finish.
fn run<D: Disk>(
    mut copier: Copier<D>,
    settings: &MirrorSettings,
    inbox: &Receiver<Message>,
) -> MirrorEnd {
    let every = sync_interval(settings.interval, settings.sync_interval, settings.spare_slots());
    let (mut pace, mut last) = (Pace::new(every, Instant::now()), Vec::new());
    let mut is_behind = false;
    loop {
        let first = inbox.recv_deadline(pace.next());
        let (mut has_more, mut is_over) =
            (false, matches!(first, Err(RecvTimeoutError::Disconnected)));
        // All that there are: of what has come while the disk stood still little may be wanted by now.
        for message in first.into_iter().chain(inbox.try_iter()) {
            match message {
                Message::Prepare(number, bytes, reply) => {
                    // Nobody keeps the file who has given up waiting for it.
                    if reply.send(copier.prepare(number, bytes)).is_err() {
                        copier.drop_prepared();
                    }
                }
                Message::Segment(queued, is_private) => {
                    if is_private {
                        pace.copy_every(settings.copy_interval, Instant::now());
                    }
                    copier.add(queued);
                    has_more = true;
                }
                Message::Last(originals) => last = originals,
                Message::Finish => is_over = true,
            }
        }
        if !is_behind {
            // Not before the first file is made: no benchmark runs yet, and whoever starts one waits for it,
            // but not for as long as it may take behind everybody on a busy machine.
            stay_behind();
            is_behind = true;
        }
        if is_over {
            copier.mend_wholly();
            copier.copy();
            copier.sync();
            drop(last);
            return copier.finish();
        }
        // However many more there are, syncs are due when they are due.
        let is_due = Instant::now() >= pace.next();
        if has_more || is_due {
            // What is superseded by a file that others have cut off is not to be removed for it.
            copier.mend();
        }
        if is_due {
            let sync_follows = pace.begin(Instant::now());
            copier.copy();
            if sync_follows {
                copier.sync();
            }
            pace.end(Instant::now());
        } else if has_more {
            copier.copy();
        }
    }
}
