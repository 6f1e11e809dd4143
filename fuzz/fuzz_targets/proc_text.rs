//! Any two texts, one behind the other, as the text of a source. The input's first bytes choose
//! the source, the byte that parts the texts, and the room in dictionary and record.
//!
//! Beyond "no panic": a text is read alike by who has just read it (the hot path) and by who has
//! not; every word of a record was written; names and numbers stand in the text; what has outgrown
//! its room is there when there is more of it, and another layout is one that is understood.

#![no_main]

use libfuzzer_sys::fuzz_target;
use memchr::memmem;
use ringstat::source::{Parsed, SOURCES, SourceDef};
use ringstat::{Kind, Shape};
use ringstat_fuzz::reading::{Reader, Reading, Room};
use std::collections::HashSet;

/// Left in the record by earlier samples; of one word it can be chance, of two it cannot.
const LEFT_OVER: [u64; 2] = [0xdead_dead_dead_dead, 0xbeef_beef_beef_beef];

fuzz_target!(|data: &[u8]| {
    let [source, separator, names, words, texts @ ..] = data else { return };
    let def = SOURCES[usize::from(*source) % SOURCES.len()];
    let end = texts.iter().position(|byte| byte == separator).unwrap_or(texts.len());
    let (first, second) = (&texts[..end], texts.get(end + 1..).unwrap_or_default());
    let room = Room { names: usize::from(*names), words: usize::from(*words) * 16 };
    check(def, first, second, room);
});

fn check(def: &SourceDef, first: &[u8], second: &[u8], room: Room) {
    let Some(mut reader) = Reader::new(def, first, room) else { return };
    check_names(reader.shape());
    let cold = reader.read(first, LEFT_OVER[0]);
    assert_ne!(cold.parsed, Parsed::Relayout, "just probed");
    stands_in(&reader, &cold, first);
    assert_eq!(reader.read(first, LEFT_OVER[1]), cold, "read again");

    assert_eq!(reader.read_on(first), cold, "nothing has changed");
    let changed = reader.read_on(second);
    let warm = reader.read(second, LEFT_OVER[0]);
    assert_eq!(changed, warm, "only what has changed is read, or all");
    assert_eq!(reader.read_on(second), warm, "nothing has changed");
    stands_in(&reader, &warm, second);
    // A parser of the same layout that has never seen a line of either text.
    let mut fresh = Reader::new(def, first, room).expect("it was probed before");
    let anew = fresh.read(second, LEFT_OVER[1]);
    if ![&warm, &anew].iter().any(|read| matches!(read.parsed, Parsed::Outgrown { .. })) {
        assert_eq!(warm, anew, "what was read before must not matter");
    }
    assert_eq!(fresh.read(second, LEFT_OVER[0]), anew, "read again");
    assert_eq!(reader.read(first, LEFT_OVER[1]), cold, "what was read between must not matter");
    let mut has_other_layout = warm.parsed == Parsed::Relayout;
    if let Parsed::Outgrown { written, lost } = warm.parsed {
        reader.grow(second);
        let grown = reader.read(second, LEFT_OVER[0]);
        stands_in(&reader, &grown, second);
        match grown.parsed {
            Parsed::Values { count, fault } => {
                // Scalars are written all or not at all; rows that had no room may turn out to be none, or to
                // stand there twice.
                let is_table = matches!(reader.shape(), Shape::Table { .. });
                let is_more = fault.is_none() && !stands_twice(&grown, second);
                let rows = written + usize::from(is_more)..=written + lost;
                assert!(!is_table || rows.contains(&count), "{count} of {written} + {lost} rows");
            }
            // All rows that had no room turned out to be none.
            Parsed::Nothing(_) if written == 0 => {}
            // The row that says so had no room before. Either makes the sampler begin a segment.
            Parsed::Relayout => has_other_layout = true,
            other => panic!("{other:?} in room enough, {:?} before", warm.parsed),
        }
    }
    if has_other_layout && let Some(mut other) = Reader::new(def, second, room) {
        assert_ne!(other.read(second, LEFT_OVER[0]).parsed, Parsed::Relayout, "would never end");
    }
}

/// Names are the keys of one object of the output.
fn check_names(shape: &Shape) {
    let mut names: HashSet<&str> = HashSet::new();
    if let Shape::Table { instance_key, .. } = shape {
        names.insert(instance_key);
    }
    for field in shape.fields() {
        assert!(names.insert(&field.name), "{:?} stands there twice", field.name);
    }
}

/// Whether a name of a reading may be on more than one line of its text.
fn stands_twice(reading: &Reading, text: &[u8]) -> bool {
    let lines = || text.split(|byte| *byte == b'\n');
    let count = |name: &[u8]| lines().filter(|line| memmem::find(line, name).is_some()).count();
    reading.rows.iter().any(|row| count(&row.name) > 1)
}

/// Every name and every number of a reading is in the text that it was read from.
fn stands_in(reader: &Reader, reading: &Reading, text: &[u8]) {
    let numbers: HashSet<u64> = text
        .split(|byte| !byte.is_ascii_digit())
        .filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .collect();
    for row in &reading.rows {
        let name = String::from_utf8_lossy(&row.name);
        assert!(memmem::find(text, &row.name).is_some(), "{name:?} is not in the text");
        for (field, word) in reader.shape().fields().iter().zip(&row.values) {
            let number = match field.kind {
                Kind::Unsigned => *word,
                Kind::Signed => word.cast_signed().unsigned_abs(),
                Kind::Hundredths => word % 100,
            };
            assert!(numbers.contains(&number), "{} is {number}: not in the text", field.name);
        }
    }
}
