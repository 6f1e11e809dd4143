//! Scanning of numbers, names and lines in `/proc` text. Pure functions over bytes: no I/O, no
//! allocation, no panic on any input. What a line means is for the sources.

use crate::fault::Reason;

/// Most decimal digits that always fit 64 bits.
const SAFE_DIGITS: usize = 19;

/// Reads an unsigned decimal number; returns it with what follows.
///
/// # Errors
/// [`Reason::NotANumber`] if `text` does not begin with a digit, [`Reason::NumberTooLarge`].
#[inline]
pub fn unsigned(text: &[u8]) -> Result<(u64, &[u8]), Reason> {
    let mut value = 0_u64;
    let mut digits = 0;
    while let Some(digit) = text.get(digits).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        digits += 1;
    }
    let (number, rest) = text.split_at(digits);
    match digits {
        0 => Err(Reason::NotANumber),
        1..=SAFE_DIGITS => Ok((value, rest)),
        _ => Ok((long_unsigned(number)?, rest)),
    }
}

#[cold]
fn long_unsigned(digits: &[u8]) -> Result<u64, Reason> {
    digits.iter().try_fold(0_u64, |value, byte| {
        value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(byte - b'0')))
            .ok_or(Reason::NumberTooLarge)
    })
}

/// Reads a number that may have a minus sign, as two's complement; returns it with what follows.
///
/// # Errors
/// As [`unsigned`]; a number that an `i64` does not hold is too large.
pub fn signed(text: &[u8]) -> Result<(u64, &[u8]), Reason> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (magnitude, rest) = unsigned(digits)?;
    let value =
        if negative { 0_i64.checked_sub_unsigned(magnitude) } else { magnitude.try_into().ok() };
    Ok((value.ok_or(Reason::NumberTooLarge)?.cast_unsigned(), rest))
}

/// Reads a number with exactly two decimals, as the kernel prints load averages, in hundredths.
///
/// # Errors
/// As [`unsigned`].
pub fn hundredths(text: &[u8]) -> Result<(u64, &[u8]), Reason> {
    let (whole, rest) = unsigned(text)?;
    let [b'.', tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] = rest else {
        return Err(Reason::NotANumber);
    };
    if rest.first().is_some_and(u8::is_ascii_digit) {
        return Err(Reason::NotANumber);
    }
    let fraction = u64::from(tens - b'0') * 10 + u64::from(ones - b'0');
    let value = whole.checked_mul(100).and_then(|value| value.checked_add(fraction));
    Ok((value.ok_or(Reason::NumberTooLarge)?, rest))
}

/// Skips spaces and tabs.
#[inline]
pub fn skip_blanks(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let [b' ' | b'\t', after @ ..] = rest {
        rest = after;
    }
    rest
}

/// The bytes up to the next blank or the end, and what follows.
pub fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(text.len());
    text.split_at(end)
}

/// Lines without their line feed; a last line without one counts too.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let nothing = text.is_empty();
    text.split(|byte| *byte == b'\n').filter(move |_| !nothing)
}

/// The lines that have their line feed, and what follows the last one. The kernel ends each line
/// with one: what follows was cut, and its last number may be a part of one.
pub fn split_unended(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    text.split_at(end)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_at_their_limits() {
        assert_eq!(unsigned(b"0 x"), Ok((0, &b" x"[..])));
        assert_eq!(unsigned(b"18446744073709551615"), Ok((u64::MAX, &b""[..])));
        assert_eq!(unsigned(b"18446744073709551616"), Err(Reason::NumberTooLarge));
        assert_eq!(unsigned(b"99999999999999999999999"), Err(Reason::NumberTooLarge));
        assert_eq!(unsigned(b"0000000000000000000000007"), Ok((7, &b""[..])));
        for bad in [&b""[..], b" 1", b"-1", b"x"] {
            assert_eq!(unsigned(bad), Err(Reason::NotANumber));
        }
        assert_eq!(signed(b"-9223372036854775808"), Ok((i64::MIN as u64, &b""[..])));
        assert_eq!(signed(b"9223372036854775807"), Ok((i64::MAX as u64, &b""[..])));
        assert_eq!(signed(b"9223372036854775808"), Err(Reason::NumberTooLarge));
        assert_eq!(signed(b"-9223372036854775809"), Err(Reason::NumberTooLarge));
        assert_eq!(signed(b"--1"), Err(Reason::NotANumber));
    }

    #[test]
    fn loads_have_two_decimals_and_nothing_else() {
        assert_eq!(hundredths(b"12.34 x"), Ok((1234, &b" x"[..])));
        assert_eq!(hundredths(b"0.00"), Ok((0, &b""[..])));
        for bad in [&b"1"[..], b"1.", b"1.2", b"1.234", b".50", b"1,50", b"-1.00"] {
            assert_eq!(hundredths(bad), Err(Reason::NotANumber), "{bad:?}");
        }
    }

    #[test]
    fn lines_with_and_without_a_last_line_feed() {
        let collect = |text| lines(text).collect::<Vec<_>>();
        assert_eq!(collect(b"a\nb\n"), [b"a", b"b"]);
        assert_eq!(collect(b"a\nb"), [b"a", b"b"]);
        assert_eq!(collect(b"a\n\nb\n").len(), 3);
        assert!(collect(b"").is_empty() && collect(b"\n").is_empty());
    }

    #[test]
    fn what_follows_the_last_line_feed_is_set_apart() {
        for (text, whole, rest) in
            [("", "", ""), ("a", "", "a"), ("a\n", "a\n", ""), ("a\n\nb", "a\n\n", "b")]
        {
            let (found, behind) = split_unended(text.as_bytes());
            assert_eq!((found, behind), (whole.as_bytes(), rest.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn what_the_kernel_prints_is_what_is_read(value: u64, signed_value: i64) {
            let text = format!("{value}\n");
            prop_assert_eq!(unsigned(text.as_bytes()), Ok((value, &b"\n"[..])));
            let text = format!("{signed_value} ");
            prop_assert_eq!(signed(text.as_bytes()), Ok((signed_value as u64, &b" "[..])));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (unsigned(&bytes), signed(&bytes), hundredths(&bytes), word(&bytes));
            let _ = (skip_blanks(&bytes), lines(&bytes).count());
        }
    }
}
