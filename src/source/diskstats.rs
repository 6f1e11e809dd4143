//! `/proc/diskstats`: one block device per line, `major minor name` and then counters whose order
//! is fixed and to which kernels append (`Documentation/admin-guide/iostats.rst`,
//! `block/genhd.c`). 11 counters before Linux 4.18, 15 with discards, 17 with flushes (5.5).
//! Sectors are of 512 bytes, times in ms; the millisecond counters are 32-bit in the kernel and
//! wrap. Columns that a later kernel may append are recorded as `column_21` and so on.

use super::scan::{skip_blanks, unsigned, word};
use super::table::{Grammar, Instance, Table, survey};
use super::text::Records;
use super::{Probed, SourceDef};
use crate::fault::{Fault, MAX_NAME_BYTES, Reason};
use crate::schema::{Field, Kind, Shape};

pub(super) static DISKSTATS: SourceDef = SourceDef {
    name: "diskstats",
    file: "diskstats",
    // A disk is one record with all its partitions (`diskstats_show`).
    records: Records::Unbounded,
    probe,
};

/// In the kernel's order, from the fourth column on.
const COLUMNS: [&str; 17] = [
    "reads_completed",
    "reads_merged",
    "sectors_read",
    "time_reading_ms",
    "writes_completed",
    "writes_merged",
    "sectors_written",
    "time_writing_ms",
    "ios_in_progress",
    "time_doing_ios_ms",
    "weighted_time_doing_ios_ms",
    "discards_completed",
    "discards_merged",
    "sectors_discarded",
    "time_discarding_ms",
    "flush_requests_completed",
    "time_flushing_ms",
];
/// The one column that goes up and down.
const IN_FLIGHT: &str = "ios_in_progress";
/// Columns before the counters.
const HEAD_COLUMNS: usize = 3;

struct Diskstats;

impl Grammar for Diskstats {
    fn instance<'t>(&self, line: &'t [u8]) -> Result<Instance<'t>, Reason> {
        let (major, rest) = device_number(line)?;
        let (minor, rest) = device_number(rest)?;
        let (name, rest) = word(skip_blanks(rest));
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Reason::BadName);
        }
        // The blank behind the name belongs to the prefix: "sda1" must not match "sda".
        let prefix_bytes = line.len() - rest.len() + usize::from(!rest.is_empty());
        Ok(Instance { identity: u64::from(major) << 32 | u64::from(minor), name, prefix_bytes })
    }

    fn columns(&self, found: usize) -> Result<usize, Reason> {
        match found {
            0..11 => Err(Reason::MissingColumns),
            11..15 => Ok(11),
            15..17 => Ok(15),
            _ => Ok(found),
        }
    }
}

/// Reads a number that has a blank behind it: `0sda` is neither a number nor a name.
fn device_number(text: &[u8]) -> Result<(u32, &[u8]), Reason> {
    match unsigned(skip_blanks(text))? {
        (number, rest @ ([b' ' | b'\t', ..] | [])) => {
            Ok((number.try_into().map_err(|_| Reason::NumberTooLarge)?, rest))
        }
        _ => Err(Reason::NotANumber),
    }
}

fn probe(text: &[u8]) -> Result<Probed, Fault> {
    let survey = survey(&Diskstats, text, COLUMNS.len());
    let columns = survey.signed.iter().enumerate().map(|(index, signed)| {
        let kind = if *signed { Kind::Signed } else { Kind::Unsigned };
        match COLUMNS.get(index) {
            Some(&IN_FLIGHT) => Field::new(IN_FLIGHT, kind),
            Some(name) if name.ends_with("_ms") => Field::new(name, kind).counting(32),
            Some(name) => Field::new(name, kind).counting(64),
            None => Field::extra(&format!("column_{}", index + HEAD_COLUMNS + 1), kind),
        }
    });
    let shape = Shape::Table { instance_key: "device_name".to_owned(), columns: columns.collect() };
    let rows = survey.rows;
    let source = Box::new(Table::new(Diskstats, b"", survey));
    Ok(Probed { shape, rows, source })
}
