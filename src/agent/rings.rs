//! The rings of a run as its host has them: where they lie, which copies are worth sending, and how
//! much of each was ever written. Read only, but for the removal of all of it.

use super::others::is_recorded_here;
use crate::cluster::protocol::{FileEntry, MAX_FILES, Place};
use crate::description::Description;
use crate::record::{Common, FLAG_AT_STOP, RecordView, RowHead};
use crate::ring::{Header, Ring};
use crate::run::{
    MANIFEST, RunDir, Taken, default_mirror_base, default_ring_base, is_of_others, is_own,
};
use crate::sampler::file_name;
use crate::schema::Shape;
use crate::units::{Seq, Slot};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a recorder that has ended may take to be gone. (A fuzzer has none that does.)
const DYING: Duration = Duration::from_millis(if cfg!(fuzzing) { 10 } else { 5000 });
/// Room on a disk with which a mirror can at least begin.
const LEAST_MIRROR_BYTES: u64 = 1 << 20;
/// What is looked at by itself where a disk cannot read more at once.
const PAGE_BYTES: usize = 4096;
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Of a ring behind whose newest record there can be no other.
const FOR_EVER: Seq = Seq(u64::MAX);

/// The directories of a run on this host that are there, the one for its ring first; and whether that is
/// the mirror's.
pub fn dirs(place: &Place) -> Vec<(PathBuf, bool)> {
    let mut dirs = places(place);
    dirs.retain(|(dir, _)| is_own(dir));
    dirs
}

/// Where its directories would be.
fn places(place: &Place) -> Vec<(PathBuf, bool)> {
    let or = |base: &Option<String>, default: PathBuf| base.clone().map_or(default, PathBuf::from);
    let bases = [
        (or(&place.ring_base, default_ring_base()), false),
        (or(&place.mirror_base, default_mirror_base()), true),
    ];
    let mut dirs: Vec<(PathBuf, bool)> = Vec::new();
    for (base, is_mirror) in bases {
        let dir = base.join(place.run_id.to_string());
        if !dirs.iter().any(|(other, _)| *other == dir) {
            dirs.push((dir, is_mirror));
        }
    }
    dirs
}

/// One of its directories; `None` if it is not there, or another user's.
///
/// # Errors
/// The kernel's: what is in it is not known.
fn open_dir(dir: &Path) -> io::Result<Option<crate::place::Place>> {
    let is_none = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
        // Somebody else has taken the place of all runs, so that this one never had any there.
        io::ErrorKind::PermissionDenied => !dir.parent().is_some_and(is_own),
        _ => false,
    };
    let open = || {
        fs::symlink_metadata(dir)?;
        if is_own(dir) { crate::place::Place::open(dir).map(Some) } else { Ok(None) }
    };
    match open() {
        Err(error) if is_none(&error) => Ok(None),
        opened => opened,
    }
}

/// A ring file that is listed.
pub struct RingFile {
    /// For the list.
    pub entry: FileEntry,
    path: PathBuf,
    /// The directory that it is in, or why it cannot be had.
    place: Result<Arc<crate::place::Place>, String>,
}

impl RingFile {
    /// What stands for a ring that cannot be had, so that nobody believes to have all of them: asked for,
    /// it says why.
    fn closed(segment: u64, is_mirror: bool, path: PathBuf, error: &io::Error) -> RingFile {
        let why = format!("{} cannot be opened there: {error}", path.display());
        RingFile { entry: FileEntry { segment, is_mirror, bytes: 0 }, path, place: Err(why) }
    }

    /// Opens it: one at a time, since a process may not have so many open as a run has.
    ///
    /// # Errors
    /// A sentence for the launcher.
    pub fn open(&self) -> Result<File, String> {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let place = self.place.as_ref().map_err(Clone::clone)?;
        place
            .read(name)
            .map_err(|error| format!("{} cannot be opened there: {error}", self.path.display()))
    }
}

/// The files of a run whose recorder has ended. Of a segment whose ring has all that its mirror can
/// have, the ring alone. What cannot be opened is listed too; what others have put in the place of one
/// copy of a segment is not, if the other is whole.
///
/// # Errors
/// If there are more than can be sent.
pub fn files(place: &Place) -> io::Result<Vec<RingFile>> {
    let mut files: Vec<RingFile> = Vec::new();
    // By segment, before which record nothing is missing.
    let mut whole_before: BTreeMap<u64, Seq> = BTreeMap::new();
    let mut theirs: Vec<(u64, bool)> = Vec::new();
    for (dir, is_mirror) in places(place) {
        let listed = open_dir(&dir).and_then(|place| {
            let Some(place) = place else { return Ok(None) };
            let names = place.names()?;
            Ok(Some((Arc::new(place), names)))
        });
        let (place, mut names) = match listed {
            Ok(Some(listed)) => listed,
            Ok(None) => continue,
            Err(error) => {
                files.push(RingFile::closed(0, is_mirror, dir, &error));
                continue;
            }
        };
        names.sort();
        let mut looks: Vec<(u64, Look)> = Vec::new();
        for name in names {
            let Some(segment) = segment_of(&name) else { continue };
            let known = whole_before.get(&segment).copied();
            if known == Some(FOR_EVER) {
                continue;
            }
            if is_of_others(&place, &name) {
                theirs.push((segment, is_mirror));
            }
            let path = dir.join(&name);
            let opened = place.read(&name).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, file) = match opened {
                Ok(opened) => opened,
                // Somebody has removed it just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    files.push(RingFile::closed(segment, is_mirror, path, &error));
                    continue;
                }
            };
            let look = look(file, &path);
            if look.as_ref().is_some_and(|look| known.is_some_and(|known| look.end <= known)) {
                continue;
            }
            let bytes = look.as_ref().map_or(length, |look| look.used_bytes.min(length));
            looks.extend(look.map(|look| (segment, look)));
            if bytes > 0 {
                let entry = FileEntry { segment, is_mirror, bytes };
                files.push(RingFile { entry, path, place: Ok(place.clone()) });
            }
        }
        for (number, (segment, look)) in looks.iter().enumerate().filter(|(_, it)| it.1.is_whole) {
            let next = looks.get(number + 1).filter(|(next, _)| *next == segment + 1);
            let is_followed = next.is_some_and(|(_, next)| next.first <= look.end);
            let before = if look.is_stopped || is_followed { FOR_EVER } else { look.end };
            whole_before.insert(*segment, before);
        }
    }
    // Or the host would have something to give for ever that nobody can have.
    files.retain(|RingFile { entry, .. }| {
        let is_theirs = theirs.contains(&(entry.segment, entry.is_mirror));
        let other = whole_before.get(&entry.segment);
        // A mirror may be behind the ring of a run that was killed, which may come back.
        let is_enough = other.is_some_and(|end| entry.is_mirror || *end == FOR_EVER);
        !(is_theirs && is_enough)
    });
    if files.len() > MAX_FILES {
        let found = files.len();
        return Err(io::Error::other(format!(
            "{found} files, and {MAX_FILES} at most can be sent"
        )));
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

/// What there is of a ring.
struct Look {
    /// Up to where it was written.
    used_bytes: u64,
    /// The first record that it may have.
    first: Seq,
    /// Behind its newest record.
    end: Seq,
    /// Whether it has all records before that one which it can have at once, and all their names.
    is_whole: bool,
    /// Whether its newest record is the last of the run.
    is_stopped: bool,
}

/// Looks at a ring; `None` if it is none.
fn look(file: File, path: &Path) -> Option<Look> {
    let ring = Ring::new(Box::new(file), path).ok()?;
    let scan = ring.scan().ok()?;
    let Header { layout, first_seq: first, .. } = *ring.header();
    let end = scan.newest.map_or(first, |newest| Seq(newest.0 + 1));
    // A record that was being written when its recorder was killed lies in the next one's slot.
    let end_slots = (end.0 - first.0).saturating_add(u64::from(scan.busy > 0));
    let used_bytes = match scan.torn {
        0 => layout.slot_offset(Slot(end_slots.min(layout.slots))).0,
        _ => layout.file_bytes().0,
    };
    let oldest = first.0 + end_slots.saturating_sub(layout.slots);
    // Zeros where a record was look like a slot that was never used: each is asked for by its number.
    let is_sound = scan.torn == 0 && scan.busy <= 1;
    let last_flags = if is_sound { flags_of_last(&ring, oldest..end.0) } else { None };
    Some(Look {
        used_bytes,
        first,
        end,
        is_whole: last_flags.is_some(),
        is_stopped: last_flags.is_some_and(|flags| flags & FLAG_AT_STOP != 0),
    })
}

/// The flags of the last of these records, 0 if there is none; `None` if one of them is missing, cannot
/// be understood, or speaks of a name that is not there.
fn flags_of_last(ring: &Ring, records: Range<u64>) -> Option<u64> {
    let description: Description = serde_json::from_slice(&ring.description().ok()?).ok()?;
    let (mut words, mut flags, mut entries) = (Vec::new(), 0, 0);
    for seq in records {
        let is_there = ring.read(Seq(seq), &mut words).unwrap_or(false);
        let view = RecordView::new(&words, &description.schema).ok().filter(|_| is_there)?;
        flags = view.common(Common::Flags);
        for block in view.blocks() {
            let Some(shape @ Shape::Table { .. }) = &block.source.shape else { continue };
            for row in block.data.chunks_exact(shape.row_words()) {
                entries = RowHead::from_word(row[0]).entry.saturating_add(1).max(entries);
            }
        }
    }
    // They are given out in turn.
    let has_names = (0..entries).all(|entry| matches!(ring.entry(entry), Ok(Some(_))));
    has_names.then_some(flags)
}

/// Reads a part of a ring, with zeros in the place of what cannot be read; how many bytes these are. A
/// mirror may have them, and is of use only beside all else that the ring has.
pub fn read_what_can_be(file: &File, bytes: &mut [u8], at: u64) -> u64 {
    if file.read_exact_at(bytes, at).is_ok() {
        return 0;
    }
    let mut unreadable = 0;
    for (page, at) in bytes.chunks_mut(PAGE_BYTES).zip((at..).step_by(PAGE_BYTES)) {
        if file.read_exact_at(page, at).is_err() {
            page.fill(0);
            unreadable += page.len() as u64;
        }
    }
    unreadable
}

/// Whether a process has the run: has its directories locked, or, where there are no locks, is its recorder.
/// In doubt there is none.
pub fn is_living(place: &Place) -> bool {
    is_known_to_live(place) == Some(true)
}

/// The same, but that in doubt there is one: its rings are not to be taken for all that there will be.
pub fn may_be_living(place: &Place) -> bool {
    is_known_to_live(place) != Some(false)
}

fn is_known_to_live(place: &Place) -> Option<bool> {
    let dirs = dirs(place);
    let taken = dirs.iter().map(|(dir, _)| RunDir::take(dir));
    is_known_by(taken, || is_recorded_here(place.run_id))
}

/// As its directories say, or else what `is_recorded` says.
fn is_known_by(
    taken: impl Iterator<Item = io::Result<Taken>>,
    is_recorded: impl FnOnce() -> Option<bool>,
) -> Option<bool> {
    let mut is_known = true;
    for taken in taken {
        match taken {
            Ok(Taken::Living) => return Some(true),
            Ok(Taken::Ours(_)) => {}
            Err(error) => is_known &= error.kind() == io::ErrorKind::NotFound,
        }
    }
    if is_known { Some(false) } else { is_recorded() }
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
    let mut taken = Vec::new();
    for (dir, _) in places(place) {
        if open_dir(&dir)?.is_none() {
            continue;
        }
        match RunDir::take(&dir) {
            Ok(Taken::Ours(dir)) => taken.push(dir),
            Ok(Taken::Living) => return Err(io::ErrorKind::ResourceBusy.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // Not before all of them are ours.
    taken.iter().try_for_each(|dir| dir.remove(MANIFEST))
}

/// Whether a run has anything here. What others have put there stays when its directory is removed.
pub fn is_there(place: &Place) -> bool {
    dirs(place).iter().any(|(dir, _)| {
        let Ok(place) = crate::place::Place::open(dir) else { return false };
        let names = place.names().unwrap_or_default();
        let has_manifest = names.iter().any(|name| name == MANIFEST);
        let is_ours = |name: &str| has_manifest || !is_of_others(&place, name);
        names.iter().any(|name| segment_of(name).is_some() && is_ours(name))
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::record::COMMON_WORDS;
    use crate::ring::{
        Draft, Layout, MIN_INTERVAL_NS, RingWriter, Segment, WordMap, description_check,
    };
    use crate::schema::{Field, Kind, Schema, SourceSchema};
    use crate::sync::Ordering;
    use crate::units::{Bytes, Words};
    use crate::{RunFacts, SamplerFacts, SystemFacts};
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use uuid::Uuid;

    const SLOTS: u64 = 8;
    const DEVICES: [&[u8]; 2] = [b"sda", b"sdb"];
    const RUN: Uuid = Uuid::from_u128(7);

    /// How a segment ends.
    #[derive(Clone, Copy, PartialEq)]
    enum End {
        /// With the last record of the run.
        Stopped,
        /// With any other.
        Cut,
        /// In the middle of one.
        Busy,
    }

    /// The file of a segment that has seen these records, each of both devices.
    fn ring(segment: u64, records: Range<u64>, end: End) -> Vec<u8> {
        let columns = vec![Field::new("reads", Kind::Unsigned)];
        let shape = Some(Shape::Table { instance_key: "device_name".to_owned(), columns });
        let [name, path] = ["diskstats", "/proc/diskstats"].map(str::to_owned);
        let description = serde_json::to_vec(&Description {
            ringstat: "0.1.0".to_owned(),
            hostname: "made".to_owned(),
            run: RunFacts::default(),
            system: SystemFacts::default(),
            sampler: SamplerFacts::default(),
            schema: Schema { sources: vec![SourceSchema { name, path, shape }] },
        })
        .unwrap();
        let length = Bytes(description.len() as u64);
        let header = Header {
            layout: Layout::new(length, 4, Words(COMMON_WORDS as u64 + 6), SLOTS).unwrap(),
            description_check: description_check(&description),
            max_samples: SLOTS - 1,
            run_id: RUN,
            segment,
            first_seq: Seq(records.start),
            start_wall_ns: 0,
            start_monotonic_ns: 0,
            interval_ns: MIN_INTERVAL_NS,
            boot_id: Uuid::from_u128(5),
        };
        let layout = header.layout;
        let map = Arc::new(WordMap::private(layout.file_bytes()).unwrap());
        let made = Arc::new(Segment::create(map, header, &description).unwrap());
        let writer = RingWriter::new(made.clone());
        for name in DEVICES {
            writer.add_entry(0, 0, Seq(records.start), name).unwrap();
        }
        let draft = Draft::new(layout.record());
        for seq in records.clone() {
            let is_last = end == End::Stopped && seq + 1 == records.end;
            let flags = if is_last { FLAG_AT_STOP } else { 0 };
            let row = |entry| [RowHead { entry, columns: 1 }.to_word(), seq];
            let words = [&[seq, 0, 0, 0, 0, 0, 0, flags, 0, 2][..], &row(0), &row(1)].concat();
            for (cell, word) in draft.record().iter().zip(&words) {
                cell.store(*word, Ordering::Relaxed);
            }
            writer.begin(Seq(seq)).unwrap().commit_draft(&draft, words.len());
        }
        if end == End::Busy {
            let _ = writer.begin(Seq(records.end));
        }
        made.words().iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }

    /// The bytes of a slot in that file.
    fn slot(bytes: &[u8], slot: u64) -> Range<usize> {
        let ring = Ring::new(Box::new(bytes.to_vec()), Path::new("made")).unwrap();
        let [from, to] =
            [slot, slot + 1].map(|slot| ring.header().layout.slot_offset(Slot(slot)).0);
        from as usize..to as usize
    }

    fn entry(bytes: &[u8], entry: u32) -> usize {
        let ring = Ring::new(Box::new(bytes.to_vec()), Path::new("made")).unwrap();
        ring.header().layout.entry_offset(entry).0 as usize
    }

    /// A run with these rings and mirrors.
    fn run(world: &Path, rings: &[impl AsRef<[u8]>], mirrors: &[impl AsRef<[u8]>]) -> Place {
        let base = |name: &str, files: Vec<&[u8]>| {
            let dir = world.join(name).join(RUN.to_string());
            fs::create_dir_all(&dir).unwrap();
            for (segment, bytes) in (0..).zip(files) {
                let path = dir.join(file_name(segment));
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            }
            Some(world.join(name).to_str().unwrap().to_owned())
        };
        let ring_base = base("rings", rings.iter().map(AsRef::as_ref).collect());
        let mirror_base = base("mirrors", mirrors.iter().map(AsRef::as_ref).collect());
        Place { run_id: RUN, ring_base, mirror_base }
    }

    /// What is sent of it: segments, and whether it is the mirror's.
    fn sent(rings: &[impl AsRef<[u8]>], mirrors: &[impl AsRef<[u8]>]) -> Vec<(u64, bool)> {
        let world = tempfile::tempdir().unwrap();
        let files = files(&run(world.path(), rings, mirrors)).unwrap();
        files.iter().map(|file| (file.entry.segment, file.entry.is_mirror)).collect()
    }

    const RING: [(u64, bool); 1] = [(0, false)];
    const BOTH: [(u64, bool); 2] = [(0, false), (0, true)];

    #[test]
    fn where_there_are_no_locks_the_recorder_s_process_tells() {
        use io::ErrorKind::{NotFound, Unsupported};
        let is_known = |kinds: &[io::ErrorKind], recorded| {
            is_known_by(kinds.iter().map(|kind| Err((*kind).into())), || recorded)
        };
        assert_eq!(is_known(&[], Some(true)), Some(false));
        assert_eq!(is_known(&[NotFound, NotFound], None), Some(false));
        for recorded in [Some(true), Some(false), None] {
            assert_eq!(is_known(&[NotFound, Unsupported], recorded), recorded);
        }
        let living = [Err(Unsupported.into()), Ok(Taken::Living)].into_iter();
        assert_eq!(is_known_by(living, || None), Some(true));
    }

    #[test]
    fn what_cannot_be_read_is_zeros_and_all_else_is_there() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 3 * PAGE_BYTES], 0).unwrap();
        let mut bytes = vec![1; 3 * PAGE_BYTES];
        assert_eq!(read_what_can_be(&file, &mut bytes, 0), 0);
        assert_eq!(bytes, [7; 3 * PAGE_BYTES]);
        // One that became shorter than it was listed.
        file.set_len(PAGE_BYTES as u64 + 100).unwrap();
        assert_eq!(read_what_can_be(&file, &mut bytes, 0), 2 * PAGE_BYTES as u64);
        assert_eq!(bytes, [[7; PAGE_BYTES], [0; PAGE_BYTES], [0; PAGE_BYTES]].concat());
        // Nothing is there in a process (proc_pid_mem(5)): EIO.
        let none = File::open("/proc/self/mem").unwrap();
        assert_eq!(read_what_can_be(&none, &mut bytes[..100], 0), 100);
    }

    #[test]
    fn of_a_whole_ring_the_mirror_is_left_where_it_is() {
        for records in [10..10, 10..11, 10..17, 10..18, 10..19, 10..40] {
            let whole = ring(0, records.clone(), End::Stopped);
            let none = sent(&[&whole], &[&[]; 0]);
            assert_eq!(none, RING, "{records:?}");
            assert_eq!(sent(&[&whole], &[&whole]), RING, "{records:?}");
            // Nothing is known of what a mirror has that says nothing.
            let last = if records.is_empty() { &BOTH[..] } else { &RING };
            assert_eq!(sent(&[whole], &[vec![1; 5000]]), last, "{records:?}");
        }
    }

    #[test]
    fn zeros_in_the_place_of_any_record_are_what_the_mirror_is_sent_for() {
        for (records, end) in [10..17, 10..18, 10..19, 10..40]
            .into_iter()
            .flat_map(|it| [End::Stopped, End::Cut].map(|end| (it.clone(), end)))
        {
            let whole = ring(0, records.clone(), end);
            for seq in records.end.saturating_sub(SLOTS).max(10)..records.end {
                let place = slot(&whole, (seq - 10) % SLOTS);
                let mut zeroed = whole.clone();
                zeroed[place.clone()].fill(0);
                assert_eq!(sent(&[zeroed], &[&whole]), BOTH, "{seq} of {records:?}");
                let mut torn = whole.clone();
                torn[place.start + 9] ^= 1;
                assert_eq!(sent(&[torn], &[&whole]), BOTH, "{seq} of {records:?}");
                // As it is written back when it was cut off.
                let mut cut = whole.clone();
                cut.truncate(place.start);
                assert_eq!(sent(&[&cut], &[&whole]), BOTH, "{seq}");
                cut.resize(whole.len(), 0);
                assert_eq!(sent(&[cut], &[&whole]), BOTH, "{seq} of {records:?}");
            }
        }
    }

    #[test]
    fn a_name_or_a_head_that_is_damaged_is_what_the_mirror_is_sent_for() {
        let whole = ring(0, 10..19, End::Stopped);
        let places = [0, 100, 4096, entry(&whole, 0), entry(&whole, 0) + 40, entry(&whole, 1)];
        for at in places {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(sent(&[damaged], &[&whole]), BOTH, "byte {at}");
        }
        let mut nameless = whole.clone();
        nameless[entry(&whole, 1)..entry(&whole, 2)].fill(0);
        assert_eq!(sent(&[nameless], &[&whole]), BOTH);
        // No record speaks of it.
        let mut spare = whole.clone();
        spare[entry(&whole, 2)] ^= 1;
        assert_eq!(sent(&[spare], &[whole]), RING);
    }

    #[test]
    fn of_a_run_that_was_killed_the_mirror_is_sent_if_it_goes_further() {
        for (records, end) in [10..12, 10..18, 10..40]
            .into_iter()
            .flat_map(|it| [End::Cut, End::Busy].map(|end| (it.clone(), end)))
        {
            let ring_of = |records, end| ring(0, records, end);
            let rings = [ring_of(records.clone(), end)];
            for behind in [ring_of(10..10, End::Cut), ring_of(10..11, End::Cut)] {
                assert_eq!(sent(&rings, &[behind]), RING, "{records:?}");
            }
            assert_eq!(sent(&rings, &[ring_of(records.clone(), End::Cut)]), RING, "{records:?}");
            let further = ring_of(10..records.end + 1, End::Cut);
            assert_eq!(sent(&rings, &[further]), BOTH, "{records:?}");
        }
    }

    #[test]
    fn a_segment_that_another_follows_has_an_end() {
        let rings = [ring(0, 0..5, End::Cut), ring(1, 5..7, End::Stopped)];
        assert_eq!(sent(&rings, &rings), [(0, false), (1, false)]);
        // What it should have ended with was lost, and what followed was not.
        let short = [ring(0, 0..4, End::Cut), rings[1].clone()];
        assert_eq!(sent(&short, &rings), [(0, false), (1, false), (0, true)]);
        let mut headless = rings.clone();
        headless[1][0] ^= 1;
        assert_eq!(sent(&headless, &rings), [(0, false), (1, false), (1, true)]);
    }

    #[test]
    fn what_cannot_be_opened_is_listed_and_says_why() {
        let world = tempfile::tempdir().unwrap();
        let whole = ring(0, 0..5, End::Stopped);
        let place = run(world.path(), &[&whole; 3], &[&whole; 1]);
        let [rings, mirrors] =
            ["rings", "mirrors"].map(|it| world.path().join(it).join(RUN.to_string()));
        let listed = || {
            let files = files(&place).unwrap();
            let each = files.iter().map(|file| {
                let FileEntry { segment, is_mirror, bytes } = file.entry;
                (segment, is_mirror, bytes > 0, file.open().err().unwrap_or_default())
            });
            each.collect::<Vec<_>>()
        };
        let is_there = |segment| (segment, false, true, String::new());
        assert_eq!(listed(), [0, 1, 2].map(is_there));
        // A link to itself, and a directory.
        let path = |segment| rings.join(file_name(segment));
        for segment in [0, 1] {
            fs::remove_file(path(segment)).unwrap();
        }
        std::os::unix::fs::symlink(path(0), path(0)).unwrap();
        fs::create_dir(path(1)).unwrap();
        let closed = |segment, why: &str| {
            let what = format!("{} cannot be opened there: {why}", path(segment).display());
            (segment, false, false, what)
        };
        // The mirror of the one is whole.
        let whole_mirror = (0, true, true, String::new());
        assert_eq!(listed(), [closed(1, "not a regular file"), is_there(2), whole_mirror]);
        let expected = [
            closed(0, "Too many levels of symbolic links (os error 40)"),
            closed(1, "not a regular file"),
            is_there(2),
        ];
        // Nothing is left in the place of the run, or no directory.
        fs::remove_dir_all(&mirrors).unwrap();
        fs::write(&mirrors, "").unwrap();
        assert_eq!(listed(), expected);
        fs::remove_file(&mirrors).unwrap();
        assert_eq!(listed(), expected);
        // A name that leads in a circle is no directory that is known to be empty.
        let base = mirrors.parent().unwrap();
        fs::remove_dir(base).unwrap();
        std::os::unix::fs::symlink(base, base).unwrap();
        let [.., (0, true, false, why)] = &listed()[..] else { panic!("{:?}", listed()) };
        assert!(why.contains(&format!("{} cannot be opened", mirrors.display())), "{why}");
        assert!(discard(&place).is_err());
        assert!(path(2).exists(), "nothing is removed as long as a part cannot be seen");
    }

    #[test]
    fn what_others_have_put_in_the_place_of_a_copy_is_left_out_if_the_other_is_whole() {
        let put = |path: &Path, what: &str| {
            fs::remove_file(path).unwrap();
            match what {
                "file" => {
                    fs::write(path, "theirs").unwrap();
                    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
                }
                "link" => std::os::unix::fs::symlink("/etc/passwd", path).unwrap(),
                "pipe" => mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
                _ => fs::create_dir(path).unwrap(),
            }
        };
        for (what, end, is_mirror) in ["file", "link", "pipe", "directory"]
            .into_iter()
            .flat_map(|what| [End::Stopped, End::Cut].map(|end| (what, end)))
            .flat_map(|(what, end)| [false, true].map(|is_mirror| (what, end, is_mirror)))
        {
            let case = format!("{what}, mirror {is_mirror}");
            let world = tempfile::tempdir().unwrap();
            let mut whole = ring(0, 0..5, end);
            let place = run(world.path(), &[&whole], &[&whole]);
            let [rings, mirrors] = ["rings", "mirrors"]
                .map(|it| world.path().join(it).join(RUN.to_string()).join(file_name(0)));
            let [theirs, ours] = if is_mirror { [&mirrors, &rings] } else { [&rings, &mirrors] };
            put(theirs, what);
            let listed = || -> Vec<bool> {
                files(&place).unwrap().iter().map(|file| file.entry.is_mirror).collect()
            };
            let is_enough = is_mirror || end == End::Stopped;
            let expected = if is_enough { &[!is_mirror][..] } else { &[false, true] };
            assert_eq!(listed(), expected, "{case}");
            // Not if the other lacks something.
            let lost = slot(&whole, 3);
            whole[lost].fill(0);
            fs::write(ours, whole).unwrap();
            assert_eq!(listed(), [false, true], "{case}");
            discard(&place).unwrap();
            assert!(!is_there(&place) && !ours.exists(), "{case}");
            assert!(fs::symlink_metadata(theirs).is_ok(), "{case}");
        }
    }

    #[test]
    fn more_files_than_can_be_sent_are_not_left_out() {
        let world = tempfile::tempdir().unwrap();
        let place = run(world.path(), &vec![[1]; MAX_FILES + 1], &[[1]; 0]);
        let error = files(&place).err().unwrap().to_string();
        assert_eq!(error, "513 files, and 512 at most can be sent");
        fs::remove_file(world.path().join("rings").join(RUN.to_string()).join(file_name(0)))
            .unwrap();
        assert_eq!(files(&place).unwrap().len(), MAX_FILES);
    }
}
