//! Tests of the ring as a whole: against its format's page, written and read back, damaged. What
//! they share with those that read a ring while it is written is in `rig`.

mod damage;
mod format;
#[path = "../../../tests/common/rig.rs"]
mod rig;
mod round_trip;
mod verdicts;

use super::header::description_check;
use super::layout::Layout;
use super::{Header, MIN_INTERVAL_NS, Ring, Segment};
use crate::sync::Ordering;
use crate::units::{Bytes, Seq, Slot, Words};
use rig::*;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

fn open(bytes: Vec<u8>) -> Result<Ring, super::RingError> {
    Ring::new(Box::new(bytes), Path::new("ring"))
}

fn word_at(bytes: &[u8], index: usize) -> u64 {
    u64::from_ne_bytes(bytes[index * 8..][..8].try_into().unwrap())
}

fn set_word(bytes: &mut [u8], index: usize, word: u64) {
    bytes[index * 8..][..8].copy_from_slice(&word.to_ne_bytes());
}
