//! One record as a sample of the output, in whatever format: which sources it has, in the order of
//! the published format, and what was wrong. A source needs no code here, only its shape.

use super::names::Names;
use super::rings::Record;
use crate::fault::Fault;
use crate::record::{BlockView, RecordView, RowHead};
use crate::schema::Shape;

/// Sources of the published format, in its order; all others come behind `errors`.
const PUBLISHED: [&str; 5] = ["diskstats", "vmstat", "meminfo", "loadavg", "netdev"];

/// A record as a sample.
pub(super) struct SampleView<'a> {
    pub view: RecordView<'a>,
    pub hostname: &'a str,
    pub names: Names<'a>,
    /// By source, in words.
    pub errors: Vec<(&'a str, String)>,
    /// Those of the published format, in its order, and then all others.
    blocks: Vec<BlockView<'a>>,
    /// How many of them are of the published format.
    published: usize,
}

impl<'a> SampleView<'a> {
    /// Reads the names that the record speaks of, and words its errors.
    pub fn new(record: Record<'a>) -> Self {
        let Record { view, description, names, .. } = record;
        let mut blocks: Vec<_> = view.blocks().collect();
        let place = |block: &BlockView<'_>| {
            PUBLISHED.iter().position(|name| *name == block.source.name).unwrap_or(PUBLISHED.len())
        };
        // Stable: what is not published keeps the order of the schema.
        blocks.sort_by_key(place);
        let published = blocks.partition_point(|block| place(block) < PUBLISHED.len());
        let mut errors = Vec::new();
        for block in &blocks {
            let mut sentences = Vec::new();
            if block.fault_word != 0 {
                sentences.push(match Fault::from_word(block.fault_word) {
                    Some(fault) => fault.describe(&block.source.path),
                    None => format!("unknown error {:#x}", block.fault_word),
                });
            }
            if let Some(shape @ Shape::Table { .. }) = &block.source.shape {
                let mut nameless = 0;
                for row in block.data.chunks_exact(shape.row_words()) {
                    let entry = RowHead::from_word(row[0]).entry;
                    nameless += u64::from(names.get(block.index, entry).is_none());
                }
                if nameless > 0 {
                    sentences.push(format!(
                        "{nameless} rows are left out: their names are not in the ring"
                    ));
                }
            }
            if !sentences.is_empty() {
                errors.push((block.source.name.as_str(), sentences.join("; ")));
            }
        }
        SampleView { view, hostname: &description.hostname, names, errors, blocks, published }
    }

    /// The blocks with values of the published format, in its order.
    pub fn published(&self) -> impl Iterator<Item = &BlockView<'a>> {
        self.blocks[..self.published].iter().filter(|block| has_values(block))
    }

    /// All others, in the order of the schema.
    pub fn unpublished(&self) -> impl Iterator<Item = &BlockView<'a>> {
        self.blocks[self.published..].iter().filter(|block| has_values(block))
    }

    /// The one and then the other.
    pub fn all(&self) -> impl Iterator<Item = &BlockView<'a>> {
        self.published().chain(self.unpublished())
    }
}

/// An empty table that was read without an error is data: there were no devices.
fn has_values(block: &BlockView<'_>) -> bool {
    match &block.source.shape {
        None => false,
        Some(Shape::Scalars { .. }) => block.rows > 0,
        Some(Shape::Table { .. }) => block.rows > 0 || block.fault_word == 0,
    }
}
