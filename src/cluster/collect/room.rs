//! What the directory of one host may still take: all that is in it counts, whenever it came and whoever
//! asks for more. And under which name a ring stays that was here when the host had another.

use super::{CollectError, PART};
use crate::cluster::protocol::MAX_FILES;
use crate::place::Place;
use crate::ring::Ring;
use std::io;
use std::path::Path;

/// Before the name of a file that was here when the host had another, with a number behind it if there
/// is one already.
const EARLIER: &str = "earlier-";

/// Bytes and files beside those that are here or listed.
pub(super) struct Room {
    bytes: u64,
    files: usize,
}

impl Room {
    /// What is left of `most` bytes for a host that lists these, by their names here. What it had begun
    /// to send and does not list any more, or not so long, is removed.
    ///
    /// # Errors
    /// [`CollectError::TooLarge`]: then nothing is changed.
    pub fn beside(
        place: &Place,
        listed: &[(String, u64)],
        most: u64,
    ) -> Result<Room, CollectError> {
        let mut files = listed.len();
        let mut found = listed.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        if files > MAX_FILES {
            return Err(CollectError::TooLarge { found, files, most });
        }
        for (name, bytes) in listed {
            // The longer one may be what stays.
            found = found.saturating_add(length(place, name)?.saturating_sub(*bytes));
        }
        let listed_bytes =
            |name: &str| listed.iter().find(|(other, _)| other == name).map(|(_, bytes)| *bytes);
        let mut begun = Vec::new();
        for name in place.names()? {
            let here = length(place, &name)?;
            match name.strip_suffix(PART) {
                Some(whole) if listed_bytes(whole).is_some_and(|bytes| here <= bytes) => {}
                Some(_) => begun.push(name),
                None if listed_bytes(&name).is_some() => {}
                None => {
                    found = found.saturating_add(here);
                    files += 1;
                }
            }
        }
        if found > most || files > MAX_FILES {
            return Err(CollectError::TooLarge { found, files, most });
        }
        for name in begun {
            place.remove(&name)?;
        }
        Ok(Room { bytes: most - found, files: MAX_FILES - files })
    }

    /// A new name for a file that is to stay beside the one that takes its own, if there is room for
    /// both, of which the smaller one has `bytes`.
    pub fn keep(&mut self, place: &Place, name: &str, bytes: u64) -> io::Result<Option<String>> {
        let left = (self.bytes.checked_sub(bytes), self.files.checked_sub(1));
        let (Some(bytes), Some(files)) = left else { return Ok(None) };
        (self.bytes, self.files) = (bytes, files);
        let there = place.names()?;
        let earlier = |number: usize| match number {
            1 => format!("{EARLIER}{name}"),
            _ => format!("{EARLIER}{number}-{name}"),
        };
        Ok((1..=MAX_FILES).map(earlier).find(|earlier| !there.contains(earlier)))
    }
}

/// Of a file; 0 if there is none.
fn length(place: &Place, name: &str) -> io::Result<u64> {
    match place.read(name) {
        Ok(file) => Ok(file.metadata()?.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Samples of a ring that can be read. If its head cannot be, that of `copy` serves.
pub(super) fn samples(place: &Place, name: &str, copy: &str) -> u64 {
    let open = |name: &str| Ring::new(Box::new(place.read(name).ok()?), Path::new(name)).ok();
    let with_head_of_copy = || {
        let (file, copy) = (place.read(name).ok()?, open(copy)?);
        let (header, description) = (copy.header().clone(), copy.description().ok()?);
        Some(Ring::with_head(Box::new(file), Path::new(name), header, description))
    };
    let ring = open(name).or_else(with_head_of_copy);
    ring.and_then(|ring| ring.scan().ok()).map_or(0, |scan| scan.valid)
}
