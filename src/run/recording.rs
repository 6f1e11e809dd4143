//! What a recorder leaves when it has stopped: samples in its rings, to be looked at, written as
//! the final files, or thrown away.

use super::dirs::RunDir;
use super::finish::{FinalFiles, FinishError, Order};
use super::manifest::{Ended, MANIFEST, Manifest};
use crate::decode::metadata::SystemInfo;
use crate::decode::{DecodeError, Decoder, HostSummary, TimeSeriesData};
use crate::ring::{Ring, RingError};
use crate::sampler::Kept;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// The samples of one run. Clones are the same recording.
///
/// Until [`write_files`](Self::write_files) has succeeded or [`discard`](Self::discard) was
/// called the rings stay, and outlive the process: [`Store::runs`](crate::Store::runs) finds them.
#[derive(Clone)]
pub struct Recording {
    inner: Arc<Inner>,
}

struct Inner {
    segments: Vec<Kept>,
    keep_ring: bool,
    run_id: Uuid,
    runtime: Duration,
    state: Mutex<Settled>,
}

/// What writing the files changes.
struct Settled {
    manifest: Manifest,
    dirs: Vec<RunDir>,
    files: Option<FinalFiles>,
}

impl Recording {
    pub(super) fn new(
        mut manifest: Manifest,
        dirs: Vec<RunDir>,
        segments: Vec<Kept>,
        runtime: Duration,
        keep_ring: bool,
    ) -> Self {
        manifest.ended = Some(Ended { runtime_seconds: runtime.as_secs_f64(), exit_status: None });
        // If this cannot be saved, `recover` takes the times from the rings.
        let _ = manifest.save();
        let run_id = manifest.run_id;
        let state = Mutex::new(Settled { manifest, dirs, files: None });
        Recording { inner: Arc::new(Inner { segments, keep_ring, run_id, runtime, state }) }
    }

    /// The run.
    pub fn run_id(&self) -> Uuid {
        self.inner.run_id
    }

    /// From the first sample to the stop.
    pub fn runtime(&self) -> Duration {
        self.inner.runtime
    }

    /// What could not be had, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.settled(|settled| settled.manifest.warnings.clone())
    }

    /// Where the rings are, until they are removed.
    pub fn ring_dirs(&self) -> Vec<PathBuf> {
        self.settled(|settled| settled.dirs.iter().map(|dir| dir.path().to_owned()).collect())
    }

    /// Reads the rings.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decoder(&self) -> Result<Decoder, DecodeError> {
        let rings: Result<Vec<Ring>, RingError> = self.inner.segments.iter().map(ring_of).collect();
        Decoder::new(rings?)
    }

    /// The whole time series in memory.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn data(&self) -> Result<TimeSeriesData, DecodeError> {
        self.decoder()?.data()
    }

    /// Notes how long the command ran and how it ended, for the metadata.
    pub fn set_ended(&self, runtime: Duration, exit_status: Option<i32>) {
        self.settled(|settled| {
            let runtime_seconds = runtime.as_secs_f64();
            settled.manifest.ended = Some(Ended { runtime_seconds, exit_status });
            // Only for `recover`; the files written from here have it anyway.
            let _ = settled.manifest.save();
        });
    }

    /// What was taken, missed and lost, and what it cost.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn summary(&self) -> Result<HostSummary, DecodeError> {
        Ok(self.decoder()?.summary().clone())
    }

    /// Writes the time series and its metadata to the results directory, and then removes the
    /// rings unless they are to be kept. A second call gives the same files.
    ///
    /// # Errors
    /// [`FinishError`]: the rings stay where [`ring_dirs`](Self::ring_dirs) says.
    pub fn write_files(
        &self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<FinalFiles, FinishError> {
        let mut decoder = self.decoder()?;
        self.settled(|settled| {
            if let Some(files) = &settled.files {
                return Ok(files.clone());
            }
            let files = Order {
                manifest: &mut settled.manifest,
                save: !settled.dirs.is_empty(),
                decoder: Some(&mut decoder),
                system: SystemInfo::default(),
                recovered: false,
                progress,
            }
            .carry_out()?;
            settled.files = Some(files.clone());
            if self.inner.keep_ring {
                settled.manifest.done = true;
                let _ = settled.manifest.save();
            } else {
                settled.dirs.drain(..).for_each(|dir| dir.remove(MANIFEST));
            }
            Ok(files)
        })
    }

    /// Removes the rings: the samples are gone with the last clone.
    pub fn discard(&self) {
        self.settled(|settled| settled.dirs.drain(..).for_each(|dir| dir.remove(MANIFEST)));
    }

    fn settled<T>(&self, with: impl FnOnce(&mut Settled) -> T) -> T {
        // Everything in it is valid at any moment: a panic elsewhere spoils nothing.
        with(&mut self.inner.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The ring's open file, whatever became of its name, or the memory itself.
fn ring_of(kept: &Kept) -> Result<Ring, RingError> {
    let path = kept.path.as_deref().unwrap_or(Path::new("(private memory)"));
    match &kept.file {
        Some(file) => {
            let io = |source| RingError::Io { path: path.to_owned(), source };
            Ring::new(Box::new(file.try_clone().map_err(io)?), path)
        }
        None => Ring::new(Box::new(kept.segment.clone()), path),
    }
}
