//! Files of one instance per line (`diskstats`, `net/dev`): the parser that their sources share.
//!
//! As long as the same instances stand on the same lines as before, a line is recognised by its
//! first bytes, which the kernel formats alike every time. As soon as one line differs, the whole
//! text is read anew, line by line, with every instance looked up: what came, went or moved is
//! told apart there, and nothing is attributed by position.

use super::known::Known;
use super::scan::{lines, signed, skip_blanks, split_unended, strip_prefix, unsigned};
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

/// A line that stood in the previous text. Its prefix is in `Table::prefixes`.
struct Expected {
    prefix_bytes: u32,
    entry: u32,
}

pub(super) struct Table<G> {
    grammar: G,
    /// The lines above the rows, as they were when the file was probed.
    header: Vec<u8>,
    /// For each column, whether a minus sign was seen in it.
    signed: Vec<bool>,
    expected: Vec<Expected>,
    prefixes: Vec<u8>,
    known: Known,
    /// Texts that were read anew. What is found by its line was in the latest of them.
    pass: u64,
    /// Rows of the latest of them.
    listed: usize,
    changed: bool,
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

impl<G: Grammar> Table<G> {
    pub(super) fn new(grammar: G, header: &[u8], signed: Vec<bool>) -> Self {
        Table {
            grammar,
            header: header.to_vec(),
            signed,
            expected: Vec::new(),
            prefixes: Vec::new(),
            known: Known::default(),
            // None is an instance that was never met.
            pass: 1,
            listed: 0,
            changed: false,
        }
    }

    /// The hot path: every line is the one that was expected. `None` at the first that is not.
    /// The last line must have its line feed.
    #[inline]
    fn parse_expected(&self, body: &[u8], block: &mut Block<'_, '_>) -> Option<usize> {
        let (mut rest, mut prefixes) = (body, &self.prefixes[..]);
        for expected in &self.expected {
            let (prefix, later) = prefixes.split_at(expected.prefix_bytes as usize);
            prefixes = later;
            let numbers = strip_prefix(rest, prefix)?;
            let (head, cells) = block.take(self.signed.len() + 1).ok()?.split_first()?;
            let (found, behind) = self.numbers(numbers, cells).ok()?;
            let columns = self.grammar.columns(found).ok()?;
            let row = RowHead { entry: expected.entry, columns: columns as u32 };
            head.store(row.to_word(), Ordering::Relaxed);
            rest = behind;
        }
        rest.is_empty().then_some(self.expected.len())
    }

    /// Stores the numbers up to the end of the line; returns how many, and the next line.
    #[inline]
    fn numbers<'t>(
        &self,
        text: &'t [u8],
        cells: &[AtomicU64],
    ) -> Result<(usize, &'t [u8]), Reason> {
        let mut rest = text;
        for (found, (cell, is_signed)) in cells.iter().zip(&self.signed).enumerate() {
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

    /// The cold path: looks up every instance and remembers the lines for the next text.
    #[cold]
    fn parse_anew(
        &mut self,
        body: &[u8],
        block: &mut Block<'_, '_>,
        names: &mut dyn Names,
    ) -> Parsed {
        self.expected.clear();
        self.prefixes.clear();
        self.pass += 1;
        let before = std::mem::take(&mut self.listed);
        let (parsed, stayed) = self.add_rows(body, block, names, false);
        self.changed = stayed != before || stayed != self.listed;
        parsed
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
        let (prefix, numbers) = line.split_at(instance.prefix_bytes);
        let Ok(cells) = block.take(self.signed.len() + 1) else { return Row::NoRoom };
        let columns = match self.numbers(numbers, &cells[1..]) {
            Ok((found, _)) => self.grammar.columns(found),
            Err(reason) => Err(reason),
        };
        let columns = match columns {
            Ok(columns) => columns,
            Err(reason) => {
                block.give_back(cells.len());
                return if self.fits_another_layout(numbers) {
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
        // Below their capacities, so that nothing allocates; a line that is not remembered is
        // looked up again the next time.
        if self.expected.len() < self.expected.capacity()
            && self.prefixes.capacity() - self.prefixes.len() >= prefix.len()
        {
            let prefix_bytes = prefix.len() as u32;
            self.expected.push(Expected { prefix_bytes, entry: known.entry });
            self.prefixes.extend_from_slice(prefix);
        }
        Row::Written { stayed }
    }

    /// Whether numbers that do not fit this layout are sound all the same: more of them than
    /// there were, or a minus sign where none was. Not one that is too large for a signed column:
    /// while another row has a minus sign there, no layout holds both.
    fn fits_another_layout(&self, numbers: &[u8]) -> bool {
        let mut rest = skip_blanks(numbers);
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

impl<G: Grammar> Source for Table<G> {
    #[inline]
    fn parse(&mut self, text: &[u8], block: &mut Block<'_, '_>, names: &mut dyn Names) -> Parsed {
        let Some(body) = text.strip_prefix(&self.header[..]) else {
            return Parsed::Relayout;
        };
        if matches!(body, [.., b'\n'] | [])
            && let Some(count) = self.parse_expected(body, block)
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
        match text.strip_prefix(&self.header[..]) {
            Some(body) => self.add_rows(body, block, names, true).0,
            None => Parsed::Relayout,
        }
    }

    fn begin_segment(&mut self, entries: usize) {
        self.listed = 0;
        self.known.reset(entries);
        self.expected = Vec::with_capacity(entries);
        self.prefixes = Vec::with_capacity(entries * PREFIX_ROOM_BYTES);
    }
}
