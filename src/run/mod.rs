//! One recorded run, from its directories and manifest to its final files; and the runs that
//! nobody finished. What is recorded and how is the sampler's, what is read the decoder's.

mod begin;
mod builder;
mod checks;
mod cluster;
mod copies;
mod decoded;
mod dirs;
mod earlier;
mod finish;
mod found;
mod last_rings;
mod manifest;
mod merge;
mod origin;
mod owed;
mod patience;
mod recorder;
mod recording;
mod recover;
mod removal;
mod scratch;
mod settled;
mod store;
mod system;
mod temporary;
mod trust;
mod until;

#[cfg(all(test, not(loom)))]
pub(crate) use builder::DEFAULT_SYNC_INTERVAL;
pub use builder::RecorderBuilder;
pub use checks::BuildError;
pub use cluster::ClusterManifest;
pub use decoded::write_decoded;
pub use dirs::{DirError, default_mirror_base, default_ring_base};
pub(crate) use dirs::{RunDir, Taken, is_own};
pub use finish::{FinalFiles, FinishError};
pub use found::{FoundRun, RunState};
pub use manifest::{Ended, MANIFEST, Manifest};
pub(crate) use patience::within;
pub use recorder::{Recorder, RecorderError, RunInfo};
pub use recording::Recording;
pub(crate) use removal::is_of_others;
pub use store::{LocateError, Located, Store};
pub(crate) use system::hostname;
