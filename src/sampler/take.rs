//! Taking one sample: every source's file is read into the one buffer, parsed, and written as
//! the words of a record. The hot path of the whole program; it knows neither clocks nor files of
//! its own. What is allocated is allocated before or between samples.

use crate::fault::{Fault, Reason};
use crate::record::{BLOCK_HEAD_WORDS, Block, COMMON_WORDS, RecordWriter};
use crate::ring::{MAX_SLOT_WORDS, RingWriter};
use crate::schema::{Schema, Shape, SourceSchema};
use crate::source::text::{KeptFile, MAX_TEXT_BYTES, NoText};
use crate::source::{Names, Parsed, Probed, Source, SourceDef, with_spare_rows};
use crate::units::{Seq, Words};
use std::path::{Path, PathBuf};

/// Something did not fit: the sample is to be taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retake {
    /// In the same segment: the text buffer was too small, and is larger now.
    Again,
    /// In a new segment, by this taker's schema and sizes.
    InNewSegment,
}

/// What to do with what does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Nothing may be left out: [`Retake`] is returned.
    All,
    /// What does not fit is left out, and the sample says so.
    WhatCan,
}

/// Reads all sources of one host.
pub struct SampleTaker {
    feeds: Vec<Feed>,
    text: Vec<u8>,
}

/// One source with its file.
struct Feed {
    def: &'static SourceDef,
    file: KeptFile,
    /// `None` while the file has never been readable.
    parser: Option<Parser>,
    /// What the next segment is to have instead.
    next_parser: Option<Box<Parser>>,
    /// Where its data are in the words in which records are made, if nothing was wrong with them.
    left_at: Option<usize>,
}

/// Small, as [`Feed`] is: what a sample touches has to come from memory again each second.
struct Parser {
    shape: Box<Shape>,
    source: Box<dyn Source>,
    /// Rows that the last text had.
    rows: usize,
}

impl From<Probed> for Parser {
    fn from(probed: Probed) -> Self {
        Parser { shape: Box::new(probed.shape), source: probed.source, rows: probed.rows }
    }
}

impl Parser {
    /// Sizes the next segment for all rows that there are.
    #[cold]
    fn outgrown(&mut self, written: usize, lost: usize) -> Written {
        self.rows = written + lost;
        let fault = Some(Fault::NoRoom(u32::try_from(lost).unwrap_or(u32::MAX)));
        Written { count: written, fault, retake: Some(Retake::InNewSegment) }
    }
}

impl SampleTaker {
    /// Opens and probes every source below `procfs`. A source that cannot be read now is tried
    /// again with every sample.
    pub fn new(sources: &[&'static SourceDef], procfs: &Path) -> Self {
        let mut text = Vec::new();
        let feeds = sources.iter().map(|def| {
            let mut file = KeptFile::new(path_of(def, procfs), def.records);
            let probed = file.read_growing(&mut text).and_then(def.probe);
            let next_parser = probed.ok().map(|probed| Box::new(probed.into()));
            Feed { def, file, parser: None, next_parser, left_at: None }
        });
        let feeds = feeds.collect();
        // At least twice the longest text, which has left its traces.
        let room = (text.len() * 2).clamp(64 << 10, MAX_TEXT_BYTES + 1);
        SampleTaker { feeds, text: vec![0; room] }
    }

    /// The words that a record of the next segment will have.
    pub fn schema(&self) -> Schema {
        let sources = self.feeds.iter().map(|feed| SourceSchema {
            name: feed.def.name.to_owned(),
            path: feed.file.path().display().to_string(),
            shape: feed.next().map(|parser| Shape::clone(&parser.shape)),
        });
        Schema { sources: sources.collect() }
    }

    /// Room that such a record should have: what there is now, and for tables half as much again, at
    /// least 16 rows. Never more than a slot can have.
    pub fn record_words(&self) -> Words {
        let blocks = self.feeds.iter().map(|feed| {
            let data = feed.next().map_or(0, |parser| match &*parser.shape {
                Shape::Scalars { fields } => fields.len(),
                shape @ Shape::Table { .. } => with_spare_rows(parser.rows) * shape.row_words(),
            });
            (BLOCK_HEAD_WORDS + data) as u64
        });
        let words = COMMON_WORDS as u64 + blocks.sum::<u64>();
        Words(words.min(MAX_SLOT_WORDS / 2))
    }

    /// Entries that a dictionary should have: many changes of the instances that there are now.
    pub fn dictionary_entries(&self) -> u64 {
        let tables = self.feeds.iter().filter_map(Feed::next);
        let rows: usize = tables
            .filter(|parser| matches!(*parser.shape, Shape::Table { .. }))
            .map(|parser| parser.rows)
            .sum();
        4096 + 4 * rows as u64
    }

    /// Sources that the record has a block for.
    pub fn sources(&self) -> usize {
        self.feeds.len()
    }

    /// A new segment begins, whose dictionary has room for `entries`.
    pub fn begin_segment(&mut self, entries: u64) {
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        for feed in &mut self.feeds {
            if let Some(next) = feed.next_parser.take() {
                feed.parser = Some(*next);
            }
            feed.left_at = None;
            if let Some(parser) = &mut feed.parser {
                parser.source.begin_segment(entries);
            }
        }
    }

    /// Takes one sample. With [`Fit::WhatCan`] it always succeeds. All records of a segment are made
    /// in the same words, and nobody else stores to them: what did not change is left as it is.
    ///
    /// # Errors
    /// [`Retake`].
    #[inline]
    pub fn take(
        &mut self,
        record: &mut RecordWriter<'_>,
        ring: &RingWriter,
        seq: Seq,
        fit: Fit,
    ) -> Result<(), Retake> {
        let (mut retake, mut is_whole) = (None, true);
        for (index, feed) in self.feeds.iter_mut().enumerate() {
            // Until it is whole there is nothing to be left as it is, whatever comes between.
            let left_at = feed.left_at.take();
            let Ok(mut block) = record.block() else {
                is_whole = false;
                continue;
            };
            let mut names = Dictionary { ring, source: index as u32, seq };
            block.set_left_at(left_at);
            let written = feed.take(&mut self.text, &mut block, &mut names, fit);
            let is_sound = written.fault.is_none() && written.retake.is_none();
            feed.left_at = is_sound.then_some(block.data_at());
            block.finish(written.count, written.fault);
            retake = retake.max(written.retake);
        }
        if !is_whole {
            return Err(Retake::InNewSegment);
        }
        match (retake, fit) {
            (None, _) | (_, Fit::WhatCan) => Ok(()),
            (Some(retake), Fit::All) => {
                if retake == Retake::Again {
                    self.grow_text();
                }
                Err(retake)
            }
        }
    }

    /// Makes the buffer twice as long as the longest text is now.
    #[cold]
    fn grow_text(&mut self) {
        for feed in &mut self.feeds {
            // What it refuses, the next sample will say.
            let _ = feed.file.read_growing(&mut self.text);
        }
        let room = (self.text.len() * 2).min(MAX_TEXT_BYTES + 1);
        self.text.resize(room, 0);
    }
}

/// What became of one block.
struct Written {
    count: usize,
    fault: Option<Fault>,
    retake: Option<Retake>,
}

impl Written {
    fn nothing(fault: Fault, retake: Option<Retake>) -> Self {
        Written { count: 0, fault: Some(fault), retake }
    }
}

impl Feed {
    /// The parser that the next segment will have.
    fn next(&self) -> Option<&Parser> {
        self.next_parser.as_deref().or(self.parser.as_ref())
    }

    /// Writes the block's data.
    #[inline]
    fn take(
        &mut self,
        text: &mut [u8],
        block: &mut Block<'_, '_>,
        names: &mut Dictionary<'_>,
        fit: Fit,
    ) -> Written {
        let written = self.read(text, block, names, fit);
        match &mut self.parser {
            Some(parser) if written.count > 0 && written.retake.is_none() => {
                if !parser.source.changed() {
                    return written;
                }
            }
            _ => return written,
        }
        self.read_again(text, block, names, written)
    }

    /// Adds the devices that the first text has left out.
    ///
    /// The kernel gives a list of devices page by page, lets go of it in between and finds its
    /// place again by counting (`fs/seq_file.c`, `disk_seqf_start`): when a device that it has
    /// passed goes away at that moment, the next one is left out. So a list that is not the one of
    /// before is read twice; both readings are of this sample.
    #[cold]
    fn read_again(
        &mut self,
        text: &mut [u8],
        block: &mut Block<'_, '_>,
        names: &mut Dictionary<'_>,
        first: Written,
    ) -> Written {
        let (Ok(text), Some(parser)) = (self.file.read(text), &mut self.parser) else {
            return first;
        };
        match parser.source.add_missing(text, block, names) {
            Parsed::Values { count, fault } => {
                parser.rows = count;
                Written { count, fault: first.fault.or(fault), retake: None }
            }
            Parsed::Outgrown { written, lost } => parser.outgrown(written, lost),
            // What the first text had is in the block.
            Parsed::Nothing(_) | Parsed::Relayout => first,
        }
    }

    /// Reads the file once.
    #[inline]
    fn read(
        &mut self,
        text: &mut [u8],
        block: &mut Block<'_, '_>,
        names: &mut Dictionary<'_>,
        fit: Fit,
    ) -> Written {
        let text = match self.file.read(text) {
            Ok(text) => text,
            Err(NoText::Fault(fault)) => return Written::nothing(fault, None),
            Err(NoText::BufferFull) => {
                let larger = (text.len() <= MAX_TEXT_BYTES).then_some(Retake::Again);
                return Written::nothing(Fault::at(Reason::TooLong, 0), larger);
            }
        };
        let Some(parser) = &mut self.parser else { return self.relayout(text, fit) };
        match parser.source.parse(text, block, names) {
            Parsed::Values { count, fault } => {
                // All tables share the spare room: when another one is out of it, the next
                // segment must be sized by what this one has now.
                parser.rows = count;
                Written { count, fault, retake: None }
            }
            Parsed::Nothing(fault) => {
                block.rewind();
                Written::nothing(fault, None)
            }
            Parsed::Outgrown { written, lost } => parser.outgrown(written, lost),
            Parsed::Relayout => {
                block.rewind();
                self.relayout(text, fit)
            }
        }
    }

    /// The layout is another: the next segment has it, this one says why it has no values.
    #[cold]
    fn relayout(&mut self, text: &[u8], fit: Fit) -> Written {
        if fit == Fit::WhatCan && self.parser.is_some() {
            return Written::nothing(Fault::at(Reason::LayoutChanged, 0), None);
        }
        match (self.def.probe)(text) {
            Ok(probed) => {
                self.next_parser = Some(Box::new(probed.into()));
                let fault = Fault::at(Reason::LayoutChanged, 0);
                Written::nothing(fault, Some(Retake::InNewSegment))
            }
            Err(fault) => Written::nothing(fault, None),
        }
    }
}

/// The ring's dictionary for one source and one record.
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

/// Where a source's file is. `/proc/net` is a link to the reader's own network namespace; in a
/// host's `/proc` that is mounted in a container, process 1 has the host's.
fn path_of(def: &SourceDef, procfs: &Path) -> PathBuf {
    let of_init = procfs.join("1").join(def.file);
    if def.file.starts_with("net/") && procfs != Path::new("/proc") && of_init.exists() {
        return of_init;
    }
    procfs.join(def.file)
}
