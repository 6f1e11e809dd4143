//! The protocol of one slot: how a record gets into it while readers look on, and how a copy of
//! a slot is judged. It works on any words (a map, a `Vec` in tests, loom's in the models) and
//! does no I/O.
//!
//! A slot is `| commit | check | length | record ... |`. `commit` is 0 in a slot that was never
//! used, `BUSY | seq + 1` while record `seq` is written, and `seq + 1` when it is there.

use super::checksum::xxh64;
use super::layout::SLOT_HEAD_WORDS;
use super::orderings::{Orderings, Point, Sound};
use crate::sync::{AtomicU64, Ordering};
use crate::units::{Seq, Words};

pub(super) const COMMIT: usize = 0;
pub(super) const CHECK: usize = 1;
pub(super) const LENGTH: usize = 2;

/// Set in the commit word while the record is written.
pub const BUSY: u64 = 1 << 63;

/// A slot that is being written. Dropped without [`commit_draft`](Self::commit_draft) it stays busy, and
/// readers pass it over.
pub struct SlotWriter<'a> {
    words: &'a [AtomicU64],
    seq: Seq,
    seed: u64,
}

impl<'a> SlotWriter<'a> {
    /// Marks the slot as busy with record `seq`. `words` is one whole slot.
    #[inline]
    pub(super) fn begin(words: &'a [AtomicU64], seq: Seq, seed: u64) -> Self {
        Self::begin_with::<Sound>(words, seq, seed)
    }

    #[inline]
    pub(super) fn begin_with<O: Orderings>(words: &'a [AtomicU64], seq: Seq, seed: u64) -> Self {
        words[COMMIT].store(BUSY | (seq.0 + 1), Ordering::Relaxed);
        // Keeps the stores of the record behind the busy mark. Pairs with the acquire fence in
        // `copy`: a reader that has copied any word of this record then sees the mark.
        O::fence(Point::BeginFence, Ordering::Release);
        SlotWriter { words, seq, seed }
    }

    /// Copies the first `used` words of a record to the slot and publishes it. The checksum is that
    /// of the draft: if somebody else stores to the slot meanwhile, or cuts it off, what is then
    /// there does not verify.
    #[inline]
    pub fn commit_draft(self, draft: &Draft, used: usize) {
        self.commit_draft_with::<Sound>(draft, used);
    }

    #[inline]
    pub(super) fn commit_draft_with<O: Orderings>(self, draft: &Draft, used: usize) {
        let used = used.min(self.words.len() - SLOT_HEAD_WORDS).min(draft.record().len());
        draft.0[0].store(used as u64, Ordering::Relaxed);
        let covered = &draft.0[..=used];
        let seed = self.seed.wrapping_add(self.seq.0);
        let mut cells = self.words[LENGTH..].iter();
        let check = xxh64(seed, covered, |word| {
            let word = word.load(Ordering::Relaxed);
            if let Some(cell) = cells.next() {
                cell.store(word, Ordering::Relaxed);
            }
            word
        });
        self.words[CHECK].store(check, Ordering::Relaxed);
        // Publishes the record. Pairs with the acquire load in `copy`.
        self.words[COMMIT].store(self.seq.0 + 1, O::release(Point::CommitStore));
    }
}

/// Memory of the writer's own in which a record is made before it gets into its slot: length and
/// record, as they lie there. Nobody else can store to it between a word and its checksum.
pub struct Draft(Vec<AtomicU64>);

impl Draft {
    /// Room for records of so many words.
    pub fn new(words: Words) -> Draft {
        Draft((0..=words.0).map(|_| AtomicU64::new(0)).collect())
    }

    /// The words of the record.
    #[inline]
    pub fn record(&self) -> &[AtomicU64] {
        &self.0[1..]
    }
}

/// Copies a slot that may be written at the same time. `copy` gets the words of the head and the
/// record without spare ones. `false` if the slot changed while it was copied: ask again.
///
/// Never writes, so it can never hold up the writer.
pub(crate) fn copy(words: &[AtomicU64], copy: &mut Vec<u64>) -> bool {
    copy_with::<Sound>(words, copy)
}

pub(super) fn copy_with<O: Orderings>(words: &[AtomicU64], copy: &mut Vec<u64>) -> bool {
    copy.clear();
    // Pairs with the release store in `commit_draft`.
    let before = words[COMMIT].load(O::acquire(Point::CommitLoad));
    let length = words[LENGTH].load(Ordering::Relaxed);
    let used = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(SLOT_HEAD_WORDS);
    let used = if before & BUSY == 0 { used.min(words.len()) } else { SLOT_HEAD_WORDS };
    copy.extend([before, words[CHECK].load(Ordering::Relaxed), length]);
    copy.extend(words[SLOT_HEAD_WORDS..used].iter().map(|word| word.load(Ordering::Relaxed)));
    // Keeps the loads above before the one below. Pairs with the release fence in `begin`.
    O::fence(Point::CopyFence, Ordering::Acquire);
    words[COMMIT].load(Ordering::Relaxed) == before
}

/// What a copy of a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Never used.
    Empty,
    /// This record was being written when the copy was made, or when its writer died.
    Busy(Seq),
    /// A record that verifies; so many words of it.
    Valid(Seq, usize),
    /// Words that are no record of this segment.
    Torn,
}

/// Judges a copy of slot number `slot` of `slots` in a segment that begins at `first`. Looks at
/// nothing but the copy: every slot judges itself. `copy` may be shorter than the slot (a file
/// that was cut off) and longer than the record (spare words).
pub fn judge(copy: &[u64], slot: u64, slots: u64, first: Seq, seed: u64) -> SlotState {
    let Some((&[commit, check, length], _)) = copy.split_first_chunk::<SLOT_HEAD_WORDS>() else {
        return SlotState::Torn;
    };
    if commit == 0 {
        return SlotState::Empty;
    }
    let Some(seq) = (commit & !BUSY).checked_sub(1).map(Seq) else { return SlotState::Torn };
    let in_place = seq.0.checked_sub(first.0).is_some_and(|nth| nth % slots == slot);
    if !in_place {
        return SlotState::Torn;
    }
    if commit & BUSY != 0 {
        return SlotState::Busy(seq);
    }
    let Some(length) = usize::try_from(length).ok() else { return SlotState::Torn };
    let Some(covered) = copy.get(LENGTH..length.saturating_add(SLOT_HEAD_WORDS)) else {
        return SlotState::Torn;
    };
    if xxh64(seed.wrapping_add(seq.0), covered, |word| *word) != check {
        return SlotState::Torn;
    }
    SlotState::Valid(seq, length)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SEED: u64 = 42;

    fn slot(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    fn draft(room: usize, record: &[u64]) -> Draft {
        let draft = Draft::new(Words(room as u64));
        for (cell, word) in draft.record().iter().zip(record) {
            cell.store(*word, Ordering::Relaxed);
        }
        draft
    }

    fn write(words: &[AtomicU64], seq: u64, record: &[u64]) {
        let draft = draft(words.len() - SLOT_HEAD_WORDS, record);
        SlotWriter::begin(words, Seq(seq), SEED).commit_draft(&draft, record.len());
    }

    fn copied(words: &[AtomicU64]) -> Vec<u64> {
        let mut words_read = Vec::new();
        assert!(copy(words, &mut words_read));
        words_read
    }

    #[test]
    fn the_life_of_a_slot() {
        let words = slot(8);
        assert_eq!(judge(&copied(&words), 2, 4, Seq(10), SEED), SlotState::Empty);
        // Never committed.
        let _ = SlotWriter::begin(&words, Seq(12), SEED);
        assert_eq!(judge(&copied(&words), 2, 4, Seq(10), SEED), SlotState::Busy(Seq(12)));
        write(&words, 12, &[7, 8, 9]);
        let read = copied(&words);
        assert_eq!(judge(&read, 2, 4, Seq(10), SEED), SlotState::Valid(Seq(12), 3));
        assert_eq!(read[SLOT_HEAD_WORDS..], [7, 8, 9]);
        write(&words, 16, &[1, 2, 3, 4, 5]);
        assert_eq!(judge(&copied(&words), 2, 4, Seq(10), SEED), SlotState::Valid(Seq(16), 5));
    }

    #[test]
    fn of_a_draft_longer_than_the_slot_what_fits_is_committed() {
        let words = slot(8);
        let long = draft(100, &[7; 100]);
        SlotWriter::begin(&words, Seq(16), SEED).commit_draft(&long, 90);
        assert_eq!(copied(&words)[SLOT_HEAD_WORDS..], [7; 5]);
        assert_eq!(judge(&copied(&words), 2, 4, Seq(10), SEED), SlotState::Valid(Seq(16), 5));
    }

    #[test]
    fn a_record_is_valid_only_where_and_as_it_was_written() {
        let words = slot(8);
        write(&words, 12, &[7, 8, 9]);
        let good = copied(&words);
        assert_eq!(judge(&good, 1, 4, Seq(10), SEED), SlotState::Torn, "another slot");
        assert_eq!(judge(&good, 2, 4, Seq(14), SEED), SlotState::Torn, "before the segment");
        assert_eq!(judge(&good, 2, 4, Seq(10), SEED + 1), SlotState::Torn, "another run");
        for word in 1..good.len() {
            for bit in 0..64 {
                let mut bad = good.clone();
                bad[word] ^= 1 << bit;
                assert_eq!(judge(&bad, 2, 4, Seq(10), SEED), SlotState::Torn, "{word} {bit}");
            }
        }
        for length in 0..good.len() {
            assert_eq!(
                judge(&good[..length], 2, 4, Seq(10), SEED),
                SlotState::Torn,
                "cut {length}"
            );
        }
        let mut spare = good.clone();
        spare.extend([1, 2, 3]);
        assert_eq!(judge(&spare, 2, 4, Seq(10), SEED), SlotState::Valid(Seq(12), 3));
        // A lap later in the commit word alone is another record, and not this one's words.
        let mut lap = good;
        lap[COMMIT] += 4;
        assert_eq!(judge(&lap, 2, 4, Seq(10), SEED), SlotState::Torn);
    }
}
