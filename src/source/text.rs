//! A kernel file that is kept open and read again and again into a buffer that somebody else
//! allocated. It knows nothing of what the text says.

use crate::fault::{Fault, Reason};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest text that is read. The largest file of a host of 10,000 devices is a tenth of it.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// One file of `/proc`.
pub struct KeptFile {
    path: PathBuf,
    file: Option<File>,
}

/// Why there is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoText {
    /// The kernel refused, now; the next sample tries again.
    Fault(Fault),
    /// The buffer is full: there may be more.
    BufferFull,
}

impl KeptFile {
    /// A file that is opened when it is first read, or as soon as that is possible.
    pub fn new(path: PathBuf) -> Self {
        KeptFile { path, file: None }
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file from its beginning to its end.
    ///
    /// `seq_file` returns about a page for each read, so a short read is not the end; only a read
    /// of nothing is (`Documentation/filesystems/seq_file.rst`, `fs/seq_file.c`).
    ///
    /// # Errors
    /// [`NoText`].
    #[inline]
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b [u8], NoText> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                // Does not wait for a pipe that somebody has put there.
                let mut options = File::options();
                options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
                let opened = options.open(&self.path);
                self.file.insert(opened.map_err(|error| NoText::Fault(Fault::Open(errno(&error))))?)
            }
        };
        let mut filled = 0;
        loop {
            let room = &mut buffer[filled..];
            if room.is_empty() {
                return Err(NoText::BufferFull);
            }
            match file.read_at(room, filled as u64) {
                Ok(0) => return Ok(&buffer[..filled]),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Opened anew for the next sample: what is behind the name may be another.
                    self.file = None;
                    return Err(NoText::Fault(Fault::Read(errno(&error))));
                }
            }
        }
    }

    /// Reads the whole file, growing `buffer` as need be, up to [`MAX_TEXT_BYTES`].
    ///
    /// # Errors
    /// What the kernel refused, or that the file is too long.
    pub fn read_growing<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Fault> {
        loop {
            match self.read(buffer).map(<[u8]>::len) {
                Ok(length) => return Ok(&buffer[..length]),
                Err(NoText::Fault(fault)) => return Err(fault),
                Err(NoText::BufferFull) if buffer.len() >= MAX_TEXT_BYTES => {
                    return Err(Fault::at(Reason::TooLong, 0));
                }
                Err(NoText::BufferFull) => {
                    buffer.resize((buffer.len() * 2).clamp(16 << 10, MAX_TEXT_BYTES), 0);
                }
            }
        }
    }
}

fn errno(error: &io::Error) -> u16 {
    error.raw_os_error().and_then(|errno| errno.try_into().ok()).unwrap_or(u16::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_whole_and_again_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = KeptFile::new(path.clone());
        let mut buffer = vec![0; 8];
        assert_eq!(file.read(&mut buffer), Err(NoText::Fault(Fault::Open(2))), "not there yet");
        std::fs::write(&path, "1234567").unwrap();
        assert_eq!(file.read(&mut buffer), Ok(&b"1234567"[..]));
        std::fs::write(&path, "12345678").unwrap();
        assert_eq!(file.read(&mut buffer), Err(NoText::BufferFull));
        assert_eq!(file.read_growing(&mut buffer), Ok(&b"12345678"[..]));
        let mut directory = KeptFile::new(dir.path().to_owned());
        assert_eq!(directory.read(&mut buffer), Err(NoText::Fault(Fault::Read(21))));
    }

    #[test]
    fn the_kernels_files_take_more_than_one_read() {
        let mut buffer = Vec::new();
        let mut file = KeptFile::new("/proc/kallsyms".into());
        let length = file.read_growing(&mut buffer).unwrap().len();
        assert!(length > 8192, "{length} bytes: more than one page is what this is about");
        assert_eq!(&buffer[length - 1..length], b"\n");
    }
}
