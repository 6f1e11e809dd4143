//! The words of a record: the common ones that every sample has, then one block per source.
//! Both sides live here, the writer over ring words and the view that the decoder reads; where
//! the words lie in a file, and how they are committed, is the ring's business.
//!
//! ```text
//! | common words (COMMON_WORDS) | block of source 0 | block of source 1 | ...
//! block: | fault | count | data ...
//! ```
//!
//! `fault` is an error word ([`Fault`]) or 0. `count` is the number of fields (scalars) or rows
//! (a table) that follow. Blocks lie behind each other without gaps, so that a sample touches as
//! few cache lines as it can and all tables share one reserve of spare room.

use crate::fault::Fault;
use crate::schema::{Schema, Shape, SourceSchema};
use crate::sync::{AtomicU64, Ordering};

/// Index of each common word. The names are those of `src/ring/FORMAT.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Common {
    /// Number of the deadline that this sample belongs to. It is at start + tick x interval, or beside
    /// that by at most tick x interval / `MOST_SLEW`, where a sampler follows another host's clock.
    Tick = 0,
    /// `CLOCK_REALTIME` before the first read, ns.
    WallNs = 1,
    /// `CLOCK_MONOTONIC` before the first read, ns.
    BeginNs = 2,
    /// `CLOCK_MONOTONIC` after the last read, ns.
    EndNs = 3,
    /// How long after its deadline the sample began, ns.
    LatenessNs = 4,
    /// Ticks that have gone by without a sample since the start of the run.
    MissedTicks = 5,
    /// CPU time of the sampler thread since it began, ns: as it was at most 10 s before
    /// this sample, or then if it is the last.
    CpuNs = 6,
    /// `FLAG_AT_STOP` and `FLAG_EXTRA`.
    Flags = 7,
}

/// Words before the first block.
pub const COMMON_WORDS: usize = 8;
/// Words before a block's data.
pub const BLOCK_HEAD_WORDS: usize = 2;
/// The run was stopped, and this is its last sample: the run ended cleanly.
pub const FLAG_AT_STOP: u64 = 1;
/// The sample was taken between two ticks: its tick has a sample already.
pub const FLAG_EXTRA: u64 = 2;

/// Deadlines follow another clock by at most one part in so many of the interval per tick: no clock that
/// is not being set runs farther away (`MAXFREQ`, linux/timex.h: 500 ppm).
pub const MOST_SLEW: u64 = 1000;

/// The record has no room for what is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Writes one record, block by block, into ring words.
pub struct RecordWriter<'a> {
    words: &'a [AtomicU64],
    used: usize,
    /// Behind the last word that any block may have stored to, given back or not.
    touched: usize,
    blocks_left: usize,
}

impl<'a> RecordWriter<'a> {
    /// Begins a record of `blocks` blocks; all common words are still to be [set](Self::set).
    ///
    /// # Errors
    /// [`Full`] if there is no room for the common words and the heads of the blocks.
    pub fn new(words: &'a [AtomicU64], blocks: usize) -> Result<Self, Full> {
        if words.len() < least_words(blocks) {
            return Err(Full);
        }
        Ok(RecordWriter { words, used: COMMON_WORDS, touched: COMMON_WORDS, blocks_left: blocks })
    }

    /// Sets one common word.
    pub fn set(&self, which: Common, value: u64) {
        self.words[which as usize].store(value, Ordering::Relaxed);
    }

    /// Begins the next source's block. The heads of those to come keep their room, so that a
    /// source that fills the record cannot take away another's error.
    ///
    /// # Errors
    /// [`Full`] if all blocks have been written.
    pub fn block(&mut self) -> Result<Block<'a, '_>, Full> {
        self.blocks_left = self.blocks_left.checked_sub(1).ok_or(Full)?;
        let head = self.used;
        self.used += BLOCK_HEAD_WORDS;
        let end = self.words.len() - self.blocks_left * BLOCK_HEAD_WORDS;
        let RecordWriter { words, used, touched, .. } = self;
        Ok(Block { words: &words[..end], used, touched, head, is_as_left: false })
    }

    /// Words written so far.
    pub fn used_words(&self) -> usize {
        self.used
    }
}

/// Words of a record of `blocks` empty blocks.
pub const fn least_words(blocks: usize) -> usize {
    COMMON_WORDS + blocks * BLOCK_HEAD_WORDS
}

/// The block of one source while it is written.
pub struct Block<'a, 'w> {
    words: &'a [AtomicU64],
    used: &'w mut usize,
    touched: &'w mut usize,
    head: usize,
    is_as_left: bool,
}

impl<'a> Block<'a, '_> {
    /// Where the data begin, in words from the beginning of the record.
    #[inline]
    pub fn data_at(&self) -> usize {
        self.head + BLOCK_HEAD_WORDS
    }

    /// Says where the same source's data were in the last record that was made in these words, if
    /// they are whole there. A block before this one may have stored to them since: a row that it
    /// gave back again, say.
    #[inline]
    pub fn set_left_at(&mut self, data_at: Option<usize>) {
        self.is_as_left = data_at == Some(self.data_at()) && *self.touched <= self.data_at();
    }

    /// Whether the words to be [taken](Self::take) still have what the same source has stored with
    /// its last text.
    #[inline]
    pub fn is_as_left(&self) -> bool {
        self.is_as_left
    }

    /// The next `count` words, to be stored by the caller.
    ///
    /// # Errors
    /// [`Full`] if there are not so many.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [AtomicU64], Full> {
        let taken = self.words[*self.used..].get(..count).ok_or(Full)?;
        *self.used += count;
        *self.touched = (*self.touched).max(*self.used);
        Ok(taken)
    }

    /// Forgets the data taken so far: the block is empty again.
    #[inline]
    pub fn rewind(&mut self) {
        *self.used = self.data_at();
    }

    /// Gives the last `count` taken words back.
    pub fn give_back(&mut self, count: usize) {
        *self.used = (*self.used - count).max(self.data_at());
    }

    /// Ends the block: `count` fields or rows, and what was wrong, if anything.
    #[inline]
    pub fn finish(self, count: usize, fault: Option<Fault>) {
        self.words[self.head].store(fault.map_or(0, Fault::to_word), Ordering::Relaxed);
        self.words[self.head + 1].store(count as u64, Ordering::Relaxed);
    }
}

/// The record does not have the structure that its schema says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// One record read by its schema. Every length in it has been checked.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    words: &'a [u64],
    schema: &'a Schema,
}

/// The block of one source in a record.
#[derive(Debug, Clone, Copy)]
pub struct BlockView<'a> {
    /// Number of the source in the schema, which its entries in the dictionary bear.
    pub index: u32,
    /// What the words mean.
    pub source: &'a SourceSchema,
    /// The error word; 0 is none.
    pub fault_word: u64,
    /// Rows (of a table) or 1 (scalars with values) or 0.
    pub rows: usize,
    /// `rows` times [`Shape::row_words`] words.
    pub data: &'a [u64],
}

impl<'a> RecordView<'a> {
    /// Checks `words`, a whole record without spare words, against `schema`.
    ///
    /// # Errors
    /// [`Malformed`] if a block does not fit the schema or the record's length.
    pub fn new(words: &'a [u64], schema: &'a Schema) -> Result<Self, Malformed> {
        let mut rest = words.get(COMMON_WORDS..).ok_or(Malformed)?;
        for (index, source) in schema.sources.iter().enumerate() {
            (_, rest) = split_block(index, source, rest).ok_or(Malformed)?;
        }
        if rest.is_empty() { Ok(RecordView { words, schema }) } else { Err(Malformed) }
    }

    /// One common word.
    pub fn common(&self, which: Common) -> u64 {
        self.words[which as usize]
    }

    /// All blocks, in the schema's order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockView<'a>> + use<'a> {
        let mut rest = &self.words[COMMON_WORDS..];
        self.schema.sources.iter().enumerate().map_while(move |(index, source)| {
            let (block, after) = split_block(index, source, rest)?;
            rest = after;
            Some(block)
        })
    }
}

/// The first block of `words` and what follows it.
fn split_block<'a>(
    index: usize,
    source: &'a SourceSchema,
    words: &'a [u64],
) -> Option<(BlockView<'a>, &'a [u64])> {
    let (&[fault_word, count], rest) = words.split_first_chunk::<BLOCK_HEAD_WORDS>()?;
    let count = usize::try_from(count).ok()?;
    let (rows, data_words) = match &source.shape {
        None if count == 0 => (0, 0),
        Some(Shape::Scalars { .. }) if count == 0 => (0, 0),
        Some(Shape::Scalars { fields }) if count == fields.len() => (1, count),
        Some(shape @ Shape::Table { .. }) => (count, count.checked_mul(shape.row_words())?),
        _ => return None,
    };
    let (data, rest) = rest.split_at_checked(data_words)?;
    let index = u32::try_from(index).ok()?;
    Some((BlockView { index, source, fault_word, rows, data }, rest))
}

/// The word that begins a table's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowHead {
    /// Entry of the segment's dictionary that names the instance.
    pub entry: u32,
    /// Columns that the kernel printed; those behind them are absent.
    pub columns: u32,
}

impl RowHead {
    /// As a word.
    #[inline]
    pub fn to_word(self) -> u64 {
        u64::from(self.entry) | u64::from(self.columns) << 32
    }

    /// From a word; any word is a row head, its reader bounds both halves.
    #[inline]
    pub fn from_word(word: u64) -> Self {
        RowHead { entry: word as u32, columns: (word >> 32) as u32 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::fault::Reason;
    use crate::schema::{Field, Kind};

    fn schema() -> Schema {
        let field = |name| Field::new(name, Kind::Unsigned);
        let source =
            |name: &str, shape| SourceSchema { name: name.into(), path: name.into(), shape };
        Schema {
            sources: vec![
                source("scalars", Some(Shape::Scalars { fields: vec![field("a"), field("b")] })),
                source(
                    "table",
                    Some(Shape::Table { instance_key: "name".into(), columns: vec![field("c")] }),
                ),
                source("never", None),
            ],
        }
    }

    fn written() -> Vec<u64> {
        let words: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(u64::MAX)).collect();
        let mut record = RecordWriter::new(&words, 3).unwrap();
        for which in 0..COMMON_WORDS as u64 {
            words[which as usize].store(100 + which, Ordering::Relaxed);
        }
        let mut block = record.block().unwrap();
        for (cell, value) in block.take(2).unwrap().iter().zip([7, 8]) {
            cell.store(value, Ordering::Relaxed);
        }
        block.finish(2, None);
        let mut block = record.block().unwrap();
        let row = block.take(2).unwrap();
        row[0].store(RowHead { entry: 3, columns: 1 }.to_word(), Ordering::Relaxed);
        row[1].store(9, Ordering::Relaxed);
        block.finish(1, Some(Fault::at(Reason::NotANumber, 2)));
        record.block().unwrap().finish(0, Some(Fault::Open(2)));
        words[..record.used_words()].iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (words, schema) = (written(), schema());
        let view = RecordView::new(&words, &schema).unwrap();
        assert_eq!(view.common(Common::Tick), 100);
        assert_eq!(view.common(Common::Flags), 107);
        let blocks: Vec<_> = view.blocks().collect();
        assert_eq!(blocks.len(), 3);
        assert_eq!((blocks[0].rows, blocks[0].data), (1, &[7, 8][..]));
        assert_eq!(RowHead::from_word(blocks[1].data[0]), RowHead { entry: 3, columns: 1 });
        assert_eq!(Fault::from_word(blocks[1].fault_word), Some(Fault::at(Reason::NotANumber, 2)));
        assert_eq!((blocks[2].rows, blocks[2].data.len()), (0, 0));
    }

    #[test]
    fn a_record_of_another_structure_is_refused() {
        let (good, schema) = (written(), schema());
        for end in 0..good.len() {
            assert!(RecordView::new(&good[..end], &schema).is_err(), "cut at {end}");
        }
        let mut long = good.clone();
        long.push(0);
        assert!(RecordView::new(&long, &schema).is_err());
        for count in [1, 3, u64::MAX, u64::MAX / 2 + 1] {
            let mut bad = good.clone();
            bad[COMMON_WORDS + 1] = count;
            assert!(RecordView::new(&bad, &schema).is_err(), "scalars with {count}");
            let mut bad = good.clone();
            bad[COMMON_WORDS + 5] = count.wrapping_add(1);
            assert!(RecordView::new(&bad, &schema).is_err(), "table with {count} + 1");
        }
    }

    #[test]
    fn a_full_record_says_so_and_keeps_room_for_the_other_blocks() {
        let words: Vec<AtomicU64> = (0..least_words(2) + 1).map(|_| AtomicU64::new(0)).collect();
        let mut record = RecordWriter::new(&words, 2).unwrap();
        let mut block = record.block().unwrap();
        assert_eq!(block.take(2).err(), Some(Full));
        assert!(block.take(1).is_ok());
        assert_eq!(block.take(1).err(), Some(Full));
        block.rewind();
        block.finish(0, Some(Fault::NoRoom(4)));
        let mut block = record.block().unwrap();
        assert!(block.take(1).is_ok());
        block.give_back(1);
        block.finish(0, None);
        assert_eq!(record.used_words(), least_words(2));
        assert!(record.block().is_err());
        assert!(RecordWriter::new(&words, 3).is_err());
    }
}
