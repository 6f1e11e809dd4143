//! Scanning of numbers, names and lines in `/proc` text. Pure functions over bytes: no I/O, no
//! allocation, no panic on any input. What a line means is for the sources.

use crate::fault::Reason;

/// Digits, or blanks, that are looked at together.
const CHUNK: usize = 8;
/// Bytes that are compared together.
const BLOCK: usize = 32;
const WORD: usize = size_of::<u64>();
/// Eight times one byte.
const EACH: u64 = 0x0101_0101_0101_0101;
/// What the digits before so many others count for.
const TENS: [u64; CHUNK] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Reads an unsigned decimal number; returns it with what follows.
///
/// # Errors
/// [`Reason::NotANumber`] if `text` does not begin with a digit, [`Reason::NumberTooLarge`].
#[inline(always)]
pub fn unsigned(text: &[u8]) -> Result<(u64, &[u8]), Reason> {
    if let Some(chunk) = text.first_chunk::<CHUNK>() {
        let (value, digits) = leading_digits(*chunk);
        if (1..CHUNK).contains(&digits) {
            return Ok((value, &text[digits..]));
        }
    }
    any_unsigned(text)
}

/// The number that the first digits of `chunk` are, and how many there are; of none it is nonsense.
#[inline(always)]
fn leading_digits(chunk: [u8; CHUNK]) -> (u64, usize) {
    let values = u64::from_le_bytes(chunk) ^ (EACH * u64::from(b'0'));
    // The high bit of a byte tells that it is above 9. A carry only reaches bytes behind the first
    // of those, which do not count.
    let others = (values.wrapping_add(EACH * 0x76) | values) & (EACH * 0x80);
    let digits = others.trailing_zeros() / 8;
    // The digits at the high end, zeros before them: as if all eight were digits.
    let values = values.wrapping_shl(64 - 8 * digits);
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_FFFF_0000_FFFF;
    let value = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF;
    (value, digits as usize)
}

/// As [`unsigned`], but in a place of its own, for where numbers are few; and what that has no short way
/// for: a long number, or one where the text ends soon.
///
/// # Errors
/// As [`unsigned`].
#[inline(never)]
pub fn any_unsigned(text: &[u8]) -> Result<(u64, &[u8]), Reason> {
    if let Some((high, behind)) = text.split_first_chunk::<CHUNK>()
        && let Some(low) = behind.first_chunk::<CHUNK>()
        && let (high, CHUNK) = leading_digits(*high)
        && let (low, digits) = leading_digits(*low)
        && let Some(tens) = TENS.get(digits)
    {
        return Ok((high * tens + if digits == 0 { 0 } else { low }, &behind[digits..]));
    }
    let mut value = 0_u64;
    let mut rest = text;
    while let [digit @ b'0'..=b'9', behind @ ..] = rest {
        let shifted =
            value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit - b'0')));
        value = shifted.ok_or(Reason::NumberTooLarge)?;
        rest = behind;
    }
    if rest.len() == text.len() { Err(Reason::NotANumber) } else { Ok((value, rest)) }
}

/// Reads a number that may have a minus sign, as two's complement; returns it with what follows.
///
/// # Errors
/// As [`unsigned`]; a number that an `i64` does not hold is too large.
#[inline(never)]
pub fn signed(text: &[u8]) -> Result<(u64, &[u8]), Reason> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (magnitude, rest) = any_unsigned(digits)?;
    let value =
        if negative { 0_i64.checked_sub_unsigned(magnitude) } else { magnitude.try_into().ok() };
    Ok((value.ok_or(Reason::NumberTooLarge)?.cast_unsigned(), rest))
}

/// Reads a number with exactly two decimals, as the kernel prints load averages, in hundredths.
///
/// # Errors
/// As [`unsigned`].
pub fn hundredths(text: &[u8]) -> Result<(u64, &[u8]), Reason> {
    let (whole, rest) = any_unsigned(text)?;
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
#[inline(always)]
pub fn skip_blanks(text: &[u8]) -> &[u8] {
    let Some((chunk, _)) = text.split_first_chunk::<CHUNK>() else { return skip_any_blanks(text) };
    let others = u64::from_le_bytes(*chunk) ^ (EACH * u64::from(b' '));
    let spaces = (others.trailing_zeros() / 8) as usize;
    match chunk.get(spaces) {
        Some(byte) if *byte != b'\t' => &text[spaces..],
        _ => skip_any_blanks(text),
    }
}

/// The same in a place of its own.
#[inline(never)]
pub fn skip_any_blanks(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let [b' ' | b'\t', after @ ..] = rest {
        rest = after;
    }
    rest
}

/// What follows `prefix`, if `text` begins with it. As `strip_prefix`, but without a call for
/// prefixes of 4 to 32 bytes, which most names are.
#[inline(always)]
pub fn strip_prefix<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    let same = match prefix.len() {
        4..8 => ends_are_same::<4>(head, prefix),
        8..=16 => ends_are_same::<8>(head, prefix),
        17..=32 => ends_are_same::<16>(head, prefix),
        _ => return strip_long_prefix(text, prefix),
    };
    same.then_some(rest)
}

/// The same for one of any length.
#[inline]
pub fn strip_long_prefix<'t>(text: &'t [u8], prefix: &[u8]) -> Option<&'t [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    (common(head, prefix) == prefix.len()).then_some(rest)
}

/// How many bytes both begin with.
#[inline(never)]
pub fn common(one: &[u8], other: &[u8]) -> usize {
    let blocks = one.as_chunks::<BLOCK>().0.iter().zip(other.as_chunks::<BLOCK>().0);
    let same = blocks.take_while(|(one, other)| one == other).count() * BLOCK;
    let (one, other) = (&one[same..], &other[same..]);
    let words = one.as_chunks::<WORD>().0.iter().zip(other.as_chunks::<WORD>().0);
    let mut behind = 0;
    for (one, other) in words {
        let differs = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differs != 0 {
            return same + behind + (differs.trailing_zeros() / 8) as usize;
        }
        behind += WORD;
    }
    let bytes = one[behind..].iter().zip(&other[behind..]);
    same + behind + bytes.take_while(|(one, other)| one == other).count()
}

/// Stores `new` over `line`, which is as long. As `copy_from_slice`, but without a call.
#[inline(always)]
pub fn overwrite(line: &mut [u8], new: &[u8]) {
    match line.len() {
        8..=16 => overwrite_ends::<8>(line, new),
        17.. => {
            let chunks = line.as_chunks_mut::<16>().0.iter_mut().zip(new.as_chunks().0);
            chunks.for_each(|(chunk, new)| *chunk = *new);
            overwrite_ends::<16>(line, new);
        }
        _ => line.iter_mut().zip(new).for_each(|(byte, new)| *byte = *new),
    }
}

/// Whether the first and the last `N` bytes are the same.
#[inline(always)]
fn ends_are_same<const N: usize>(one: &[u8], other: &[u8]) -> bool {
    one.first_chunk::<N>() == other.first_chunk() && one.last_chunk::<N>() == other.last_chunk()
}

/// Stores the first and the last `N` bytes.
#[inline(always)]
fn overwrite_ends<const N: usize>(line: &mut [u8], new: &[u8]) {
    if let (Some(first), Some(new)) = (line.first_chunk_mut::<N>(), new.first_chunk()) {
        *first = *new;
    }
    if let (Some(last), Some(new)) = (line.last_chunk_mut::<N>(), new.last_chunk()) {
        *last = *new;
    }
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

    /// So many bytes, each of which is another than those around it.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| b'0' + at as u8).collect()
    }

    #[test]
    fn a_prefix_of_any_length_is_compared_in_every_byte() {
        for length in 0..70 {
            let prefix = bytes(length);
            let text = [&prefix[..], b" rest"].concat();
            assert!(text.starts_with(&prefix));
            for strip in [strip_prefix, strip_long_prefix] {
                assert_eq!(strip(&text, &prefix), Some(&b" rest"[..]), "{length}");
                assert_eq!(strip(&prefix, &prefix), Some(&b""[..]), "{length}");
                for at in 0..length {
                    for bit in 0..8 {
                        let mut other = text.clone();
                        other[at] ^= 1 << bit;
                        assert!(!other.starts_with(&prefix));
                        assert_eq!(strip(&other, &prefix), None, "{length}, {at}");
                    }
                    assert_eq!(strip(&text[..at], &prefix), None, "{length}, cut off at {at}");
                }
            }
        }
    }

    #[test]
    fn a_line_of_any_length_is_overwritten_in_every_byte() {
        for length in 0..70 {
            let was = bytes(length);
            for changed in (0..length).map(Some).chain([None]) {
                let mut new = was.clone();
                match changed {
                    Some(at) => new[at] ^= 0x80,
                    None => new.iter_mut().for_each(|byte| *byte ^= 0x80),
                }
                // Nothing beside it is touched.
                let mut text = [b"before", &was[..], b"behind"].concat();
                let mut expected = text.clone();
                overwrite(&mut text[6..6 + length], &new);
                expected[6..6 + length].copy_from_slice(&new);
                assert_eq!(text, expected, "{length}, {changed:?}");
            }
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

        #[test]
        fn what_both_begin_with_is_found(
            (one, at, to) in prop::collection::vec(any::<u8>(), 1..200)
                .prop_flat_map(|one| { let length = one.len(); (Just(one), 0..length, any::<u8>()) }),
        ) {
            let mut other = one.clone();
            other[at] = to;
            let naive = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
            prop_assert_eq!(common(&one, &other), naive);
            prop_assert_eq!(common(&one, &other[..at]), at);
        }
    }
}
