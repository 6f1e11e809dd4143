//! The directories of runs: where they are by default, how one is made so that nobody else can
//! put anything in its way, and the lock that tells a living run from a dead one. No contents.

use super::patience::{PATIENCE, within, within_or};
use super::removal::{self, Made};
use crate::place::{Identity, Place, remove_dir_if};
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// How often a new directory is made that others remove.
const MAX_ATTEMPTS: usize = 100;

/// Why there is no directory for a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// Somebody else's, or open to others, in a place that everybody can write to.
    #[error(
        "{} is not safe to use: it {what}. Remove it, or choose another directory", path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The kernel refused.
    #[error("cannot create the directory {}: {source}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The directory below which rings lie by default: memory-backed, one per user.
pub fn default_ring_base() -> PathBuf {
    PathBuf::from(format!("/dev/shm/ringstat-{}", geteuid().as_raw()))
}

/// The directory below which mirrors lie by default: on a disk, and not emptied by a reboot.
pub fn default_mirror_base() -> PathBuf {
    PathBuf::from(format!("/var/tmp/ringstat-{}", geteuid().as_raw()))
}

/// Makes one of the default directories, or makes sure that the one that is there is ours: it
/// lies in a directory that everybody can write to.
///
/// # Errors
/// [`DirError`].
pub fn private_base(path: &Path) -> Result<(), DirError> {
    let failed = |source| DirError::Create { path: path.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    // Does not follow a symlink. Once it is seen to be a directory of ours in a sticky directory,
    // nobody else can replace it.
    let meta = fs::symlink_metadata(path).map_err(failed)?;
    let refused = |what| Err(DirError::NotOurs { path: path.to_owned(), what });
    if meta.file_type().is_symlink() {
        return refused("is a symbolic link");
    }
    if !meta.is_dir() {
        return refused("is not a directory");
    }
    if meta.uid() != geteuid().as_raw() {
        return refused("belongs to another user");
    }
    if meta.permissions().mode() & 0o077 != 0 {
        return refused("can be entered by other users");
    }
    Ok(())
}

/// A directory of one run, which lasts as long as its files are needed. It is locked as long as
/// this value lives: the kernel drops the lock when the process ends, however it ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Holds the lock, where the file system has locks.
    place: Arc<Place>,
}

/// Whether a run's directory is in use.
#[derive(Debug)]
pub enum Taken {
    /// It is now ours.
    Ours(RunDir),
    /// A living process has it.
    Living,
}

impl RunDir {
    /// Makes the directory of a new run below `base`, which is made too if need be.
    ///
    /// # Errors
    /// [`DirError`]; also if the directory is there already.
    pub fn create(base: &Path, run_id: Uuid) -> Result<RunDir, DirError> {
        let path = base.join(run_id.to_string());
        let failed = |source| DirError::Create { path: path.clone(), source };
        // Private here, too: a run that ends removes an empty base, and may do so after it was made.
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(base).map_err(failed)?;
        let mut result = Err(failed(io::ErrorKind::NotFound.into()));
        for _ in 0..MAX_ATTEMPTS {
            DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
            // A `recover` that sees it before it is locked takes it for one of a dead run that has
            // left nothing, and removes it.
            result = locked(&path).map_err(failed);
            match &result {
                Err(DirError::Create { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                _ => break,
            }
        }
        let place = Arc::new(result?);
        Ok(RunDir { path, place })
    }

    /// As [`create`](Self::create), on a disk that may not answer.
    ///
    /// # Errors
    /// [`DirError`], `TimedOut` among them.
    pub fn create_patiently(base: &Path, run_id: Uuid) -> Result<RunDir, DirError> {
        patiently(base, move |base| RunDir::create(base, run_id))
    }

    /// Takes an existing directory, if no living process has it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(path: &Path) -> io::Result<Taken> {
        let place = Arc::new(Place::open(path)?);
        match place.dir().try_lock() {
            Ok(()) => Ok(Taken::Ours(RunDir { path: path.to_owned(), place })),
            Err(TryLockError::WouldBlock) => Ok(Taken::Living),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// It itself, whatever becomes of its name.
    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`create`](Self::create), below one of the default directories.
    ///
    /// # Errors
    /// [`DirError`].
    pub fn create_private(base: &Path, run_id: Uuid) -> Result<RunDir, DirError> {
        private_base(base)?;
        RunDir::create(base, run_id)
    }

    /// As [`create_private`](Self::create_private), on a disk that may not answer.
    ///
    /// # Errors
    /// [`DirError`], `TimedOut` among them.
    pub fn create_private_patiently(base: &Path, run_id: Uuid) -> Result<RunDir, DirError> {
        patiently(base, move |base| RunDir::create_private(base, run_id))
    }

    /// As [`remove`](Self::remove), on a disk that may not answer, where these rings are known to be this
    /// process's own. The names of what is not ours, and stays.
    ///
    /// # Errors
    /// The kernel's, `TimedOut` among them.
    pub fn remove_soon(&self, manifest: &'static str, made: &[Made]) -> io::Result<Vec<String>> {
        let (path, place, made) = (self.path.clone(), self.place.clone(), made.to_vec());
        within(PATIENCE, move || removal::remove(&place, &path, manifest, &made))
            .unwrap_or_else(|| Err(no_answer()))
    }

    /// Removes it with all that ringstat has put there, the manifest last: as long as anything is
    /// left, the manifest says what. Other files stay, and the directory with them.
    ///
    /// # Errors
    /// The kernel's, the first of them: something that is ours is still there.
    pub fn remove(&self, manifest: &str) -> io::Result<()> {
        removal::remove(&self.place, &self.path, manifest, &[]).map(drop)
    }
}

/// Whether a directory is one that this user has made: in a place that others can write to they may
/// have put theirs, and what is in it is not to be acted on.
pub(crate) fn is_own(dir: &Path) -> bool {
    let is_own = |meta: fs::Metadata| meta.is_dir() && meta.uid() == geteuid().as_raw();
    fs::symlink_metadata(dir).is_ok_and(is_own)
}

/// Locks a new directory, if it is still there: `NotFound` if not.
fn locked(path: &Path) -> io::Result<Place> {
    let place = Place::open(path)?;
    // Waits at most for somebody who tries whether the run lives. On a file system without
    // locks a living run cannot be told from a dead one; recording goes on.
    let _ = place.dir().lock();
    let there = Identity::of_metadata(&fs::symlink_metadata(path)?);
    if Identity::of(place.dir())? != there {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(place)
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")
}

/// Makes a directory on a disk that may not answer. One that is made too late is removed again.
fn patiently(
    base: &Path,
    make: impl FnOnce(&Path) -> Result<RunDir, DirError> + Send + 'static,
) -> Result<RunDir, DirError> {
    let owned = base.to_owned();
    let unwanted = |made: Result<RunDir, DirError>| {
        if let Ok(dir) = made {
            let _ = remove_dir_if(&dir.path, &dir.place);
        }
    };
    within_or(PATIENCE, move || make(&owned), unwanted)
        .unwrap_or_else(|| Err(DirError::Create { path: base.to_owned(), source: no_answer() }))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_base_that_is_not_ours_alone_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        private_base(&base).unwrap();
        assert_eq!(fs::metadata(&base).unwrap().mode() & 0o777, 0o700);
        private_base(&base).unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private_base(&base).unwrap_err().to_string().contains("other users"));
        let link = dir.path().join("link");
        symlink(&base, &link).unwrap();
        assert!(private_base(&link).unwrap_err().to_string().contains("symbolic link"));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(private_base(&file).unwrap_err().to_string().contains("not a directory"));
    }

    #[test]
    fn a_living_run_cannot_be_taken_and_a_dead_one_can() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), Uuid::from_u128(7)).unwrap();
        let path = run.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(RunDir::take(&path).unwrap(), Taken::Living));
        assert!(RunDir::create(dir.path(), Uuid::from_u128(7)).is_err(), "never used twice");
        drop(run);
        let Taken::Ours(run) = RunDir::take(&path).unwrap() else { panic!("still locked") };
        fs::write(path.join("00000.ring"), "").unwrap();
        fs::write(path.join("run.json"), "").unwrap();
        fs::write(path.join("notes.txt"), "somebody's").unwrap();
        run.remove("run.json").unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "what is not ours stays");
        fs::remove_file(path.join("notes.txt")).unwrap();
        run.remove("run.json").unwrap();
        assert!(!path.exists());
    }
}
