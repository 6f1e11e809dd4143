//! What a recorder leaves when it has stopped: samples in its rings, to be looked at, written as
//! the final files, or thrown away.

use super::cluster::{self, Cluster};
use super::dirs::{RunDir, default_mirror_base, default_ring_base};
use super::finish::{FinalFiles, FinishError, Order};
use super::manifest::{Ended, MANIFEST, Manifest};
use super::system;
use crate::decode::metadata::SystemInfo;
use crate::decode::{ClusterDecoder, DecodeError, Decoder, HostSummary, OpenRings, TimeSeriesData};
use crate::description::Description;
use crate::place::Place;
use crate::ring::{self, HEADER_BYTES, OwnWords, ReadAt, Ring, RingError, Segment};
use crate::sampler::{Kept, SamplerEnd, damage, file_name};
use crate::sync::{AtomicU64, Ordering};
use crate::units::Slot;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// The samples of one run. Clones are the same recording.
///
/// Until [`write_files`](Self::write_files) has succeeded or [`discard`](Self::discard) was
/// called the rings stay, and outlive the process: [`Store::runs`](crate::Store::runs) finds them.
#[derive(Clone)]
pub struct Recording {
    inner: Arc<Inner>,
}

struct Inner {
    segments: Vec<Kept>,
    mirror_complete: bool,
    mirror_dir: Option<PathBuf>,
    keep_ring: bool,
    run_id: Uuid,
    runtime: Duration,
    state: Mutex<Settled>,
}

/// What writing the files changes.
struct Settled {
    manifest: Manifest,
    dirs: Vec<RunDir>,
    files: Option<FinalFiles>,
    /// The other hosts, as long as there is a conversation with any.
    cluster: Option<Cluster>,
    is_collected: bool,
    /// Those whose rings are here and cannot be read.
    unread: Vec<String>,
}

impl Settled {
    /// Where the rings of other hosts are.
    fn hosts_dir(&self) -> Option<PathBuf> {
        self.manifest.mirror_dir.clone().or_else(|| self.manifest.ring_dir.clone())
    }

    /// Waits for the other hosts, once.
    fn collect(&mut self, progress: &mut dyn FnMut(usize, u64)) {
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
            let warning = cluster::still_owed(&owing, self.manifest.run_id);
            self.manifest.warnings.push(warning);
        }
        // If it cannot be saved, `recover` asks the hosts again.
        let _ = self.manifest.save();
    }

    /// The conversations with other hosts are over; what those have that are `kept` is not removed.
    /// Sentences on what stays there.
    fn end_cluster(&mut self, kept: &[String]) -> Vec<String> {
        let (Some(cluster), Some(known)) = (&mut self.cluster, &mut self.manifest.cluster) else {
            return Vec::new();
        };
        let problems = cluster.end(known, kept);
        self.cluster = None;
        problems
    }

    fn dirs_with_rings(&self) -> Vec<PathBuf> {
        let dirs = self.dirs.iter().map(|dir| dir.path().to_owned());
        dirs.filter(|dir| has_ring(dir)).collect()
    }

    /// Sentences of those that stay: `recover` sees that nothing is owed, and removes them.
    fn remove_dirs(&mut self) -> Vec<String> {
        let stays = |dir: RunDir| {
            let error = dir.remove_soon(MANIFEST).err()?;
            Some(not_removed(dir.path(), &error))
        };
        self.dirs.drain(..).filter_map(stays).collect()
    }
}

impl Inner {
    /// Copies the rings to a run's directory, each under its name only when it is whole.
    fn save_into(&self, dir: &Path) -> io::Result<()> {
        let save = || {
            ring::let_through();
            let place = Place::open(dir)?;
            for kept in &self.segments {
                let name = file_name(kept.segment.header().segment);
                place.replace(&name, MANIFEST, |file| save(kept, file))?;
            }
            Ok(())
        };
        // A thread of our own may have the signal that tells of a ring that was cut off.
        std::thread::scope(|scope| scope.spawn(save).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread that saves them panicked")))
    }

    /// Whether others have done something to a ring: its file may not be where its name says, or
    /// not have everything.
    fn is_damaged(&self) -> bool {
        let is_gone = |kept: &Kept| {
            let (Some(file), Some(path)) = (&kept.file, &kept.path) else { return false };
            kept.segment.is_lost()
                || damage(file, path, kept.segment.header().layout.file_bytes()).is_some()
        };
        self.segments.iter().any(is_gone)
    }

    /// The rings, if they are whole, or all copies that there are.
    fn whole_copies(&self) -> Result<Vec<Ring>, RingError> {
        let is_lost = self.segments.iter().any(|kept| kept.segment.is_lost());
        if is_lost || self.is_damaged() {
            return self.all_copies();
        }
        let rings = self.segments.iter().map(ring_of).collect::<Result<Vec<Ring>, RingError>>()?;
        let has_names = rings.iter().zip(&self.segments).all(|(ring, kept)| has_names(ring, kept));
        if has_names { Ok(rings) } else { self.all_copies() }
    }

    /// All copies of the rings that there are, for when those that were written are not whole.
    fn all_copies(&self) -> Result<Vec<Ring>, RingError> {
        let mut rings = Vec::new();
        for kept in &self.segments {
            rings.push(ring_of(kept)?);
            if kept.segment.is_lost() {
                rings.push(with_head(kept, Box::new(OwnWords(kept.segment.clone()))));
            }
            let name = file_name(kept.segment.header().segment);
            let copy = self.mirror_dir.as_ref().map(|dir| Place::open(dir)?.read(&name));
            if let Some(Ok(file)) = copy {
                rings.push(with_head(kept, Box::new(file)));
            }
        }
        Ok(rings)
    }

    /// A directory of this run that has the rings now: the one for its ring, if there is one and it
    /// has room for what was really written, or a new one. Not the mirror's: its disk has refused.
    fn save_somewhere(&self, own: Option<&Path>, dirs: &mut Vec<RunDir>) -> Option<PathBuf> {
        if let Some(own) = own.filter(|own| self.save_into(own).is_ok()) {
            return Some(own.to_owned());
        }
        let places = [
            RunDir::create_private(&default_ring_base(), self.run_id),
            RunDir::create_private_patiently(&default_mirror_base(), self.run_id),
            RunDir::create(&std::env::temp_dir(), self.run_id),
        ];
        for dir in places.into_iter().flatten() {
            if self.save_into(dir.path()).is_ok() {
                let path = dir.path().to_owned();
                dirs.push(dir);
                return Some(path);
            }
            let _ = dir.remove(MANIFEST);
        }
        None
    }
}

/// Writes all words of a ring, but for what was never written.
fn save(kept: &Kept, file: &mut File) -> io::Result<()> {
    let words = kept.segment.words();
    file.set_len(used_bytes(&kept.segment))?;
    for (index, chunk) in words.chunks(SAVED_WORDS).enumerate() {
        let plain: Vec<u64> = chunk.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        if plain.iter().any(|word| *word != 0) {
            let offset = (index * SAVED_WORDS * size_of::<u64>()) as u64;
            file.write_all_at(bytemuck::cast_slice(&plain), offset)?;
        }
    }
    // Somebody may have overwritten it.
    let head = kept.segment.header().to_words();
    file.write_all_at(bytemuck::cast_slice(&head), 0)?;
    file.write_all_at(&kept.description, HEADER_BYTES.0)
}

/// How often the rings are read again because somebody changes them meanwhile.
const ATTEMPTS: usize = 5;
/// Words that are copied at a time.
const SAVED_WORDS: usize = 8 << 10;

/// Up to the last slot that was ever written: a limit on the size of files may allow no more, and
/// to readers what the file no longer has is empty.
fn used_bytes(segment: &Segment) -> u64 {
    let words = segment.words();
    let layout = segment.header().layout;
    let is_used = |word: &AtomicU64| word.load(Ordering::Relaxed) != 0;
    let end = words.iter().rposition(is_used).map_or(0, |last| (last as u64 + 1) * 8);
    let slots = end.saturating_sub(layout.slots_offset.0).div_ceil(layout.slot.bytes().0);
    layout.slot_offset(Slot(slots)).0.min(size_of_val(words) as u64)
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

/// Whether a directory has a ring file.
fn has_ring(dir: &Path) -> bool {
    let is_ring =
        |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|it| it == "ring");
    std::fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(is_ring))
}

impl Recording {
    pub(super) fn new(
        mut manifest: Manifest,
        dirs: Vec<RunDir>,
        end: SamplerEnd,
        cluster: Option<Cluster>,
        runtime: Duration,
        keep_ring: bool,
    ) -> Self {
        let SamplerEnd { segments, mirror_complete, mirror_answered, .. } = end;
        let mirror_dir = manifest.mirror_dir.clone().filter(|_| mirror_answered);
        manifest.ended = Some(Ended { runtime_seconds: runtime.as_secs_f64(), exit_status: None });
        // If this cannot be saved, `recover` takes the times from the rings.
        let _ = manifest.save();
        let run_id = manifest.run_id;
        let state = Mutex::new(Settled {
            manifest,
            dirs,
            files: None,
            cluster,
            is_collected: false,
            unread: Vec::new(),
        });
        Recording {
            inner: Arc::new(Inner {
                segments,
                mirror_complete,
                mirror_dir,
                keep_ring,
                run_id,
                runtime,
                state,
            }),
        }
    }

    /// The run.
    pub fn run_id(&self) -> Uuid {
        self.inner.run_id
    }

    /// From the first sample to the stop.
    pub fn runtime(&self) -> Duration {
        self.inner.runtime
    }

    /// What could not be had, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.settled(|settled| settled.manifest.warnings.clone())
    }

    /// The directories that have rings of this run, until these are removed.
    pub fn ring_dirs(&self) -> Vec<PathBuf> {
        self.settled(|settled| settled.dirs_with_rings())
    }

    /// Sees to it that the samples outlive this process: those that are in private memory alone,
    /// without a whole mirror, are copied to whichever place takes them. Returns the directories
    /// that have them; none if they are lost.
    pub fn save_rings(&self) -> Vec<PathBuf> {
        let is_private = self.inner.segments.iter().any(|kept| kept.path.is_none());
        let is_damaged = self.inner.is_damaged();
        self.settled(|settled| {
            let is_safe = !is_damaged && (!is_private || self.inner.mirror_complete);
            if is_safe || settled.files.is_some() {
                return settled.dirs_with_rings();
            }
            let Settled { manifest, dirs, .. } = settled;
            let own = manifest.ring_dir.as_deref();
            let Some(saved) = self.inner.save_somewhere(own, dirs) else { return Vec::new() };
            manifest.ring_dir = Some(saved.clone());
            if is_damaged && self.inner.mirror_dir.is_some() {
                // The mirror may have what the ring has lost.
                let _ = manifest.save();
                return settled.dirs_with_rings();
            }
            // The other directories have nothing whole, and would only mislead `recover`.
            dirs.retain(|dir| dir.path() == saved || dir.remove_soon(MANIFEST).is_err());
            manifest.mirror_dir = None;
            let _ = manifest.save();
            vec![saved]
        })
    }

    /// Waits until what the other hosts have is here, for no longer than was said before the start.
    /// `progress` hears how many hosts are done and how many bytes have come. Without it, whatever
    /// needs the samples waits.
    pub fn collect(&self, progress: &mut dyn FnMut(usize, u64)) {
        self.settled(|settled| settled.collect(progress));
    }

    /// The hosts of the run that are not this machine.
    pub fn remote_hosts(&self) -> usize {
        self.settled(|settled| settled.cluster.as_ref().map_or(0, Cluster::remote))
    }

    /// Reads the rings of all hosts.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn cluster_decoder(&self) -> Result<ClusterDecoder, DecodeError> {
        self.settled(|settled| {
            settled.collect(&mut |_, _| {});
            self.decode_all(settled)
        })
    }

    fn decode_all(&self, settled: &Settled) -> Result<ClusterDecoder, DecodeError> {
        let Some(known) = &settled.manifest.cluster else { return self.decode_one() };
        let here = (!self.inner.segments.is_empty()).then(|| {
            let inner = self.inner.clone();
            let open: OpenRings = Box::new(move || Ok(inner.whole_copies()?));
            open
        });
        let (run, hosts) =
            cluster::output(known, self.inner.run_id, settled.hosts_dir().as_deref(), here);
        ClusterDecoder::new(run, hosts)
    }

    fn decode_one(&self) -> Result<ClusterDecoder, DecodeError> {
        Ok(self.decoder()?.into_cluster())
    }

    /// Reads the rings of this host.
    ///
    /// # Errors
    /// [`DecodeError`]; `NoRings` for a run that this host is no part of.
    pub fn decoder(&self) -> Result<Decoder, DecodeError> {
        let segments = &self.inner.segments;
        let rings = segments.iter().map(ring_of).collect::<Result<Vec<Ring>, RingError>>()?;
        let has_names = rings.iter().zip(segments).all(|(ring, kept)| has_names(ring, kept));
        let decoder = Decoder::new(rings);
        match &decoder {
            Ok(decoder) if has_names && self.is_whole(decoder.summary()) => {}
            // Reads everything twice, which a disk full of mirrors need not bear as a rule.
            _ => return Decoder::new(self.inner.all_copies()?),
        }
        decoder
    }

    fn is_whole(&self, summary: &HostSummary) -> bool {
        let is_lost = self.inner.segments.iter().any(|kept| kept.segment.is_lost());
        !is_lost && summary.samples_lost == 0 && summary.slots_torn == 0
    }

    /// The whole time series in memory.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn data(&self) -> Result<TimeSeriesData, DecodeError> {
        self.cluster_decoder()?.data()
    }

    /// Notes how long the command ran and how it ended, for the metadata.
    pub fn set_ended(&self, runtime: Duration, exit_status: Option<i32>) {
        self.settled(|settled| {
            let runtime_seconds = runtime.as_secs_f64();
            settled.manifest.ended = Some(Ended { runtime_seconds, exit_status });
            // Only for `recover`; the files written from here have it anyway.
            let _ = settled.manifest.save();
        });
    }

    /// What was taken, missed and lost on this host, and what it cost.
    ///
    /// # Errors
    /// As [`decoder`](Self::decoder).
    pub fn summary(&self) -> Result<HostSummary, DecodeError> {
        Ok(self.decoder()?.summary().clone())
    }

    /// Writes the time series and its metadata to the results directory, and then removes the
    /// rings unless they are to be kept. A second call gives the same files.
    ///
    /// # Errors
    /// [`FinishError`]: the rings stay where [`ring_dirs`](Self::ring_dirs) says.
    pub fn write_files(
        &self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<FinalFiles, FinishError> {
        self.settled(|settled| {
            if let Some(files) = &settled.files {
                return Ok(files.clone());
            }
            settled.collect(&mut |_, _| {});
            let mut files = self.written(settled, progress)?;
            let is_incomplete =
                settled.manifest.cluster.as_ref().is_some_and(|cluster| cluster.is_incomplete);
            let unread = std::mem::take(&mut settled.unread);
            files.problems.extend(settled.end_cluster(&unread));
            if is_incomplete {
                // All that is here is needed again, with what is still to come.
                let _ = settled.manifest.save();
            } else if self.inner.keep_ring {
                settled.manifest.done = true;
                let _ = settled.manifest.save();
            } else {
                files.problems.extend(settled.remove_dirs());
            }
            settled.files = Some(files.clone());
            Ok(files)
        })
    }

    /// Rings that somebody changes while they are read are read again: what they have lost is then
    /// known.
    fn written(
        &self,
        settled: &mut Settled,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<FinalFiles, FinishError> {
        let warnings = settled.manifest.warnings.clone();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let decoder = self.decode_all(settled)?;
            settled.manifest.warnings.clone_from(&warnings);
            let outline = decoder.outline();
            let lost: u64 = outline.summary.hosts.values().map(|host| host.samples_lost).sum();
            if lost > 0 {
                settled.manifest.warnings.push(format!(
                    "{lost} samples are lost: neither the ring nor its mirror has them any more"
                ));
            }
            settled.unread.clear();
            for (host, error) in decoder.unread() {
                settled.unread.push(host.clone());
                settled
                    .manifest
                    .warnings
                    .push(format!("the rings of {host} cannot be read: {error}"));
            }
            let order = Order {
                save: !settled.dirs.is_empty(),
                renew: false,
                decoder: Some(&decoder),
                system: self.system(&settled.manifest),
                manifest: &mut settled.manifest,
                recovered: false,
                progress,
            };
            match order.carry_out() {
                Err(FinishError::Decode(DecodeError::Changed { .. })) if attempt < ATTEMPTS => {}
                result => return result,
            }
        }
    }

    /// Facts about this host, as its ring has them.
    fn system(&self, manifest: &Manifest) -> SystemInfo {
        let ring = self
            .inner
            .segments
            .first()
            .and_then(|kept| serde_json::from_slice::<Description>(&kept.description).ok());
        let facts = ring.map_or_else(system::facts, |description| description.system);
        SystemInfo { hostname: manifest.hostname.clone(), facts }
    }

    /// Removes the rings, on all hosts: the samples are gone with the last clone.
    pub fn discard(&self) {
        self.settled(|settled| {
            settled.collect(&mut |_, _| {});
            settled.end_cluster(&[]);
            settled.remove_dirs();
        });
    }

    fn settled<T>(&self, with: impl FnOnce(&mut Settled) -> T) -> T {
        // Everything in it is valid at any moment: a panic elsewhere spoils nothing.
        with(&mut self.inner.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("run_id", &self.inner.run_id)
            .field("runtime", &self.inner.runtime)
            .finish_non_exhaustive()
    }
}

/// The ring's open file, whatever became of its name and its head, or the memory itself.
fn ring_of(kept: &Kept) -> Result<Ring, RingError> {
    let Some(file) = &kept.file else { return Ok(with_head(kept, Box::new(kept.segment.clone()))) };
    let io = |source| RingError::Io { path: name_of(kept).to_owned(), source };
    Ok(with_head(kept, Box::new(file.try_clone().map_err(io)?)))
}

fn with_head(kept: &Kept, bytes: Box<dyn ReadAt>) -> Ring {
    Ring::with_head(bytes, name_of(kept), kept.segment.header().clone(), kept.description.clone())
}

fn name_of(kept: &Kept) -> &Path {
    kept.path.as_deref().unwrap_or(Path::new("(private memory)"))
}

/// Whether a ring has all names that were written to it.
fn has_names(ring: &Ring, kept: &Kept) -> bool {
    (0..kept.segment.entries_used()).all(|entry| matches!(ring.entry(entry), Ok(Some(_))))
}
