//! Recovering a run whose recorder is dead: its directories are locked, looked at again, and removed when its
//! files are written. A run of several hosts is `owed`'s from there on.

use super::decoded::{manifest_of, system_of};
use super::dirs::{RunDir, Taken, is_own};
use super::finish::{FinalFiles, FinishError, Order};
use super::found::{FoundRun, RunState};
use super::manifest::{MANIFEST, Manifest};
use super::settled::not_removed;
use super::temporary::remove_leftovers;
use super::trust::why_not;
use crate::cluster::launch::HostProgress;
use crate::decode::Decoder;
use std::fs;
use std::io;
use std::path::Path;

impl FoundRun {
    /// Writes the files that the run owes, to `results_dir` or to where it would have put them,
    /// and removes its rings. `None` if it lives, owes nothing, or never took a sample. Whether it lives on
    /// an [other host](Self::other_host) is for the caller to know.
    ///
    /// # Errors
    /// [`FinishError`]: then its rings stay. `NotOurs` for a run of another user.
    pub fn recover(
        &self,
        results_dir: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<FinalFiles>, FinishError> {
        self.recover_with(results_dir, &mut |_| {}, progress)
    }

    /// As [`recover`](Self::recover); `hosts` hears how far other hosts are that are fetched from before
    /// anything is written, if there are any.
    ///
    /// # Errors
    /// As [`recover`](Self::recover).
    pub fn recover_with(
        &self,
        results_dir: Option<&Path>,
        hosts: &mut dyn FnMut(&HostProgress),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<FinalFiles>, FinishError> {
        if self.state != RunState::Owing {
            return Ok(None);
        }
        if let Some((dir, why)) = self.distrust() {
            return Err(FinishError::NotOurs { dir: dir.to_owned(), why });
        }
        let Some(locks) = self.lock()? else { return Ok(None) };
        match self.again(&locks) {
            Some(run) if run.state == RunState::Owing => {
                run.recover_locked(locks, results_dir, hosts, progress)
            }
            _ => Ok(None),
        }
    }

    /// What is in its directories, now that they are locked: what was read before may be what
    /// somebody else has changed meanwhile. It is read in the directories themselves: those of a base
    /// that somebody else can write to may have been moved, and others be in their place.
    fn again(&self, locks: &[RunDir]) -> Option<FoundRun> {
        let place = |dir: &RunDir| (dir.path().to_owned(), dir.place().clone());
        FoundRun::found(self.run_id, self.dirs.clone(), locks.iter().map(place).collect())
    }

    /// Takes its directories; `None` if somebody else recovers it just now, or just has.
    fn lock(&self) -> Result<Option<Vec<RunDir>>, FinishError> {
        let mut locks = Vec::new();
        for path in &self.dirs {
            let failed = |source| FinishError::Write { path: path.clone(), source };
            if !is_own(path) {
                let what = "the run belongs to another user, who is to recover it";
                return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, what)));
            }
            match RunDir::take(path) {
                Ok(Taken::Ours(dir)) => locks.push(dir),
                Ok(Taken::Living) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(failed(source)),
            }
        }
        // Of those that are locked: others may have had their names when `distrust` looked.
        for dir in &locks {
            let meta = dir.place().dir().metadata();
            let meta =
                meta.map_err(|source| FinishError::Write { path: dir.path().to_owned(), source })?;
            if let Some(why) = why_not(&meta) {
                return Err(FinishError::NotOurs { dir: dir.path().to_owned(), why });
            }
        }
        Ok(Some(locks))
    }

    fn recover_locked(
        &self,
        dirs: Vec<RunDir>,
        results_dir: Option<&Path>,
        hosts: &mut dyn FnMut(&HostProgress),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<FinalFiles>, FinishError> {
        if let Some(manifest) = self.manifest.clone().filter(|it| it.cluster.is_some()) {
            return self.recover_cluster(manifest, dirs, results_dir, hosts, progress);
        }
        let decoder = if self.rings.is_empty() {
            None
        } else {
            let (rings, mut refused) = self.open_each();
            match (rings.is_empty(), refused.pop()) {
                // Killed before its first sample: there is nothing to owe.
                (true, Some((path, error))) if self.copies().is_unbegun(&path, &error) => None,
                (true, Some((_, error))) => return Err(error.into()),
                _ => Some(Decoder::new(rings)?),
            }
        };
        let (mut lost, cut_off) = (self.unreadable_rings(), self.cut_off_rings());
        let unread = decoder.iter().flat_map(Decoder::unread);
        lost.extend(unread.map(|error| format!("samples are missing: {error}")));
        let decoder = decoder.filter(|decoder| decoder.summary().samples_kept > 0);
        let mut files = match decoder {
            Some(decoder) => {
                let mut manifest = match &self.manifest {
                    Some(manifest) => manifest.clone(),
                    None => manifest_of(&decoder),
                };
                if let Some(dir) = results_dir {
                    // An attempt may have been killed where they were to go first.
                    remove_leftovers(&manifest);
                    manifest.results_dir = std::path::absolute(dir)
                        .map_err(|source| FinishError::Write { path: dir.to_owned(), source })?;
                }
                manifest.warnings.extend(lost.iter().chain(&cut_off).cloned());
                self.keep_own_dirs(&mut manifest);
                let order = Order {
                    manifest: &mut manifest,
                    save: true,
                    renew: false,
                    decoder: Some(decoder.as_cluster()),
                    system: system_of(&decoder),
                    recovered: true,
                    deadline: None,
                    progress,
                };
                let mut files = order.carry_out()?;
                files.problems.extend(lost.iter().cloned());
                Some(files)
            }
            // Killed before its first sample, or while it removed its rings behind the final files.
            None => {
                let spoiled = self.spoiled_rings();
                let lost = [lost.as_slice(), &cut_off, &spoiled].concat();
                if !lost.is_empty() {
                    return Err(FinishError::Lost { lost: lost.join("; ") });
                }
                None
            }
        };
        if lost.is_empty() {
            for dir in &dirs {
                let removed = dir.remove(MANIFEST);
                if let (Some(files), Err(error)) = (&mut files, removed) {
                    files.problems.push(not_removed(dir.path(), &error));
                }
            }
        }
        Ok(files)
    }

    /// The manifest is saved where it was found, and not wherever it says that it lies.
    pub(super) fn keep_own_dirs(&self, manifest: &mut Manifest) {
        for dir in [&mut manifest.ring_dir, &mut manifest.mirror_dir] {
            *dir = dir.take().and_then(|dir| fs::canonicalize(dir).ok());
            *dir = dir.take().filter(|dir| self.dirs.contains(dir));
        }
        if manifest.ring_dir.is_none() && manifest.mirror_dir.is_none() {
            manifest.ring_dir = self.dirs.first().cloned();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use uuid::Uuid;

    /// A run below `base` of which nothing is left but a manifest, which says that its files go
    /// to `results`.
    fn run(base: &Path, run_id: Uuid, results: &str) -> PathBuf {
        let dir = base.join(run_id.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let ring_dir = Some(dir.clone());
        let manifest = Manifest { run_id, ring_dir, ..manifest(Path::new(results)) };
        manifest.save().unwrap();
        dir
    }

    #[test]
    fn a_directory_that_is_swapped_behind_the_lock_is_not_read() {
        let [base, theirs] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let run_id = Uuid::from_u128(1);
        let dir = run(base.path(), run_id, "/ours");
        let their_dir = run(theirs.path(), run_id, "/theirs");
        fs::write(their_dir.join("00000.ring"), "").unwrap();
        let found = FoundRun::of(run_id, vec![dir.clone()]).unwrap();
        let locks = found.lock().unwrap().unwrap();
        fs::rename(&dir, base.path().join("moved")).unwrap();
        fs::rename(&their_dir, &dir).unwrap();
        let again = found.again(&locks).unwrap();
        assert_eq!(again.manifest.unwrap().results_dir, Path::new("/ours"));
        assert!(again.rings.is_empty(), "{:?}", again.rings);
    }

    #[test]
    fn a_directory_that_is_swapped_before_the_lock_is_not_trusted() {
        let base = tempfile::tempdir().unwrap();
        let run_id = Uuid::from_u128(1);
        let dir = run(base.path(), run_id, "/ours");
        let found = FoundRun::of(run_id, vec![dir.clone()]).unwrap();
        assert!(found.distrust().is_none());
        // As one that others can write to would be, put there behind the look.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = found.lock().err().unwrap().to_string();
        assert!(refused.contains("can be written to by other users"), "{refused}");
    }
}
