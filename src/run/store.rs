//! Where runs are looked for, and how a ring or run that a user names is found. What becomes of a
//! run that was found is `recover`'s.

use super::dirs::{default_mirror_base, default_ring_base};
use super::found::{FoundRun, is_living};
use super::manifest::Manifest;
use super::scratch::copy_of_living;
use crate::decode::DecodeError;
use crate::ring::Ring;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Where runs are looked for.
#[derive(Debug, Clone)]
pub struct Store {
    bases: Vec<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Store { bases: vec![default_ring_base(), default_mirror_base()] }
    }
}

/// Why what the user named could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// Nothing of that name.
    #[error(
        "there is no ring file, run directory or run \"{0}\"; `ringstat recover --list` shows the \
         runs that there are"
    )]
    Unknown(String),
    /// More than one.
    #[error("more than one run begins with \"{0}\"; give more of its id")]
    Ambiguous(String),
    /// Not readable.
    #[error("cannot look into {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There, but without any ring.
    #[error("{} has no ring file", .0.display())]
    NoRings(PathBuf),
}

/// What a user's argument stands for.
pub enum Located {
    /// One file.
    File(PathBuf),
    /// A run with all its rings.
    Run(Box<FoundRun>),
}

impl Store {
    /// Also looks below these directories.
    #[must_use]
    pub fn with(mut self, bases: impl IntoIterator<Item = PathBuf>) -> Self {
        self.bases.extend(bases);
        self
    }

    /// All runs, oldest first. What is of one name and of two users is two runs.
    pub fn runs(&self) -> Vec<FoundRun> {
        let mut found: BTreeMap<(Uuid, u32), Vec<PathBuf>> = BTreeMap::new();
        // One directory under two names is one directory.
        let bases: BTreeSet<PathBuf> =
            self.bases.iter().filter_map(|base| fs::canonicalize(base).ok()).collect();
        for base in &bases {
            for entry in fs::read_dir(base).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(run_id) = name.to_str().and_then(|name| Uuid::parse_str(name).ok()) else {
                    continue;
                };
                // Does not follow a symbolic link.
                let Ok(meta) = entry.metadata() else { continue };
                let dirs = found.entry((run_id, meta.uid())).or_default();
                if meta.is_dir() && !dirs.contains(&entry.path()) {
                    dirs.push(entry.path());
                }
            }
        }
        found.into_iter().filter_map(|((run_id, _), dirs)| FoundRun::of(run_id, dirs)).collect()
    }

    /// What `argument` stands for: a ring file, a run's directory, or the id of a run or the
    /// beginning of it.
    ///
    /// # Errors
    /// [`LocateError`].
    pub fn locate(&self, argument: &str) -> Result<Located, LocateError> {
        let path = Path::new(argument);
        if path.is_dir() {
            let path = fs::canonicalize(path)
                .map_err(|source| LocateError::Io { path: path.to_owned(), source })?;
            let run_id = path.file_name().and_then(|name| Uuid::parse_str(name.to_str()?).ok());
            let found = FoundRun::of(run_id.unwrap_or_default(), vec![path.clone()]);
            return match found {
                // Without rings, what a removal has left; without a manifest too, its empty directory.
                Some(run)
                    if !run.rings.is_empty() || run.manifest.is_some() || run_id.is_some() =>
                {
                    Ok(Located::Run(Box::new(run)))
                }
                _ => Err(LocateError::NoRings(path)),
            };
        }
        if path.exists() {
            return Ok(Located::File(path.to_owned()));
        }
        let begins = |run: &FoundRun| run.run_id.to_string().starts_with(argument);
        let mut runs: Vec<FoundRun> = self.runs().into_iter().filter(begins).collect();
        if runs.iter().any(|run| run.distrust().is_none()) {
            runs.retain(|run| run.distrust().is_none());
        }
        let mut runs = runs.into_iter();
        match (runs.next(), runs.next()) {
            (None, _) => Err(LocateError::Unknown(argument.to_owned())),
            (Some(run), None) => Ok(Located::Run(Box::new(run))),
            (Some(_), Some(_)) => Err(LocateError::Ambiguous(argument.to_owned())),
        }
    }
}

impl Located {
    /// Opens all rings of it; those of a living run as they are now, see [`rings_by`](Self::rings_by).
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn rings(&self) -> Result<Vec<Ring>, DecodeError> {
        self.rings_by(None)
    }

    /// As [`rings`](Self::rings): what is being written is copied to a file without a name in `copy_dir`,
    /// such as the directory that the output goes to, and where that cannot be to one in `TMPDIR` or
    /// `/var/tmp`.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn rings_by(&self, copy_dir: Option<&Path>) -> Result<Vec<Ring>, DecodeError> {
        match self {
            Located::File(path) if dir_of(path).is_some_and(is_living) => {
                Ok(vec![copy_of_living(path, copy_dir)?])
            }
            Located::File(path) => Ok(vec![Ring::open(path)?]),
            Located::Run(run) if run.rings.is_empty() => Err(DecodeError::NoRings),
            Located::Run(run) => run.open(copy_dir),
        }
    }

    /// What the run says of itself.
    pub fn manifest(&self) -> Option<Manifest> {
        match self {
            Located::File(path) => Manifest::load(&dir_of(path)?).ok(),
            Located::Run(run) => run.manifest.clone(),
        }
    }
}

/// The directory that a file is in, by its own name.
fn dir_of(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()?.parent().map(Path::to_owned)
}
