//! Runs found by their files: which there are, whether they live, what their rings have and whether
//! anything is missing. Nothing is written or removed here. Where runs are looked for, and how one that a
//! user names is found, is `store`'s.

use super::copies::{Copies, Refused, any_of};
use super::dirs::{RunDir, Taken};
use super::manifest::{MANIFEST, Manifest};
use super::origin::Origin;
use super::removal::is_of_others;
use super::scratch::copy_of_living;
use super::trust::{are_of_one_user, distrust};
use crate::decode::{DecodeError, Decoder};
use crate::place::Place;
use crate::ring::{self, Ring, RingError};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// What a run that was found is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Its recorder lives.
    Recording,
    /// Its recorder is dead, and its files are owed.
    Owing,
    /// Its files are written; the rings were kept on request.
    Kept,
}

/// A run that has left something in one of the directories.
#[derive(Clone)]
pub struct FoundRun {
    /// The run.
    pub run_id: Uuid,
    /// What it says of itself; `None` if that was lost, and the rings must do.
    pub manifest: Option<Manifest>,
    /// Its directories, as far as they are there.
    pub dirs: Vec<PathBuf>,
    /// Its ring files, the ring before its mirror.
    pub rings: Vec<PathBuf>,
    /// What it is doing.
    pub state: RunState,
    /// Its directories, if they are to be read wherever their names lead by now.
    places: Places,
}

/// Directories that are held open, by name.
pub(super) type Places = BTreeMap<PathBuf, Arc<Place>>;

impl FoundRun {
    /// The run in these directories, and in those that its manifest names beside them, if they are
    /// of the same user. `None` if there is nothing in them.
    pub(super) fn of(run_id: Uuid, dirs: Vec<PathBuf>) -> Option<FoundRun> {
        if dirs.is_empty() {
            return None;
        }
        let mut run = FoundRun::found(run_id, dirs, Places::new())?;
        if run.dirs.iter().any(is_living) {
            run.state = RunState::Recording;
        }
        Some(run)
    }

    /// As [`of`](Self::of), of a run that is known not to live. If there are any `places`, they are
    /// those of all `dirs`, and no other directory is looked into.
    pub(super) fn found(run_id: Uuid, mut dirs: Vec<PathBuf>, places: Places) -> Option<FoundRun> {
        // The copy that knows most: a full disk may have kept the other from being renewed.
        let knows = |manifest: &Manifest| {
            (manifest.done, manifest.final_datetime.is_some(), manifest.ended.is_some())
        };
        let load = |dir: &PathBuf| match places.get(dir) {
            Some(place) => Manifest::load_in(place, dir),
            None => Manifest::load(dir),
        };
        let loaded = dirs.iter().filter_map(|dir| Some((dir.clone(), load(dir).ok()?)));
        let found = loaded.max_by_key(|(_, manifest)| knows(manifest));
        if let Some((place, manifest)) = &found {
            let canonical = |dir: &Option<PathBuf>| fs::canonicalize(dir.as_ref()?).ok();
            let ring_dir = canonical(&manifest.ring_dir);
            let own = ring_dir.iter().cloned().chain(canonical(&manifest.mirror_dir));
            for dir in own.filter(|dir| dir.ends_with(manifest.run_id.to_string())) {
                if places.is_empty() && !dirs.contains(&dir) && are_of_one_user(place, &dir) {
                    dirs.push(dir);
                }
            }
            // The ring before its mirror.
            dirs.sort_by_key(|dir| ring_dir.as_ref() != Some(dir));
        }
        let manifest = found.map(|(_, manifest)| manifest);
        let mut rings = Vec::new();
        for dir in &dirs {
            let mut files = names_in(dir, &places);
            files.retain(|name| name.ends_with(".ring"));
            files.sort();
            rings.extend(files.into_iter().map(|name| dir.join(name)));
        }
        let is_unused =
            |dir: &PathBuf| names_in(dir, &places).iter().all(|name| is_temporary(name));
        // What others have put there stays when a run's directory is removed.
        let is_nothing = || {
            rings
                .iter()
                .all(|ring| Place::of(ring).is_ok_and(|(place, name)| is_of_others(&place, name)))
        };
        if manifest.is_none() && is_nothing() && !dirs.iter().all(is_unused) {
            return None;
        }
        let state = match &manifest {
            Some(manifest) if manifest.done => RunState::Kept,
            _ => RunState::Owing,
        };
        let run_id = manifest.as_ref().map_or(run_id, |manifest| manifest.run_id);
        Some(FoundRun { run_id, manifest, dirs, rings, state, places })
    }

    /// Opens all rings that can be read; what is being written as it is now, copied to a file in `copy_dir`
    /// if that can be.
    pub(super) fn open(&self, copy_dir: Option<&Path>) -> Result<Vec<Ring>, DecodeError> {
        let (rings, refused) = if self.state == RunState::Recording {
            self.open_living(|path| copy_of_living(path, copy_dir))
        } else {
            self.copies().open_each()
        };
        any_of(rings, refused)
    }

    pub(super) fn copies(&self) -> Copies<'_, impl Fn(&Path) -> Result<File, RingError>> {
        Copies { paths: &self.rings, run_id: self.run_id, open: |path: &Path| self.open_file(path) }
    }

    /// Opens each ring, without looking at its records; those that cannot be opened, what is known least of
    /// last.
    pub(super) fn open_each(&self) -> (Vec<Ring>, Refused) {
        if self.state == RunState::Recording {
            return self.open_living(|path| Ok(self.open_ring(path)?));
        }
        self.copies().open_each()
    }

    /// Opens each ring of a living run, by `open` what its recorder may be writing.
    fn open_living(
        &self,
        open: impl Fn(&Path) -> Result<Ring, DecodeError>,
    ) -> (Vec<Ring>, Refused) {
        let copies = self.copies();
        let (mut rings, mut refused) = (Vec::<Ring>::new(), Vec::new());
        for path in &self.rings {
            // Of a living run the ring has all that its mirror has.
            if rings.iter().any(|ring| ring.path().file_name() == path.file_name()) {
                continue;
            }
            let ring = if self.is_at_rest(path) {
                self.open_ring(path).map_err(DecodeError::from)
            } else {
                open(path)
            };
            match ring.and_then(|ring| copies.of_this_run(ring)) {
                Ok(ring) => rings.push(ring),
                Err(error) => refused.push((path.clone(), error)),
            }
        }
        copies.sort(&mut refused);
        (rings, refused)
    }

    fn open_ring(&self, path: &Path) -> Result<Ring, RingError> {
        Ring::new(Box::new(self.open_file(path)?), path)
    }

    /// Opens one of its files.
    fn open_file(&self, path: &Path) -> Result<File, RingError> {
        let place = path.parent().and_then(|dir| self.places.get(dir));
        let name = path.file_name().and_then(|name| name.to_str());
        match (place, name) {
            (Some(place), Some(name)) => place
                .read_behind(name)
                .map_err(|source| RingError::Io { path: path.to_owned(), source }),
            _ => ring::open(path),
        }
    }

    /// Whether a ring of a living run will not be written to again: another segment follows it.
    fn is_at_rest(&self, path: &Path) -> bool {
        let ring_dir = self.manifest.as_ref().and_then(|manifest| manifest.ring_dir.as_ref());
        let is_ring = ring_dir.and_then(|dir| fs::canonicalize(dir).ok()).as_deref()
            == path.parent().and_then(|dir| fs::canonicalize(dir).ok()).as_deref();
        is_ring && self.rings.iter().any(|other| other.file_name() > path.file_name())
    }

    /// The rings in which there is nothing: not even what they would have been.
    pub fn empty_rings(&self) -> Vec<PathBuf> {
        let (copies, (_, refused)) = (self.copies(), self.open_each());
        let empty = refused.into_iter().filter(|(path, error)| copies.is_unbegun(path, error));
        empty.map(|(path, _)| path).collect()
    }

    /// A sentence for each ring that cannot be read and of which there is no other copy.
    pub fn unreadable_rings(&self) -> Vec<String> {
        let (rings, refused) = self.open_each();
        self.copies().missing(&rings, &refused)
    }

    /// A sentence for each ring that was cut off before its last sample, and what there is of it.
    pub fn cut_off_rings(&self) -> Vec<String> {
        self.copies().cut_off(&self.open_each().0)
    }

    /// If its rings can be read and give no sample: a sentence for each that may have had some.
    pub(super) fn spoiled_rings(&self) -> Vec<String> {
        match self.decoder() {
            Ok(decoder) if decoder.summary().samples_kept == 0 => {
                self.copies().spoiled(&self.open_each().0)
            }
            _ => Vec::new(),
        }
    }

    /// Reads its rings.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decoder(&self) -> Result<Decoder, DecodeError> {
        Decoder::new(self.open(None)?)
    }

    /// How many samples its rings have that count. Those of a living run are counted where they are.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn samples_kept(&self) -> Result<u64, DecodeError> {
        if self.state != RunState::Recording {
            return Ok(self.decoder()?.summary().samples_kept);
        }
        let (rings, refused) = self.open_each();
        let (mut samples, mut most) = (0, 0);
        for ring in any_of(rings, refused)? {
            samples += ring.scan()?.valid;
            most = ring.header().max_samples;
        }
        Ok(samples.min(most))
    }

    /// The first of its directories that may be somebody else's, and why. Its manifest may then say
    /// anything: it is shown and decoded, but nothing is written or removed because of it.
    pub fn distrust(&self) -> Option<(&Path, String)> {
        self.dirs.iter().find_map(|dir| match distrust(dir) {
            Ok(why) => Some((dir.as_path(), why?)),
            // Gone meanwhile; whoever needs it finds out.
            Err(_) => None,
        })
    }

    /// The host that it was begun on, if that is not known to be this one. Where hosts share a file system
    /// it may be recording there, though it looks dead here: whoever asks for it says that it is not.
    pub fn other_host(&self) -> Option<String> {
        if self.state != RunState::Owing {
            return None;
        }
        let origin = match &self.manifest {
            Some(manifest) => Some(Origin::of_manifest(manifest)),
            None => self.open_each().0.iter().find_map(Origin::of_ring),
        };
        let origin = origin.filter(|origin| !origin.is_same_host(&Origin::own()));
        origin.map(|origin| origin.hostname)
    }
}

/// Whether a file of a run's directory was to become a manifest. A run that has left nothing else was
/// killed before or behind all that it did.
fn is_temporary(name: &str) -> bool {
    name.starts_with(MANIFEST) && name != MANIFEST
}

/// The names in a directory, of which one that cannot be read has one that is nobody's.
fn names_in(dir: &Path, places: &Places) -> Vec<String> {
    let names = match places.get(dir) {
        Some(place) => place.names(),
        None => Place::open(dir).and_then(|place| place.names()),
    };
    names.unwrap_or_else(|_| vec![String::new()])
}

/// Whether a living process has this run directory.
pub(super) fn is_living(dir: impl AsRef<Path>) -> bool {
    matches!(RunDir::take(dir.as_ref()), Ok(Taken::Living))
}
