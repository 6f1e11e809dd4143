#![doc = include_str!("FORMAT.md")]

mod blank;
mod checksum;
mod dictionary;
mod file;
mod guard;
mod header;
mod layout;
mod map;
mod orderings;
mod reader;
mod slot;
mod writer;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub use dictionary::Entry;
pub use file::{Blocks, allocate, allocate_nameless, punch, reserve};
pub use header::description_check;
pub use header::{BadHeader, FIELDS, Header, MAX_INTERVAL_NS, MAX_SEGMENTS, MIN_INTERVAL_NS};
pub use layout::{BadLayout, FORMAT_VERSION, Layout, MAX_ENTRIES, MAX_SLOT_WORDS};
pub use map::{Memory, WordMap};
pub use reader::{ReadAt, Ring, RingError, Scan};
pub use slot::{Draft, SlotState};
pub use writer::{RingWriter, Segment};

// For the test of readers beside a writer.
#[doc(hidden)]
pub use layout::SLOT_HEAD_WORDS;
#[doc(hidden)]
pub use slot::judge;

pub(crate) use blank::{is_blank, may_be_ring};
pub(crate) use dictionary::read as read_entry;
pub(crate) use guard::let_through;
pub(crate) use layout::{ENTRY_WORDS, HEADER_BYTES};
pub(crate) use reader::{OwnWords, open};
