//! What a slot and a header can be found as, as tables in data: every combination of what a crash
//! can leave of each part has exactly one row, and the verdict of a reader of the file is the row's.

use super::*;
use crate::ring::checksum::of_words;
use crate::ring::layout::{HEADER_BYTES, HEADER_WORDS, SLOT_HEAD_WORDS};
use crate::ring::slot::{BUSY, CHECK, COMMIT, LENGTH};
use crate::ring::{BadHeader, RingError, SlotState};

const SLOTS: u64 = 4;
const SLOT: u64 = 2;
/// The record that belongs into the slot in this lap.
const SEQ: u64 = FIRST + 2 * SLOTS + SLOT;
const PAGE_WORDS: usize = 512;
const SECTOR_WORDS: usize = 64;
const SLOT_WORDS: usize = 2 * PAGE_WORDS;

/// What the commit word says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Commit {
    Zero,
    ThisLap,
    StaleLap,
    FutureLap,
    OtherSlot,
    BeforeFirst,
    Garbage,
    BusyThisLap,
    BusyStaleLap,
    BusyFutureLap,
    BusyOtherSlot,
    BusyAlone,
}
use Commit::*;
const COMMITS: [Commit; 12] = [
    Zero,
    ThisLap,
    StaleLap,
    FutureLap,
    OtherSlot,
    BeforeFirst,
    Garbage,
    BusyThisLap,
    BusyStaleLap,
    BusyFutureLap,
    BusyOtherSlot,
    BusyAlone,
];

impl Commit {
    fn word(self) -> u64 {
        match self {
            Zero => 0,
            ThisLap => SEQ + 1,
            StaleLap => SEQ + 1 - SLOTS,
            FutureLap => SEQ + 1 + SLOTS,
            OtherSlot => SEQ + 2,
            BeforeFirst => FIRST + SLOT + 1 - SLOTS,
            Garbage => BUSY - 2,
            BusyThisLap => BUSY | ThisLap.word(),
            BusyStaleLap => BUSY | StaleLap.word(),
            BusyFutureLap => BUSY | FutureLap.word(),
            BusyOtherSlot => BUSY | OtherSlot.word(),
            BusyAlone => BUSY,
        }
    }

    fn seq(self) -> Seq {
        Seq((self.word() & !BUSY).wrapping_sub(1))
    }
}

/// The length word: nothing, within the first sector, into the second, one too many, no number.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Length {
    Nothing,
    Short,
    Long,
    TooLong,
    Absurd,
}
const LENGTHS: [Length; 5] =
    [Length::Nothing, Length::Short, Length::Long, Length::TooLong, Length::Absurd];

impl Length {
    fn word(self) -> u64 {
        match self {
            Length::Nothing => 0,
            Length::Short => 10,
            Length::Long => PAGE_WORDS as u64 + 100,
            Length::TooLong => (SLOT_WORDS - SLOT_HEAD_WORDS) as u64 + 1,
            Length::Absurd => u64::MAX,
        }
    }
}

/// Whose checksum it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Check {
    Right,
    /// Of the same words in a slot of another run.
    OtherRun,
    /// Of the same words in another lap.
    OtherLap,
    /// Of other words.
    OtherWords,
}
const CHECKS: [Check; 4] = [Check::Right, Check::OtherRun, Check::OtherLap, Check::OtherWords];

/// What is there of a page of the slot. What is not there is zero to whoever reads the file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Page {
    There,
    Zeroed,
    /// As many words as the head of a slot has; the others are zero.
    HeadAlone,
    /// The others are zero.
    FirstSector,
    /// All but that.
    OtherSectors,
    /// The file ends before it.
    CutOff,
    /// The file ends behind the first word.
    CutInHead,
}
const PAGES: [Page; 7] = [
    Page::There,
    Page::Zeroed,
    Page::HeadAlone,
    Page::FirstSector,
    Page::OtherSectors,
    Page::CutOff,
    Page::CutInHead,
];

impl Page {
    /// Leaves of the words of a page what is there.
    fn leave(self, words: &mut [u64]) {
        match self {
            Page::There | Page::CutOff | Page::CutInHead => {}
            Page::Zeroed => words.fill(0),
            Page::HeadAlone => words[SLOT_HEAD_WORDS..].fill(0),
            Page::FirstSector => words[SECTOR_WORDS..].fill(0),
            Page::OtherSectors => words[..SECTOR_WORDS].fill(0),
        }
    }

    /// How many words of it the file has, if it ends there.
    fn end(self) -> Option<usize> {
        match self {
            Page::CutOff => Some(0),
            Page::CutInHead => Some(1),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Empty,
    Busy,
    Valid,
    Torn,
}

/// What of each part this row is for, and what the slot then is.
struct Row {
    first: &'static [Page],
    second: &'static [Page],
    commit: &'static [Commit],
    length: &'static [Length],
    check: &'static [Check],
    verdict: Verdict,
}

const THERE: &[Page] = &[Page::There];
/// No word of the head.
const HEADLESS: &[Page] = &[Page::Zeroed, Page::OtherSectors, Page::CutOff];
/// At least the first word of it.
const BEGUN: &[Page] = &[Page::There, Page::HeadAlone, Page::FirstSector, Page::CutInHead];
/// All of it.
const HEAD: &[Page] = &[Page::There, Page::HeadAlone, Page::FirstSector];
/// Not the words up to where a long record ends.
const LACKING: &[Page] = &[
    Page::Zeroed,
    Page::HeadAlone,
    Page::FirstSector,
    Page::OtherSectors,
    Page::CutOff,
    Page::CutInHead,
];
const IN_PLACE: &[Commit] = &[ThisLap, StaleLap, FutureLap];
const POSSIBLE: &[Length] = &[Length::Nothing, Length::Short, Length::Long];

#[rustfmt::skip]
const SLOT_TABLE: [Row; 13] = [
    // The head is not there, or is as it was made.
    Row { first: HEADLESS, second: &PAGES, commit: &COMMITS, length: &LENGTHS, check: &CHECKS, verdict: Verdict::Empty },
    Row { first: BEGUN, second: &PAGES, commit: &[Zero], length: &LENGTHS, check: &CHECKS, verdict: Verdict::Empty },
    // Being written, whatever the rest is.
    Row { first: BEGUN, second: &PAGES, commit: &[BusyThisLap, BusyStaleLap, BusyFutureLap], length: &LENGTHS, check: &CHECKS, verdict: Verdict::Busy },
    // A number that no writer puts here, whatever the rest is.
    Row { first: BEGUN, second: &PAGES, commit: &[OtherSlot, BeforeFirst, Garbage, BusyOtherSlot, BusyAlone], length: &LENGTHS, check: &CHECKS, verdict: Verdict::Torn },
    // A number that belongs here, of a record that is not here or not whole.
    Row { first: &[Page::CutInHead], second: &PAGES, commit: IN_PLACE, length: &LENGTHS, check: &CHECKS, verdict: Verdict::Torn },
    Row { first: HEAD, second: &PAGES, commit: IN_PLACE, length: &[Length::TooLong, Length::Absurd], check: &CHECKS, verdict: Verdict::Torn },
    Row { first: HEAD, second: &PAGES, commit: IN_PLACE, length: POSSIBLE, check: &[Check::OtherRun, Check::OtherLap, Check::OtherWords], verdict: Verdict::Torn },
    Row { first: &[Page::HeadAlone], second: &PAGES, commit: IN_PLACE, length: &[Length::Short, Length::Long], check: &[Check::Right], verdict: Verdict::Torn },
    Row { first: &[Page::FirstSector], second: &PAGES, commit: IN_PLACE, length: &[Length::Long], check: &[Check::Right], verdict: Verdict::Torn },
    Row { first: THERE, second: LACKING, commit: IN_PLACE, length: &[Length::Long], check: &[Check::Right], verdict: Verdict::Torn },
    // A whole record: of this lap, of one that was not overwritten yet, or newer than is known.
    Row { first: THERE, second: THERE, commit: IN_PLACE, length: &[Length::Long], check: &[Check::Right], verdict: Verdict::Valid },
    Row { first: &[Page::There, Page::FirstSector], second: &PAGES, commit: IN_PLACE, length: &[Length::Short], check: &[Check::Right], verdict: Verdict::Valid },
    Row { first: HEAD, second: &PAGES, commit: IN_PLACE, length: &[Length::Nothing], check: &[Check::Right], verdict: Verdict::Valid },
];

/// All words of a slot before anything happened to them.
fn slot_of(commit: Commit, length: Length, check: Check) -> Vec<u64> {
    let mut words: Vec<u64> = (0..SLOT_WORDS as u64).map(|word| scrambled(word) | 1).collect();
    words[COMMIT] = commit.word();
    words[LENGTH] = length.word();
    let room = (SLOT_WORDS - SLOT_HEAD_WORDS) as u64;
    let end = SLOT_HEAD_WORDS + length.word().min(room) as usize;
    let seed = |run| header(run, 0, room, SLOTS).seed().wrapping_add(commit.seq().0);
    words[CHECK] = match check {
        Check::Right => of_words(seed(1), &words[LENGTH..end]),
        Check::OtherRun => of_words(seed(2), &words[LENGTH..end]),
        Check::OtherLap => of_words(seed(1).wrapping_sub(SLOTS), &words[LENGTH..end]),
        Check::OtherWords => of_words(seed(1), &words[LENGTH + 1..end]),
    };
    words
}

/// What the slot is in a file that has this of its pages; a record is what was written.
fn read(blank: &[u8], words: &[u64], pages: [Page; 2]) -> SlotState {
    let mut bytes = blank.to_vec();
    let room = (SLOT_WORDS - SLOT_HEAD_WORDS) as u64;
    let at = header(1, 0, room, SLOTS).layout.slot_offset(Slot(SLOT)).0 as usize;
    let mut left = words.to_vec();
    for (page, words) in pages.into_iter().zip(left.chunks_mut(PAGE_WORDS)) {
        page.leave(words);
    }
    bytes[at..at + SLOT_WORDS * 8].copy_from_slice(bytemuck::cast_slice(&left));
    for (page, before) in pages.into_iter().zip([0, PAGE_WORDS]).rev() {
        bytes.truncate(page.end().map_or(bytes.len(), |end| at + (before + end) * 8));
    }
    let mut found = Vec::new();
    let state = open(bytes).unwrap().read_slot(Slot(SLOT), &mut found).unwrap();
    if let SlotState::Valid(_, used) = state {
        assert_eq!(found, words[SLOT_HEAD_WORDS..SLOT_HEAD_WORDS + used], "other words");
    }
    state
}

#[test]
fn every_state_of_a_slot_has_one_row_and_the_reader_agrees_with_it() {
    let room = (SLOT_WORDS - SLOT_HEAD_WORDS) as u64;
    let blank = Rig::new(header(1, 0, room, SLOTS)).bytes();
    let mut tried = [0; SLOT_TABLE.len()];
    for commit in COMMITS {
        for (length, check) in
            LENGTHS.into_iter().flat_map(|length| CHECKS.map(|check| (length, check)))
        {
            let words = slot_of(commit, length, check);
            for (first, second) in
                PAGES.into_iter().flat_map(|first| PAGES.map(|second| (first, second)))
            {
                let state = format!("{first:?} {second:?} {commit:?} {length:?} {check:?}");
                let matches = |row: &Row| {
                    row.first.contains(&first)
                        && row.second.contains(&second)
                        && row.commit.contains(&commit)
                        && row.length.contains(&length)
                        && row.check.contains(&check)
                };
                let rows: Vec<usize> =
                    (0..SLOT_TABLE.len()).filter(|row| matches(&SLOT_TABLE[*row])).collect();
                let [row] = rows[..] else { panic!("{state}: rows {rows:?}") };
                tried[row] += 1;
                let expected = match SLOT_TABLE[row].verdict {
                    Verdict::Empty => SlotState::Empty,
                    Verdict::Torn => SlotState::Torn,
                    Verdict::Busy => SlotState::Busy(commit.seq()),
                    Verdict::Valid => SlotState::Valid(commit.seq(), length.word() as usize),
                };
                assert_eq!(read(&blank, &words, [first, second]), expected, "{state}");
            }
        }
    }
    assert_eq!(tried.iter().sum::<usize>(), 7 * 7 * 12 * 5 * 4);
    assert!(tried.iter().all(|count| *count > 0), "{tried:?}: a row for nothing");
}

/// What lies where a half of the header, or the description, should be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Ours,
    Zero,
    /// Of another run, whose ring was in the same place.
    Others,
}
const PARTS: [Part; 3] = [Part::Ours, Part::Zero, Part::Others];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Opened {
    Ours,
    /// A ring, but of the other run, by its id.
    Others,
    NoHeader,
    BadCheck,
    BadDescription,
    Short,
}

struct HeadRow {
    /// The first 16 words, and the others.
    halves: &'static [(Part, Part)],
    description: &'static [Part],
    is_cut: &'static [bool],
    opened: Opened,
}

const NEW: &[(Part, Part)] = &[(Part::Ours, Part::Ours)];
const OLD: &[(Part, Part)] = &[(Part::Others, Part::Others)];

#[rustfmt::skip]
const HEAD_TABLE: [HeadRow; 7] = [
    HeadRow { halves: &[(Part::Zero, Part::Ours), (Part::Zero, Part::Zero), (Part::Zero, Part::Others)], description: &PARTS, is_cut: &[false, true], opened: Opened::NoHeader },
    // One half is new.
    HeadRow { halves: &[(Part::Ours, Part::Zero), (Part::Ours, Part::Others), (Part::Others, Part::Zero), (Part::Others, Part::Ours)], description: &PARTS, is_cut: &[false, true], opened: Opened::BadCheck },
    HeadRow { halves: &[(Part::Ours, Part::Ours), (Part::Others, Part::Others)], description: &PARTS, is_cut: &[true], opened: Opened::Short },
    HeadRow { halves: NEW, description: &[Part::Ours], is_cut: &[false], opened: Opened::Ours },
    HeadRow { halves: NEW, description: &[Part::Zero, Part::Others], is_cut: &[false], opened: Opened::BadDescription },
    HeadRow { halves: OLD, description: &[Part::Others], is_cut: &[false], opened: Opened::Others },
    HeadRow { halves: OLD, description: &[Part::Zero, Part::Ours], is_cut: &[false], opened: Opened::BadDescription },
];

/// The description of the other run, as long as ours.
const OTHERS: &[u8] = br#"{"schema":{}}"#;

#[test]
fn every_state_of_a_header_has_one_row_and_the_code_agrees_with_it() {
    assert_eq!(OTHERS.len(), DESCRIPTION.len());
    let ours = header(1, 0, 60, SLOTS);
    let mut others = header(2, 0, 60, SLOTS);
    others.description_check = description_check(OTHERS);
    others.start_wall_ns += 1;
    let half = |part, range: std::ops::Range<usize>| match part {
        Part::Ours => ours.to_words()[range].to_vec(),
        Part::Others => others.to_words()[range].to_vec(),
        Part::Zero => vec![0; range.len()],
    };
    let mut tried = [0; HEAD_TABLE.len()];
    for (first, second) in PARTS.into_iter().flat_map(|first| PARTS.map(|second| (first, second))) {
        for (description, is_cut) in
            PARTS.into_iter().flat_map(|part| [(part, false), (part, true)])
        {
            let state = format!("{first:?} {second:?} {description:?} {is_cut}");
            let matches = |row: &HeadRow| {
                row.halves.contains(&(first, second))
                    && row.description.contains(&description)
                    && row.is_cut.contains(&is_cut)
            };
            let rows: Vec<usize> =
                (0..HEAD_TABLE.len()).filter(|row| matches(&HEAD_TABLE[*row])).collect();
            let [row] = rows[..] else { panic!("{state}: rows {rows:?}") };
            tried[row] += 1;
            let mut bytes = vec![0; ours.layout.file_bytes().0 as usize];
            let head = [half(first, 0..16), half(second, 16..HEADER_WORDS)].concat();
            for (index, word) in head.into_iter().enumerate() {
                set_word(&mut bytes, index, word);
            }
            let text = match description {
                Part::Ours => DESCRIPTION,
                Part::Others => OTHERS,
                Part::Zero => &[],
            };
            bytes[HEADER_BYTES.0 as usize..][..text.len()].copy_from_slice(text);
            if is_cut {
                bytes.truncate(HEADER_BYTES.0 as usize + DESCRIPTION.len() - 1);
            }
            let opened = match open(bytes) {
                Ok(ring) if *ring.header() == ours => Opened::Ours,
                Ok(ring) if *ring.header() == others => Opened::Others,
                Ok(ring) => panic!("{state}: a header that nobody wrote: {:?}", ring.header()),
                Err(RingError::Header { source: BadHeader::Zero, .. }) => Opened::NoHeader,
                Err(RingError::Header { source: BadHeader::Check { .. }, .. }) => Opened::BadCheck,
                Err(RingError::Description { .. }) => Opened::BadDescription,
                Err(RingError::Short { .. }) => Opened::Short,
                Err(other) => panic!("{state}: {other}"),
            };
            assert_eq!(opened, HEAD_TABLE[row].opened, "{state}");
        }
    }
    assert_eq!(tried.iter().sum::<usize>(), 3 * 3 * 3 * 2);
    assert!(tried.iter().all(|count| *count > 0), "{tried:?}: a row for nothing");
}
