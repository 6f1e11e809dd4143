//! Small rings for the corpus, and what makes a changed one believable again: without right
//! checksums and offsets no change would get past the header.

use ringstat::fuzzing::{Common, RecordWriter};
use ringstat::ring::{
    Draft, FIELDS, Header, Layout, MAX_ENTRIES, MIN_INTERVAL_NS, RingWriter, Segment, WordMap,
    description_check,
};
use ringstat::source::{Names, Parsed, SourceDef, find};
use ringstat::{
    Bytes, Description, RunFacts, SamplerFacts, Schema, Seq, Shape, SourceSchema, SystemFacts,
    Words,
};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;
use xxhash_rust::xxh64::xxh64;

/// The text of each source that the seeds record, and of the fuzzed rings that count as a
/// recorder's.
pub const TEXTS: [(&str, &str); 5] = [
    ("diskstats", include_str!("../../tests/proc/modern/diskstats")),
    ("vmstat", include_str!("../../tests/proc/modern/vmstat")),
    ("meminfo", include_str!("../../tests/proc/modern/meminfo")),
    ("loadavg", include_str!("../../tests/proc/modern/loadavg")),
    ("netdev", include_str!("../../tests/proc/modern/net/dev")),
];

const MAGIC: u64 = u64::from_le_bytes(*b"RINGSTAT");
const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;
const HEADER_WORDS: usize = 32;
const SLOT_HEAD_WORDS: usize = 3;
const ENTRY_WORDS: usize = 16;
const ENTRIES: u64 = 32;
const SLOTS: u64 = 4;
const BUSY: u64 = 1 << 63;

/// Flag of a record: the run was stopped.
const AT_STOP: u64 = 1;

/// What a recorder would know of this source.
pub fn source_schema(source: &str, text: &str) -> SourceSchema {
    let def = find(source).expect("a known source");
    let shape = (def.probe)(text.as_bytes()).expect("a sound text").shape;
    let path = format!("/proc/{}", def.file);
    SourceSchema { name: source.to_owned(), path, shape: Some(shape) }
}

/// The dictionary for one source and record.
struct Dictionary<'a> {
    ring: &'a RingWriter,
    source: u32,
    seq: Seq,
}

impl Names for Dictionary<'_> {
    fn add(&mut self, identity: u64, name: &[u8]) -> Option<u32> {
        self.ring.add_entry(self.source, identity, self.seq, name)
    }
}

/// The bytes of a ring of four slots that has seen `records` samples of `texts`, with a tick
/// missed after each third, and stopped cleanly.
pub fn ring(texts: &[(&str, &str)], records: u64) -> Vec<u8> {
    segment(texts, 0, 0..records)
}

/// The same as segment `number` of a run, with these of its samples.
pub fn segment(texts: &[(&str, &str)], number: u64, records: Range<u64>) -> Vec<u8> {
    let schema = Schema {
        sources: texts.iter().map(|(source, text)| source_schema(source, text)).collect(),
    };
    let description = Description {
        ringstat: "0.1.0".to_owned(),
        hostname: "seed".to_owned(),
        run: RunFacts { benchmark_type: "training".to_owned(), ..RunFacts::default() },
        system: SystemFacts::default(),
        sampler: SamplerFacts { notes: vec!["a note".to_owned()], ..SamplerFacts::default() },
        schema,
    };
    let description = serde_json::to_vec(&description).expect("JSON");
    let sources: Vec<(&SourceDef, &[u8])> = texts
        .iter()
        .map(|(source, text)| (find(source).expect("a known source"), text.as_bytes()))
        .collect();
    let mut parsers: Vec<_> =
        sources.iter().map(|(def, text)| (def.probe)(text).expect("a sound text")).collect();
    let words: usize = parsers
        .iter()
        .map(|probed| match &probed.shape {
            Shape::Scalars { fields } => fields.len() + 2,
            shape @ Shape::Table { .. } => probed.rows * shape.row_words() + 2,
        })
        .sum();
    let length = Bytes(description.len() as u64);
    let layout = Layout::new(length, ENTRIES, Words(8 + words as u64), SLOTS).expect("small");
    let header = Header {
        layout,
        description_check: description_check(&description),
        max_samples: SLOTS - 1,
        run_id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        segment: number,
        first_seq: Seq(records.start),
        start_wall_ns: 1_700_000_000_000_000_000,
        start_monotonic_ns: 5_000_000_000,
        interval_ns: MIN_INTERVAL_NS,
        boot_id: Uuid::from_u128(5),
    };
    let map = Arc::new(WordMap::private(layout.file_bytes()).expect("memory"));
    let segment = Segment::create(map.clone(), header, &description).expect("a sound header");
    let draft = Draft::new(layout.record());
    let ring = RingWriter::new(Arc::new(segment));
    parsers.iter_mut().for_each(|probed| probed.source.begin_segment(ENTRIES as usize));
    for seq in records.clone() {
        let mut record = RecordWriter::new(draft.record(), parsers.len()).expect("room");
        let missed = seq / 3;
        let since_ns = (seq + missed) * MIN_INTERVAL_NS;
        let stop = if seq + 1 == records.end { AT_STOP } else { 0 };
        for (which, value) in [
            (Common::Tick, seq + missed),
            (Common::WallNs, 1_700_000_000_000_000_000 + since_ns),
            (Common::BeginNs, 5_000_000_000 + since_ns + 70_000),
            (Common::EndNs, 5_000_000_000 + since_ns + 120_000),
            (Common::LatenessNs, 70_000),
            (Common::MissedTicks, missed),
            (Common::CpuNs, 55_000 * seq),
            (Common::Flags, stop),
        ] {
            record.set(which, value);
        }
        for (source, (probed, (_, text))) in parsers.iter_mut().zip(&sources).enumerate() {
            let mut block = record.block().expect("one for each source");
            let mut names = Dictionary { ring: &ring, source: source as u32, seq: Seq(seq) };
            let parsed = probed.source.parse(text, &mut block, &mut names);
            let Parsed::Values { count, fault: None } = parsed else { panic!("{parsed:?}") };
            block.finish(count, None);
        }
        let used = record.used_words();
        ring.begin(Seq(seq)).expect("not before the first").commit_draft(&draft, used);
    }
    map.words().iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect()
}

/// Numbers from a seed (SplitMix64, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// One of 0 to `count` - 1; 0 for none.
    fn below(&mut self, count: usize) -> usize {
        (self.next() % (count as u64).max(1)) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A word that is likely to matter: small, near a power of two, near what was there, any.
    fn word(&mut self, was: u64) -> u64 {
        match self.below(5) {
            0 => self.next() % 70,
            1 => (1_u64 << self.below(64)).wrapping_add(self.next() % 5).wrapping_sub(2),
            2 => was.wrapping_add(self.next() % 9).wrapping_sub(4),
            3 => was ^ (1 << self.below(64)),
            _ => self.next() >> self.below(64),
        }
    }
}

fn word_at(bytes: &[u8], index: usize) -> u64 {
    bytes
        .get(index * 8..index * 8 + 8)
        .map_or(0, |word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
}

fn set_word(bytes: &mut [u8], index: usize, word: u64) {
    if let Some(place) = bytes.get_mut(index * 8..index * 8 + 8) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

fn field(name: &str) -> usize {
    FIELDS.iter().position(|field| *field == name).expect("a field of the header")
}

fn round_up(bytes: u64) -> u64 {
    bytes.saturating_add(PAGE_BYTES as u64 - 1) & !(PAGE_BYTES as u64 - 1)
}

/// Where the parts of a ring lie in `bytes`, as far as they do.
struct Parts {
    description: usize,
    dictionary_at: usize,
    entries: usize,
    slots_at: usize,
    slot_words: usize,
    slots: usize,
}

impl Parts {
    fn of(bytes: &[u8]) -> Parts {
        let number = |name, most: usize| {
            usize::try_from(word_at(bytes, field(name))).unwrap_or(most).min(most)
        };
        let length = bytes.len();
        let dictionary_at = number("dictionary_offset", length) / 8;
        let slots_at = number("slots_offset", length) / 8;
        let slot_words = number("slot_words", 1 << 22).max(SLOT_HEAD_WORDS);
        let there = (length / 8 - slots_at).div_ceil(slot_words);
        Parts {
            description: number("description_bytes", length.saturating_sub(PAGE_BYTES)),
            dictionary_at,
            entries: number("dictionary_entries", (length / 8 - dictionary_at) / ENTRY_WORDS),
            slots_at,
            slot_words,
            slots: number("slots", there),
        }
    }
}

/// Where the rings of a run lie in `data`, one behind the other: each begins at a sector.
pub fn split(data: &[u8]) -> Vec<Range<usize>> {
    let is_begin = |at: &usize| word_at(data, at / 8) == MAGIC;
    let mut begins = vec![0];
    begins.extend((SECTOR_BYTES..data.len()).step_by(SECTOR_BYTES).filter(is_begin));
    let ends = begins[1..].iter().copied().chain([data.len()]);
    begins.iter().copied().zip(ends).map(|(begin, end)| begin..end).collect()
}

/// Changes one ring of several, or which there are; see [`mutate_one`].
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    any: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut dice = Dice(u64::from(seed) ^ 0xA5A5_0000_0000);
    let all = split(&data[..size]);
    let which = dice.below(all.len());
    let part = all[which].clone();
    let change_which = dice.one_in(8);
    if all.len() == 1 && !change_which {
        return mutate_one(data, size, max_size, seed, any);
    }
    let behind = data[part.end..size].to_vec();
    let mut ring = data[part.clone()].to_vec();
    if !change_which {
        let room = ring.len() + max_size - size;
        let length = ring.len();
        ring.resize(room, 0);
        let length = mutate_one(&mut ring, length, room, seed, any);
        ring.truncate(length);
    } else if all.len() > 1 && dice.one_in(2) {
        ring.clear();
    } else {
        // A copy, or the next segment.
        let mut next = ring.clone();
        if next.len() >= PAGE_BYTES && dice.one_in(2) {
            follow(&mut next);
            mend(&mut next, &mut dice);
        }
        ring.resize(ring.len().next_multiple_of(SECTOR_BYTES), 0);
        ring.extend(next);
    }
    if !behind.is_empty() {
        ring.resize(ring.len().next_multiple_of(SECTOR_BYTES), 0);
    }
    ring.extend(behind);
    let end = (part.start + ring.len()).min(max_size);
    data[part.start..end].copy_from_slice(&ring[..end - part.start]);
    end
}

/// Makes a ring one of the next segment, but for its checksums.
fn follow(data: &mut [u8]) {
    let parts = Parts::of(data);
    let (segment, first) = (field("segment"), field("first_seq"));
    set_word(data, segment, word_at(data, segment).wrapping_add(1));
    let newest =
        (0..parts.slots).map(|slot| word_at(data, parts.slots_at + slot * parts.slot_words));
    let newest = newest.filter(|commit| commit & BUSY == 0).max().unwrap_or(0);
    let by = newest.saturating_sub(word_at(data, first));
    set_word(data, first, word_at(data, first).wrapping_add(by));
    for slot in 0..parts.slots {
        let commit = parts.slots_at + slot * parts.slot_words;
        if word_at(data, commit) != 0 {
            set_word(data, commit, word_at(data, commit).wrapping_add(by));
        }
    }
}

/// Changes one part of a ring and then, mostly, mends offsets and checksums. What is no ring, and
/// sometimes what is one, is changed by `any` alone: it changes the first so many bytes of a
/// buffer and returns how many there are then, at most the last number.
fn mutate_one(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    any: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut dice = Dice(u64::from(seed));
    let mut size = size;
    if size < 2 * PAGE_BYTES || word_at(&data[..size], 0) != MAGIC {
        return any(data, size, max_size);
    }
    for _ in 0..=dice.below(3) {
        if size < 2 * PAGE_BYTES {
            return size;
        }
        let parts = Parts::of(&data[..size]);
        match dice.below(9) {
            0 => size = any(data, size, max_size),
            1 => {
                let index = 2 + dice.below(FIELDS.len() - 2);
                let word = dice.word(word_at(data, index));
                set_word(&mut data[..size], index, word);
            }
            2 | 3 => mutate_description(&mut data[..size], &parts, &mut dice, &any),
            4 => {
                let index = parts.dictionary_at + dice.below(parts.entries.min(8) * ENTRY_WORDS);
                let word = dice.word(word_at(&data[..size], index));
                set_word(&mut data[..size], index, word);
            }
            5 => {
                let to = dice.below(size / 512 + 2) * 512 + [0, 0, 1, 8][dice.below(4)];
                let to = to.clamp(1, max_size);
                if to > size {
                    data[size..to].fill(0);
                }
                size = to;
            }
            6 => {
                let words = parts.slot_words;
                let at = |slot: usize| (parts.slots_at + slot * words) * 8;
                let (from, to) = (at(dice.below(parts.slots)), at(dice.below(parts.slots)));
                if from.max(to) + words * 8 <= size {
                    data.copy_within(from..from + words * 8, to);
                }
            }
            _ => {
                let slot = parts.slots_at + dice.below(parts.slots) * parts.slot_words;
                // Heads and counts more often than the many counters.
                let words = if dice.one_in(2) { 16 } else { parts.slot_words };
                let index = slot + dice.below(words);
                let word = dice.word(word_at(&data[..size], index));
                set_word(&mut data[..size], index, word);
            }
        }
    }
    if size >= PAGE_BYTES {
        mend(&mut data[..size], &mut dice);
    }
    size
}

fn mutate_description(
    data: &mut [u8],
    parts: &Parts,
    dice: &mut Dice,
    any: &impl Fn(&mut [u8], usize, usize) -> usize,
) {
    let end = (parts.dictionary_at * 8).clamp(PAGE_BYTES, data.len());
    let place = &mut data[PAGE_BYTES..end];
    let length = parts.description.min(place.len());
    if length == 0 {
        return;
    }
    let room = place.len();
    let length = if dice.one_in(2) {
        let text = with_a_word_of_its_own(&place[..length], dice);
        let length = text.len().min(room);
        place[..length].copy_from_slice(&text[..length]);
        length
    } else {
        any(place, length, room)
    };
    place[length..].fill(b' ');
    set_word(data, field("description_bytes"), length as u64);
}

/// The text with what stands between two of its quotes in the place of what stands between two
/// others: a name given twice, another kind or shape, a key that is no longer there.
fn with_a_word_of_its_own(text: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut words: Vec<&[u8]> = text.split(|byte| *byte == b'"').collect();
    // Every second one is in quotes.
    let quoted = words.len() / 2;
    if quoted > 0 {
        words[2 * dice.below(quoted) + 1] = words[2 * dice.below(quoted) + 1];
    }
    words.join(&b'"')
}

/// Makes offsets follow from lengths and checksums from words, each mostly.
fn mend(data: &mut [u8], dice: &mut Dice) {
    let get = |data: &[u8], name| word_at(data, field(name));
    if !dice.one_in(16) {
        let description = get(data, "description_bytes");
        let dictionary = round_up((PAGE_BYTES as u64).saturating_add(description));
        let entries = get(data, "dictionary_entries").min(2 * MAX_ENTRIES);
        let slots_at = round_up(dictionary.saturating_add(entries * ENTRY_WORDS as u64 * 8));
        let slots = get(data, "slots").saturating_mul(get(data, "slot_words").saturating_mul(8));
        set_word(data, field("dictionary_offset"), dictionary);
        set_word(data, field("slots_offset"), slots_at);
        set_word(data, field("file_bytes"), slots_at.saturating_add(slots));
    }
    let parts = Parts::of(data);
    if !dice.one_in(16) {
        let end = (PAGE_BYTES + parts.description).min(data.len());
        let check = description_check(data.get(PAGE_BYTES..end).unwrap_or_default());
        set_word(data, field("description_check"), check);
    }
    let seed = seed(data);
    if !dice.one_in(8) {
        for entry in 0..parts.entries {
            let at = (parts.dictionary_at + entry * ENTRY_WORDS) * 8;
            if word_at(data, at / 8) != 0 {
                let words = &data[at + 8..at + ENTRY_WORDS * 8];
                let check = xxh64(words, seed.wrapping_add(entry as u64)).max(1);
                set_word(data, at / 8, check);
            }
        }
    }
    if !dice.one_in(8) {
        for slot in 0..parts.slots {
            mend_slot(data, &parts, slot, seed, dice);
        }
    }
    if !dice.one_in(32) {
        let check = xxh64(&data[..(HEADER_WORDS - 1) * 8], 0);
        set_word(data, HEADER_WORDS - 1, check);
    }
}

fn mend_slot(data: &mut [u8], parts: &Parts, slot: usize, seed: u64, dice: &mut Dice) {
    let at = parts.slots_at + slot * parts.slot_words;
    let commit = word_at(data, at);
    if commit == 0 || commit & BUSY != 0 {
        return;
    }
    // The nearest number that belongs here.
    let first = word_at(data, field("first_seq"));
    let slots = word_at(data, field("slots")).max(1);
    let nth = commit.wrapping_sub(1).wrapping_sub(first);
    let in_place = (nth - nth % slots).wrapping_add(slot as u64);
    let seq = first.wrapping_add(in_place) & !BUSY;
    if !dice.one_in(8) {
        set_word(data, at, seq.wrapping_add(1) & !BUSY);
    }
    let length = usize::try_from(word_at(data, at + 2)).unwrap_or(usize::MAX);
    let end = length.saturating_add(at + SLOT_HEAD_WORDS).saturating_mul(8);
    if let Some(covered) = data.get((at + 2) * 8..end) {
        let seq = word_at(data, at).wrapping_sub(1);
        let check = xxh64(covered, seed.wrapping_add(seq));
        set_word(data, at + 1, check);
    }
}

/// Seed of the checksums of this ring's slots and entries.
fn seed(data: &[u8]) -> u64 {
    let words = ["run_id_high", "run_id_low", "segment"].map(|name| word_at(data, field(name)));
    xxh64(&words.map(u64::to_le_bytes).concat(), 0)
}
