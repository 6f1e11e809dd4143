//! How long the samples of a host are as text: a few words of a ring can be long, since its names are
//! whatever its host says. At most so much is known from its words alone; how much it is, by writing it
//! to nowhere.

use super::error::DecodeError;
use super::json::SAMPLE_DEPTH;
use super::json_sample::SampleWriter;
use super::json_text::{Buffer, Style};
use super::rings::Rings;
use crate::description::Description;
use crate::fault::MAX_NAME_BYTES;
use crate::record::BlockView;
use crate::schema::Shape;
use std::io::{self, Write};

/// Around any text or number: white space of the deepest value, quotes, a colon, and all digits.
const AROUND_BYTES: u64 = 48;
/// Of a byte in quotes: `\u0000`, which is also more than `\xff` of a name that is no text.
const ESCAPED_BYTES: u64 = 6;
/// All of a sample but its sources, and what is said of a fault, without names.
const SAMPLE_BYTES: u64 = 1024;
const FAULT_BYTES: u64 = 512;

/// Adds up how long it can be at most.
#[derive(Default)]
pub(super) struct TextBound {
    hostname: u64,
    sources: Vec<SourceBound>,
    bytes: u64,
}

#[derive(Default, Clone, Copy)]
struct SourceBound {
    /// Of a block without any row.
    begin: u64,
    fault: u64,
    row: u64,
    row_words: usize,
}

impl TextBound {
    /// Samples of another segment follow.
    pub fn begin_segment(&mut self, description: &Description) {
        self.hostname = quoted(&description.hostname);
        let bound = |source: &crate::schema::SourceSchema| {
            let name = quoted(&source.name);
            let begin = 2 * name + 2 * AROUND_BYTES;
            let fault = name + quoted(&source.path) + FAULT_BYTES;
            let Some(shape) = &source.shape else {
                return SourceBound { begin, fault, ..SourceBound::default() };
            };
            let fields: u64 = shape.fields().iter().map(|field| quoted(&field.name)).sum();
            let row = match shape {
                Shape::Scalars { .. } => fields,
                // Twice, since values beyond the published format are a row of their own.
                Shape::Table { instance_key, .. } => {
                    let name = MAX_NAME_BYTES as u64 * ESCAPED_BYTES + AROUND_BYTES;
                    fields + 2 * (quoted(instance_key) + name)
                }
            };
            SourceBound { begin, fault, row, row_words: shape.row_words() }
        };
        self.sources = description.schema.sources.iter().map(bound).collect();
    }

    /// One more sample.
    pub fn sample(&mut self) {
        self.add(SAMPLE_BYTES + self.hostname);
    }

    /// One of its blocks.
    pub fn block(&mut self, block: &BlockView<'_>) {
        let source = self.sources.get(block.index as usize).copied().unwrap_or_default();
        let rows = block.data.len().checked_div(source.row_words).unwrap_or(0) as u64;
        // Rows without names are one too.
        let faults = u64::from(block.fault_word != 0) + u64::from(rows > 0);
        self.add(source.begin + faults * source.fault);
        self.add(rows.saturating_mul(source.row));
    }

    /// No more than that.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// At most, with what stands around it.
fn quoted(text: &str) -> u64 {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    let each = if text.bytes().all(is_plain) { 1 } else { ESCAPED_BYTES };
    text.len() as u64 * each + AROUND_BYTES
}

/// Whether the samples of these rings are no more text than that.
pub(super) fn fits(rings: &Rings, most: u64) -> bool {
    let mut left = Left(most);
    let mut out = Buffer::new(&mut left);
    let mut writer = SampleWriter::new(Style::Indented, SAMPLE_DEPTH);
    let written = rings.each(|record| writer.write(&mut out, record));
    written.and_then(|()| out.flush()).is_ok()
}

/// Takes so many bytes.
struct Left(u64);

impl Write for Left {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.0.checked_sub(bytes.len() as u64);
        self.0 = left.ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Rings {
    /// Refuses them if their samples, which are at most `bound` bytes of text, are more than `most`.
    ///
    /// # Errors
    /// [`DecodeError::TooMuchText`].
    pub(super) fn check_text(&self, bound: u64, most: u64) -> Result<(), DecodeError> {
        if bound <= most || fits(self, most) {
            return Ok(());
        }
        Err(DecodeError::TooMuchText { most })
    }
}
