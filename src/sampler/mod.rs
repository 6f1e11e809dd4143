//! The sampler: one thread that sleeps to absolute deadlines and writes a record at each, and the
//! parts that it needs. Data leaves it through the ring alone; nothing can make it wait.

mod batch;
mod clock;
mod compare;
mod copier;
mod copy;
mod disk;
mod mirror;
mod pace;
mod plan;
mod segments;
mod sleeper;
mod storage;
mod take;
pub mod thread;
mod ticks;
mod watch;

#[cfg(all(test, not(loom)))]
mod tests;

pub use clock::{Control, SystemClock};
pub use mirror::MirrorSettings;
pub use plan::SegmentPlan;
pub use segments::{SegmentError, file_name};
pub use sleeper::{Probe, Started};
pub(crate) use storage::{Medium, check_free, check_memory};

use crate::source::SourceDef;
use clock::Clock;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mirror::Mirror;
use rustix::thread::Pid;
use segments::Agreement;
pub(crate) use segments::Kept;
use sleeper::{LoopEnd, Sleeper};
use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;
use thread::ThreadSettings;
pub(crate) use watch::damage;

/// All that a sampler must be told.
pub struct SamplerSettings {
    /// What to record.
    pub sources: Vec<&'static SourceDef>,
    /// Where `/proc` is.
    pub procfs: PathBuf,
    /// How the thread is run.
    pub thread: ThreadSettings,
    /// Lock all memory of the process: its code too, which a benchmark that fills the page cache
    /// would have evicted between two samples.
    pub lock_process: bool,
    /// The rings.
    pub plan: SegmentPlan,
    /// Their durable copy.
    pub mirror: Option<MirrorSettings>,
}

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// There can be no thread.
    #[error("cannot start the sampler's thread: {0}")]
    Thread(io::Error),
    /// There can be no ring.
    #[error("cannot record: {0}")]
    Segment(#[from] SegmentError),
    /// Whoever records must not wait for it.
    #[error(
        "cannot record: there is no first sample after {START_PATIENCE:?}; the ring's disk or \
         /proc does not answer"
    )]
    Stuck,
    /// A bug; the recording is lost, the benchmark is not.
    #[error("the sampler's thread ended before its first sample; please report this")]
    Ended,
}

/// A running sampler.
pub struct Sampler {
    control: Control,
    thread_id: Pid,
    thread: JoinHandle<()>,
    end: Receiver<LoopEnd>,
    mirror: Option<Mirror>,
}

/// A sampler that has everything but an instant to begin at. Dropped, it ends.
pub struct PreparedSampler {
    starting: Starting,
    start: Sender<u64>,
}

impl PreparedSampler {
    /// Tick 0 is at `start_ns` of `CLOCK_MONOTONIC`, soon; returns when its sample has been taken.
    ///
    /// # Errors
    /// [`SamplerError`]: then nothing runs.
    pub fn go(self, start_ns: u64) -> Result<(Sampler, Started), SamplerError> {
        let now_ns = SystemClock::new(Control::default()).monotonic_ns();
        let ahead = Duration::from_nanos(start_ns.saturating_sub(now_ns));
        // If it is gone, it says so now.
        let _ = self.start.send(start_ns);
        self.starting.first_sample(START_PATIENCE.saturating_add(ahead))
    }
}

/// A sampler that has not taken its first sample.
struct Starting {
    control: Control,
    thread: JoinHandle<()>,
    started: Receiver<Result<Started, SegmentError>>,
    end: Receiver<LoopEnd>,
    mirror: Option<Mirror>,
}

impl Starting {
    fn begin(
        mut settings: SamplerSettings,
        agreement: Option<Agreement>,
    ) -> Result<Starting, SamplerError> {
        let mut notes = Vec::new();
        let mirror = settings.mirror.take().and_then(|mirror| match Mirror::start(mirror) {
            Ok(mirror) => Some(mirror),
            Err(error) => {
                notes.push(format!("no mirror: cannot start its thread: {error}"));
                settings.plan.mirror_dir = None;
                None
            }
        });
        let feed = mirror.as_ref().map(Mirror::feed);
        let control = Control::default();
        let (outbox, started) = bounded(1);
        let (last_words, end) = bounded(1);
        let shared = control.clone();
        // At most 15 bytes of a thread's name are shown (prctl(2), PR_SET_NAME).
        let thread = std::thread::Builder::new().name("rs-sampler".to_owned()).spawn(move || {
            crate::ring::let_through();
            let clock = SystemClock::new(shared.clone());
            match Sleeper::begin(settings, clock, shared, feed, agreement) {
                Ok((sleeper, mut started)) => {
                    started.notes.splice(0..0, notes);
                    let _ = outbox.send(Ok(started));
                    let _ = last_words.send(sleeper.run());
                }
                Err(error) => {
                    let _ = outbox.send(Err(error));
                }
            }
        });
        let thread = thread.map_err(SamplerError::Thread)?;
        Ok(Starting { control, thread, started, end, mirror })
    }

    fn first_sample(self, patience: Duration) -> Result<(Sampler, Started), SamplerError> {
        let Starting { control, thread, started, end, mirror } = self;
        let started = match started.recv_timeout(patience) {
            Ok(result) => result?,
            Err(RecvTimeoutError::Disconnected) => return Err(SamplerError::Ended),
            Err(RecvTimeoutError::Timeout) => {
                // Should it come to life after all, it ends.
                control.stop();
                return Err(SamplerError::Stuck);
            }
        };
        let thread_id = started.thread_id;
        Ok((Sampler { control, thread_id, thread, end, mirror }, started))
    }
}

/// How long a start waits for the first sample: making a ring of gigabytes takes seconds, a disk
/// or a `/proc` that does not answer takes for ever.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a stop waits for the last sample: under SCHED_IDLE it may take seconds.
const SAMPLER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a stop waits for the mirror's disk.
const MIRROR_PATIENCE: Duration = Duration::from_secs(5);

/// What a sampler leaves.
#[derive(Default)]
pub struct SamplerEnd {
    /// The segments that still have samples to keep, oldest first.
    pub segments: Vec<Kept>,
    /// Whether the mirror has everything.
    pub mirror_complete: bool,
    /// Whether the mirror's disk answers.
    pub mirror_answered: bool,
    /// What could not be had, in sentences.
    pub notes: Vec<String>,
}

impl Sampler {
    /// Starts the threads; returns when the first sample has been taken.
    ///
    /// # Errors
    /// [`SamplerError`]: then nothing runs.
    pub fn start(settings: SamplerSettings) -> Result<(Sampler, Started), SamplerError> {
        Starting::begin(settings, None)?.first_sample(START_PATIENCE)
    }

    /// Starts the threads; returns when all is ready for the first sample, the ring's memory too.
    ///
    /// # Errors
    /// [`SamplerError`]: then nothing runs.
    pub fn prepare(settings: SamplerSettings) -> Result<PreparedSampler, SamplerError> {
        let (ready, is_ready) = bounded(1);
        let (start, start_ns) = bounded(1);
        let starting = Starting::begin(settings, Some(Agreement { ready, start_ns }))?;
        match is_ready.recv_timeout(START_PATIENCE) {
            Ok(()) => Ok(PreparedSampler { starting, start }),
            // It has ended, and says why.
            Err(RecvTimeoutError::Disconnected) => match starting.first_sample(START_PATIENCE) {
                Err(error) => Err(error),
                Ok(_) => Err(SamplerError::Ended),
            },
            Err(RecvTimeoutError::Timeout) => {
                starting.control.stop();
                Err(SamplerError::Stuck)
            }
        }
    }

    /// Samples taken and ticks missed so far.
    pub fn progress(&self) -> (u64, u64) {
        self.control.progress()
    }

    /// Ticks to come are to be counted from `start_ns` of `CLOCK_MONOTONIC`, to which they are moved little
    /// by little.
    pub fn follow(&self, start_ns: u64) {
        self.control.follow(start_ns);
    }

    /// Whether the thread is still at work.
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Takes the last sample and ends the threads. Waits for each of them, but not for ever: a disk
    /// that does not answer must not hold up whoever recorded. Without an answer from the sampler
    /// there are no segments; what it has written stays in its ring.
    pub fn stop(self) -> SamplerEnd {
        // First: a thread of SCHED_IDLE on busy CPUs may not see the stop for seconds.
        thread::hurry(self.thread_id);
        self.control.stop();
        let LoopEnd { segments, mut notes } = match self.end.recv_timeout(SAMPLER_PATIENCE) {
            Ok(end) => end,
            Err(error) => LoopEnd {
                segments: Vec::new(),
                notes: vec![match error {
                    RecvTimeoutError::Timeout => format!(
                        "the sampler has not ended after {SAMPLER_PATIENCE:?}: the ring's disk or /proc \
                         does not answer"
                    ),
                    RecvTimeoutError::Disconnected => {
                        "the sampler's thread panicked; please report this".to_owned()
                    }
                }],
            },
        };
        let mirror = self.mirror.map(|mirror| mirror.finish(MIRROR_PATIENCE));
        let mirror_complete = mirror.as_ref().is_some_and(|end| end.complete);
        let mirror_answered = mirror.as_ref().is_some_and(|end| end.answered);
        if let Some(end) = mirror {
            notes.extend(end.notes.into_iter().chain(end.error));
        }
        SamplerEnd { segments, mirror_complete, mirror_answered, notes }
    }
}
