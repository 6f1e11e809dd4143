//! Files of one named counter per line (`vmstat`, `meminfo`): the parser that their sources
//! share. Every line's name is compared with the one that stood there when the file was probed.

use super::previous::Previous;
use super::scan::{lines, signed, skip_blanks, split_unended, strip_prefix, unsigned};
use super::{Names, Parsed, Probed, Source};
use crate::fault::{Fault, MAX_NAME_BYTES, Reason};
use crate::record::Block;
use crate::schema::{Field, Kind, Shape};
use crate::sync::{AtomicU64, Ordering};
use std::collections::HashSet;

/// What stands between a name and its number, and behind the number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grammar {
    pub separator: u8,
    pub kilobytes: bool,
    /// Whether the value of that name only grows.
    pub is_counter: fn(&str) -> bool,
}

const UNIT: &[u8] = b" kB";

/// One line as it was when the file was probed. Its key, with the separator, is in `Scalars::keys`.
struct Line {
    key_bytes: u8,
    signed: bool,
    unit: bool,
}

struct Scalars {
    grammar: Grammar,
    /// All keys behind each other.
    keys: Vec<u8>,
    lines: Vec<Line>,
    previous: Previous,
}

/// Room for what stands behind a key: blanks, a number, a unit.
const VALUE_ROOM_BYTES: usize = 40;

/// A line taken apart.
struct Parts<'t> {
    key: &'t [u8],
    number: &'t [u8],
    unit: bool,
}

impl Grammar {
    fn split(self, line: &[u8]) -> Result<Parts<'_>, Reason> {
        let end = line.iter().position(|byte| *byte == self.separator).ok_or(Reason::NotANumber)?;
        let (key, rest) = line.split_at(end + 1);
        if end == 0 || end > MAX_NAME_BYTES {
            return Err(Reason::BadName);
        }
        let number = skip_blanks(rest);
        let (_, rest) = signed(number).or_else(|_| unsigned(number))?;
        match rest {
            b"" => Ok(Parts { key, number, unit: false }),
            UNIT if self.kilobytes => Ok(Parts { key, number, unit: true }),
            _ if self.kilobytes => Err(Reason::UnknownUnit),
            _ => Err(Reason::SurplusColumns),
        }
    }

    /// Learns the lines of a file.
    pub(super) fn probe(self, text: &[u8]) -> Result<Probed, Fault> {
        let mut scalars = Scalars {
            grammar: self,
            keys: Vec::new(),
            lines: Vec::new(),
            previous: Previous::default(),
        };
        let mut fields = Vec::new();
        let mut seen = HashSet::new();
        let (whole, cut) = split_unended(text);
        for (index, line) in lines(whole).enumerate() {
            let parts = self.split(line).map_err(|reason| Fault::at(reason, index + 1))?;
            // As the output has it: names that differ in bytes that are no text are one key there.
            let name = String::from_utf8_lossy(&parts.key[..parts.key.len() - 1]);
            if !seen.insert(name.clone()) {
                return Err(Fault::at(Reason::DuplicateName, index + 1));
            }
            let signed = parts.number.starts_with(b"-");
            let kind = if signed { Kind::Signed } else { Kind::Unsigned };
            let field = Field::new(&name, kind);
            let is_counter = (self.is_counter)(&name);
            fields.push(if is_counter { field.counting(64) } else { field });
            scalars.keys.extend_from_slice(parts.key);
            // Bounded by MAX_NAME_BYTES and the separator.
            let key_bytes = parts.key.len() as u8;
            scalars.lines.push(Line { key_bytes, signed, unit: parts.unit });
        }
        if !cut.is_empty() {
            return Err(Fault::at(Reason::MissingColumns, fields.len() + 1));
        }
        if fields.is_empty() {
            return Err(Fault::at(Reason::Empty, 0));
        }
        let lines = scalars.lines.len();
        let room = scalars.keys.len() + lines * VALUE_ROOM_BYTES;
        scalars.previous = Previous::with_room(room, lines);
        Ok(Probed { shape: Shape::Scalars { fields }, rows: 1, source: Box::new(scalars) })
    }
}

impl Scalars {
    /// Reads every line, and remembers them.
    #[cold]
    fn parse_anew(&mut self, text: &[u8], cells: &[AtomicU64]) -> Parsed {
        self.previous.forget();
        let (mut rest, mut keys) = (text, &self.keys[..]);
        for (line, cell) in self.lines.iter().zip(cells) {
            let (key, later_keys) = keys.split_at(usize::from(line.key_bytes));
            keys = later_keys;
            let value = strip_prefix(rest, key).and_then(|value| line.value(value));
            let Some((value, behind)) = value else { return self.differs(text) };
            cell.store(value, Ordering::Relaxed);
            rest = behind;
        }
        if !rest.is_empty() {
            return self.differs(text);
        }
        lines(text).for_each(|line| self.previous.add(line));
        if self.previous.text() != text {
            self.previous.forget();
        }
        Parsed::Values { count: self.lines.len(), fault: None }
    }

    /// The lines are not as they were: is the text broken, or is its layout another?
    #[cold]
    fn differs(&self, text: &[u8]) -> Parsed {
        let mut count = 0;
        let (whole, cut) = split_unended(text);
        for line in lines(whole) {
            count += 1;
            if let Err(reason) = self.grammar.split(line) {
                return Parsed::Nothing(Fault::at(reason, count));
            }
        }
        match (cut, count) {
            ([], 0) => Parsed::Nothing(Fault::at(Reason::Empty, 0)),
            ([], _) => Parsed::Relayout,
            _ => Parsed::Nothing(Fault::at(Reason::MissingColumns, count + 1)),
        }
    }
}

impl Line {
    /// Reads what is behind its key; returns the value and what follows the line.
    #[inline(always)]
    fn value<'t>(&self, text: &'t [u8]) -> Option<(u64, &'t [u8])> {
        let number = skip_blanks(text);
        let (value, behind) = if self.signed { signed(number) } else { unsigned(number) }.ok()?;
        match (self.unit, behind) {
            (false, [b'\n', next @ ..]) | (true, [b' ', b'k', b'B', b'\n', next @ ..]) => {
                Some((value, next))
            }
            _ => None,
        }
    }
}

impl Source for Scalars {
    #[inline]
    fn parse(&mut self, text: &[u8], block: &mut Block<'_, '_>, _: &mut dyn Names) -> Parsed {
        let count = self.lines.len();
        let Ok(cells) = block.take(count) else {
            return Parsed::Outgrown { written: 0, lost: 1 };
        };
        let lines = &self.lines;
        let is_same = block.is_as_left()
            && self.previous.update(text, &mut |index, old, new| {
                let line = &lines[index];
                let key = old.get(..usize::from(line.key_bytes))?;
                let (value, behind) = line.value(strip_prefix(new, key)?)?;
                cells[index].store(value, Ordering::Relaxed);
                Some(new.len() - behind.len())
            });
        if is_same { Parsed::Values { count, fault: None } } else { self.parse_anew(text, cells) }
    }
}
