//! Runs found by their files: which there are, whether they live, what they owe, and writing it.
//! Also how a ring or run that a user names is found.

use super::cluster;
use super::dirs::{RunDir, Taken, default_mirror_base, default_ring_base, is_own};
use super::finish::{FinalFiles, FinishError, Order, remove_leftovers};
use super::manifest::{DATETIME, MANIFEST, Manifest, is_benchmark_type};
use super::recording::not_removed;
use super::system;
use super::trust::{are_of_one_user, distrust};
use crate::decode::metadata::SystemInfo;
use crate::decode::{ClusterDecoder, DecodeError, Decoder, Format, OpenRings, snapshot};
use crate::description::Description;
use crate::ring::{BadHeader, Ring, RingError};
use crate::sampler::{NotEnoughMemory, check_memory};
use crate::units::Bytes;
use chrono::{DateTime, Local};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
}

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
                // Without rings, what a removal has left.
                Some(run) if !run.rings.is_empty() || run.manifest.is_some() => {
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

/// Copies a ring that is being written, if that leaves most of the memory to others.
fn copy_of_living(path: &Path) -> Result<Ring, DecodeError> {
    let refused = |source| DecodeError::Snapshot { path: path.to_owned(), source };
    // No more than the ring: somebody may have made the file longer.
    let ring_bytes = Ring::open(path)?.header().layout.file_bytes();
    let bytes = Bytes(fs::metadata(path).map_err(refused)?.len()).min(ring_bytes);
    check_memory(bytes).map_err(|NotEnoughMemory { need_mb, available_mb, .. }| {
        refused(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!(
                "its {need_mb} MB are more than half of the {available_mb} MB of memory that are \
                 available; wait until the run has ended: its ring is then read where it is"
            ),
        ))
    })?;
    snapshot(path)
}

impl Located {
    /// Opens all rings of it; those of a living run as they are now.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn rings(&self) -> Result<Vec<Ring>, DecodeError> {
        match self {
            Located::File(path) => {
                let living = dir_of(path).is_some_and(is_living);
                Ok(vec![if living { copy_of_living(path)? } else { Ring::open(path)? }])
            }
            Located::Run(run) if run.rings.is_empty() => Err(DecodeError::NoRings),
            Located::Run(run) => run.open(),
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

impl FoundRun {
    /// The run in these directories, and in those that its manifest names beside them, if they are
    /// of the same user. `None` if there is nothing in them.
    fn of(run_id: Uuid, dirs: Vec<PathBuf>) -> Option<FoundRun> {
        if dirs.is_empty() {
            return None;
        }
        let mut run = FoundRun::found(run_id, dirs)?;
        if run.dirs.iter().any(is_living) {
            run.state = RunState::Recording;
        }
        Some(run)
    }

    /// As [`of`](Self::of), of a run that is known not to live.
    fn found(run_id: Uuid, mut dirs: Vec<PathBuf>) -> Option<FoundRun> {
        // The copy that knows most: a full disk may have kept the other from being renewed.
        let knows = |manifest: &Manifest| {
            (manifest.done, manifest.final_datetime.is_some(), manifest.ended.is_some())
        };
        let loaded = dirs.iter().filter_map(|dir| Some((dir.clone(), Manifest::load(dir).ok()?)));
        let found = loaded.max_by_key(|(_, manifest)| knows(manifest));
        if let Some((place, manifest)) = &found {
            let canonical = |dir: &Option<PathBuf>| fs::canonicalize(dir.as_ref()?).ok();
            let ring_dir = canonical(&manifest.ring_dir);
            let own = ring_dir.iter().cloned().chain(canonical(&manifest.mirror_dir));
            for dir in own.filter(|dir| dir.ends_with(manifest.run_id.to_string())) {
                if !dirs.contains(&dir) && are_of_one_user(place, &dir) {
                    dirs.push(dir);
                }
            }
            // The ring before its mirror.
            dirs.sort_by_key(|dir| ring_dir.as_ref() != Some(dir));
        }
        let manifest = found.map(|(_, manifest)| manifest);
        let mut rings = Vec::new();
        for dir in &dirs {
            let mut files: Vec<PathBuf> = fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "ring"))
                .collect();
            files.sort();
            rings.extend(files);
        }
        if manifest.is_none() && rings.is_empty() && !dirs.iter().all(|dir| is_unused(dir)) {
            return None;
        }
        let state = match &manifest {
            Some(manifest) if manifest.done => RunState::Kept,
            _ => RunState::Owing,
        };
        let run_id = manifest.as_ref().map_or(run_id, |manifest| manifest.run_id);
        Some(FoundRun { run_id, manifest, dirs, rings, state })
    }

    /// Opens all rings that can be read.
    fn open(&self) -> Result<Vec<Ring>, DecodeError> {
        let (rings, mut refused) = self.open_each();
        match refused.pop() {
            Some((_, error)) if rings.is_empty() => Err(error),
            _ => Ok(rings),
        }
    }

    /// Opens each ring; those that cannot be opened, what is known least of last.
    fn open_each(&self) -> (Vec<Ring>, Vec<(PathBuf, DecodeError)>) {
        let (mut rings, mut refused) = (Vec::new(), Vec::new());
        for path in &self.rings {
            // Of a living run the ring has all that its mirror has, and copies cost memory.
            let is_there = |ring: &Ring| ring.path().file_name() == path.file_name();
            if self.state == RunState::Recording && rings.iter().any(is_there) {
                continue;
            }
            let ring = match self.state {
                RunState::Recording if !self.is_at_rest(path) => copy_of_living(path),
                _ => Ring::open(path).map_err(DecodeError::from),
            };
            match ring.and_then(|ring| self.of_this_run(ring)) {
                Ok(ring) => rings.push(ring),
                Err(error) => refused.push((path.clone(), error)),
            }
        }
        if self.state != RunState::Recording {
            // Where another copy tells what the head was, the slots judge themselves.
            for (path, _) in &refused {
                let copy = rings.iter().find(|ring| ring.path().file_name() == path.file_name());
                let borrowed = copy.and_then(|copy| Ring::open_with_head_of(path, copy).ok());
                rings.extend(borrowed);
            }
        }
        // One that was damaged says more than one that was never begun.
        refused.sort_by_key(|(_, error)| !is_unfinished(error));
        (rings, refused)
    }

    /// Refuses a ring that somebody else has put among those of this run.
    fn of_this_run(&self, ring: Ring) -> Result<Ring, DecodeError> {
        let found = ring.header().run_id;
        if self.run_id.is_nil() || found == self.run_id {
            return Ok(ring);
        }
        Err(DecodeError::OtherRun {
            path: ring.path().to_owned(),
            found: found.to_string(),
            expected: self.run_id.to_string(),
        })
    }

    /// Whether a ring of a living run will not be written to again: another segment follows it.
    fn is_at_rest(&self, path: &Path) -> bool {
        let ring_dir = self.manifest.as_ref().and_then(|manifest| manifest.ring_dir.as_ref());
        let is_ring = ring_dir.and_then(|dir| fs::canonicalize(dir).ok()).as_deref()
            == path.parent().and_then(|dir| fs::canonicalize(dir).ok()).as_deref();
        is_ring && self.rings.iter().any(|other| other.file_name() > path.file_name())
    }

    /// A sentence for each ring that cannot be read and of which there is no other copy.
    pub fn unreadable_rings(&self) -> Vec<String> {
        let (rings, refused) = self.open_each();
        let has_copy =
            |path: &Path| rings.iter().any(|ring| ring.path().file_name() == path.file_name());
        refused
            .into_iter()
            // One that cannot even be opened may have more than its copy.
            .filter(|(path, error)| is_closed(error) || !(is_unfinished(error) || has_copy(path)))
            .map(|(_, error)| format!("samples are missing: {error}"))
            .collect()
    }

    /// Reads its rings.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decoder(&self) -> Result<Decoder, DecodeError> {
        Decoder::new(self.open()?)
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

    /// Writes the files that the run owes, to `results_dir` or to where it would have put them,
    /// and removes its rings. `None` if it lives, owes nothing, or never took a sample.
    ///
    /// # Errors
    /// [`FinishError`]: then its rings stay. `NotOurs` for a run of another user.
    pub fn recover(
        &self,
        results_dir: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<FinalFiles>, FinishError> {
        if self.state != RunState::Owing {
            return Ok(None);
        }
        if let Some((dir, why)) = self.distrust() {
            return Err(FinishError::NotOurs { dir: dir.to_owned(), why });
        }
        let mut locks = Vec::new();
        for path in &self.dirs {
            if !is_own(path) {
                let what = "the run belongs to another user, who is to recover it";
                let source = io::Error::new(io::ErrorKind::PermissionDenied, what);
                return Err(FinishError::Write { path: path.clone(), source });
            }
            match RunDir::take(path) {
                Ok(Taken::Ours(dir)) => locks.push(dir),
                // Somebody else recovers it just now, or just has.
                Ok(Taken::Living) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(FinishError::Write { path: path.clone(), source }),
            }
        }
        // What was read before the locks may be what somebody else has changed meanwhile.
        match FoundRun::found(self.run_id, self.dirs.clone()) {
            Some(run) if run.state == RunState::Owing => {
                run.recover_locked(locks, results_dir, progress)
            }
            _ => Ok(None),
        }
    }

    fn recover_locked(
        &self,
        dirs: Vec<RunDir>,
        results_dir: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<FinalFiles>, FinishError> {
        if let Some(manifest) = self.manifest.clone().filter(|it| it.cluster.is_some()) {
            return self.recover_cluster(manifest, dirs, results_dir, progress);
        }
        let decoder = if self.rings.is_empty() {
            None
        } else {
            match self.decoder() {
                Ok(decoder) => Some(decoder),
                // Killed before its first sample: there is nothing to owe.
                Err(error) if is_unfinished(&error) => None,
                Err(error) => return Err(error.into()),
            }
        };
        let lost = self.unreadable_rings();
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
                manifest.warnings.extend(lost.iter().cloned());
                self.keep_own_dirs(&mut manifest);
                let order = Order {
                    manifest: &mut manifest,
                    save: true,
                    renew: false,
                    decoder: Some(decoder.as_cluster()),
                    system: system_of(&decoder),
                    recovered: true,
                    progress,
                };
                let mut files = order.carry_out()?;
                files.problems.extend(lost.iter().cloned());
                Some(files)
            }
            // Killed before its first sample, or while it removed its rings behind the final files.
            None => None,
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

    /// As [`recover_locked`](Self::recover_locked), of a run of several hosts: what they still have is
    /// fetched first. As long as one of them may have more, the run's directories stay.
    fn recover_cluster(
        &self,
        mut manifest: Manifest,
        dirs: Vec<RunDir>,
        results_dir: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<FinalFiles>, FinishError> {
        if let Some(dir) = results_dir {
            remove_leftovers(&manifest);
            manifest.results_dir = std::path::absolute(dir)
                .map_err(|source| FinishError::Write { path: dir.to_owned(), source })?;
        }
        self.keep_own_dirs(&mut manifest);
        let Some(mut known) = manifest.cluster.take() else { return Ok(None) };
        let was_incomplete = known.is_incomplete;
        let before = known.owing().len();
        let dir = manifest.mirror_dir.clone().or_else(|| manifest.ring_dir.clone());
        let mut hosts = cluster::fetch(&mut known, dir.as_deref(), &mut |_, _| {});
        let owing = known.owing();
        if was_incomplete && !owing.is_empty() && owing.len() == before {
            let why = known.hosts.iter().filter(|host| host.state.owes());
            let why = why.flat_map(|host| &host.errors).last();
            return Err(FinishError::Owed {
                hosts: owing.join(", "),
                why: why.map_or(String::new(), |failure| failure.message.clone()),
            });
        }
        known.is_incomplete = !owing.is_empty();
        let here = self.rings.clone();
        let open: OpenRings = Box::new(move || {
            let (rings, refused): (Vec<_>, Vec<_>) =
                here.iter().map(|path| Ring::open(path)).partition(Result::is_ok);
            let rings: Vec<Ring> = rings.into_iter().flatten().collect();
            match refused.into_iter().find_map(Result::err) {
                Some(error) if rings.is_empty() => Err(error.into()),
                _ => Ok(rings),
            }
        });
        let open = (!self.rings.is_empty()).then_some(open);
        let (run, rings) = cluster::output(&known, self.run_id, dir.as_deref(), open);
        let decoder = ClusterDecoder::new(run, rings)?;
        manifest.cluster = Some(known.clone());
        manifest.warnings.retain(|warning| !warning.contains("ringstat recover"));
        if known.is_incomplete {
            manifest.warnings.push(cluster::still_owed(&owing, self.run_id));
        }
        let order = Order {
            manifest: &mut manifest,
            save: true,
            renew: was_incomplete,
            decoder: Some(&decoder),
            system: SystemInfo { hostname: system::hostname(), facts: system::facts() },
            recovered: true,
            progress,
        };
        let mut files = order.carry_out()?;
        let unread: Vec<String> = decoder.unread().iter().map(|(host, _)| host.clone()).collect();
        files.problems.extend(hosts.end(&mut known, &unread));
        if !owing.is_empty() {
            manifest.cluster = Some(known);
            let _ = manifest.save();
            files.problems.push(cluster::still_owed(&owing, self.run_id));
            return Ok(Some(files));
        }
        for dir in &dirs {
            if let Err(error) = dir.remove(MANIFEST) {
                files.problems.push(not_removed(dir.path(), &error));
            }
        }
        Ok(Some(files))
    }

    /// The manifest is saved where it was found, and not wherever it says that it lies.
    fn keep_own_dirs(&self, manifest: &mut Manifest) {
        for dir in [&mut manifest.ring_dir, &mut manifest.mirror_dir] {
            *dir = dir.take().and_then(|dir| fs::canonicalize(dir).ok());
            *dir = dir.take().filter(|dir| self.dirs.contains(dir));
        }
        if manifest.ring_dir.is_none() && manifest.mirror_dir.is_none() {
            manifest.ring_dir = self.dirs.first().cloned();
        }
    }
}

/// Decodes rings to files in `results_dir`, without touching the rings: `manifest` as far as it
/// is known, what the rings say for the rest.
///
/// # Errors
/// [`FinishError`].
pub fn write_decoded(
    decoder: &mut Decoder,
    manifest: Option<Manifest>,
    results_dir: &Path,
    change: impl FnOnce(&mut Manifest),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<FinalFiles, FinishError> {
    let mut manifest = manifest.unwrap_or_else(|| manifest_of(decoder));
    manifest.results_dir = std::path::absolute(results_dir)
        .map_err(|source| FinishError::Write { path: results_dir.to_owned(), source })?;
    // These files are not the ones that the run owes.
    manifest.final_datetime = None;
    manifest.merge_metadata = None;
    change(&mut manifest);
    let recovered = !decoder.summary().ended_cleanly;
    Order {
        manifest: &mut manifest,
        save: false,
        renew: false,
        decoder: Some(decoder.as_cluster()),
        system: system_of(decoder),
        recovered,
        progress,
    }
    .carry_out()
}

/// Facts about the host of a recording.
fn system_of(decoder: &Decoder) -> SystemInfo {
    let Description { hostname, system, .. } = decoder.description();
    SystemInfo { hostname: hostname.clone(), facts: system.clone() }
}

/// A run's manifest from what its rings say.
fn manifest_of(decoder: &Decoder) -> Manifest {
    let Description { hostname, run, .. } = decoder.description();
    let nanoseconds = i64::try_from(decoder.header().start_wall_ns).unwrap_or(i64::MAX);
    // It becomes part of a file name, and a ring may come from anywhere.
    let benchmark_type = match &run.benchmark_type {
        name if is_benchmark_type(name) => name.clone(),
        _ => "record".to_owned(),
    };
    Manifest {
        version: 1,
        run_id: decoder.header().run_id,
        benchmark_type,
        mode: run.mode.clone(),
        command: run.command.clone(),
        results_dir: PathBuf::from("."),
        format: <&Format>::default().name.to_owned(),
        merge_metadata: None,
        datetime: DateTime::from_timestamp_nanos(nanoseconds)
            .with_timezone(&Local)
            .format(DATETIME)
            .to_string(),
        hostname: hostname.clone(),
        pid: 0,
        ring_dir: None,
        mirror_dir: None,
        ended: None,
        final_datetime: None,
        launcher: None,
        cluster: None,
        done: false,
        warnings: Vec::new(),
    }
}

/// The directory that a file is in, by its own name.
fn dir_of(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()?.parent().map(Path::to_owned)
}

/// Whether what is in a ring is not known, since it could not be opened or read.
fn is_closed(error: &DecodeError) -> bool {
    matches!(error, DecodeError::Ring(RingError::Io { .. }))
}

/// Whether a run's directory has nothing in it but what was to become a manifest: its recorder was
/// killed before or behind all that it did.
fn is_unused(dir: &Path) -> bool {
    let is_temporary = |entry: fs::DirEntry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(MANIFEST) && name != MANIFEST)
    };
    fs::read_dir(dir).is_ok_and(|entries| entries.flatten().all(is_temporary))
}

/// Whether a living process has this run directory.
fn is_living(dir: impl AsRef<Path>) -> bool {
    matches!(RunDir::take(dir.as_ref()), Ok(Taken::Living))
}

/// A ring whose recorder did not get to write its header: it has never held a sample. Anything
/// else that keeps a ring from being read is no reason to remove it.
fn is_unfinished(error: &DecodeError) -> bool {
    let DecodeError::Ring(error) = error else { return false };
    match error {
        RingError::Short { found, .. } => *found == 0,
        RingError::Header { source, .. } => *source == BadHeader::Zero,
        RingError::Io { .. } | RingError::Description { .. } => false,
    }
}
