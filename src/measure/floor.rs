//! The floor: what every recorder must pay. Files kept open and read to their end, and nothing
//! else: in a loop on the caller's thread, or as a process of its own.

use super::MeasureError;
use crate::source::SourceDef;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const BUFFER_BYTES: usize = 64 << 10;

/// Files kept open, and one buffer that all of them are read into.
pub struct Floor {
    files: Vec<File>,
    buffer: Box<[u8]>,
}

impl Floor {
    /// Opens the files of `sources` below `procfs`.
    ///
    /// # Errors
    /// [`MeasureError::Floor`].
    pub fn new(sources: &[&SourceDef], procfs: &Path) -> Result<Floor, MeasureError> {
        let open = |def: &&SourceDef| File::open(procfs.join(def.file));
        let files: io::Result<Vec<File>> = sources.iter().map(open).collect();
        let files = files.map_err(MeasureError::Floor)?;
        Ok(Floor { files, buffer: vec![0; BUFFER_BYTES].into_boxed_slice() })
    }

    /// Reads every file with `pread` until it returns 0; the number of bytes read.
    ///
    /// # Errors
    /// [`MeasureError::Floor`].
    #[inline]
    pub fn read(&mut self) -> Result<u64, MeasureError> {
        let mut total = 0;
        for file in &self.files {
            let mut offset = 0;
            loop {
                match file.read_at(&mut self.buffer, offset) {
                    Ok(0) => break,
                    Ok(count) => offset += count as u64,
                    Err(error) => return Err(MeasureError::Floor(error)),
                }
            }
            total += offset;
        }
        Ok(total)
    }

    /// Reads at each multiple of `interval` from now on, for as long as the process lives. It
    /// sleeps to absolute times, has no other thread, and touches no memory but what it reads with.
    ///
    /// # Errors
    /// [`MeasureError::Floor`].
    pub fn keep_reading(mut self, interval: Duration) -> Result<Infallible, MeasureError> {
        let interval = Timespec {
            tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: interval.subsec_nanos().into(),
        };
        let mut deadline = clock_gettime(ClockId::Monotonic);
        loop {
            self.read()?;
            deadline.tv_sec = deadline.tv_sec.saturating_add(interval.tv_sec);
            deadline.tv_nsec += interval.tv_nsec;
            if deadline.tv_nsec >= 1_000_000_000 {
                deadline.tv_nsec -= 1_000_000_000;
                deadline.tv_sec += 1;
            }
            while clock_nanosleep_absolute(ClockId::Monotonic, &deadline).is_err() {}
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::PROCFS;
    use super::*;
    use crate::source::{SOURCES, find};

    #[test]
    fn every_byte_is_read() {
        // A text of known length: its numbers change, their digits hardly do.
        let mut floor = Floor::new(&[find("loadavg").unwrap()], Path::new(PROCFS)).unwrap();
        let length = std::fs::read("/proc/loadavg").unwrap().len() as u64;
        assert!(floor.read().unwrap().abs_diff(length) <= 8);
        // Longer than what seq_file gives at a time.
        let all = Floor::new(&SOURCES, Path::new(PROCFS)).unwrap().read().unwrap();
        let lengths =
            SOURCES.map(|def| std::fs::read(format!("/proc/{}", def.file)).unwrap().len());
        assert!(all.abs_diff(lengths.iter().sum::<usize>() as u64) < 512, "{all} {lengths:?}");
    }
}
