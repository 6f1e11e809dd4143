//! What the segments of a run have noted: each sentence once, in bounded memory. A ring may come from
//! anywhere, and may have megabytes of them.

use indexmap::IndexSet;

/// How many are kept of one host.
const MAX_NOTES: usize = 1000;
/// Bytes of text that are kept of one host.
pub(super) const MAX_NOTES_BYTES: usize = 1 << 18;

/// In the order in which they were first met.
#[derive(Default)]
pub(super) struct Notes {
    kept: IndexSet<String>,
    bytes: usize,
    has_more: bool,
}

impl Notes {
    /// Adds those of a segment, and leaves it only what is kept of them.
    pub fn take_in(&mut self, of_segment: &mut Vec<String>) {
        of_segment.retain(|note| self.add(note));
        of_segment.shrink_to_fit();
    }

    /// Whether it is kept.
    pub fn add(&mut self, note: &str) -> bool {
        if self.kept.contains(note) {
            return true;
        }
        let bytes = self.bytes.saturating_add(note.len());
        if self.kept.len() >= MAX_NOTES || bytes > MAX_NOTES_BYTES {
            self.has_more = true;
            return false;
        }
        self.bytes = bytes;
        self.kept.insert(note.to_owned())
    }

    /// The first of them, in that many bytes; the last sentence then says if there were more.
    pub fn sentences(&self, most_bytes: usize) -> Vec<String> {
        let mut left = most_bytes;
        let fits = |note: &&String| {
            let rest = left.checked_sub(note.len());
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let mut sentences: Vec<String> = self.kept.iter().take_while(fits).cloned().collect();
        if self.has_more || sentences.len() < self.kept.len() {
            sentences
                .push("more was noted than is shown here: the rings have all of it".to_owned());
        }
        sentences
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MORE: &str = "more was noted than is shown here: the rings have all of it";

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn each_is_kept_once_in_the_order_of_the_segments() {
        let mut notes = Notes::default();
        for segment in [&["a", "b"][..], &["b", "c", "a"]] {
            let mut of_segment = strings(segment);
            notes.take_in(&mut of_segment);
            assert_eq!(of_segment, strings(segment), "nothing is left out");
        }
        assert_eq!(notes.sentences(3), strings(&["a", "b", "c"]));
        assert_eq!(notes.sentences(2), strings(&["a", "b", MORE]));
        assert_eq!(notes.sentences(0), strings(&[MORE]));
    }

    #[test]
    fn neither_many_nor_long_ones_are_kept_without_bound() {
        let mut many = Notes::default();
        let mut of_segment: Vec<String> =
            (0..MAX_NOTES + 1).map(|number| number.to_string()).collect();
        many.take_in(&mut of_segment);
        assert_eq!(of_segment.len(), MAX_NOTES);
        let sentences = many.sentences(MAX_NOTES_BYTES);
        assert_eq!((sentences.len(), &*sentences[MAX_NOTES]), (MAX_NOTES + 1, MORE));

        let mut long = Notes::default();
        let mut of_segment = ["a", "b", "c"].map(|text| text.repeat(MAX_NOTES_BYTES / 2)).to_vec();
        long.take_in(&mut of_segment);
        assert_eq!(of_segment.len(), 2);
        let sentences = long.sentences(MAX_NOTES_BYTES);
        assert_eq!((sentences.len(), &*sentences[2]), (3, MORE));
        let mut fits_no_more = Notes::default();
        assert!(!fits_no_more.add(&"a".repeat(MAX_NOTES_BYTES + 1)));
        assert!(fits_no_more.add("b"), "shorter ones behind it are kept");
    }
}
