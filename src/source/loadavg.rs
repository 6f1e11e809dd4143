//! `/proc/loadavg`: three averages in hundredths, `running/total` scheduling entities, and the
//! last process id (`Documentation/filesystems/proc.rst`; `fs/proc/loadavg.c`). Columns that a
//! later kernel may append are recorded as `column_6` and so on.

use super::scan::{any_unsigned, hundredths, skip_any_blanks};
use super::text::Records;
use super::{Names, Parsed, Probed, Source, SourceDef};
use crate::fault::{Fault, Reason};
use crate::record::Block;
use crate::schema::{Field, Kind, Shape};
use crate::sync::Ordering;

pub(super) static LOADAVG: SourceDef =
    SourceDef { name: "loadavg", file: "loadavg", records: Records::One, probe };

/// Values in the file of today's kernels.
const VALUES: usize = 6;
/// Most values that are recorded.
const MAX_VALUES: usize = 16;

struct Loadavg {
    count: usize,
}

fn probe(text: &[u8]) -> Result<Probed, Fault> {
    let count = values(text, |_, _| ())?;
    let mut fields = vec![
        Field::new("load_1min", Kind::Hundredths),
        Field::new("load_5min", Kind::Hundredths),
        Field::new("load_15min", Kind::Hundredths),
        Field::new("running_processes", Kind::Unsigned),
        Field::new("total_processes", Kind::Unsigned),
        Field::extra("last_pid", Kind::Unsigned),
    ];
    fields.extend(
        (VALUES..count).map(|index| Field::extra(&format!("column_{index}"), Kind::Unsigned)),
    );
    Ok(Probed { shape: Shape::Scalars { fields }, rows: 1, source: Box::new(Loadavg { count }) })
}

impl Source for Loadavg {
    fn parse(&mut self, text: &[u8], block: &mut Block<'_, '_>, _: &mut dyn Names) -> Parsed {
        let cells = block.take(self.count).unwrap_or(&[]);
        let found = values(text, |nth, value| {
            if let Some(cell) = cells.get(nth) {
                cell.store(value, Ordering::Relaxed);
            }
        });
        match found {
            Err(fault) => Parsed::Nothing(fault),
            Ok(count) if count != self.count => Parsed::Relayout,
            Ok(_) if cells.is_empty() => Parsed::Outgrown { written: 0, lost: 1 },
            Ok(count) => Parsed::Values { count, fault: None },
        }
    }
}

/// Tells `store` the numbers of the one line in turn; returns how many there are.
#[inline]
fn values(text: &[u8], mut store: impl FnMut(usize, u64)) -> Result<usize, Fault> {
    if matches!(text, b"" | b"\n") {
        return Err(Fault::at(Reason::Empty, 0));
    }
    // Without its line feed, the last number may be a part of one.
    let Some((b'\n', mut rest)) = text.split_last() else {
        return Err(Fault::at(Reason::MissingColumns, 1));
    };
    let mut count = 0;
    while !rest.is_empty() {
        // The fifth value is the second half of "running/total".
        let number = match (count, rest) {
            (4, [b'/', number @ ..]) => number,
            (4, _) => return Err(Fault::at(Reason::MissingColumns, 1)),
            (0, number) | (_, [b' ', number @ ..]) => skip_any_blanks(number),
            _ => return Err(Fault::at(Reason::NotANumber, 1)),
        };
        if count == MAX_VALUES {
            return Err(Fault::at(Reason::SurplusColumns, 1));
        }
        let scan = if count < 3 { hundredths } else { any_unsigned };
        let (value, behind) = scan(number).map_err(|reason| Fault::at(reason, 1))?;
        store(count, value);
        count += 1;
        rest = behind;
    }
    if count < VALUES { Err(Fault::at(Reason::MissingColumns, 1)) } else { Ok(count) }
}
