//! `FORMAT.md` held against the code: its tables are parsed and compared with the constants, and a
//! ring is taken apart with nothing but what the page says. Whoever changes one must change both.

use super::*;
use crate::fault::{Fault, Reason};
use crate::record::{
    BLOCK_HEAD_WORDS, COMMON_WORDS, Common, FLAG_AT_STOP, FLAG_EXTRA, RowHead, least_words,
};
use crate::ring::header::{FIELDS, HEADER_CHECK};
use crate::ring::layout::{
    ENTRY_HEAD_WORDS, ENTRY_NAME_BYTES, ENTRY_WORDS, FORMAT_VERSION, HEADER_BYTES, HEADER_WORDS,
    MAGIC, MAX_DESCRIPTION_BYTES, MAX_ENTRIES, MAX_SLOT_WORDS, PAGE_BYTES, SECTOR_BYTES,
    SLOT_HEAD_WORDS,
};
use crate::ring::slot::{BUSY, CHECK, COMMIT, LENGTH};
use crate::ring::{MAX_INTERVAL_NS, SlotState};
use xxhash_rust::xxh64::xxh64;

const PAGE: &str = include_str!("../FORMAT.md");

/// The text of the section called `title`.
fn section(title: &str) -> &'static str {
    let heading = format!("\n# {title}\n");
    let (_, rest) = PAGE.split_once(&heading).unwrap_or_else(|| panic!("no section {title}"));
    rest.split_once("\n# ").map_or(rest, |(section, _)| section)
}

/// The rows of the section's table without its head: cells without the marks around names.
fn table(title: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let line = line.trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    section(title).lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

/// What the table says of `name`, which stands in its second column.
fn meaning(title: &str, name: &str) -> String {
    let found = table(title).into_iter().find(|row| row[1] == name);
    found.unwrap_or_else(|| panic!("{title} has no row {name}"))[2].clone()
}

/// All numbers in a text.
fn numbers(text: &str) -> Vec<u64> {
    let digits = text.split(|letter: char| !letter.is_ascii_digit());
    digits.filter(|digits| !digits.is_empty()).map(|digits| digits.parse().unwrap()).collect()
}

/// The page as one line, for sentences that are broken across lines.
fn prose() -> String {
    PAGE.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn says(sentence: &str) {
    assert!(prose().contains(sentence), "FORMAT.md does not say: {sentence}");
}

#[test]
fn the_parts_lie_where_the_page_says() {
    let rows = table("The whole file");
    let parts: Vec<&str> = rows.iter().map(|row| &*row[0]).collect();
    assert_eq!(parts, ["header", "description", "dictionary", "slots"]);
    assert_eq!(numbers(&rows[0][1]), [0]);
    assert_eq!(numbers(&rows[0][2]), [HEADER_BYTES.0, HEADER_WORDS as u64]);
    assert_eq!(numbers(&rows[1][1]), [HEADER_BYTES.0]);
    assert_eq!(numbers(&rows[2][1]), [PAGE_BYTES]);
    assert_eq!(numbers(&rows[2][2]), [ENTRY_WORDS as u64]);
    assert_eq!(numbers(&rows[3][1]), [PAGE_BYTES]);
    says(&format!("format version {FORMAT_VERSION}."));
}

#[test]
fn the_header_has_the_fields_of_the_page() {
    let rows = table("The header").into_iter();
    let rows: Vec<(usize, String)> =
        rows.map(|row| (row[0].parse().unwrap(), row[1].clone())).collect();
    let fields = FIELDS.into_iter().enumerate().chain([(HEADER_CHECK, "header_check")]);
    assert_eq!(rows, fields.map(|(word, field)| (word, field.to_owned())).collect::<Vec<_>>());
    let covered = meaning("The header", "header_check");
    assert!(covered.ends_with(&format!("words 0 to {}", HEADER_CHECK - 1)), "{covered}");
    says(&format!("Words {} to {} are zero", FIELDS.len(), HEADER_CHECK - 1));
}

#[test]
fn each_field_of_the_header_is_in_its_word() {
    let header =
        Header { boot_id: Uuid::from_u64_pair(11, 12), ..header(13 << 64 | 14, 15, 60, 4) };
    let (layout, words) = (header.layout, header.to_words());
    let padded = [DESCRIPTION, &[0; 3]].concat();
    assert_eq!(padded.len() % 8, 0);
    let rows = table("The header");
    let expected = [
        ("magic", u64::from_le_bytes(*b"RINGSTAT")),
        ("version", 1),
        ("file_bytes", layout.slots_offset.0 + layout.slots * layout.slot.0 * 8),
        ("description_bytes", DESCRIPTION.len() as u64),
        ("description_check", xxh64(&padded, 0)),
        ("dictionary_offset", layout.dictionary_offset.0),
        ("dictionary_entries", ENTRIES),
        ("slots_offset", layout.slots_offset.0),
        ("slot_words", 64),
        ("slots", 4),
        ("max_samples", 3),
        ("run_id_high", 13),
        ("run_id_low", 14),
        ("segment", 15),
        ("first_seq", FIRST),
        ("start_wall_ns", header.start_wall_ns),
        ("start_monotonic_ns", header.start_monotonic_ns),
        ("interval_ns", header.interval_ns),
        ("boot_id_high", 11),
        ("boot_id_low", 12),
        ("header_check", xxh64(bytemuck::cast_slice(&words[..HEADER_CHECK]), 0)),
    ];
    for (row, (name, value)) in rows.iter().zip(expected) {
        assert_eq!((&*row[1], words[row[0].parse::<usize>().unwrap()]), (name, value));
    }
    assert_eq!(rows.len(), expected.len());
    assert!(words[FIELDS.len()..HEADER_CHECK].iter().all(|word| *word == 0));
    assert!(meaning("The header", "magic").contains("`RINGSTAT`"));
    assert_eq!(MAGIC.to_le_bytes(), *b"RINGSTAT");
    let seed: Vec<u8> = [13_u64, 14, 15].iter().flat_map(|word| word.to_ne_bytes()).collect();
    assert_eq!(header.seed(), xxh64(&seed, 0));
    says("XXH64, seed 0, of the words `run_id_high`, `run_id_low`, `segment`");
}

#[test]
fn the_limits_of_the_page_are_those_of_the_code() {
    let limits = |name| numbers(&meaning("The header", name));
    assert_eq!(limits("version")[0], FORMAT_VERSION);
    assert_eq!(limits("description_bytes"), [1, MAX_DESCRIPTION_BYTES]);
    assert_eq!(limits("dictionary_entries"), [1, MAX_ENTRIES]);
    assert_eq!(limits("slot_words"), [Bytes(SECTOR_BYTES).words().0, MAX_SLOT_WORDS]);
    assert_eq!(limits("slots"), [2]);
    assert!(meaning("The header", "interval_ns").ends_with("1 ms to one day"));
    assert_eq!((MIN_INTERVAL_NS, MAX_INTERVAL_NS), (1_000_000, 24 * 3600 * 1_000_000_000));

    // And the code means them: the limit itself is taken, one more is not.
    let refused = |description, entries, record, slots| {
        Layout::new(Bytes(description), entries, Words(record), slots).err().map(|bad| bad.field)
    };
    let [description, entries, slot] =
        ["description_bytes", "dictionary_entries", "slot_words"].map(|name| limits(name)[1]);
    let record = slot - SLOT_HEAD_WORDS as u64;
    assert_eq!(refused(1, 1, 1, 2), None);
    assert_eq!(refused(description, entries, record, 2), None);
    assert_eq!(refused(description + 1, 1, 1, 2), Some("description_bytes"));
    assert_eq!(refused(0, 1, 1, 2), Some("description_bytes"));
    assert_eq!(refused(1, entries + 1, 1, 2), Some("dictionary_entries"));
    assert_eq!(refused(1, 0, 1, 2), Some("dictionary_entries"));
    assert_eq!(refused(1, 1, record + 1, 2), Some("slot_words"));
    assert_eq!(refused(1, 1, 1, 1), Some("slots"));
    let layout = Layout::new(Bytes(1), 1, Words(1), 2).unwrap();
    assert_eq!(layout.slot.0, limits("slot_words")[0]);
    let crooked = Layout { slot: Words(layout.slot.0 + 8), ..layout };
    assert_eq!(crooked.check().unwrap_err().field, "slot_words");
}

#[test]
fn an_entry_has_the_words_of_the_page() {
    let rows = table("The dictionary");
    let words: Vec<Vec<u64>> = rows.iter().map(|row| numbers(&row[0])).collect();
    let name = [ENTRY_HEAD_WORDS as u64, ENTRY_WORDS as u64 - 1];
    assert_eq!(words, [vec![0], vec![1], vec![2], vec![3], name.to_vec()]);
    let covered = format!("XXH64 of words 1 to {}", ENTRY_WORDS - 1);
    assert!(rows[0][1].contains(&covered), "{:?}", rows[0]);
    assert_eq!(numbers(&rows[4][1]), [ENTRY_NAME_BYTES as u64]);

    let rig = Rig::new(header(1, 0, 60, 2));
    for _ in 0..2 {
        rig.writer.add_entry(5, 8 << 32 | 16, Seq(FIRST + 1), b"nvme0n1p2").unwrap();
    }
    let (bytes, header) = (rig.bytes(), rig.writer.segment().header());
    let second = &bytes[header.layout.dictionary_offset.0 as usize + ENTRY_WORDS * 8..];
    let check = xxh64(&second[8..ENTRY_WORDS * 8], header.seed().wrapping_add(1));
    let words: Vec<u64> = (0..4).map(|word| word_at(second, word)).collect();
    assert_eq!(words, [check, 5 | 9 << 32, 8 << 32 | 16, FIRST + 1]);
    assert_eq!(&second[ENTRY_HEAD_WORDS * 8..][..16], b"nvme0n1p2\0\0\0\0\0\0\0");
}

#[test]
fn a_slot_has_the_words_of_the_page() {
    let rows = table("A slot").into_iter();
    let rows: Vec<(usize, String)> =
        rows.map(|row| (row[0].parse().unwrap(), row[1].clone())).collect();
    let names =
        [(COMMIT, "commit"), (CHECK, "check"), (LENGTH, "length"), (SLOT_HEAD_WORDS, "record")];
    assert_eq!(rows, names.map(|(word, name)| (word, name.to_owned())));
    let busy_bit = numbers(&meaning("A slot", "commit")).pop().unwrap();
    assert_eq!(BUSY, 1 << busy_bit);
    says("Record `seq` lies in slot `(seq - first_seq) mod slots`");

    let mut rig = Rig::new(header(1, 0, 60, 4));
    rig.write_many(6);
    let _ = rig.writer.begin(Seq(rig.next));
    let (bytes, header) = (rig.bytes(), rig.writer.segment().header());
    let slot_of = |seq: u64| {
        let number = (seq - FIRST) % 4;
        (number, &bytes[(header.layout.slots_offset.0 + number * 512) as usize..])
    };
    let ring = open(bytes.clone()).unwrap();
    for seq in rig.next - 3..rig.next {
        let (number, slot) = slot_of(seq);
        let used = record(seq, rig.room()).len();
        let check = xxh64(&slot[2 * 8..(3 + used) * 8], header.seed().wrapping_add(seq));
        let head: Vec<u64> = (0..SLOT_HEAD_WORDS).map(|word| word_at(slot, word)).collect();
        assert_eq!(head, [seq + 1, check, used as u64]);
        let state = ring.read_slot(Slot(number), &mut Vec::new()).unwrap();
        assert_eq!(state, SlotState::Valid(Seq(seq), used));
    }
    assert_eq!(word_at(slot_of(rig.next).1, 0), (rig.next + 1) | 1 << busy_bit);
}

#[test]
fn a_record_has_the_words_of_the_page() {
    use Common::*;
    let common = [Tick, WallNs, BeginNs, EndNs, LatenessNs, MissedTicks, CpuNs, Flags];
    let expected = common.iter().map(|which| (*which as usize, format!("{which:?}")));
    let expected: Vec<_> = expected.chain([(COMMON_WORDS, "blocks".to_owned())]).collect();
    let rows = table("A record").into_iter();
    let rows: Vec<_> = rows.map(|row| (row[0].parse().unwrap(), row[1].clone())).collect();
    assert_eq!(rows, expected);
    let flags = meaning("A record", "Flags");
    assert_eq!(numbers(&flags), [FLAG_AT_STOP, FLAG_EXTRA]);
    assert!(flags.starts_with(&format!("{FLAG_AT_STOP}: the run's last sample")), "{flags}");
    says("A block is two words, its error and its count, and then data");
    assert_eq!(BLOCK_HEAD_WORDS, 2);
    assert_eq!(least_words(3), COMMON_WORDS + 3 * 2);
    says("the entry of the dictionary (low 32 bits) and the number of columns that the kernel");
    assert_eq!(RowHead { entry: 7, columns: 9 }.to_word(), 7 | 9 << 32);
}

#[test]
fn the_error_word_is_that_of_the_page() {
    let page = prose();
    let (_, rest) = page.split_once("The error word is 0 or: ").unwrap();
    let (kinds, rest) = rest.split_once("), ").unwrap();
    let (bits, kinds) = kinds.split_once('(').unwrap();
    assert_eq!(numbers(bits), [0, 7]);
    let (detail, rest) = rest.split_once(", ").unwrap();
    let (count, _) = rest.split_once('.').unwrap();
    assert!(detail.starts_with("errno or reason in bits"), "{detail}");
    assert!(count.starts_with("line or number of rows in bits"), "{count}");
    let (detail_at, count_at) = (numbers(detail)[0], numbers(count)[0]);
    let faults = [
        ("cannot open", Fault::Open(5), 5, 0),
        ("cannot read", Fault::Read(6), 6, 0),
        ("cannot parse", Fault::at(Reason::TooLong, 8), Reason::TooLong as u64, 8),
        ("no room", Fault::NoRoom(9), 0, 9),
    ];
    let kinds: Vec<_> = kinds.split(", ").collect();
    assert_eq!(kinds.len(), faults.len());
    for (kind, (name, fault, detail, count)) in kinds.into_iter().zip(faults) {
        let (number, what) = kind.split_once(' ').unwrap();
        let word = number.parse::<u64>().unwrap() | detail << detail_at | count << count_at;
        assert_eq!((what, fault.to_word()), (name, word));
    }
}
