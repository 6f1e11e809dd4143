//! The last text of a file, line by line: a line that is the same again says the same again, and
//! need not be read. Most of `/proc` does not change from one sample to the next, and comparing
//! bytes is many times cheaper than reading numbers. What a line means is for others.

use super::scan::{common, overwrite, strip_prefix};

/// Gets the number of a line, the line as it was, and the new text from there on; see
/// [`Previous::update`].
pub(super) type Changed<'a> = dyn FnMut(usize, &[u8], &[u8]) -> Option<usize> + 'a;

/// A text and where its lines end.
#[derive(Default)]
pub(super) struct Previous {
    text: Vec<u8>,
    /// Bytes of each line with its line feed.
    lengths: Vec<u16>,
}

impl Previous {
    /// Room for so much; never more, so that nothing allocates later.
    pub fn with_room(bytes: usize, lines: usize) -> Previous {
        Previous { text: Vec::with_capacity(bytes), lengths: Vec::with_capacity(lines) }
    }

    /// From now on there is no last text.
    pub fn forget(&mut self) {
        self.text.clear();
        self.lengths.clear();
    }

    /// Adds a whole line, without its line feed, to the last text. One that there is no room for, or
    /// of more than 64 kB, makes it forget all.
    #[inline]
    pub fn add(&mut self, line: &[u8]) {
        let has_room = self.text.capacity() - self.text.len() > line.len();
        let length = u16::try_from(line.len() + 1).ok().filter(|_| has_room);
        let Some(length) = length.filter(|_| self.lengths.len() < self.lengths.capacity()) else {
            self.forget();
            return;
        };
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        self.lengths.push(length);
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
    pub fn update(&mut self, text: &[u8], changed: &mut Changed<'_>) -> bool {
        // Or an empty text would be the same as the one that there was no room to remember.
        if self.lengths.is_empty() {
            return false;
        }
        // Where line `line` begins in the new text and in the last one.
        let (mut new, mut old, mut line) = (0, 0, 0);
        let mut first_moved = None;
        loop {
            let Some(rest) = text.get(new..) else { return false };
            let same = common(rest, &self.text[old..]);
            if new + same == text.len() && old + same == self.text.len() {
                break;
            }
            let differs_at = old + same;
            let mut end;
            loop {
                let Some(length) = self.lengths.get(line) else { return false };
                end = old + usize::from(*length);
                if end > differs_at {
                    break;
                }
                (new, old, line) = (new + usize::from(*length), end, line + 1);
            }
            // Where one line has changed the next one often has, too.
            loop {
                let (line_was, rest) = (&mut self.text[old..end], &text[new..]);
                let Some(bytes) = changed(line, line_was, rest) else { return false };
                if bytes != end - old {
                    let Ok(length) = bytes.try_into() else { return false };
                    self.lengths[line] = length;
                    first_moved.get_or_insert(new);
                } else if first_moved.is_none() {
                    overwrite(line_was, &rest[..bytes]);
                }
                (new, old, line) = (new + bytes, end, line + 1);
                let Some(length) = self.lengths.get(line) else { break };
                end = old + usize::from(*length);
                let Some(rest) = text.get(new..) else { return false };
                if strip_prefix(rest, &self.text[old..end]).is_some() {
                    break;
                }
            }
        }
        if let Some(first) = first_moved {
            self.remember(text, first);
        }
        true
    }

    /// Takes over a text that differs from byte `from` on.
    #[cold]
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
        let is_same = previous.update(text.as_bytes(), &mut |line, old, new| {
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

    /// The length of a line, with its line feed, is kept in 16 bits.
    #[test]
    fn lines_are_remembered_up_to_64_kb() {
        let line =
            |bytes: usize, digit: char| format!("a {}\n", digit.to_string().repeat(bytes - 2));
        for (bytes, is_remembered) in [(65_534, true), (65_535, false), (65_536, false)] {
            let (was, now) = (line(bytes, '1'), line(bytes, '2'));
            assert_eq!(was.len(), bytes + 1);
            let mut previous = of(&format!("b 1\n{was}c 1\n"), 200_000);
            // Whoever adds lines sees that they are not all there.
            assert_eq!(previous.text().len(), if is_remembered { bytes + 1 + 8 } else { 4 });
            let (before, after) = (format!("b 1\n{was}c 1\n"), format!("b 1\n{now}c 1\n"));
            assert_eq!(update(&mut previous, &before).0, is_remembered, "{bytes}");
            let updated = update(&mut previous, &after);
            assert_eq!(updated.0, is_remembered, "{bytes}");
            if is_remembered {
                assert_eq!((updated.1, previous.text()), (vec![1], after.as_bytes()));
            }
        }
        // One that grows past that.
        for (bytes, is_remembered) in [(65_534, true), (65_535, false)] {
            let mut previous = of("b 1\na 1\n", 200_000);
            let grown = format!("b 1\n{}", line(bytes, '1'));
            assert_eq!(update(&mut previous, &grown), (is_remembered, vec![1]), "{bytes}");
            if is_remembered {
                assert_eq!(previous.text(), grown.as_bytes());
            }
        }
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
                let is_same = previous.update(text.as_bytes(), &mut |line, _, new| {
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
    }
}
