//! The dictionary of one segment as its records are read: entries are fetched as records speak of
//! them, and so many are remembered that no dictionary, however large, fills the memory.

use super::json_text;
use super::survey::text;
use crate::ring::{Entry, Ring};
use crate::units::Seq;
use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

/// Entries that are remembered, at some 250 bytes: more than a host has devices. A record that
/// speaks of more is read as rightly, and more slowly.
const MAX_REMEMBERED: usize = 1 << 15;

/// An entry with its name as every sample shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    entry: Entry,
    /// The name as a JSON string, in quotes.
    pub json: Box<[u8]>,
}

impl Known {
    fn new(entry: Entry) -> Known {
        let mut json = Vec::new();
        // Memory takes it.
        let _ = json_text::string(&mut json, &text(&entry.name));
        Known { entry, json: json.into() }
    }
}

impl Deref for Known {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// What is remembered of the dictionary of a segment: entry number n is in place n modulo
/// [`MAX_REMEMBERED`]. A recorder gives numbers out in turn, so that those in use rarely share one.
#[derive(Default)]
pub(super) struct Remembered(RefCell<Vec<Option<Place>>>);

/// An entry, or that there is none.
#[derive(Clone)]
struct Place {
    entry: u32,
    known: Option<Rc<Known>>,
}

/// The dictionary of a segment, as one record sees it.
pub(super) struct Names<'a> {
    copies: &'a [Ring],
    remembered: &'a Remembered,
    /// The record that speaks of them.
    seq: Seq,
}

impl<'a> Names<'a> {
    /// The names that record `seq` of these copies of a segment speaks of.
    pub fn new(copies: &'a [Ring], remembered: &'a Remembered, seq: Seq) -> Self {
        Names { copies, remembered, seq }
    }

    /// Entry `entry` of source number `source`, from whichever copy has it. One of another source,
    /// or of a later record, is none: no recorder has meant it.
    pub fn get(&self, source: u32, entry: u32) -> Option<Rc<Known>> {
        let mut places = self.remembered.0.borrow_mut();
        let place = entry as usize % MAX_REMEMBERED;
        let found = match places.get(place) {
            Some(Some(there)) if there.entry == entry => there.known.clone(),
            _ => {
                let found = self.copies.iter().find_map(|ring| ring.entry(entry).ok().flatten());
                let found = found.map(|entry| Rc::new(Known::new(entry)));
                if places.len() <= place {
                    places.resize(place + 1, None);
                }
                places[place] = Some(Place { entry, known: found.clone() });
                found
            }
        };
        found.filter(|found| found.source == source && found.first_seq <= self.seq)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_remembered_is_bounded_and_what_was_forgotten_is_read_again() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let copies = [Ring::open(&path).unwrap()];
        let remembered = Remembered::default();
        let names = Names::new(&copies, &remembered, Seq(6));
        let first = names.get(0, 0).unwrap();
        assert_eq!(first.name, b"sda");
        for entry in 0..MAX_REMEMBERED as u32 + 5 {
            let _ = names.get(0, entry);
            assert!(remembered.0.borrow().len() <= MAX_REMEMBERED);
        }
        let in_its_place = remembered.0.borrow()[0].as_ref().unwrap().entry;
        assert_eq!(in_its_place, MAX_REMEMBERED as u32, "entry 0 is forgotten");
        assert_eq!(names.get(0, 0), Some(first));
        assert_eq!(names.get(1, 0), None, "of another source");
    }
}
