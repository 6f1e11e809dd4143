//! Sources: one kernel file and its parser each. A parser gets text and writes words; it opens
//! nothing, allocates nothing while it parses, and panics on no text.
//!
//! A new source is a file beside this one, with a [`SourceDef`], and a line in [`SOURCES`]. How
//! its values appear in the output follows from the [`Shape`] that its probe returns.

mod diskstats;
mod known;
mod loadavg;
mod meminfo;
mod netdev;
mod previous;
mod scalars;
pub mod scan;
mod table;
pub mod text;
mod vmstat;

#[cfg(all(test, not(loom)))]
mod tests;

use crate::fault::Fault;
use crate::record::Block;
use crate::schema::Shape;
pub(crate) use table::with_spare_rows;
use text::Records;

/// All sources, in the order in which records and output have them.
pub static SOURCES: [&SourceDef; 5] =
    [&diskstats::DISKSTATS, &vmstat::VMSTAT, &meminfo::MEMINFO, &loadavg::LOADAVG, &netdev::NETDEV];

/// One kernel file: where it is and how to begin reading it.
pub struct SourceDef {
    /// Name on the command line and key in the output.
    pub name: &'static str,
    /// The file, relative to the `/proc` in use.
    pub file: &'static str,
    /// How the kernel makes it.
    pub records: Records,
    /// Learns the file's layout from its text. May allocate.
    pub probe: fn(&[u8]) -> Result<Probed, Fault>,
}

/// What a probe found.
pub struct Probed {
    /// Names and kinds of the words that `source` will write.
    pub shape: Shape,
    /// Rows in the text; 1 for scalars.
    pub rows: usize,
    /// The parser for this layout.
    pub source: Box<dyn Source>,
}

/// Writes the text of one file, again and again, as words of one layout.
pub trait Source: Send {
    /// Writes the values in `text` to `block`, without ending it.
    fn parse(&mut self, text: &[u8], block: &mut Block<'_, '_>, names: &mut dyn Names) -> Parsed;

    /// Whether the last text had other rows than the one before it.
    fn changed(&self) -> bool {
        false
    }

    /// Adds the rows of `text` that `block` does not have: the same file, read again for the same
    /// record. `count` and `written` of what it returns are all rows of the block.
    fn add_missing(
        &mut self,
        text: &[u8],
        block: &mut Block<'_, '_>,
        names: &mut dyn Names,
    ) -> Parsed {
        self.parse(text, block, names)
    }

    /// A new segment begins, with room for `entries` names: those given out before mean nothing
    /// any more. May allocate.
    fn begin_segment(&mut self, entries: usize) {
        let _ = entries;
    }
}

/// The dictionary, as a source sees it.
pub trait Names {
    /// The entry for a new instance; `None` if there is no more room.
    fn add(&mut self, identity: u64, name: &[u8]) -> Option<u32>;
}

/// What became of one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// `count` fields or rows were written; `fault` says if any were passed over.
    Values {
        /// Fields of scalars, rows of a table.
        count: usize,
        /// The first line that was not understood.
        fault: Option<Fault>,
    },
    /// The text cannot be understood: the block is void.
    Nothing(Fault),
    /// The text is sound, but record, dictionary or the parser's own room is too small for it.
    Outgrown {
        /// Rows that were written.
        written: usize,
        /// Rows that were not.
        lost: usize,
    },
    /// The text is sound, but its layout is another: probe it anew.
    Relayout,
}

/// Finds a source by its name; `net/dev` and the like, the file's name, is taken too.
pub fn find(name: &str) -> Option<&'static SourceDef> {
    SOURCES.into_iter().find(|source| source.name == name || source.file == name)
}
