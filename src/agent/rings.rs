//! The rings of a run as its host has them: where they lie, which copies are worth sending, and how
//! much of each was ever written. Read only, but for the removal of all of it.

use crate::cluster::protocol::{FileEntry, MAX_FILES, Place};
use crate::ring::Ring;
use crate::run::{MANIFEST, RunDir, Taken, default_mirror_base, default_ring_base, is_own};
use crate::sampler::file_name;
use crate::units::Slot;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a recorder that has ended may take to be gone.
const DYING: Duration = Duration::from_secs(5);
/// Room on a disk with which a mirror can at least begin.
const LEAST_MIRROR_BYTES: u64 = 1 << 20;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The directories of a run on this host, the one for its ring first; and whether that is the mirror's.
pub fn dirs(place: &Place) -> Vec<(PathBuf, bool)> {
    let or = |base: &Option<String>, default: PathBuf| base.clone().map_or(default, PathBuf::from);
    let bases = [
        (or(&place.ring_base, default_ring_base()), false),
        (or(&place.mirror_base, default_mirror_base()), true),
    ];
    let mut dirs: Vec<(PathBuf, bool)> = Vec::new();
    for (base, is_mirror) in bases {
        let dir = base.join(place.run_id.to_string());
        if is_own(&dir) && !dirs.iter().any(|(other, _)| *other == dir) {
            dirs.push((dir, is_mirror));
        }
    }
    dirs
}

/// A ring file that can be sent.
pub struct RingFile {
    /// For the list.
    pub entry: FileEntry,
    /// Open.
    pub file: File,
}

/// The files of a run whose recorder has ended. Of a segment whose ring is whole, the ring alone.
pub fn files(place: &Place) -> io::Result<Vec<RingFile>> {
    let mut files: Vec<RingFile> = Vec::new();
    let mut whole: Vec<u64> = Vec::new();
    for (dir, is_mirror) in dirs(place) {
        let place = crate::place::Place::open(&dir)?;
        let mut names = place.names()?;
        names.sort();
        for name in names {
            let Some(segment) = segment_of(&name) else { continue };
            if whole.contains(&segment) {
                continue;
            }
            let Ok(file) = place.read(&name) else { continue };
            let length = file.metadata()?.len();
            let (used, is_whole) =
                match file.try_clone().map(|file| look(file, &dir.join(&name)))? {
                    Some((used, is_whole)) => (used.min(length), is_whole),
                    None => (length, false),
                };
            if is_whole {
                whole.push(segment);
            }
            if files.len() < MAX_FILES && used > 0 {
                files.push(RingFile { entry: FileEntry { segment, is_mirror, bytes: used }, file });
            }
        }
    }
    Ok(files)
}

/// Whether a run that is about to begin has a ring that outlives its process: a file that has its room
/// already, or else a mirror on a disk that is not full.
pub fn has_room(place: &Place) -> bool {
    dirs(place).iter().any(|(dir, is_mirror)| {
        let has_file = fs::metadata(dir.join(file_name(0))).is_ok_and(|meta| meta.len() > 0);
        let free = rustix::fs::statvfs(dir).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
        has_file || (*is_mirror && free.is_ok_and(|free| free >= LEAST_MIRROR_BYTES))
    })
}

/// The number in a ring file's name.
fn segment_of(name: &str) -> Option<u64> {
    let segment = name.strip_suffix(".ring")?.parse().ok()?;
    (file_name(segment) == name).then_some(segment)
}

/// Up to where a ring was written, and whether every record of it verifies; `None` if it is none.
fn look(file: File, path: &Path) -> Option<(u64, bool)> {
    let ring = Ring::new(Box::new(file), path).ok()?;
    let scan = ring.scan().ok()?;
    let layout = ring.header().layout;
    if scan.torn > 0 {
        return Some((layout.file_bytes().0, false));
    }
    // A record that was being written when its recorder was killed lies in the next one's slot.
    let next = scan.newest.map_or(0, |newest| newest.0 + 1 - ring.header().first_seq.0);
    let slots = next.saturating_add(u64::from(scan.busy > 0)).min(layout.slots);
    Some((layout.slot_offset(Slot(slots)).0, true))
}

/// Whether a process has the run.
pub fn is_living(place: &Place) -> bool {
    dirs(place).iter().any(|(dir, _)| matches!(RunDir::take(dir), Ok(Taken::Living)))
}

/// Waits until no process has the run any more; whether that is so.
pub fn wait_for_the_dead(place: &Place) -> bool {
    let since = Instant::now();
    while is_living(place) {
        if since.elapsed() > DYING {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    true
}

/// Removes all of it.
///
/// # Errors
/// The kernel's; `ResourceBusy` if it lives.
pub fn discard(place: &Place) -> io::Result<()> {
    if !wait_for_the_dead(place) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "its recorder lives"));
    }
    for (dir, _) in dirs(place) {
        match RunDir::take(&dir) {
            Ok(Taken::Ours(dir)) => dir.remove(MANIFEST)?,
            Ok(Taken::Living) => return Err(io::ErrorKind::ResourceBusy.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a run has anything here.
pub fn is_there(place: &Place) -> bool {
    dirs(place).iter().any(|(dir, _)| {
        let names = fs::read_dir(dir).into_iter().flatten().flatten();
        names.into_iter().any(|entry| entry.file_name().to_str().and_then(segment_of).is_some())
    })
}
