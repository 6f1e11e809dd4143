//! The parsers as a user relies on them: text in, named values out. Here is what all these tests
//! share: a [`Lab`] that reads texts through one source as the sampler does, and the fixed texts,
//! which were written for this project. [`naive`] is the second opinion on what a text says.

// `allow-unwrap-in-tests` does not reach what tests share under this module's `cfg`.

mod captured;
mod faults;
mod instances;
mod layouts;
mod naive;
mod properties;
mod values;

use super::{Names, Parsed, Source, SourceDef, find};
use crate::fault::{Fault, Reason};
use crate::record::{RecordView, RecordWriter, RowHead, least_words};
use crate::schema::{Field, Kind, Schema, Shape, SourceSchema};
use crate::sync::{AtomicU64, Ordering};

/// Instance (empty for scalars) and its counters.
type Row = (String, Vec<(String, i128)>);

/// What a word holds that no parser has written.
const POISON: u64 = 0xdead_dead_dead_dead;

macro_rules! fixture {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proc/", $path))
    };
}

const DISKSTATS: &str = fixture!("modern/diskstats");
const MIXED_DISKSTATS: &str = fixture!("mixed/diskstats");
const VMSTAT: &str = fixture!("modern/vmstat");
const MEMINFO: &str = fixture!("modern/meminfo");
const LOADAVG: &str = fixture!("modern/loadavg");
const NETDEV: &str = fixture!("modern/net/dev");

/// One text of each source.
const MODERN: [(&str, &str); 5] = [
    ("diskstats", DISKSTATS),
    ("vmstat", VMSTAT),
    ("meminfo", MEMINFO),
    ("loadavg", LOADAVG),
    ("netdev", NETDEV),
];

/// A dictionary of bounded size.
struct Dictionary {
    room: usize,
    entries: Vec<(u64, String)>,
}

impl Names for Dictionary {
    fn add(&mut self, identity: u64, name: &[u8]) -> Option<u32> {
        if self.entries.len() == self.room {
            return None;
        }
        self.entries.push((identity, String::from_utf8_lossy(name).into_owned()));
        Some(self.entries.len() as u32 - 1)
    }
}

/// One source between its first text and the decoder.
struct Lab {
    def: &'static SourceDef,
    schema: Schema,
    source: Box<dyn Source>,
    names: Dictionary,
    /// Words for data in the record.
    room: usize,
    /// Times that the file was probed.
    probes: usize,
    /// Entries of the dictionary that the rows of the last text had.
    entries: Vec<u32>,
    /// The words that all records are made in, and where the data were in the last of them.
    words: Vec<AtomicU64>,
    left_at: Option<usize>,
}

impl Lab {
    fn new(source: &str, text: impl AsRef<[u8]>) -> Result<Lab, Fault> {
        Lab::with_room(source, text, 4096, 64)
    }

    /// Room for `room` words of data and for `names` names.
    fn with_room(
        source: &str,
        text: impl AsRef<[u8]>,
        room: usize,
        names: usize,
    ) -> Result<Lab, Fault> {
        let def = find(source).expect("a known source");
        let mut probed = (def.probe)(text.as_ref())?;
        probed.source.begin_segment(names);
        Ok(Lab {
            def,
            schema: schema(def, probed.shape),
            source: probed.source,
            names: Dictionary { room: names, entries: Vec::new() },
            room,
            probes: 1,
            entries: Vec::new(),
            words: (0..least_words(1) + room).map(|_| AtomicU64::new(POISON)).collect(),
            left_at: None,
        })
    }

    /// What the layout at hand makes of `text`, and the values that a reader of the record sees.
    fn parse(&mut self, text: impl AsRef<[u8]>) -> (Parsed, Vec<Row>) {
        if self.left_at.is_none() {
            self.words.iter().for_each(|word| word.store(POISON, Ordering::Relaxed));
        }
        let mut record = RecordWriter::new(&self.words, 1).unwrap();
        let mut block = record.block().unwrap();
        block.set_left_at(self.left_at);
        let parsed = self.source.parse(text.as_ref(), &mut block, &mut self.names);
        let (count, fault) = match parsed {
            Parsed::Values { count, fault } => (count, fault),
            Parsed::Outgrown { written, .. } => (written, None),
            Parsed::Nothing(_) | Parsed::Relayout => (0, None),
        };
        if count == 0 {
            block.rewind();
        }
        let is_sound = matches!(parsed, Parsed::Values { fault: None, .. });
        self.left_at = is_sound.then_some(block.data_at());
        block.finish(count, fault);
        let words: Vec<u64> = self.words[..record.used_words()]
            .iter()
            .map(|word| word.load(Ordering::Relaxed))
            .collect();
        let rows = self.decode(&words);
        (parsed, rows)
    }

    /// As the sampler takes a sample: a text of another layout is probed and read anew. At most
    /// one time: a parser that asks again for the same text would never get to the end.
    fn sample(&mut self, text: impl AsRef<[u8]>) -> Result<(Parsed, Vec<Row>), Fault> {
        let text = text.as_ref();
        let (parsed, rows) = self.parse(text);
        if parsed != Parsed::Relayout {
            return Ok((parsed, rows));
        }
        let probes = self.probes + 1;
        *self = Lab::with_room(self.def.name, text, self.room, self.names.room)?;
        self.probes = probes;
        let (parsed, rows) = self.parse(text);
        assert_ne!(parsed, Parsed::Relayout, "just probed: {}", text.escape_ascii());
        Ok((parsed, rows))
    }

    /// The values of a text that is sound.
    fn values(&mut self, text: impl AsRef<[u8]>) -> Vec<Row> {
        let (parsed, rows) = self.sample(text).unwrap();
        assert!(matches!(parsed, Parsed::Values { fault: None, .. }), "{parsed:?}");
        rows
    }

    fn fields(&self) -> &[Field] {
        self.schema.sources[0].shape.as_ref().map_or(&[], Shape::fields)
    }

    /// Names of the counters that are not in the published format.
    fn extras(&self) -> Vec<&str> {
        self.fields().iter().filter(|field| field.extra).map(|field| &field.name[..]).collect()
    }

    fn decode(&mut self, words: &[u64]) -> Vec<Row> {
        self.entries.clear();
        let schema = self.schema.clone();
        let view = RecordView::new(words, &schema).expect("a record as its schema says");
        let block = view.blocks().next().unwrap();
        let shape = block.source.shape.as_ref().unwrap();
        if block.rows == 0 {
            return Vec::new();
        }
        let table = matches!(shape, Shape::Table { .. });
        let mut rows = Vec::new();
        for row in block.data.chunks_exact(shape.row_words()) {
            let (instance, present, cells) = if table {
                let head = RowHead::from_word(row[0]);
                self.entries.push(head.entry);
                let name = self.names.entries[head.entry as usize].1.clone();
                (name, head.columns as usize, &row[1..])
            } else {
                (String::new(), row.len(), row)
            };
            assert!(!cells.contains(&POISON), "{instance}: a word that nobody wrote");
            let counters = shape.fields()[..present].iter().zip(cells);
            let counters = counters.map(|(field, word)| {
                let value = match field.kind {
                    Kind::Unsigned | Kind::Hundredths => i128::from(*word),
                    Kind::Signed => i128::from(*word as i64),
                };
                (field.name.clone(), value)
            });
            rows.push((instance, counters.collect()));
        }
        rows
    }
}

fn schema(def: &SourceDef, shape: Shape) -> Schema {
    let (name, path) = (def.name.to_owned(), format!("/proc/{}", def.file));
    Schema { sources: vec![SourceSchema { name, path, shape: Some(shape) }] }
}

/// The values of a sound text that is the first one of its source.
fn values(source: &str, text: &str) -> Vec<Row> {
    Lab::new(source, text).unwrap().values(text)
}

/// Without the counters' names, which one test per source compares.
fn numbers(rows: &[Row]) -> Vec<(&str, Vec<i128>)> {
    let numbers = |row: &Row| row.1.iter().map(|(_, value)| *value).collect();
    rows.iter().map(|row| (&row.0[..], numbers(row))).collect()
}

/// The instances' names.
fn instances(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| &row.0[..]).collect()
}

/// The counters of the one row that there is.
fn only(rows: &[Row]) -> Vec<(&str, i128)> {
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0].1.iter().map(|(name, value)| (&name[..], *value)).collect()
}

/// One counter of the one row.
fn one(rows: &[Row], counter: &str) -> i128 {
    let found: Vec<_> = only(rows).into_iter().filter(|(name, _)| *name == counter).collect();
    assert_eq!(found.len(), 1, "{counter} in {rows:?}");
    found[0].1
}

/// A text that is sound but for the lines of `fault`, which it says is the first.
fn values_and(reason: Reason, line: usize, count: usize) -> Parsed {
    Parsed::Values { count, fault: Some(Fault::at(reason, line)) }
}

fn nothing(reason: Reason, line: usize) -> Parsed {
    Parsed::Nothing(Fault::at(reason, line))
}

fn all(count: usize) -> Parsed {
    Parsed::Values { count, fault: None }
}

/// `text` without its line of that number, from 1.
fn without_line(text: &str, number: usize) -> String {
    lines_of(text).enumerate().filter(|(i, _)| i + 1 != number).map(|(_, line)| line).collect()
}

/// Lines with their line feed.
fn lines_of(text: &str) -> std::str::SplitInclusive<'_, char> {
    text.split_inclusive('\n')
}

/// `text` with the one place where `from` stands changed to `to`.
fn with(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?}");
    text.replace(from, to)
}
