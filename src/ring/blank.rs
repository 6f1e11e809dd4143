//! Whether a file that cannot be read as a ring was ever begun as one. Reads; knows nothing of why it
//! could not be read.

use super::layout::{HEADER_BYTES, MAGIC};
use super::reader::ReadAt;
use std::io;

/// Bytes that are looked at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Whether `bytes` are a ring whose writer was killed before it had written the header: there is
/// nothing in them that is a name or a record. Only the magic is written behind all the rest of the
/// head, so a file that begins with zeros may have fields of the header and a description; but a
/// description is text, and where it ends there is nothing more. The first name or commit word has
/// zeros in it and something behind them.
///
/// # Errors
/// The device's.
pub(crate) fn is_blank(bytes: &dyn ReadAt) -> io::Result<bool> {
    let mut magic = [0; 8];
    bytes.read_at(&mut magic, 0)?;
    if magic != [0; 8] {
        return Ok(false);
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut offset, mut is_text) = (HEADER_BYTES.0, true);
    loop {
        let count = bytes.read_at(&mut chunk, offset)?;
        if count == 0 {
            return Ok(true);
        }
        let mut rest = &chunk[..count];
        if is_text {
            let end = rest.iter().position(|byte| *byte == 0);
            is_text = end.is_none();
            rest = &rest[end.unwrap_or(count)..];
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += count as u64;
    }
}

/// Whether `bytes` begin as a ring does, of either byte order, or as one that was not begun, or is empty.
pub(crate) fn may_be_ring(bytes: &dyn ReadAt) -> bool {
    let mut magic = [0; 8];
    let read = bytes.read_at(&mut magic, 0);
    // What cannot be read may be anything.
    read.is_err() || [0, MAGIC, MAGIC.swap_bytes()].contains(&u64::from_ne_bytes(magic))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ring::{Header, Layout, MIN_INTERVAL_NS, RingWriter, Segment, description_check};
    use crate::sync::{AtomicU64, Ordering};
    use crate::units::{Seq, Words};
    use std::sync::Arc;
    use uuid::Uuid;

    /// A ring as its file has it, with what `then` puts into it.
    fn ring(then: impl FnOnce(&RingWriter<Vec<AtomicU64>>)) -> Vec<u8> {
        // Up to the last byte of a page.
        let description = vec![b' '; HEADER_BYTES.0 as usize];
        let layout = Layout::new(HEADER_BYTES, 4, Words(40), 2).unwrap();
        let header = Header {
            layout,
            description_check: description_check(&description),
            max_samples: 1,
            run_id: Uuid::from_u128(7),
            segment: 0,
            first_seq: Seq(0),
            start_wall_ns: 1,
            start_monotonic_ns: 2,
            interval_ns: MIN_INTERVAL_NS,
            boot_id: Uuid::from_u128(5),
        };
        let words = layout.file_bytes().words().0;
        let memory: Arc<Vec<AtomicU64>> = Arc::new((0..words).map(|_| AtomicU64::new(0)).collect());
        let segment = Segment::create(memory.clone(), header, &description).unwrap();
        then(&RingWriter::new(Arc::new(segment)));
        memory.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }

    #[test]
    fn a_head_that_was_never_finished_is_blank_and_a_name_or_a_record_is_not() {
        let begun = ring(|_| {});
        let named = ring(|ring| {
            ring.add_entry(0, 0, Seq(0), b"sda").unwrap();
        });
        let busy = ring(|ring| _ = ring.begin(Seq(0)).unwrap());
        let is_blank = |bytes: &[u8]| is_blank(&bytes.to_vec()).unwrap();
        assert!(!is_blank(&begun), "it has its magic");
        // What a kill leaves of a head that is written from its last word to its first, and what a
        // disk may lose of it.
        for zeroed in [8, 16, 64, 256, 4096] {
            for (bytes, expected) in [(&begun, true), (&named, false), (&busy, false)] {
                let mut bytes = bytes.clone();
                bytes[..zeroed].fill(0);
                assert_eq!(is_blank(&bytes), expected, "{zeroed}");
            }
        }
        assert!(is_blank(&[]) && is_blank(&[0; 100]) && is_blank(&[0; 10_000]));
    }
}
