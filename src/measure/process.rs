//! Processes that are measured or that make load: started by us, with nowhere to write to but to
//! us, and ended with the value that stands for them. And the directories that they may use.

use super::{MeasureError, Usage};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A process until it is dropped.
pub struct Process {
    child: Child,
    what: String,
    said: Option<File>,
    usage: Usage,
}

impl Process {
    /// Starts `command`, which is `what` when there is something to say about it.
    ///
    /// # Errors
    /// [`MeasureError::NotStarted`].
    pub fn start(mut command: Command, what: &str) -> Result<Process, MeasureError> {
        let said = tempfile::tempfile().ok();
        let error = said.as_ref().and_then(|file| file.try_clone().ok());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(error.map_or_else(Stdio::null, Stdio::from));
        let child = command
            .spawn()
            .map_err(|source| MeasureError::NotStarted { what: what.to_owned(), source })?;
        let usage = Usage::of(child.id());
        Ok(Process { child, what: what.to_owned(), said, usage })
    }

    /// What CPU time it has used.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// CPU time so far, us.
    ///
    /// # Errors
    /// [`MeasureError::Ended`] if it has ended, [`MeasureError::Usage`] if the kernel does not tell.
    pub fn cpu_us(&mut self) -> Result<f64, MeasureError> {
        let used = self.usage.cpu_us();
        match self.child.try_wait() {
            Ok(None) => used.map_err(MeasureError::Usage),
            Ok(Some(status)) => {
                let mut said = String::new();
                if let Some(file) = &mut self.said
                    && file.rewind().is_ok()
                {
                    // What can be read of it.
                    let _ = file.take(1 << 16).read_to_string(&mut said);
                }
                let said = if said.trim().is_empty() { "nothing".to_owned() } else { said };
                Err(MeasureError::Ended {
                    what: self.what.clone(),
                    status,
                    said: said.trim().to_owned(),
                })
            }
            Err(error) => Err(MeasureError::Usage(error)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; there is nothing else to do about it. Reaped, its cgroup can go.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Directories for one recording, where its ring and its copy would lie: in shared memory, and on
/// the disk. Removed with all that is in them.
pub struct Scratch {
    memory: TempDir,
    disk: Option<TempDir>,
}

impl Scratch {
    /// With or without one for the durable copy.
    ///
    /// # Errors
    /// [`MeasureError::Scratch`].
    pub fn new(mirrored: bool) -> Result<Scratch, MeasureError> {
        let disk = mirrored.then(|| scratch_in("/var/tmp")).transpose()?;
        Ok(Scratch { memory: scratch_in("/dev/shm")?, disk })
    }

    /// For `ring_dir`.
    pub fn ring_dir(&self) -> PathBuf {
        self.memory.path().join("ring")
    }

    /// For `results_dir`.
    pub fn results_dir(&self) -> &Path {
        self.memory.path()
    }

    /// For `mirror_dir`; `None` for no mirror.
    pub fn mirror_dir(&self) -> Option<&Path> {
        self.disk.as_ref().map(TempDir::path)
    }
}

fn scratch_in(dir: &str) -> Result<TempDir, MeasureError> {
    // By whom, should it stay behind.
    let prefix = format!("ringstat-bench-{}-", std::process::id());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    let failed = |source: io::Error| MeasureError::Scratch { dir: std::env::temp_dir(), source };
    builder.tempdir_in(dir).or_else(|_| builder.tempdir()).map_err(failed)
}
