//! The last text of a file, line by line: a line that is the same again says the same again, and
//! need not be read. Most of `/proc` does not change from one sample to the next, and comparing
//! bytes is many times cheaper than reading numbers. What a line means is for others.

use super::scan::strip_prefix;

/// Bytes that are compared together.
const BLOCK: usize = 32;
const WORD: usize = size_of::<u64>();

/// A text and where its lines end.
#[derive(Default)]
pub(super) struct Previous {
    text: Vec<u8>,
    /// Behind each line's line feed.
    ends: Vec<u32>,
}

impl Previous {
    /// Room for so much; never more, so that nothing allocates later.
    pub fn with_room(bytes: usize, lines: usize) -> Previous {
        Previous { text: Vec::with_capacity(bytes), ends: Vec::with_capacity(lines) }
    }

    /// From now on there is no last text.
    pub fn forget(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Adds a whole line, without its line feed, to the last text. One that there is no room for
    /// makes it forget all.
    #[inline]
    pub fn add(&mut self, line: &[u8]) {
        let has_room = self.text.capacity() - self.text.len() > line.len();
        if !has_room || self.ends.len() == self.ends.capacity() {
            self.forget();
            return;
        }
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        self.ends.push(self.text.len() as u32);
    }

    /// The last text; empty if there is none.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Makes `text` the last text, if it is the one before in all but single lines: `changed`
    /// gets the number of each that differs, the line as it was, and the text from there on. It
    /// returns the length of the new line with its line feed, or `None` if it is not the same
    /// line with other numbers.
    ///
    /// Returns whether it is; if not, what is remembered is of no use any more.
    #[inline]
    pub fn update(
        &mut self,
        text: &[u8],
        mut changed: impl FnMut(usize, &[u8], &[u8]) -> Option<usize>,
    ) -> bool {
        // Or an empty text would be the same as the one that there was no room to remember.
        if self.ends.is_empty() {
            return false;
        }
        // Where line `line` begins in the new text and in the last one.
        let (mut new, mut old, mut line) = (0, 0, 0);
        let mut first_change = None;
        let mut moves = Moves::default();
        loop {
            let same = common(&text[new..], &self.text[old..]);
            if new + same == text.len() && old + same == self.text.len() {
                break;
            }
            let differs_at = old + same;
            let mut end;
            loop {
                let Some(ends) = self.ends.get(line) else { return false };
                end = *ends as usize;
                if end > differs_at {
                    break;
                }
                (new, old, line) = (new + (end - old), end, line + 1);
            }
            first_change.get_or_insert(new);
            // Where one line has changed the next one often has, too.
            loop {
                let Some(bytes) = changed(line, &self.text[old..end], &text[new..]) else {
                    return false;
                };
                if bytes != end - old {
                    moves.line_becomes(line, end, new + bytes, &mut self.ends);
                }
                (new, old, line) = (new + bytes, end, line + 1);
                match self.ends.get(line) {
                    Some(next) => end = *next as usize,
                    None => break,
                }
                let Some(rest) = text.get(new..) else { return false };
                if strip_prefix(rest, &self.text[old..end]).is_some() {
                    break;
                }
            }
        }
        moves.end(&mut self.ends);
        if let Some(first) = first_change {
            self.remember(text, first);
        }
        true
    }

    /// Takes over a text that differs from byte `from` on.
    #[inline]
    fn remember(&mut self, text: &[u8], from: usize) {
        if text.len() > self.text.capacity() {
            // What was made of it is right, but the next text will have to be read as a whole.
            self.forget();
            return;
        }
        self.text.truncate(from);
        self.text.extend_from_slice(&text[from..]);
    }
}

/// How far the ends of lines have moved, as far as they have not been told.
#[derive(Default)]
struct Moves {
    /// The first line whose end is still that of the last text.
    from: usize,
    /// To be added to the ends from there on, modulo 2^32.
    by: u32,
}

impl Moves {
    /// The end of `line` moves, and all behind it with it.
    #[cold]
    fn line_becomes(&mut self, line: usize, end: usize, new_end: usize, ends: &mut [u32]) {
        self.tell(&mut ends[..line]);
        (self.from, self.by) = (line, (new_end as u32).wrapping_sub(end as u32));
    }

    fn end(mut self, ends: &mut [u32]) {
        self.tell(ends);
    }

    fn tell(&mut self, ends: &mut [u32]) {
        if self.by != 0 {
            ends[self.from..].iter_mut().for_each(|end| *end = end.wrapping_add(self.by));
        }
    }
}

/// How many bytes both begin with.
#[inline]
fn common(one: &[u8], other: &[u8]) -> usize {
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str, room: usize) -> Previous {
        let mut previous = Previous::with_room(room, 8);
        text.lines().for_each(|line| previous.add(line.as_bytes()));
        previous
    }

    /// Updates, and lists the lines that were asked for; a line goes on if it begins alike.
    fn update(previous: &mut Previous, text: &str) -> (bool, Vec<usize>) {
        let mut asked = Vec::new();
        let is_same = previous.update(text.as_bytes(), |line, old, new| {
            asked.push(line);
            let end = new.iter().position(|byte| *byte == b'\n')? + 1;
            (old[0] == new[0]).then_some(end)
        });
        (is_same, asked)
    }

    #[test]
    fn only_lines_that_differ_are_asked_for() {
        let mut previous = of("a 1\nb 22\nc 3\n", 100);
        assert_eq!(update(&mut previous, "a 1\nb 22\nc 3\n"), (true, vec![]));
        assert_eq!(update(&mut previous, "a 1\nb 23\nc 3\n"), (true, vec![1]));
        assert_eq!(update(&mut previous, "a 1\nb 23\nc 3\n"), (true, vec![]), "remembered");
        assert_eq!(update(&mut previous, "a 100\nb 2\nc 3\n"), (true, vec![0, 1]));
        assert_eq!(update(&mut previous, "a 100\nb 2\nc 33\n"), (true, vec![2]));
        assert_eq!(update(&mut previous, "a 100\nb 2\nc 33\n"), (true, vec![]));
        for other in ["", "a 100\n", "a 100\nb 2\n", "a 100\nx 2\nc 33\n", "a 100\nb 2\nc 33\nd\n"]
        {
            let mut previous = of("a 100\nb 2\nc 33\n", 100);
            assert!(!update(&mut previous, other).0, "{other:?}");
        }
    }

    #[test]
    fn a_line_without_room_is_not_remembered() {
        let mut previous = of("a 1\nb 2\n", 8);
        assert_eq!(update(&mut previous, "a 1\nb 3\n"), (true, vec![1]));
        assert!(
            update(&mut previous, "a 1\nb 30\n").0,
            "all lines are the same with other numbers"
        );
        assert_eq!(previous.text(), b"");
        assert!(!update(&mut previous, "a 1\nb 30\n").0);
        assert_eq!(of("a 1\nb 20\n", 8).text(), b"");
        assert_eq!(update(&mut of("", 8), "a 1\n"), (false, vec![]));
        assert_eq!(update(&mut of("a 1\nb 20\n", 8), ""), (false, vec![]), "nothing is no text");
    }

    proptest! {
        #[test]
        fn an_update_ends_with_the_new_text(
            texts in prop::collection::vec(prop::collection::vec(0_u64..2000, 40), 1..6),
        ) {
            let text_of = |numbers: &Vec<u64>| -> String {
                numbers.iter().enumerate().map(|(line, number)| format!("{line} {number}\n")).collect()
            };
            let mut previous = Previous::with_room(4096, 64);
            text_of(&texts[0]).lines().for_each(|line| previous.add(line.as_bytes()));
            let mut values = texts[0].clone();
            for numbers in &texts {
                let text = text_of(numbers);
                let is_same = previous.update(text.as_bytes(), |line, _, new| {
                    let end = new.iter().position(|byte| *byte == b'\n')?;
                    let shown = std::str::from_utf8(&new[..end]).ok()?;
                    values[line] = shown.split(' ').nth(1)?.parse().ok()?;
                    Some(end + 1)
                });
                prop_assert!(is_same);
                prop_assert_eq!(&previous.text, text.as_bytes());
                prop_assert_eq!(&values, numbers);
            }
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
