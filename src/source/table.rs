//! Files of one instance per line (`diskstats`, `net/dev`): the parser that their sources share.
//!
//! As long as the same instances stand on the same lines as before, only the lines that changed are
//! read, and each is recognised by its first bytes, which the kernel formats alike every time. As
//! soon as one of them has another beginning, the whole text is read anew, line by line, with every
//! instance looked up: what came, went or moved is told apart there, and nothing is attributed by
//! position.

use super::known::Known;
use super::previous::Previous;
use super::scan::{
    lines, signed, skip_blanks, split_unended, strip_long_prefix, strip_prefix, unsigned,
};
use super::{Names, Parsed, Source};
use crate::fault::{Fault, Reason};
use crate::record::{Block, RowHead};
use crate::sync::{AtomicU64, Ordering};

/// How the lines of one file are to be read.
pub(super) trait Grammar: Send {
    /// Takes the beginning of a line apart.
    fn instance<'t>(&self, line: &'t [u8]) -> Result<Instance<'t>, Reason>;

    /// How many of `found` numbers on a line are columns of a known meaning.
    fn columns(&self, found: usize) -> Result<usize, Reason>;
}

/// The beginning of a line.
pub(super) struct Instance<'t> {
    /// What tells instances of one name apart.
    pub identity: u64,
    pub name: &'t [u8],
    /// The bytes of the line before its numbers.
    pub prefix_bytes: usize,
}

pub(super) struct Table {
    /// The lines above the rows, as they were when the file was probed.
    header: Vec<u8>,
    /// For each column, whether a minus sign was seen in it.
    signed: Vec<bool>,
    /// The last text, if each of its lines became a row.
    previous: Previous,
    /// Of each of its lines.
    parts: Vec<LineParts>,
    /// From here on, what only the cold path needs.
    grammar: Box<dyn Grammar>,
    known: Box<Known>,
    /// Texts that were read anew. What is found by its line was in the latest of them.
    pass: u64,
    /// Rows of the latest of them.
    listed: usize,
    /// Rows that there were when the segment began.
    rows: usize,
    changed: bool,
}

/// Of a line that became a row.
#[derive(Clone, Copy)]
struct LineParts {
    /// Bytes before its numbers.
    prefix_bytes: u16,
    /// How many numbers it has.
    numbers: u16,
}

/// What a probe must know of a table's rows.
pub(super) struct Survey {
    /// Sound lines.
    pub rows: usize,
    /// For each column, whether a minus sign was seen in it.
    pub signed: Vec<bool>,
}

/// Reads all rows for a probe; at least `columns` columns.
pub(super) fn survey(grammar: &impl Grammar, body: &[u8], columns: usize) -> Survey {
    let mut survey = Survey { rows: 0, signed: vec![false; columns] };
    for line in lines(split_unended(body).0) {
        let Ok(instance) = grammar.instance(line) else { continue };
        let mut rest = skip_blanks(&line[instance.prefix_bytes..]);
        let mut negative = Vec::new();
        while let Ok((_, behind @ ([b' ' | b'\t', ..] | []))) =
            signed(rest).or_else(|_| unsigned(rest))
        {
            negative.push(rest.starts_with(b"-"));
            rest = skip_blanks(behind);
        }
        if !rest.is_empty() || grammar.columns(negative.len()).is_err() {
            continue;
        }
        survey.rows += 1;
        survey.signed.resize(survey.signed.len().max(negative.len()), false);
        for (any, this) in survey.signed.iter_mut().zip(negative) {
            *any |= this;
        }
    }
    survey
}

impl Table {
    pub(super) fn new(grammar: impl Grammar + 'static, header: &[u8], survey: Survey) -> Self {
        let Survey { rows, signed } = survey;
        Table {
            grammar: Box::new(grammar),
            header: header.to_vec(),
            signed,
            previous: Previous::default(),
            parts: Vec::new(),
            known: Box::default(),
            // None is an instance that was never met.
            pass: 1,
            listed: 0,
            rows,
            changed: false,
        }
    }

    /// The hot path: the lines are those of the last text, whose rows are in the block, and what
    /// changed are numbers. `None` at the first of which that is not so. The last line must have its
    /// line feed.
    #[inline]
    fn parse_changed(&mut self, body: &[u8], block: &mut Block<'_, '_>) -> Option<usize> {
        let rows = self.parts.len();
        let row_words = self.signed.len() + 1;
        let cells = block.take(rows * row_words).ok()?;
        let (signed, parts) = (&self.signed, &self.parts);
        let is_same = self.previous.update(body, &mut |line, old, new| {
            let parts = parts.get(line)?;
            let prefix = old.get(..usize::from(parts.prefix_bytes))?;
            let cells = cells[line * row_words..][..row_words].get(1..)?;
            let (found, behind) = numbers(signed, strip_prefix(new, prefix)?, cells).ok()?;
            // As many as before: what its first word says of them holds.
            (found == usize::from(parts.numbers)).then_some(new.len() - behind.len())
        });
        is_same.then_some(rows)
    }

    /// The cold path: looks up every instance and remembers the lines for the next text.
    #[cold]
    fn parse_anew(
        &mut self,
        body: &[u8],
        block: &mut Block<'_, '_>,
        names: &mut dyn Names,
    ) -> Parsed {
        self.forget();
        self.pass += 1;
        let before = std::mem::take(&mut self.listed);
        let (parsed, stayed) = self.add_rows(body, block, names, false);
        let is_whole = matches!(parsed, Parsed::Values { fault: None, .. });
        if !is_whole || self.previous.text() != body {
            self.forget();
        }
        self.changed = stayed != before || stayed != self.listed;
        parsed
    }

    /// There are no rows that could be where they were.
    fn forget(&mut self) {
        self.previous.forget();
        self.parts.clear();
    }

    /// Adds the rows that this pass has not met yet; returns how many of them the pass before had.
    fn add_rows(
        &mut self,
        body: &[u8],
        block: &mut Block<'_, '_>,
        names: &mut dyn Names,
        again: bool,
    ) -> (Parsed, usize) {
        let first_line = lines(&self.header).count() + 1;
        let (mut stayed, mut lost, mut fault) = (0, 0, None);
        let (whole, cut) = split_unended(body);
        for (index, line) in lines(whole).enumerate() {
            match self.row(line, block, names, again) {
                Row::Written { stayed: has_stayed } => {
                    self.listed += 1;
                    stayed += usize::from(has_stayed);
                }
                Row::Repeated => {}
                Row::NoRoom => lost += 1,
                Row::Relayout => return (Parsed::Relayout, stayed),
                Row::Bad(reason) => {
                    fault = fault.or(Some(Fault::at(reason, first_line + index)));
                }
            }
        }
        if !cut.is_empty() {
            let line = first_line + lines(whole).count();
            fault = fault.or(Some(Fault::at(Reason::MissingColumns, line)));
        }
        let written = self.listed;
        let parsed = match (lost, fault) {
            (0, Some(fault)) if written == 0 => Parsed::Nothing(fault),
            (0, fault) => Parsed::Values { count: written, fault },
            _ => Parsed::Outgrown { written, lost },
        };
        (parsed, stayed)
    }

    fn row(
        &mut self,
        line: &[u8],
        block: &mut Block<'_, '_>,
        names: &mut dyn Names,
        again: bool,
    ) -> Row {
        let instance = match self.grammar.instance(line) {
            Ok(instance) => instance,
            Err(reason) => return Row::Bad(reason),
        };
        let text = &line[instance.prefix_bytes..];
        let Ok(cells) = block.take(self.signed.len() + 1) else { return Row::NoRoom };
        let found = numbers(&self.signed, text, &cells[1..]).map(|(found, _)| found);
        let found = found.and_then(|found| Ok((found, self.grammar.columns(found)?)));
        let (found, columns) = match found {
            Ok(both) => both,
            Err(reason) => {
                block.give_back(cells.len());
                return if self.fits_another_layout(text) {
                    Row::Relayout
                } else {
                    Row::Bad(reason)
                };
            }
        };
        // A disk that is being made has the number 0:0 for a moment (`device_add_disk`).
        if again && self.known.has_met(instance.name, self.pass) {
            block.give_back(cells.len());
            return Row::Repeated;
        }
        let entry = || names.add(instance.identity, instance.name);
        let known = match self.known.find_or_add(instance.identity, instance.name, entry) {
            // `seq_file` may repeat a line when a device goes away between two reads.
            Ok(known) if known.pass == self.pass => {
                block.give_back(cells.len());
                return Row::Repeated;
            }
            Ok(known) => known,
            Err(_) => {
                block.give_back(cells.len());
                return Row::NoRoom;
            }
        };
        let stayed = known.pass == self.pass - 1;
        known.pass = self.pass;
        let row = RowHead { entry: known.entry, columns: columns as u32 };
        cells[0].store(row.to_word(), Ordering::Relaxed);
        if !again && self.parts.len() < self.parts.capacity() {
            // What is too long for that is not remembered.
            if let (Ok(prefix_bytes), Ok(numbers)) =
                (instance.prefix_bytes.try_into(), found.try_into())
            {
                self.parts.push(LineParts { prefix_bytes, numbers });
                self.previous.add(line);
            }
        }
        Row::Written { stayed }
    }

    /// Whether numbers that do not fit this layout are sound all the same: more of them than
    /// there were, or a minus sign where none was. Not one that is too large for a signed column:
    /// while another row has a minus sign there, no layout holds both.
    fn fits_another_layout(&self, text: &[u8]) -> bool {
        let mut rest = skip_blanks(text);
        let mut found = 0;
        let mut differs = false;
        while !rest.is_empty() {
            let Ok((_, behind)) = signed(rest).or_else(|_| unsigned(rest)) else { return false };
            if !matches!(behind, [b' ' | b'\t', ..] | []) {
                return false;
            }
            differs |= match self.signed.get(found) {
                Some(is_signed) => !is_signed && rest.starts_with(b"-"),
                None => true,
            };
            found += 1;
            rest = skip_blanks(behind);
        }
        differs && self.grammar.columns(found).is_ok()
    }
}

/// Stores the numbers up to the end of the line; returns how many, and the next line.
#[inline]
fn numbers<'t>(
    is_signed: &[bool],
    text: &'t [u8],
    cells: &[AtomicU64],
) -> Result<(usize, &'t [u8]), Reason> {
    let mut rest = text;
    for (found, (cell, is_signed)) in cells.iter().zip(is_signed).enumerate() {
        rest = skip_blanks(rest);
        let scanned = if *is_signed { signed(rest) } else { unsigned(rest) };
        let (value, behind) = match (scanned, rest) {
            (Ok(scanned), _) => scanned,
            (Err(_), [b'\n', ..] | []) => {
                // Whatever a longer row left here must not be taken for this one's.
                cells[found..].iter().for_each(|cell| cell.store(0, Ordering::Relaxed));
                return Ok((found, rest.get(1..).unwrap_or(rest)));
            }
            (Err(reason), _) => return Err(reason),
        };
        if !matches!(behind, [b' ' | b'\t' | b'\n', ..] | []) {
            return Err(Reason::NotANumber);
        }
        cell.store(value, Ordering::Relaxed);
        rest = behind;
    }
    match skip_blanks(rest) {
        [] => Ok((cells.len(), &[])),
        [b'\n', next @ ..] => Ok((cells.len(), next)),
        _ => Err(Reason::SurplusColumns),
    }
}

/// Rows that a segment has room for which begins with `rows`.
pub(crate) fn with_spare_rows(rows: usize) -> usize {
    rows + (rows / 2).max(16)
}

/// What became of one line.
enum Row {
    Written {
        /// The text before had it too.
        stayed: bool,
    },
    Repeated,
    NoRoom,
    Relayout,
    Bad(Reason),
}

/// Room for the beginning of a line, on average.
const PREFIX_ROOM_BYTES: usize = 48;
/// Room for a number, on average; those that the kernel prints have up to 21 bytes with their blank.
const COLUMN_ROOM_BYTES: usize = 12;

impl Source for Table {
    #[inline]
    fn parse(&mut self, text: &[u8], block: &mut Block<'_, '_>, names: &mut dyn Names) -> Parsed {
        let Some(body) = strip_long_prefix(text, &self.header) else {
            return Parsed::Relayout;
        };
        if block.is_as_left()
            && matches!(body, [.., b'\n'])
            && let Some(count) = self.parse_changed(body, block)
        {
            self.changed = false;
            return Parsed::Values { count, fault: None };
        }
        block.rewind();
        self.parse_anew(body, block, names)
    }

    fn changed(&self) -> bool {
        self.changed
    }

    fn add_missing(
        &mut self,
        text: &[u8],
        block: &mut Block<'_, '_>,
        names: &mut dyn Names,
    ) -> Parsed {
        self.forget();
        match text.strip_prefix(&self.header[..]) {
            Some(body) => self.add_rows(body, block, names, true).0,
            None => Parsed::Relayout,
        }
    }

    fn begin_segment(&mut self, entries: usize) {
        self.rows = self.rows.max(std::mem::take(&mut self.listed));
        self.known.reset(entries);
        let line_bytes = PREFIX_ROOM_BYTES + self.signed.len() * COLUMN_ROOM_BYTES;
        let lines = with_spare_rows(self.rows);
        self.previous = Previous::with_room(lines * line_bytes, lines);
        self.parts = Vec::with_capacity(lines);
    }
}
