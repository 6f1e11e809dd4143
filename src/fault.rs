//! The error word: why a source has no (or not all) values in one sample, in 64 bits, so that
//! the sampling path can note it without a string. Encoding and wording only.

use std::fmt;

/// What is wrong with a line of `/proc` text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// A number was expected.
    NotANumber = 1,
    /// The number does not fit 64 bits.
    NumberTooLarge = 2,
    /// Fewer columns than the kernel has ever printed, or than the header names.
    MissingColumns = 3,
    /// More columns than the header names.
    SurplusColumns = 4,
    /// A unit other than `kB`.
    UnknownUnit = 5,
    /// No name where one was expected, or one of more than [`MAX_NAME_BYTES`] bytes.
    BadName = 6,
    /// The header line is missing or not understood.
    BadHeader = 7,
    /// The file is empty.
    Empty = 8,
    /// The file is larger than a recorder will read.
    TooLong = 9,
    /// The same name stands on two lines.
    DuplicateName = 10,
    /// The file changed its layout faster than new segments could follow.
    LayoutChanged = 11,
}

/// Longest name of a counter, device or interface that is recorded, in bytes. The kernel's own
/// limits are 15 for interfaces (`IFNAMSIZ`) and 31 for disks (`DISK_NAME_LEN`) plus a partition.
pub const MAX_NAME_BYTES: usize = 96;

/// The error of one source in one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The file could not be opened; the number is an errno.
    Open(u16),
    /// The file could not be read; the number is an errno.
    Read(u16),
    /// The text was not what the kernel documents, at this line (from 1).
    Parse {
        /// What was wrong.
        reason: Reason,
        /// Line number, from 1; 0 for the whole file.
        line: u32,
    },
    /// This many rows did not fit the record, and no new segment could be begun.
    NoRoom(u32),
}

const OPEN: u64 = 1;
const READ: u64 = 2;
const PARSE: u64 = 3;
const NO_ROOM: u64 = 4;

impl Fault {
    /// The parse fault at `line` (from 1).
    pub fn at(reason: Reason, line: usize) -> Fault {
        Fault::Parse { reason, line: u32::try_from(line).unwrap_or(u32::MAX) }
    }

    /// As an error word: kind in bits 0 to 7, reason or errno in 8 to 31, line or count in 32 to
    /// 63. Never 0, which means "no error".
    pub fn to_word(self) -> u64 {
        match self {
            Fault::Open(errno) => OPEN | u64::from(errno) << 8,
            Fault::Read(errno) => READ | u64::from(errno) << 8,
            Fault::Parse { reason, line } => PARSE | (reason as u64) << 8 | u64::from(line) << 32,
            Fault::NoRoom(rows) => NO_ROOM | u64::from(rows) << 32,
        }
    }

    /// Reads an error word; `None` for 0 and for words that no version has written.
    pub fn from_word(word: u64) -> Option<Fault> {
        let detail = (word >> 8) & 0xff_ffff;
        let count = (word >> 32) as u32;
        match word & 0xff {
            OPEN => Some(Fault::Open(u16::try_from(detail).ok()?)),
            READ => Some(Fault::Read(u16::try_from(detail).ok()?)),
            PARSE => Some(Fault::Parse { reason: Reason::from_number(detail)?, line: count }),
            NO_ROOM => Some(Fault::NoRoom(count)),
            _ => None,
        }
    }

    /// The sentence for the output, naming the file.
    pub fn describe(self, path: &str) -> String {
        match self {
            Fault::Open(errno) => {
                format!("cannot open {path}: {}", std::io::Error::from_raw_os_error(errno.into()))
            }
            Fault::Read(errno) => {
                format!("cannot read {path}: {}", std::io::Error::from_raw_os_error(errno.into()))
            }
            Fault::Parse { reason, line: 0 } => format!("cannot parse {path}: {reason}"),
            Fault::Parse { reason, line } => format!("cannot parse {path}, line {line}: {reason}"),
            Fault::NoRoom(rows) => {
                format!("{path}: {rows} rows did not fit the ring's record and are not recorded")
            }
        }
    }
}

impl Reason {
    const ALL: [Reason; 11] = [
        Reason::NotANumber,
        Reason::NumberTooLarge,
        Reason::MissingColumns,
        Reason::SurplusColumns,
        Reason::UnknownUnit,
        Reason::BadName,
        Reason::BadHeader,
        Reason::Empty,
        Reason::TooLong,
        Reason::DuplicateName,
        Reason::LayoutChanged,
    ];

    fn from_number(number: u64) -> Option<Reason> {
        Self::ALL.into_iter().find(|reason| *reason as u64 == number)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotANumber => "a number was expected",
            Reason::NumberTooLarge => "a number is larger than 64 bits hold",
            Reason::MissingColumns => "columns are missing",
            Reason::SurplusColumns => "there are more columns than the header names",
            Reason::UnknownUnit => "a unit other than kB",
            Reason::BadName => "a name is missing or too long",
            Reason::BadHeader => "the header lines are not the kernel's",
            Reason::Empty => "the file is empty",
            Reason::TooLong => "the file is too long",
            Reason::DuplicateName => "a name stands there twice",
            Reason::LayoutChanged => "the layout of the file changed while it was read",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_survives_its_word() {
        let mut faults = vec![Fault::Open(2), Fault::Read(5), Fault::NoRoom(u32::MAX)];
        faults.extend(Reason::ALL.map(|reason| Fault::at(reason, 4_000_000_000)));
        for fault in faults {
            assert_ne!(fault.to_word(), 0);
            assert_eq!(Fault::from_word(fault.to_word()), Some(fault));
        }
        assert_eq!(Fault::from_word(0), None);
        assert_eq!(Fault::from_word(0xff), None);
    }

    #[test]
    fn the_sentence_names_file_line_and_cause() {
        assert_eq!(
            Fault::Open(2).describe("/proc/vmstat"),
            "cannot open /proc/vmstat: No such file or directory (os error 2)"
        );
        assert_eq!(
            Fault::at(Reason::NotANumber, 3).describe("/proc/vmstat"),
            "cannot parse /proc/vmstat, line 3: a number was expected"
        );
    }
}
