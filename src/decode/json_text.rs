//! Pieces of JSON text, appended to a buffer: white space, numbers, strings, times. Each is what
//! serde_json writes for the same value; it knows nothing of samples.

use chrono::{DateTime, Datelike, Timelike};
use std::io::{self, Write};

/// Bytes that are collected before they are written: no more than the nearer caches hold.
const FULL_BYTES: usize = 128 << 10;

/// Text on its way out. What is appended to `text` is written when there is enough of it, at the
/// next [`settle`](Self::settle).
pub(super) struct Buffer<'a> {
    pub text: Vec<u8>,
    out: &'a mut dyn Write,
}

impl<'a> Buffer<'a> {
    /// An empty one in front of `out`.
    pub fn new(out: &'a mut dyn Write) -> Buffer<'a> {
        Buffer { text: Vec::with_capacity(FULL_BYTES + FULL_BYTES / 4), out }
    }

    /// Writes what there is, if it is enough.
    #[inline]
    pub fn settle(&mut self) -> io::Result<()> {
        if self.text.len() >= FULL_BYTES { self.write_out() } else { Ok(()) }
    }

    #[cold]
    fn write_out(&mut self) -> io::Result<()> {
        self.out.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }
}

impl Write for Buffer<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        self.settle()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.out.flush()
    }
}

/// White space between values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A line for each, two spaces for each level.
    Indented,
    /// None.
    Compact,
}

impl Style {
    /// What stands before a value so many levels deep.
    pub fn line(self, depth: usize) -> String {
        match self {
            Style::Indented => format!("\n{}", "  ".repeat(depth)),
            Style::Compact => String::new(),
        }
    }

    /// What stands between a key and its value.
    pub fn colon(self) -> &'static str {
        match self {
            Style::Indented => ": ",
            Style::Compact => ":",
        }
    }
}

/// A string in quotes.
pub(super) fn string(text: &mut Vec<u8>, value: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(text, value)?)
}

/// An integer.
#[inline]
pub(super) fn integer(text: &mut Vec<u8>, value: impl itoa::Integer) {
    text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Up to here all decimals of two or three digits are the shortest that stand for their float.
const EXACT: u64 = 1_000_000_000_000_000;

/// `value / 100`, as the float that it is.
pub(super) fn hundredths(text: &mut Vec<u8>, value: u64) -> io::Result<()> {
    decimal::<2>(text, value, 100)
}

/// `value / 1000`, as the float that it is.
pub(super) fn thousandths(text: &mut Vec<u8>, value: u64) -> io::Result<()> {
    decimal::<3>(text, value, 1000)
}

fn decimal<const DIGITS: usize>(text: &mut Vec<u8>, value: u64, unit: u64) -> io::Result<()> {
    if value >= EXACT {
        return Ok(serde_json::to_writer(text, &(value as f64 / unit as f64))?);
    }
    integer(text, value / unit);
    text.push(b'.');
    let mut digits = [b'0'; DIGITS];
    let mut rest = value % unit;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    let shown = digits.iter().rposition(|digit| *digit != b'0').map_or(1, |last| last + 1);
    text.extend_from_slice(&digits[..shown]);
    Ok(())
}

/// `YYYY-MM-DDTHH:MM:SSZ`, UTC.
pub(super) fn timestamp(wall_ns: u64) -> String {
    let mut text = Vec::new();
    push_timestamp(&mut text, wall_ns);
    String::from_utf8(text).unwrap_or_default()
}

/// The same, appended.
pub(super) fn push_timestamp(text: &mut Vec<u8>, wall_ns: u64) {
    let seconds = i64::try_from(wall_ns / 1_000_000_000).unwrap_or(i64::MAX);
    // Every u64 of ns is before the year 2555.
    let Some(time) = DateTime::from_timestamp(seconds, 0) else { return };
    let year = time.year().unsigned_abs();
    let two = |number: u32| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
    let parts = [
        (year / 100, ""),
        (year, "-"),
        (time.month(), "-"),
        (time.day(), "T"),
        (time.hour(), ":"),
        (time.minute(), ":"),
        (time.second(), "Z"),
    ];
    for (number, behind) in parts {
        text.extend_from_slice(&two(number % 100));
        text.extend_from_slice(behind.as_bytes());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut text = Vec::new();
        write(&mut text);
        String::from_utf8(text).unwrap()
    }

    fn assert_decimals(value: u64) {
        let hundredth = serde_json::to_string(&(value as f64 / 100.0)).unwrap();
        assert_eq!(written(|text| hundredths(text, value).unwrap()), hundredth, "{value}");
        let thousandth = serde_json::to_string(&(value as f64 / 1000.0)).unwrap();
        assert_eq!(written(|text| thousandths(text, value).unwrap()), thousandth, "{value}");
    }

    #[test]
    fn small_decimals_and_those_at_the_bound_are_serdes() {
        (0..20_000).for_each(assert_decimals);
        (EXACT - 2000..EXACT + 2000).for_each(assert_decimals);
        (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit]).for_each(assert_decimals);
        assert_decimals(u64::MAX);
    }

    proptest! {
        #[test]
        fn decimals_are_serdes(word: u64, bits in 0..64_u32) {
            assert_decimals(word >> bits);
        }

        #[test]
        fn integers_and_strings_are_serdes(word: u64, name: String) {
            let signed = word.cast_signed();
            prop_assert_eq!(written(|text| integer(text, word)), serde_json::to_string(&word).unwrap());
            prop_assert_eq!(
                written(|text| integer(text, signed)), serde_json::to_string(&signed).unwrap()
            );
            prop_assert_eq!(
                written(|text| string(text, &name).unwrap()), serde_json::to_string(&name).unwrap()
            );
        }

        #[test]
        fn times_are_chronos(wall_ns: u64) {
            let time = DateTime::from_timestamp_nanos((wall_ns >> 1).cast_signed());
            let expected = time.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            prop_assert_eq!(timestamp(wall_ns >> 1), expected);
        }
    }

    #[test]
    fn the_first_and_the_last_time_there_is() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399_999_999_999), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(u64::MAX), "2554-07-21T23:34:33Z");
    }

    #[test]
    fn text_goes_out_when_there_is_enough_and_at_the_end() {
        let mut out = Vec::new();
        let mut buffer = Buffer::new(&mut out);
        let mut expected = Vec::new();
        for number in 0..50_000 {
            integer(&mut buffer.text, number);
            integer(&mut expected, number);
            buffer.settle().unwrap();
            assert!(buffer.text.len() < FULL_BYTES);
        }
        buffer.write_all(b"end").unwrap();
        buffer.flush().unwrap();
        expected.extend_from_slice(b"end");
        assert_eq!(out, expected);
    }
}
