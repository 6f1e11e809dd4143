//! Lists in brackets, `node[001-016,020]`: where they begin and end, and the names that they stand
//! for. How many there are and how long they are is known before one is made.

use super::Wrong;

/// Brackets in brackets in ...
pub(super) const MAX_DEPTH: usize = 4;
/// Digits of a number in a range: fits a `u64`.
const MAX_DIGITS: usize = 18;

/// Splits where `is_end` says, but not within brackets.
pub(super) fn split(text: &str, is_end: impl Fn(char) -> bool) -> Result<Vec<&str>, Wrong> {
    let mut parts = Vec::new();
    let (mut depth, mut begin) = (0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.checked_sub(1).ok_or(Wrong::Unopened)?,
            c if depth == 0 && is_end(c) => {
                parts.push(&text[begin..at]);
                begin = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    if depth == 0 { Ok(parts) } else { Err(Wrong::Unclosed) }
}

/// A name with lists in it: its parts, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Pattern<'t>(Vec<Part<'t>>);

#[derive(Debug)]
enum Part<'t> {
    Text(&'t str),
    /// Any of these.
    List(Vec<Element<'t>>),
}

#[derive(Debug)]
enum Element<'t> {
    Pattern(Pattern<'t>),
    /// Numbers from the first to the last, of at least `width` digits.
    Range {
        first: u64,
        last: u64,
        width: usize,
    },
}

impl<'t> Pattern<'t> {
    /// Understands brackets; every other character is taken as it is.
    pub fn parse(text: &'t str) -> Result<Pattern<'t>, Wrong> {
        Pattern::at_depth(text, 0)
    }

    fn at_depth(text: &'t str, depth: usize) -> Result<Pattern<'t>, Wrong> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('[') {
            if depth == MAX_DEPTH {
                return Err(Wrong::TooDeep);
            }
            let (before, list) = (&rest[..open], &rest[open + 1..]);
            let close = closing(list).ok_or(Wrong::Unclosed)?;
            parts.push(Part::Text(checked(before, depth)?));
            let elements = split(&list[..close], |c| c == ',')?;
            let elements = elements.into_iter().map(|text| Element::parse(text.trim(), depth + 1));
            parts.push(Part::List(elements.collect::<Result<_, _>>()?));
            rest = &list[close + 1..];
        }
        parts.push(Part::Text(checked(rest, depth)?));
        Ok(Pattern(parts))
    }

    /// How many names it stands for; saturates.
    pub fn count(&self) -> usize {
        let counts = self.0.iter().map(|part| match part {
            Part::Text(_) => 1,
            Part::List(elements) => {
                elements.iter().map(Element::count).fold(0, usize::saturating_add)
            }
        });
        counts.fold(1, usize::saturating_mul)
    }

    /// Characters of the longest name; saturates.
    pub fn longest(&self) -> usize {
        let lengths = self.0.iter().map(|part| match part {
            Part::Text(text) => text.chars().count(),
            Part::List(elements) => elements.iter().map(Element::longest).max().unwrap_or(0),
        });
        lengths.fold(0, usize::saturating_add)
    }

    /// The names, the last list changing fastest. Whoever asks has looked at [`count`](Self::count)
    /// and [`longest`](Self::longest).
    pub fn expand(&self) -> Vec<String> {
        let mut names = vec![String::new()];
        for part in &self.0 {
            match part {
                Part::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                Part::List(elements) => {
                    let endings: Vec<String> =
                        elements.iter().flat_map(|element| element.expand()).collect();
                    let with = |name: &String, ending: &String| format!("{name}{ending}");
                    names = names
                        .iter()
                        .flat_map(|name| endings.iter().map(move |ending| with(name, ending)))
                        .collect();
                }
            }
        }
        names
    }
}

impl<'t> Element<'t> {
    fn parse(text: &'t str, depth: usize) -> Result<Element<'t>, Wrong> {
        if text.is_empty() {
            return Err(Wrong::EmptyElement);
        }
        let strange = || Wrong::Range(text.to_owned());
        let number = |digits: &str| {
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            let digits = (is_number && digits.len() <= MAX_DIGITS).then_some(digits);
            digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or_else(strange)
        };
        let Some((from, to)) = text.split_once('-').filter(|_| !text.contains('[')) else {
            return Ok(Element::Pattern(Pattern::at_depth(text, depth)?));
        };
        let (first, last) = (number(from)?, number(to)?);
        let is_padded = |digits: &str| digits.len() > 1 && digits.starts_with('0');
        // 01-100 is clear: as long as the first, or as it must be.
        if (is_padded(to) && from.len() != to.len()) || (is_padded(from) && to.len() < from.len()) {
            return Err(Wrong::Padding(text.to_owned()));
        }
        if first > last {
            return Err(Wrong::Backwards(text.to_owned()));
        }
        Ok(Element::Range { first, last, width: from.len() })
    }

    fn count(&self) -> usize {
        match self {
            Element::Pattern(pattern) => pattern.count(),
            Element::Range { first, last, .. } => {
                usize::try_from(last - first).unwrap_or(usize::MAX).saturating_add(1)
            }
        }
    }

    fn longest(&self) -> usize {
        match self {
            Element::Pattern(pattern) => pattern.longest(),
            Element::Range { last, width, .. } => {
                let digits = last.checked_ilog10().map_or(1, |log| log as usize + 1);
                digits.max(*width)
            }
        }
    }

    fn expand(&self) -> Vec<String> {
        match self {
            Element::Pattern(pattern) => pattern.expand(),
            Element::Range { first, last, width } => {
                (*first..=*last).map(|number| format!("{number:0width$}")).collect()
            }
        }
    }
}

/// Where the bracket before `list` is closed.
fn closing(list: &str) -> Option<usize> {
    let mut depth = 0_usize;
    list.char_indices().find_map(|(at, c)| {
        match c {
            '[' => depth += 1,
            ']' if depth == 0 => return Some(at),
            ']' => depth -= 1,
            _ => {}
        }
        None
    })
}

/// Text between brackets: in brackets a sign is a range's, `node[a-c]` is a mistake.
fn checked(text: &str, depth: usize) -> Result<&str, Wrong> {
    if text.contains(']') {
        return Err(Wrong::Unopened);
    }
    if depth > 0 && text.contains('-') {
        return Err(Wrong::Range(text.to_owned()));
    }
    Ok(text)
}
