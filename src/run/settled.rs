//! What of a run is not settled as long as its final files are not written: its manifest, its directories,
//! and the conversation with other hosts; and which of the directories `recover` needs. What the rings have,
//! and writing it, is for others.

use super::cluster::{self, Cluster, HOSTS_DIR};
use super::dirs::RunDir;
use super::finish::FinalFiles;
use super::manifest::{MANIFEST, Manifest};
use super::removal::Made;
use crate::cluster::launch::HostProgress;
use std::io;
use std::path::{Path, PathBuf};

/// What writing the files changes.
pub(super) struct Settled {
    pub manifest: Manifest,
    pub dirs: Vec<RunDir>,
    pub files: Option<FinalFiles>,
    /// The other hosts, as long as there is a conversation with any.
    pub cluster: Option<Cluster>,
    pub is_collected: bool,
    /// Those whose rings are here and cannot be read.
    pub unread: Vec<String>,
}

impl Settled {
    /// Where the rings of other hosts are.
    pub fn hosts_dir(&self) -> Option<PathBuf> {
        self.manifest.mirror_dir.clone().or_else(|| self.manifest.ring_dir.clone())
    }

    /// Waits for the other hosts, once.
    pub fn collect(&mut self, progress: &mut dyn FnMut(&HostProgress)) {
        let (Some(cluster), Some(known)) = (&mut self.cluster, &mut self.manifest.cluster) else {
            return;
        };
        if std::mem::replace(&mut self.is_collected, true) {
            return;
        }
        cluster.collect(known, progress);
        let owing = known.owing();
        if !owing.is_empty() {
            known.is_incomplete = true;
            let warning = cluster::still_owed(known, self.manifest.run_id);
            self.manifest.warnings.push(warning);
        }
        // If it cannot be saved, `recover` asks the hosts again.
        let _ = self.manifest.save();
    }

    /// The conversations with other hosts are over; what those have that are `kept` is not removed.
    /// Sentences on what stays there.
    pub fn end_cluster(&mut self, kept: &[String]) -> Vec<String> {
        let (Some(cluster), Some(known)) = (&mut self.cluster, &mut self.manifest.cluster) else {
            return Vec::new();
        };
        let problems = cluster.end(known, kept);
        self.cluster = None;
        problems
    }

    /// Those that `recover` needs: with a ring of this host or of another, or with what is known of
    /// hosts that still have theirs.
    pub fn dirs_with_rings(&self) -> Vec<PathBuf> {
        let known = self.manifest.cluster.as_ref();
        let is_owed = known.is_some_and(|known| !known.owing().is_empty());
        let dirs = self.dirs.iter().map(|dir| dir.path().to_owned());
        let is_needed = |dir: &PathBuf| {
            has_ring(dir) || host_dirs(dir).iter().any(|of_host| is_owed || has_ring(of_host))
        };
        dirs.filter(is_needed).collect()
    }

    /// From now on the rings are in `saved`. The other directories have nothing whole, and would only
    /// mislead `recover`; but one may have what was fetched of other hosts.
    pub fn keep_rings_in(&mut self, saved: &Path, made: &[Made]) {
        let is_kept = |dir: &RunDir| {
            dir.path() == saved || has_hosts(dir.path()) || dir.remove_soon(MANIFEST, made).is_err()
        };
        self.dirs.retain(is_kept);
        self.manifest.mirror_dir.take_if(|dir| !has_hosts(dir));
        let _ = self.manifest.save();
    }

    /// Sentences of those that stay: `recover` sees that nothing is owed, and removes them, but for what is
    /// not ours.
    pub fn remove_dirs(&mut self, made: &[Made]) -> Vec<String> {
        let stays = |dir: RunDir| match dir.remove_soon(MANIFEST, made) {
            Ok(names) if names.is_empty() => None,
            Ok(names) => Some(not_ours(dir.path(), &names)),
            Err(error) => Some(not_removed(dir.path(), &error)),
        };
        self.dirs.drain(..).filter_map(stays).collect()
    }
}

/// What is said of a run's directory that outlives its run.
pub(super) fn not_removed(dir: &Path, error: &io::Error) -> String {
    format!(
        "{} is not needed any more and cannot be removed: {error}. If it is still there later, remove \
         it with: ringstat recover {}",
        dir.display(),
        shell_words::quote(&dir.to_string_lossy())
    )
}

/// What is said of a run's directory in which others have put something.
fn not_ours(dir: &Path, names: &[String]) -> String {
    format!(
        "{} is not needed any more, but has what ringstat has not put there: {}. Look at it and remove it",
        dir.display(),
        names.join(", ")
    )
}

/// The directories for rings of other hosts.
fn host_dirs(dir: &Path) -> Vec<PathBuf> {
    let hosts = std::fs::read_dir(dir.join(HOSTS_DIR)).into_iter().flatten().flatten();
    hosts.map(|entry| entry.path()).collect()
}

/// Whether a directory may have rings of other hosts.
fn has_hosts(dir: &Path) -> bool {
    !host_dirs(dir).is_empty()
}

/// Whether a directory has a ring file.
fn has_ring(dir: &Path) -> bool {
    let is_ring =
        |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|it| it == "ring");
    std::fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(is_ring))
}
