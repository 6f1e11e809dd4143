//! `/proc/net/dev`: two header lines that name the columns, then one interface per line
//! (`net/core/net-procfs.c`). Columns are found by their names in the header; one that is not in
//! the published format is recorded under the header's name, with `rx_` or `tx_`.
//!
//! An interface's name may contain `:`; kernels before 2.6.30 put no blank behind the one that
//! ends it. The numbers have none, so the last one on the line ends the name.

use super::scan::{lines, skip_blanks, word};
use super::table::{Grammar, Instance, Table, survey};
use super::text::Records;
use super::{Probed, SourceDef};
use crate::fault::{Fault, MAX_NAME_BYTES, Reason};
use crate::schema::{Field, Kind, Shape};

pub(super) static NETDEV: SourceDef = SourceDef {
    name: "netdev",
    file: "net/dev",
    // A name of at most 15 bytes and 16 numbers of at most 20 digits, with a blank each
    // (`dev_seq_printf_stats`); the two header lines are shorter.
    records: Records::UpTo(512),
    probe,
};

/// The header's word and the output's, where they differ.
const RENAMED: [(&str, &str); 4] =
    [("errs", "errors"), ("drop", "dropped"), ("colls", "collisions"), ("multicast", "multicast")];
const PUBLISHED: [&str; 16] = [
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "rx_fifo",
    "rx_frame",
    "rx_compressed",
    "rx_multicast",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_fifo",
    "tx_collisions",
    "tx_carrier",
    "tx_compressed",
];
const MAX_COLUMNS: usize = 128;

struct Netdev {
    columns: usize,
}

impl Grammar for Netdev {
    fn instance<'t>(&self, line: &'t [u8]) -> Result<Instance<'t>, Reason> {
        let end = line.iter().rposition(|byte| *byte == b':').ok_or(Reason::BadName)?;
        let name = skip_blanks(&line[..end]);
        // No interface's name has a blank (`dev_valid_name`): that would be two rows on one line.
        let is_word = word(name).1.is_empty();
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !is_word {
            return Err(Reason::BadName);
        }
        Ok(Instance { identity: 0, name, prefix_bytes: end + 1 })
    }

    fn columns(&self, found: usize) -> Result<usize, Reason> {
        match found.cmp(&self.columns) {
            std::cmp::Ordering::Less => Err(Reason::MissingColumns),
            std::cmp::Ordering::Equal => Ok(found),
            std::cmp::Ordering::Greater => Err(Reason::SurplusColumns),
        }
    }
}

fn probe(text: &[u8]) -> Result<Probed, Fault> {
    let (header, names) = header(text).ok_or(Fault::at(Reason::BadHeader, 2))?;
    let grammar = Netdev { columns: names.len() };
    let survey = survey(&grammar, &text[header..], names.len());
    let columns = names.iter().zip(&survey.signed).map(|(name, signed)| {
        let kind = if *signed { Kind::Signed } else { Kind::Unsigned };
        if PUBLISHED.contains(&name.as_str()) {
            Field::new(name, kind).counting(64)
        } else {
            Field::extra(name, kind)
        }
    });
    let shape =
        Shape::Table { instance_key: "interface_name".to_owned(), columns: columns.collect() };
    let rows = survey.rows;
    let source = Box::new(Table::new(grammar, &text[..header], survey));
    Ok(Probed { shape, rows, source })
}

/// Length of the two header lines, and the columns that they name.
fn header(text: &[u8]) -> Option<(usize, Vec<String>)> {
    let first = text.iter().position(|byte| *byte == b'\n')? + 1;
    let length = first + text[first..].iter().position(|byte| *byte == b'\n')? + 1;
    let line = lines(&text[first..length]).next()?;
    let mut groups = line.split(|byte| *byte == b'|');
    let face = groups.next()?;
    if word(skip_blanks(face)).0 != b"face" {
        return None;
    }
    let mut columns = Vec::new();
    for direction in ["rx", "tx"] {
        let mut rest = skip_blanks(groups.next()?);
        while !rest.is_empty() {
            let (name, behind) = word(rest);
            let name = std::str::from_utf8(name).ok()?;
            let name = RENAMED.iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| to);
            let name = format!("{direction}_{name}");
            if columns.contains(&name) || columns.len() == MAX_COLUMNS {
                return None;
            }
            columns.push(name);
            rest = skip_blanks(behind);
        }
    }
    (groups.next().is_none() && !columns.is_empty()).then_some((length, columns))
}
