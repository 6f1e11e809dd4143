//! What is written, held against a second opinion: [`oracle`] is a sample as serde alone writes it,
//! name by name, from the same record. Here are records, captured and made up.

mod oracle;
mod samples;

use super::rings::{Record, Rings};
use crate::description::{Description, RunFacts, SamplerFacts, SystemFacts};
use crate::record::COMMON_WORDS;
use crate::ring::{
    Draft, Header, Layout, MIN_INTERVAL_NS, Ring, RingWriter, Segment, WordMap, description_check,
};
use crate::schema::{Schema, SourceSchema};
use crate::sync::Ordering;
use crate::units::{Bytes, Seq, Words};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// A record to be written.
#[derive(Debug, Clone)]
struct Made {
    common: [u64; COMMON_WORDS],
    /// By source, its error word, how many fields or rows, and their words.
    blocks: Vec<(u64, usize, Vec<u64>)>,
}

/// A dictionary entry to be written: its source, identity and name.
type Name = (u32, u64, Vec<u8>);

/// The rings of a run with these sources, names and records.
fn rings(hostname: &str, sources: Vec<SourceSchema>, names: &[Name], records: &[Made]) -> Rings {
    let description = serde_json::to_vec(&Description {
        ringstat: "0.1.0".to_owned(),
        hostname: hostname.to_owned(),
        run: RunFacts::default(),
        system: SystemFacts::default(),
        sampler: SamplerFacts::default(),
        schema: Schema { sources },
    })
    .unwrap();
    let words = |made: &Made| {
        let of_blocks = made.blocks.iter().map(|(.., words)| words.len() as u64 + 2);
        COMMON_WORDS as u64 + of_blocks.sum::<u64>()
    };
    let record_words = records.iter().map(words).max().unwrap_or(COMMON_WORDS as u64);
    let slots = records.len() as u64 + 1;
    let length = Bytes(description.len() as u64);
    let entries = names.len().max(1) as u64;
    let layout = Layout::new(length, entries, Words(record_words), slots).unwrap();
    let header = Header {
        layout,
        description_check: description_check(&description),
        max_samples: slots - 1,
        run_id: Uuid::from_u128(7),
        segment: 0,
        first_seq: Seq(0),
        start_wall_ns: 0,
        start_monotonic_ns: 0,
        interval_ns: MIN_INTERVAL_NS,
        boot_id: Uuid::from_u128(5),
    };
    let map = Arc::new(WordMap::private(layout.file_bytes()).unwrap());
    let segment = Arc::new(Segment::create(map, header, &description).unwrap());
    let ring = RingWriter::new(segment.clone());
    for (source, identity, name) in names {
        ring.add_entry(*source, *identity, Seq(0), name).unwrap();
    }
    let draft = Draft::new(layout.record());
    for (seq, made) in (0..).zip(records) {
        let record = draft.record();
        let mut at = COMMON_WORDS;
        let store = |at: &mut usize, word: u64| {
            record[*at].store(word, Ordering::Relaxed);
            *at += 1;
        };
        made.common.iter().enumerate().for_each(|(mut at, word)| store(&mut at, *word));
        for (fault, count, words) in &made.blocks {
            store(&mut at, *fault);
            store(&mut at, *count as u64);
            words.iter().for_each(|word| store(&mut at, *word));
        }
        ring.begin(Seq(seq)).unwrap().commit_draft(&draft, at);
    }
    Rings::new(vec![Ring::new(Box::new(segment), Path::new("made")).unwrap()]).unwrap()
}

/// The ring that is kept for ever.
fn golden() -> Rings {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
    Rings::new(vec![Ring::open(&path).unwrap()]).unwrap()
}

/// What `each` makes of every record.
fn of_each<T>(rings: &Rings, mut each: impl FnMut(Record<'_>) -> T) -> Vec<T> {
    let mut all = Vec::new();
    let visited: Result<(), std::convert::Infallible> = rings.each(|record| {
        all.push(each(record));
        Ok(())
    });
    visited.unwrap();
    all
}
