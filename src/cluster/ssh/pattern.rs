//! The patterns of `ssh_config(5)` and `sshd(8)`: `*`, `?`, lists with commas, negation.

/// Whether all of `text` matches `pattern`, in which `*` is any text and `?` any one byte. Takes at
/// most the product of both lengths.
pub fn matches(text: &[u8], pattern: &[u8]) -> bool {
    let [mut at, mut of] = [0, 0];
    // Where the last `*` was, and where in the text its match ends.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(of) {
            Some(b'*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[at] => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((star_of, star_at)) = star else { return false };
                star = Some((star_of, star_at + 1));
                [at, of] = [star_at + 1, star_of + 1];
            }
        }
    }
    pattern[of..].iter().all(|&byte| byte == b'*')
}

/// What a list of patterns says of `text`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// By at least one pattern, and none that is negated.
    Yes,
    /// By a negated pattern: whatever else is there does not count.
    Negated,
    No,
}

/// Looks `text` up in patterns, each of which `!` may precede.
pub fn listed<'p>(text: &[u8], patterns: impl IntoIterator<Item = &'p [u8]>) -> Listed {
    let mut found = Listed::No;
    for pattern in patterns {
        match pattern.strip_prefix(b"!") {
            Some(pattern) if matches(text, pattern) => return Listed::Negated,
            None if matches(text, pattern) => found = Listed::Yes,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_openssh_has_it() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "*", true),
            ("", "?", false),
            ("node1", "node1", true),
            ("node1", "node", false),
            ("node1", "node?", true),
            ("node12", "node?", false),
            ("node12", "n*1*", true),
            ("a.b.c", "*.c", true),
            ("a.b.cc", "*.c", false),
            ("abab", "*ab", true),
            ("[h]:2", "[h]:*", true),
        ] {
            assert_eq!(matches(text.as_bytes(), pattern.as_bytes()), expected, "{text} {pattern}");
        }
        let list =
            |text: &str, list: &str| listed(text.as_bytes(), list.split(',').map(str::as_bytes));
        assert_eq!(list("a", "b,a"), Listed::Yes);
        assert_eq!(list("a", "*,!a"), Listed::Negated);
        assert_eq!(list("a", "!b"), Listed::No);
        assert_eq!(list("c", "!b,*"), Listed::Yes);
    }

    #[test]
    fn many_stars_take_no_longer_than_the_product() {
        let text = vec![b'a'; 10_000];
        let pattern = [b"*a".repeat(500), b"b".to_vec()].concat();
        assert!(!matches(&text, &pattern));
    }
}
