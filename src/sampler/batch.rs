//! Gathers the records of neighbouring slots and writes them in one piece: a write of its own for each
//! costs the kernel more than the bytes do. Knows nothing of what is in a record, nor which may be
//! written when.

use super::disk::DiskFile;
use crate::units::Bytes;
use std::io;

/// As much as is gathered; a record that is longer is written at once.
const MAX_BYTES: usize = 128 << 10;

/// Records on their way to one file.
pub struct Batch {
    /// From slot to slot.
    stride: u64,
    /// Where the first one belongs.
    offset: Bytes,
    /// With zeros up to the next slot behind each but the last. Never grows: the recorder's memory
    /// is fixed.
    bytes: Vec<u8>,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Batch {
        Batch { stride: 1, offset: Bytes(0), bytes: Vec::with_capacity(MAX_BYTES) }
    }

    /// What follows is for slots of `stride` bytes. Drops what was never flushed.
    pub fn begin(&mut self, stride: Bytes) {
        self.stride = stride.0.max(1);
        self.bytes.clear();
    }

    /// Adds a record of at most a slot's length, or begins anew with it where it is not the next one.
    /// Each that is in the file is told to `written`.
    ///
    /// # Errors
    /// The kernel's, of what was gathered before as well.
    pub fn write_at(
        &mut self,
        file: &impl DiskFile,
        record: &[u8],
        at: Bytes,
        written: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        let slots = (self.bytes.len() as u64).div_ceil(self.stride);
        let next = Bytes(self.offset.0 + slots * self.stride);
        let length = (next.0 - self.offset.0) as usize;
        let fits = at == next && length + record.len() <= MAX_BYTES;
        let flushed = if fits { Ok(()) } else { self.flush(file, written) };
        if record.len() > MAX_BYTES {
            return flushed.and(file.write_at(record, at).map(|()| written(record)));
        }
        if self.bytes.is_empty() {
            self.offset = at;
        } else {
            self.bytes.resize(length, 0);
        }
        self.bytes.extend_from_slice(record);
        flushed
    }

    /// Writes what was gathered. If that is refused each record is written alone, so that one which
    /// cannot be written costs no other. Each that is in the file then is told to `written`.
    ///
    /// # Errors
    /// The first of the kernel's.
    pub fn flush(
        &mut self,
        file: &impl DiskFile,
        written: &mut dyn FnMut(&[u8]),
    ) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let in_one = file.write_at(&self.bytes, self.offset);
        let mut result = Ok(());
        for (record, nth) in self.bytes.chunks(self.stride as usize).zip(0..) {
            let alone = || file.write_at(record, Bytes(self.offset.0 + nth * self.stride));
            let is_there = in_one.as_ref().map_or_else(|_| alone(), |()| Ok(()));
            result = result.and(is_there.map(|()| written(record)));
        }
        self.bytes.clear();
        result
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Refuses what would reach beyond `limit`, and keeps the rest.
    struct Log {
        limit: u64,
        writes: RefCell<Vec<(u64, Vec<u8>)>>,
    }

    impl Log {
        fn new(limit: u64) -> Log {
            Log { limit, writes: RefCell::default() }
        }

        fn take(&self) -> Vec<(u64, Vec<u8>)> {
            self.writes.take()
        }
    }

    impl DiskFile for Log {
        fn write_at(&self, bytes: &[u8], offset: Bytes) -> io::Result<()> {
            if offset.0 + bytes.len() as u64 > self.limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.writes.borrow_mut().push((offset.0, bytes.to_vec()));
            Ok(())
        }

        fn read_at(&self, _: &mut [u8], _: Bytes) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn sync_all(&self) -> io::Result<()> {
            Ok(())
        }

        fn extend(&self, _: Bytes) -> io::Result<()> {
            Ok(())
        }

        fn punch(&self, _: Bytes, _: Bytes) {}
    }

    fn of_stride(stride: u64) -> Batch {
        let mut batch = Batch::new();
        batch.begin(Bytes(stride));
        batch
    }

    #[test]
    fn neighbours_are_written_in_one_piece_and_others_each_where_they_belong() {
        let (log, mut batch) = (Log::new(u64::MAX), of_stride(4));
        for (record, at) in
            [(&b"ab"[..], 100), (b"cdef", 104), (b"g", 108), (b"h", 116), (b"i", 100)]
        {
            batch.write_at(&log, record, Bytes(at), &mut |_| ()).unwrap();
        }
        batch.flush(&log, &mut |_| ()).unwrap();
        batch.flush(&log, &mut |_| ()).unwrap();
        let expected = [(100, &b"ab\0\0cdefg"[..]), (116, b"h"), (100, b"i")];
        assert_eq!(log.take(), expected.map(|(at, bytes)| (at, bytes.to_vec())));
    }

    #[test]
    fn a_record_that_is_refused_costs_no_other() {
        let (log, mut batch) = (Log::new(109), of_stride(4));
        for (record, at) in [(&b"ab"[..], 100), (b"cdef", 104), (b"gh", 108)] {
            batch.write_at(&log, record, Bytes(at), &mut |_| ()).unwrap();
        }
        let mut written = Vec::new();
        let error = batch.flush(&log, &mut |record| written.push(record[0])).unwrap_err();
        assert_eq!(written, b"ac");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let expected = [(100, &b"ab\0\0"[..]), (104, b"cdef")];
        assert_eq!(log.take(), expected.map(|(at, bytes)| (at, bytes.to_vec())));
    }

    #[test]
    fn no_more_than_so_much_is_gathered() {
        let (log, mut batch) = (Log::new(u64::MAX), of_stride(50_000));
        for slot in 0..4 {
            batch.write_at(&log, &[7; 40_000], Bytes(slot * 50_000), &mut |_| ()).unwrap();
        }
        let (large, mut written) = ([7; 300_000], Vec::new());
        let mut tell = |record: &[u8]| written.push(record.len());
        batch.write_at(&log, &large, Bytes(200_000), &mut tell).unwrap();
        assert_eq!(written, [50_000, 40_000, 300_000]);
        batch.flush(&log, &mut |_| ()).unwrap();
        let lengths: Vec<_> = log.take().iter().map(|(at, bytes)| (*at, bytes.len())).collect();
        assert_eq!(lengths, [(0, 90_000), (100_000, 90_000), (200_000, 300_000)]);
        assert_eq!(batch.bytes.capacity(), MAX_BYTES, "it has asked for more");
    }
}
