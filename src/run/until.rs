//! Writing a file for no longer than somebody waits for it. What has begun by then is ended by the disk
//! alone.

use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

/// A file that is written to until a deadline, if there is one.
pub(super) struct Until<'a> {
    /// Where it goes.
    pub out: &'a mut File,
    /// Without it there is all the time in the world.
    pub deadline: Option<Instant>,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let what =
                "there are too many samples to be written while the end of the run is waited for";
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_is_written_from_the_deadline_on() {
        let mut file = tempfile::tempfile().unwrap();
        let mut write = |deadline| Until { out: &mut file, deadline }.write_all(b"two!");
        let now = Instant::now();
        write(None).unwrap();
        write(Some(now + Duration::from_secs(3600))).unwrap();
        assert_eq!(write(Some(now)).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(file.metadata().unwrap().len(), 8);
    }
}
