//! The ring files of one run on one host, which may be there in two copies: which of them can be opened,
//! and of which samples may be missing. Where the files are is for others, and what is in their slots for
//! `decode`.

use crate::decode::DecodeError;
use crate::ring::{self, BadHeader, Header, Ring, RingError, Scan, SlotState};
use crate::units::{Seq, Slot};
use std::fs::File;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Before the name of a ring that is another host's mirror.
pub(super) const MIRROR_PREFIX: &str = "mirror-";

/// Before that of one of another host's that was here when the host had another; a number and a dash
/// may follow.
const EARLIER_PREFIX: &str = "earlier-";

/// Files that could not be opened as rings, and why.
pub(super) type Refused = Vec<(PathBuf, DecodeError)>;

/// The files, and how their bytes are had.
pub(super) struct Copies<'a, O> {
    pub paths: &'a [PathBuf],
    /// Nil if it is not known.
    pub run_id: Uuid,
    pub open: O,
}

impl<O: Fn(&Path) -> Result<File, RingError>> Copies<'_, O> {
    /// Opens each; those that cannot be opened, what is known least of last.
    pub fn open_each(&self) -> (Vec<Ring>, Refused) {
        let (mut rings, mut refused) = (Vec::new(), Vec::new());
        for path in self.paths {
            let ring = (self.open)(path).and_then(|file| Ring::new(Box::new(file), path));
            match ring.map_err(DecodeError::from).and_then(|ring| self.of_this_run(ring)) {
                Ok(ring) => rings.push(ring),
                Err(error) => refused.push((path.clone(), error)),
            }
        }
        // Where another copy tells what the head was, the slots judge themselves.
        for (path, _) in &refused {
            let copy = rings.iter().find(|ring| is_same_segment(ring.path(), path));
            let borrowed = copy.and_then(|copy| {
                let (file, description) = ((self.open)(path).ok()?, copy.description().ok()?);
                Some(Ring::with_head(Box::new(file), path, copy.header().clone(), description))
            });
            rings.extend(borrowed);
        }
        self.sort(&mut refused);
        (rings, refused)
    }

    /// One that was damaged says more than one that was never begun.
    pub fn sort(&self, refused: &mut Refused) {
        refused.sort_by_cached_key(|(path, error)| !self.is_unbegun(path, error));
    }

    /// Refuses a ring that somebody else has put among those of this run.
    pub fn of_this_run(&self, ring: Ring) -> Result<Ring, DecodeError> {
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

    /// Whether a ring that cannot be opened has never held a sample, since its recorder was killed
    /// before it had begun it. Anything else that keeps a ring from being read is no reason to
    /// remove it; and one that another segment follows had been begun.
    pub fn is_unbegun(&self, path: &Path, error: &DecodeError) -> bool {
        let DecodeError::Ring(RingError::Header { source: BadHeader::Zero, .. }) = error else {
            return false;
        };
        let is_followed = self.paths.iter().any(|other| segment(other) > segment(path));
        let is_blank = || ring::is_blank(&(self.open)(path).ok()?).ok();
        !is_followed && is_blank().unwrap_or(false)
    }

    /// A sentence for each that ends before its last sample, as far as can be told: what only it had is
    /// lost, whatever a copy has.
    pub fn cut_off(&self, rings: &[Ring]) -> Vec<String> {
        let mut said = Vec::new();
        for (nth, ring) in rings.iter().enumerate() {
            let Some(length) = self.short_length(ring) else { continue };
            let (path, layout) = (ring.path(), ring.header().layout);
            let (what, of) = if length <= layout.slots_offset.0 {
                let first = layout.slots_offset.0;
                (format!("{length} bytes, and its first sample would be at byte {first}"), "it")
            } else {
                let Some(slot) = first_lost_slot(ring, length, rings) else { continue };
                let whole = layout.file_bytes().0;
                let what = format!(
                    "{length} of {whole} bytes, and its slots from {slot} on are not there"
                );
                (what, "them")
            };
            let others = rings.iter().enumerate().filter(|(other, _)| *other != nth);
            let copy = others.map(|(_, ring)| ring.path()).find(|copy| is_same_segment(path, copy));
            let left = copy.map_or_else(
                || format!("there is no copy of {of}"),
                |copy| format!("what {} has is all that is left of {of}", copy.display()),
            );
            said.push(format!(
                "samples are missing: {} was cut off: it ends after {what}; {left}",
                path.display()
            ));
        }
        said
    }

    /// Of rings that give no sample, a sentence for each that may have had some.
    pub fn spoiled(&self, rings: &[Ring]) -> Vec<String> {
        let mut said = Vec::new();
        for ring in rings {
            let (path, layout) = (ring.path().display(), ring.header().layout);
            let advice = "remove its directory if it is not needed";
            match ring.scan() {
                // Its recorder may have been killed in its first record, and in no other.
                Ok(Scan { valid: 0, torn: 0, busy: 0 | 1, .. }) => {}
                Ok(scan) => {
                    let used = layout.slots - scan.empty;
                    said.push(format!(
                        "{used} of the {} slots of {path} were written to, and none of them has a sample \
                         that can be read; {advice}",
                        layout.slots
                    ));
                    continue;
                }
                Err(error) => said.push(error.to_string()),
            }
            if let Some(length) = self.short_length(ring) {
                let whole = layout.file_bytes().0;
                said.push(format!("{path} ends after {length} of {whole} bytes; {advice}"));
            }
        }
        said
    }

    /// How long the file of a ring is, if it is shorter than the ring.
    fn short_length(&self, ring: &Ring) -> Option<u64> {
        let path = ring.path();
        let file = (self.open)(path).ok()?;
        let length = file.metadata().ok()?.len();
        // A mirror's file may be about to be made; the ring has begun before its mirror.
        let is_ring = || self.paths.iter().find(|other| is_same_segment(path, other));
        let is_new = || ring::is_blank(&file).unwrap_or(false) && is_ring() != Some(&path.into());
        let is_short = length < ring.header().layout.file_bytes().0;
        (is_short && !is_new()).then_some(length)
    }

    /// A sentence for each that cannot be read and of which there is no other copy.
    pub fn missing(&self, rings: &[Ring], refused: &Refused) -> Vec<String> {
        let has_copy = |path: &Path| rings.iter().any(|ring| is_same_segment(ring.path(), path));
        let is_missing = |(path, error): &&(PathBuf, DecodeError)| {
            // One that cannot even be opened may have more than its copy.
            is_closed(error) || !(self.is_unbegun(path, error) || has_copy(path))
        };
        let missing = refused.iter().filter(is_missing);
        missing.map(|(_, error)| format!("samples are missing: {error}")).collect()
    }
}

/// All rings, if there is any or none was refused.
///
/// # Errors
/// What is known least of, if there is none.
pub(super) fn any_of(rings: Vec<Ring>, mut refused: Refused) -> Result<Vec<Ring>, DecodeError> {
    match refused.pop() {
        Some((_, error)) if rings.is_empty() => Err(error),
        _ => Ok(rings),
    }
}

/// The first slot that is not in a file of `length` bytes, unless it is known to have had no record. The
/// slots are used in turn: one that was not used, or not again, behind the newest record tells that there
/// was no later one. A ring that was saved ends with such a one.
fn first_lost_slot(ring: &Ring, length: u64, rings: &[Ring]) -> Option<u64> {
    let &Header { layout, first_seq: first, segment, .. } = ring.header();
    let mut words = Vec::new();
    let mut state = |slot| ring.read_slot(slot, &mut words).ok();
    let mut there = length.saturating_sub(layout.slots_offset.0) / layout.slot.bytes().0;
    if there < layout.slots && matches!(state(Slot(there)), Some(SlotState::Valid(..))) {
        there += 1;
    }
    let copies = rings.iter().filter(|other| is_same_segment(ring.path(), other.path()));
    let newest = copies.filter_map(|copy| copy.scan().ok()?.newest).max();
    let end = newest.map_or(first, |newest| Seq(newest.0 + 1));
    let next = layout.slot_of(first, end)?;
    // Its commit word is enough.
    let has_next = layout.slot_offset(next).0 + size_of::<u64>() as u64 <= length;
    let is_end = has_next
        && match state(next) {
            Some(SlotState::Empty) => true,
            Some(SlotState::Busy(seq)) => seq == end,
            Some(SlotState::Valid(seq, _)) => seq.0 + layout.slots == end.0,
            Some(SlotState::Torn) | None => false,
        };
    let followed = rings.iter().map(Ring::header).find(|other| other.segment == segment + 1);
    let end = followed.map(|next| next.first_seq).or_else(|| is_end.then_some(end));
    let used = end.map_or(layout.slots, |end| end.0.saturating_sub(first.0).min(layout.slots));
    (there < used).then_some(there)
}

/// The name that a ring of this segment has with its recorder.
fn segment(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix(EARLIER_PREFIX).map_or(name, |behind| {
        let number_away = behind.trim_start_matches(|c: char| c.is_ascii_digit());
        number_away.strip_prefix('-').unwrap_or(behind)
    });
    Some(name.strip_prefix(MIRROR_PREFIX).unwrap_or(name))
}

fn is_same_segment(one: &Path, other: &Path) -> bool {
    segment(one).is_some() && segment(one) == segment(other)
}

/// Whether what is in a ring is not known, since it could not be opened or read.
fn is_closed(error: &DecodeError) -> bool {
    matches!(error, DecodeError::Ring(RingError::Io { .. }))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn all_copies_of_a_segment_are_known_by_their_names() {
        for name in [
            "00012.ring",
            "mirror-00012.ring",
            "earlier-00012.ring",
            "earlier-2-00012.ring",
            "earlier-mirror-00012.ring",
            "earlier-37-mirror-00012.ring",
        ] {
            assert!(
                is_same_segment(Path::new("a/00012.ring"), &Path::new("b").join(name)),
                "{name}"
            );
            assert!(
                !is_same_segment(Path::new("a/00002.ring"), &Path::new("b").join(name)),
                "{name}"
            );
        }
    }
}
