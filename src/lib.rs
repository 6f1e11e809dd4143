//! ringstat records what `/proc` says of a host while a storage benchmark runs, without
//! disturbing it and without losing what was recorded.
//!
//! A pinned, low-priority thread reads `/proc` at a fixed interval and writes raw counters into a
//! memory-mapped ring of fixed-size records: no lock, no allocation and no wait on its way. After
//! the run the ring is decoded to `{benchmark_type}_{datetime}_timeseries.json`; after a crash it
//! gives back everything up to the last sample.
//!
//! ```
//! use std::time::Duration;
//!
//! let results = tempfile::tempdir()?;
//! let mut recorder = ringstat::Recorder::builder()
//!     .benchmark_type("training")
//!     .interval(Duration::from_millis(10))
//!     .results_dir(results.path())
//!     .build()?;
//!
//! recorder.start()?;
//! let sum: u64 = (0..1_000_000).sum(); // what is to be observed
//! let recording = recorder.stop()?;
//!
//! // In memory ...
//! let data = recording.data()?;
//! assert_eq!(data.collection_interval_seconds, 0.01);
//! assert!(data.num_samples >= 2, "one at the start, one at the stop");
//!
//! // ... or as files; then the ring is removed.
//! let files = recording.write_files(&mut |_done, _of| {})?;
//! let name = files.timeseries.unwrap();
//! assert!(name.to_string_lossy().ends_with("_timeseries.json"));
//! # assert_eq!(sum, 499_999_500_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! How a ring lies in its file is described in [`ring`].

// A test may panic. (`allow-unwrap-in-tests` does not see through `cfg(all(test, not(loom)))`.)
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cluster;
mod decode;
mod description;
mod fault;
mod place;
mod record;
pub mod ring;
mod run;
mod sampler;
mod schema;
pub mod source;
mod sync;
mod units;

pub use decode::metadata;
pub use decode::{
    ClockStep, Collection, Cost, Counter, CounterDecrease, CounterDecreases, DecodeError, Decoder,
    Decrease, DiskStats, FORMATS, Format, Gap, HostSummary, InstanceSummary, JSON, JSON_COMPACT,
    LoadAvg, NetDev, RunSummary, SamplerSummary, Spread, TimeSeriesData, TimeSeriesSample, Written,
    snapshot,
};
pub use description::{Description, RunFacts, SamplerFacts, SystemFacts};
pub use fault::{Fault, MAX_NAME_BYTES, Reason};
pub use record::{Block, Full};
pub use run::{
    BuildError, DirError, Ended, FinalFiles, FinishError, FoundRun, LocateError, Located, MANIFEST,
    Manifest, Recorder, RecorderBuilder, RecorderError, Recording, RunInfo, RunState, Store,
    default_mirror_base, default_ring_base, write_decoded,
};
pub use sampler::thread::{CpuChoice, InForce, Policy, ThreadSettings};
pub use sampler::{Probe, SamplerError, SegmentError};
pub use schema::{Field, Kind, Schema, Shape, SourceSchema};
pub use units::{Bytes, Seq, Slot, Tick, Words};

/// What the fuzz targets and their seeds need beyond what programs do: [`source::Source::parse`]
/// writes to the block of a record, and only a view of the record says whether it fits its schema.
/// Not part of the interface.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::record::{
        BlockView, COMMON_WORDS, Common, RecordView, RecordWriter, RowHead, least_words,
    };
}

/// Ways to hosts, for their tests. Not part of the interface.
#[doc(hidden)]
pub mod reaching {
    pub use crate::cluster::hosts::HostSpec;
    pub use crate::cluster::ssh::error::{ConnectError, Step};
    #[cfg(feature = "known-hosts")]
    pub use crate::cluster::ssh::known_hosts::{Entries, Verdict, lookup_name};
    pub use crate::cluster::ssh::{SshOptions, connect};
    pub use crate::cluster::transport::{Channel, End, Link};
}
