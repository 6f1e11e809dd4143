//! One source between its text and who decodes the record, as the sampler uses it, with a
//! dictionary and a record whose room is chosen.

use ringstat::fuzzing::{RecordView, RecordWriter, RowHead, least_words};
use ringstat::source::{Names, Parsed, Probed, Source, SourceDef};
use ringstat::{Schema, Shape, SourceSchema};
use std::sync::atomic::{AtomicU64, Ordering};

/// Room for what a text may bring.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Entries of the dictionary.
    pub names: usize,
    /// Words of the record behind its head.
    pub words: usize,
}

/// One row, or all scalars; the words that the kernel's columns filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Empty for scalars.
    pub name: Vec<u8>,
    pub identity: u64,
    pub values: Vec<u64>,
}

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub parsed: Parsed,
    pub rows: Vec<Row>,
}

/// A dictionary of bounded size.
struct Dictionary {
    room: usize,
    entries: Vec<(u64, Vec<u8>)>,
}

impl Names for Dictionary {
    fn add(&mut self, identity: u64, name: &[u8]) -> Option<u32> {
        if self.entries.len() >= self.room {
            return None;
        }
        self.entries.push((identity, name.to_vec()));
        u32::try_from(self.entries.len() - 1).ok()
    }
}

/// One source, set up by a first text.
pub struct Reader {
    schema: Schema,
    source: Box<dyn Source>,
    names: Dictionary,
    room: Room,
    /// The words of the last record, and where its data are if nothing was wrong with them.
    words: Vec<AtomicU64>,
    left_at: Option<usize>,
}

impl Reader {
    /// Probes `text`; `None` if it has no layout.
    pub fn new(def: &SourceDef, text: &[u8], room: Room) -> Option<Reader> {
        let Probed { shape, mut source, .. } = (def.probe)(text).ok()?;
        source.begin_segment(room.names);
        let (name, path) = (def.name.to_owned(), format!("/proc/{}", def.file));
        let schema = Schema { sources: vec![SourceSchema { name, path, shape: Some(shape) }] };
        let names = Dictionary { room: room.names, entries: Vec::new() };
        Some(Reader { schema, source, names, room, words: Vec::new(), left_at: None })
    }

    /// A new segment begins, with room for all of `text`.
    pub fn grow(&mut self, text: &[u8]) {
        let lines = text.split(|byte| *byte == b'\n').count();
        let words = match self.shape() {
            Shape::Scalars { fields } => fields.len(),
            shape @ Shape::Table { .. } => lines * shape.row_words(),
        };
        // Names that are longer than most take the room of several.
        let names = lines + text.len();
        self.room = Room { names, words: words + 2 };
        self.names = Dictionary { room: names, entries: Vec::new() };
        self.source.begin_segment(names);
        self.left_at = None;
    }

    /// What its words mean.
    pub fn shape(&self) -> &Shape {
        self.schema.sources[0].shape.as_ref().expect("a probed source has a shape")
    }

    /// Reads a text into a record that holds `left_over` in all its words.
    ///
    /// # Panics
    /// If the record does not fit its schema, or a row its dictionary.
    pub fn read(&mut self, text: &[u8], left_over: u64) -> Reading {
        let room = least_words(1) + self.room.words;
        self.words = (0..room).map(|_| AtomicU64::new(left_over)).collect();
        self.left_at = None;
        self.read_on(text)
    }

    /// Reads a text into the record of the last one, as the sampler does.
    ///
    /// # Panics
    /// As [`read`](Self::read), which must have been first.
    pub fn read_on(&mut self, text: &[u8]) -> Reading {
        let mut record = RecordWriter::new(&self.words, 1).expect("room for the heads");
        let mut block = record.block().expect("the one block");
        block.set_left_at(self.left_at);
        let parsed = self.source.parse(text, &mut block, &mut self.names);
        // As `sampler::take` does.
        let (count, fault) = match parsed {
            Parsed::Values { count, fault } => (count, fault),
            Parsed::Outgrown { written, .. } => (written, None),
            Parsed::Nothing(fault) => {
                block.rewind();
                (0, Some(fault))
            }
            Parsed::Relayout => {
                block.rewind();
                (0, None)
            }
        };
        let is_sound = matches!(parsed, Parsed::Values { fault: None, .. });
        self.left_at = is_sound.then_some(block.data_at());
        block.finish(count, fault);
        let used = record.used_words();
        let words: Vec<u64> =
            self.words[..used].iter().map(|word| word.load(Ordering::Relaxed)).collect();
        Reading { parsed, rows: self.rows(&words) }
    }

    fn rows(&self, words: &[u64]) -> Vec<Row> {
        let view = RecordView::new(words, &self.schema).expect("a record as its schema says");
        let block = view.blocks().next().expect("the one block");
        if block.rows == 0 {
            assert!(block.data.is_empty(), "data without a row");
            return Vec::new();
        }
        let Shape::Table { columns, .. } = self.shape() else {
            return vec![Row { name: Vec::new(), identity: 0, values: block.data.to_vec() }];
        };
        let row = |words: &[u64]| {
            let head = RowHead::from_word(words[0]);
            let present = head.columns as usize;
            assert!(present <= columns.len(), "{present} of {} columns", columns.len());
            let (identity, name) = self.names.entries[head.entry as usize].clone();
            Row { name, identity, values: words[1..=present].to_vec() }
        };
        block.data.chunks_exact(self.shape().row_words()).map(row).collect()
    }
}
