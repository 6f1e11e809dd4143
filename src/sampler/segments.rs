//! The segments of one run: making the next one, with memory, header and description, and giving
//! back what older ones no longer need.

use super::clock::Clock;
use super::copy::Original;
use super::mirror::MirrorFeed;
use super::plan::SegmentPlan;
use super::storage::{Medium, NotEnoughMemory, Storage, check_memory};
use super::take::SampleTaker;
use super::watch::{CUT_OFF, Watch};
use crate::description::Description;
use crate::place;
use crate::ring::{
    BadHeader, BadLayout, Header, Layout, MAX_SEGMENTS, RingWriter, Segment, WordMap,
    description_check, punch,
};
use crate::units::{Bytes, Seq, Slot};
use crossbeam::channel::{Receiver, Sender};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Segments that one run may have at a time; a kernel file that changes its layout all the time
/// must not fill the memory with them.
const MAX_KEPT_SEGMENTS: usize = 256;
/// Room in the description for what is known only once the memory is there.
const SPARE_DESCRIPTION_BYTES: usize = 1024;

/// Why there is no new segment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// Memory.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// A size beyond what a ring can have.
    #[error("the ring would be too large ({0}); keep fewer samples (--max-samples)")]
    Layout(#[from] BadLayout),
    /// The header would not be readable.
    #[error("the ring's header cannot be written: {0}")]
    Header(#[from] BadHeader),
    /// The description cannot be written.
    #[error("the ring's description cannot be written: {0}")]
    Description(#[from] serde_json::Error),
    /// A start that was to be agreed upon never was.
    #[error("the start that was waited for did not come")]
    NoStart,
    /// There are too many.
    #[error("there are {MAX_KEPT_SEGMENTS} already; devices or the layout of a file keep changing")]
    TooMany,
}

/// A start that somebody else decides upon, when everything is ready: the sampler's end.
pub struct Agreement {
    /// Hears that all is ready.
    pub ready: Sender<()>,
    /// Gets the `CLOCK_MONOTONIC` of tick 0, ns. One that has passed costs the ticks since.
    pub start_ns: Receiver<u64>,
}

impl Agreement {
    fn wait(self) -> Result<u64, SegmentError> {
        // Nobody may be interested in that.
        let _ = self.ready.send(());
        self.start_ns.recv().map_err(|_| SegmentError::NoStart)
    }
}

/// A segment with its file.
pub struct Kept {
    /// Its memory.
    pub segment: Arc<Segment>,
    /// The file behind it, if there is one.
    pub file: Option<File>,
    /// Its name, unless the memory is private.
    pub path: Option<PathBuf>,
    /// Its description, whatever others have made of that in the file.
    pub description: Arc<Vec<u8>>,
}

impl Kept {
    fn original(&self) -> Original {
        Original { segment: self.segment.clone(), description: self.description.clone() }
    }
}

/// The segments of a run, oldest first; the last is being written.
pub struct Segments {
    plan: SegmentPlan,
    kept: Vec<Kept>,
    begun: u64,
    start: Option<(u64, u64)>,
    /// Until there is a start, if it is for others to say.
    agreement: Option<Agreement>,
    mirror: Option<MirrorFeed>,
    /// Of the files; from the first one on.
    watch: Option<Watch>,
    notes: Vec<String>,
}

/// The name of segment number `segment` in its run's directories.
pub fn file_name(segment: u64) -> String {
    format!("{segment:05}.ring")
}

impl Segments {
    /// None yet; those to come are shown to `mirror`.
    pub fn new(plan: SegmentPlan, mirror: Option<MirrorFeed>) -> Self {
        Segments {
            plan,
            kept: Vec::new(),
            begun: 0,
            start: None,
            agreement: None,
            mirror,
            watch: None,
            notes: Vec::new(),
        }
    }

    /// The same, but that tick 0 is when somebody else says.
    pub fn with_agreement(self, agreement: Option<Agreement>) -> Self {
        Segments { agreement, ..self }
    }

    /// `CLOCK_REALTIME` and `CLOCK_MONOTONIC` of tick 0; 0 before the first segment.
    pub fn start_ns(&self) -> (u64, u64) {
        self.start.unwrap_or_default()
    }

    /// Segments begun so far.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Begins the next segment with record `first_seq`, sized and described by `taker`. The
    /// first one sets the start of the run: as late as can be, since making a ring takes time.
    ///
    /// # Errors
    /// [`SegmentError`]; the segments that there are stay as they are.
    pub fn begin(
        &mut self,
        taker: &mut SampleTaker,
        first_seq: Seq,
        clock: &impl Clock,
    ) -> Result<RingWriter, SegmentError> {
        if self.kept.len() >= MAX_KEPT_SEGMENTS || self.begun >= MAX_SEGMENTS {
            return Err(SegmentError::TooMany);
        }
        let mut description = self.plan.description.clone();
        description.schema = taker.schema();
        let name = file_name(self.begun);
        let path_in = |dir: &Option<PathBuf>| dir.as_ref().map(|dir| dir.join(&name));
        let ring_path = path_in(&self.plan.ring_dir);
        let shown = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
        description.sampler.ring = shown(ring_path.clone());
        description.sampler.mirror = shown(path_in(&self.plan.mirror_dir));
        description.sampler.notes.extend(self.notes.iter().cloned());
        let noted = self.notes.len();
        let room = serde_json::to_vec(&description)?.len() + SPARE_DESCRIPTION_BYTES;
        let layout = Layout::new(
            Bytes(room as u64),
            taker.dictionary_entries(),
            taker.record_words(),
            self.plan.max_samples.saturating_add(self.plan.spare_slots),
        )?;
        check_memory(layout.file_bytes())?;
        if !self.prepare_mirror(layout.file_bytes()) {
            description.sampler.mirror = None;
            description.sampler.sync_interval_ns = None;
        }
        let storage = self.storage(ring_path, layout.file_bytes())?;
        if let Some(what) = self.spoiled() {
            let place = storage.path.as_ref().map(|path| path.display().to_string());
            let place = place.unwrap_or_else(|| "private memory".to_owned());
            self.notes.push(format!("{what}; the recording goes on in {place}"));
        }
        description.sampler.storage = storage.medium.name().to_owned();
        if storage.medium == Medium::PrivateMemory {
            description.sampler.ring = None;
        }
        let mut map = storage.map;
        // Permitted up to RLIMIT_MEMLOCK, or with CAP_IPC_LOCK; the pages are there either way.
        description.sampler.memory_locked = map.lock().is_ok();
        description.sampler.notes.extend(self.notes[noted..].iter().cloned());
        let description = padded(&description, room)?;
        let segment =
            self.write_head(&description, layout, map, first_seq, clock).inspect_err(|_| {
                // Or the next attempt would find its name taken.
                if let (Some(path), Some(file)) = (&storage.path, &storage.file) {
                    let _ = place::remove_file_if(path, file);
                }
            })?;
        taker.begin_segment(layout.entries);
        self.give_back(first_seq);
        self.begun += 1;
        let Storage { file, path, .. } = storage;
        let description = Arc::new(description);
        let kept = Kept { segment: segment.clone(), file, path, description };
        if let Some(mirror) = &self.mirror {
            mirror.segment(&kept.original(), kept.path.is_none());
        }
        if let (Some(file), Some(path)) = (&kept.file, &kept.path) {
            self.watch(&segment, file, path);
        }
        self.kept.push(kept);
        Ok(RingWriter::new(segment))
    }

    /// Whether others have made the newest segment unfit to be written any further.
    #[inline]
    pub fn is_spoiled(&self) -> bool {
        let Some(newest) = self.kept.last() else { return false };
        let number = newest.segment.header().segment;
        newest.segment.is_lost() || self.watch.as_ref().is_some_and(|it| it.has_spoiled(number))
    }

    /// What they have done.
    fn spoiled(&self) -> Option<String> {
        let newest = self.kept.last().filter(|_| self.is_spoiled())?;
        let number = newest.segment.header().segment;
        match &self.watch {
            Some(watch) if watch.has_spoiled(number) => Some(watch.sentence()),
            _ => Some(format!("the ring {} {CUT_OFF}", newest.path.as_ref()?.display())),
        }
    }

    /// A file that cannot be watched is written all the same.
    fn watch(&mut self, segment: &Arc<Segment>, file: &File, path: &Path) {
        if self.watch.is_none() {
            self.watch = Watch::start(self.plan.look_interval).ok();
        }
        if let Some(watch) = &self.watch {
            let oldest = self.kept.first().map_or(0, |kept| kept.segment.header().segment);
            let _ = watch.segment(segment, file, path, oldest);
        }
    }

    /// Writes header and description; only now does a run begin.
    fn write_head(
        &mut self,
        description: &[u8],
        layout: Layout,
        map: WordMap,
        first_seq: Seq,
        clock: &impl Clock,
    ) -> Result<Arc<Segment>, SegmentError> {
        let (start_wall_ns, start_monotonic_ns) = match self.start {
            Some(start) => start,
            None => self.agree(clock)?,
        };
        self.start = Some((start_wall_ns, start_monotonic_ns));
        let header = Header {
            layout,
            description_check: description_check(description),
            max_samples: self.plan.max_samples,
            run_id: self.plan.run_id,
            segment: self.begun,
            first_seq,
            start_wall_ns,
            start_monotonic_ns,
            interval_ns: self.plan.interval_ns,
            boot_id: self.plan.boot_id,
        };
        Ok(Arc::new(Segment::create(Arc::new(map), header, description)?))
    }

    /// Tick 0, on both clocks: now, or the instant that is agreed upon.
    fn agree(&mut self, clock: &impl Clock) -> Result<(u64, u64), SegmentError> {
        let agreed = self.agreement.take().map(Agreement::wait).transpose()?;
        let (wall_ns, now_ns) = (clock.realtime_ns(), clock.monotonic_ns());
        let start_ns = agreed.unwrap_or(now_ns);
        let ahead_ns = start_ns.saturating_sub(now_ns);
        let ago_ns = now_ns.saturating_sub(start_ns);
        Ok((wall_ns.saturating_add(ahead_ns).saturating_sub(ago_ns), start_ns))
    }

    /// What could not be had so far.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ends it all; the segments that are left and what could not be had.
    pub fn finish(mut self) -> (Vec<Kept>, Vec<String>) {
        if let Some(watch) = self.watch.take() {
            let numbers = self.kept.iter().map(|kept| kept.segment.header().segment).collect();
            self.notes.extend(watch.finish(numbers));
        }
        if let Some(mirror) = &self.mirror {
            mirror.last(self.kept.iter().map(Kept::original).collect());
        }
        (self.kept, self.notes)
    }

    /// Before the run, the mirror's file is made, so that the header can say whether there is one.
    /// Later segments do not wait for a disk.
    fn prepare_mirror(&mut self, bytes: Bytes) -> bool {
        let Some(mirror) = &self.mirror else { return false };
        if self.begun > 0 {
            return true;
        }
        let Err(error) = mirror.prepare(self.begun, bytes) else { return true };
        let dir = self.plan.mirror_dir.take().unwrap_or_default();
        self.notes.push(format!(
            "no mirror in {}: {error}. A crash of the host loses the samples",
            dir.display()
        ));
        self.mirror = None;
        false
    }

    fn storage(&mut self, path: Option<PathBuf>, bytes: Bytes) -> Result<Storage, NotEnoughMemory> {
        let Some(path) = path else { return Storage::private(bytes) };
        match Storage::file(&path, bytes) {
            Ok(storage) => Ok(storage),
            Err(error) => {
                let storage = Storage::private(bytes)?;
                self.notes.push(match &self.plan.mirror_dir {
                    Some(dir) => format!(
                        "no ring at {}: {error}. Samples are kept in private memory and copied to \
                         {} every second or at every sample: a crash loses what came since",
                        path.display(),
                        dir.display()
                    ),
                    None => format!(
                        "no ring at {}: {error}. Samples are kept in private memory alone: a crash \
                         loses them all",
                        path.display()
                    ),
                });
                Ok(storage)
            }
        }
    }

    /// A segment that will not be written to again needs no empty slots, and one whose samples
    /// are all beyond `max_samples` is not needed at all.
    fn give_back(&mut self, next: Seq) {
        if let Some(Kept { segment, file: Some(file), .. }) = self.kept.last() {
            let header = segment.header();
            let used = next.0.saturating_sub(header.first_seq.0);
            if used < header.layout.slots {
                punch(file, header.layout.slot_offset(Slot(used)), header.layout.file_bytes());
            }
        }
        let oldest_wanted = next.0.saturating_sub(self.plan.max_samples);
        let mut ends: Vec<u64> =
            self.kept.iter().skip(1).map(|kept| kept.segment.header().first_seq.0).collect();
        ends.push(next.0);
        let mut ends = ends.into_iter();
        self.kept.retain(|kept| {
            let wanted = ends.next().is_none_or(|end| end > oldest_wanted);
            // Others may have put something of theirs in its place.
            if let (false, Some(path), Some(file)) = (wanted, &kept.path, &kept.file) {
                let _ = place::remove_file_if(path, file);
            }
            wanted
        });
    }
}

/// The description as JSON, with blanks behind it up to `room` bytes.
fn padded(description: &Description, room: usize) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = serde_json::to_vec(description)?;
    if json.len() > room {
        // Only the notes can have grown beyond the room.
        let mut shorter = description.clone();
        shorter.sampler.notes.clear();
        json = serde_json::to_vec(&shorter)?;
    }
    json.resize(room, b' ');
    Ok(json)
}
