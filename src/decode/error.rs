//! What decoding may fail with, from the rings to the output.

use crate::ring::RingError;
use std::path::PathBuf;

/// Why rings cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// One of them cannot be read.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// There are none.
    #[error("there is no ring to decode")]
    NoRings,
    /// They do not belong together.
    #[error(
        "{} belongs to another run ({found}) than the rings before it ({expected}); decode them \
         one by one",
        path.display()
    )]
    OtherRun {
        /// The ring.
        path: PathBuf,
        /// Its run.
        found: String,
        /// The others'.
        expected: String,
    },
    /// Two files say that they are the same segment, and are not.
    #[error(
        "{} and {} are segment {segment} of the same run, and yet they differ; decode them one by \
         one", path.display(), other.display()
    )]
    Differs {
        /// One of them.
        path: PathBuf,
        /// The other.
        other: PathBuf,
        /// Which segment.
        segment: u64,
    },
    /// The device gives no record.
    #[error(
        "cannot read any record of {}: {slots} of its slots are input/output errors; copy what can \
         be read of the file elsewhere and decode that", path.display()
    )]
    Unreadable {
        /// The ring.
        path: PathBuf,
        /// How many slots could not be read.
        slots: u64,
    },
    /// A ring changed between counting and writing.
    #[error("the rings of run {run} changed while they were read; try again")]
    Changed {
        /// The run.
        run: String,
    },
    /// A live ring could not be copied.
    #[error("cannot copy the live ring {} to a temporary file: {source}", path.display())]
    Snapshot {
        /// The ring.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A few words of a ring can be long names.
    #[error(
        "its samples are more than {most} bytes of text, which is all that they may be; make room where \
         the files go, or choose another directory for them"
    )]
    TooMuchText {
        /// What they may be.
        most: u64,
    },
    /// Whoever waits for the end of a run has waited enough.
    #[error("there was no time to read it before the end of the run")]
    Late,
    /// Hosts that do not make one time series.
    #[error("cannot put the hosts into one time series: {what}")]
    Hosts {
        /// What is wrong with them.
        what: String,
    },
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Write(#[from] std::io::Error),
}
