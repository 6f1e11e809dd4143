//! What recording costs, measured: the code behind `ringstat bench` and `cargo bench`. It uses the
//! library as any program would and nothing of the library uses it; what it measures is the
//! sampler's own code and whole processes, never a copy made for measuring.
//!
//! Two figures count, each beside the **floor**, which reads the same files to their end and throws
//! the text away, taken in turns so that what disturbs the one disturbs the other: [`cost`], back to
//! back, and [`cold`], apart in time and by the whole process, as users run it. [`lateness`] says how
//! well the sampler keeps time, [`compare`] whether a benchmark is disturbed.
//!
//! Words: CPU times in us per sample; a *ratio* is to the floor; *spread* is the 10th and the 90th
//! percentile.

mod attend;
mod child;
pub mod cold;
pub mod compare;
pub mod cost;
mod figure;
mod floor;
mod host;
pub mod lateness;
mod load;
mod metric;
mod process;
pub mod rate;
pub mod stats;
mod usage;

pub use attend::{Attendant, Interrupt};
pub use child::{child_main, floor as reader, record as recorder};
pub use floor::Floor;
pub use host::{Machine, machine};
pub use load::Busy;
pub use metric::{Metric, MetricError};
pub use process::Scratch;
pub use usage::{Usage, UsageSource};

use crate::decode::DecodeError;
use crate::run::{BuildError, RecorderError};
use crate::sampler::SegmentError;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Where the kernel's files are.
pub const PROCFS: &str = "/proc";

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// Somebody wants it to end.
    #[error("interrupted; nothing is left behind")]
    Interrupted,
    /// The kernel's files.
    #[error("cannot read the sources' files below {PROCFS}: {0}")]
    Floor(io::Error),
    /// No sampler.
    #[error("cannot take samples: {0}")]
    Probe(#[from] SegmentError),
    /// A process, for the measuring or the command that is measured.
    #[error("cannot start {what}: {source}")]
    NotStarted {
        /// Which.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It was to go on.
    #[error("{what} ended while it was measured ({status}); it said: {said}")]
    Ended {
        /// Which.
        what: String,
        /// How.
        status: ExitStatus,
        /// The beginning of it.
        said: String,
    },
    /// The kernel does not tell.
    #[error("cannot learn the CPU time of a process: {0}")]
    Usage(io::Error),
    /// This program cannot find itself.
    #[error("cannot find the program that is running: {0}")]
    Program(#[from] io::Error),
    /// There is no room for what is recorded.
    #[error("cannot make a temporary directory in {}: {source}", dir.display())]
    Scratch {
        /// The last that was tried.
        dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A recorder cannot be had like that.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It does not record.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// What it has recorded cannot be read.
    #[error("cannot read what was recorded: {0}")]
    Decode(#[from] DecodeError),
    /// What the command says has no place.
    #[error("cannot keep the output of the command in memory: {0}")]
    Output(io::Error),
    /// The command that is compared failed.
    #[error("{run} of the command failed ({status}): nothing is compared. Its last words: {said}")]
    Failed {
        /// Which run.
        run: String,
        /// How.
        status: ExitStatus,
        /// The end of its output.
        said: String,
    },
    /// A figure is not in its output.
    #[error("{run} of the command has no number for \"{metric}\". Its last words: {said}")]
    NoFigure {
        /// Which run.
        run: String,
        /// The expression.
        metric: String,
        /// The end of its output.
        said: String,
    },
}
