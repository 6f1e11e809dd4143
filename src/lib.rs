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

// By this name what tests share calls it, from inside and outside.
#[cfg(test)]
extern crate self as ringstat;

mod agent;
mod cluster;
mod decode;
mod description;
mod fault;
#[cfg(feature = "measure")]
pub mod measure;
mod place;
mod record;
pub mod ring;
mod run;
mod sampler;
mod schema;
pub mod source;
mod sync;
mod units;

pub use cluster::hosts;
pub use cluster::hosts::HostsError;
pub use cluster::launch::HostProgress;
pub use cluster::ways::HostOptions;
pub use decode::metadata;
pub use decode::{
    ClockStep, ClusterDecoder, ClusterRun, Collection, CollectionMethod, Cost, Counter,
    CounterDecrease, CounterDecreases, DecodeError, Decoder, Decrease, DiskStats, FORMATS, Format,
    Gap, HostClock, HostData, HostError, HostErrorKind, HostRings, HostSummary, InstanceSummary,
    JSON, JSON_COMPACT, LoadAvg, NetDev, OpenRings, RunSummary, SamplerSummary, Spread,
    TimeSeriesData, TimeSeriesSample, Written, snapshot,
};
pub use description::{Description, RunFacts, SamplerFacts, SystemFacts};
pub use fault::{Fault, MAX_NAME_BYTES, Reason};
pub use record::{Block, Full};
pub use run::{
    BuildError, ClusterManifest, DirError, Ended, FinalFiles, FinishError, FoundRun, LocateError,
    Located, MANIFEST, Manifest, Recorder, RecorderBuilder, RecorderError, Recording, RunInfo,
    RunState, Store, default_mirror_base, default_ring_base, write_decoded,
};
pub use sampler::thread::{CpuChoice, InForce, Policy, ThreadSettings};
pub use sampler::{Probe, SamplerError, SegmentError};
pub use schema::{Field, Kind, Schema, Shape, SourceSchema};
pub use units::{Bytes, Seq, Slot, Tick, Words};

/// What the program's agent does, which the program starts on other hosts. Not part of the interface.
#[doc(hidden)]
pub mod agents {
    pub use crate::agent::{record, serve};
    pub use crate::cluster::deploy::self_check;
}

/// What the fuzz targets and their seeds need beyond what programs do: [`source::Source::parse`]
/// writes to the block of a record, and only a view of the record says whether it fits its schema.
/// Not part of the interface.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::agent::scripted::{GUEST, Heard, converse};
    pub use crate::cluster::frames::{
        Chunk, Frames, MAX_FRAME_BYTES, Marker, Message, ProtocolError, put_chunk, put_control,
    };
    pub use crate::cluster::protocol::{FileEntry, Place, Reply, Request, Settings, VERSION};
    pub use crate::cluster::scripted::collect_from;
    pub use crate::record::{
        BlockView, COMMON_WORDS, Common, RecordView, RecordWriter, RowHead, least_words,
    };
}

/// Whether hosts can be recorded, for the program. Not part of the interface.
#[doc(hidden)]
pub mod checking {
    pub use crate::cluster::check::{CheckOptions, Found, HostReport, Reached, check};
    pub use crate::cluster::deploy::{
        Binary, DeployError, DeployFailure, Deployed, Program, RemotePath, Step, deploy,
    };
    pub use crate::cluster::leftovers::Leftovers;
    pub use crate::cluster::shell::ScriptError;
    pub use crate::cluster::ssh::SshOptions;
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
