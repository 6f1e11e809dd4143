//! A kernel file that is kept open and read again and again into a buffer that somebody else
//! allocated. It knows nothing of what the text says.

use super::scan::strip_prefix;
use crate::fault::{Fault, Reason};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest text that is read. The largest file of a host of 10,000 devices is a tenth of it.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// The least that `seq_file` has room for at a time: a page, the smallest there is.
const SEQ_BUFFER_BYTES: usize = 4096;

/// How the kernel makes the text of a file, as far as it tells that a read was the last one.
///
/// `seq_file` writes whole records to a buffer of a page or more, until there is none left or the
/// next one does not fit, and a read returns that (`fs/seq_file.c`, `seq_read_iter`). So the end
/// is certain without another read, which costs about as much as parsing what it follows, where
/// the next record would have fitted for sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// All is one record (`single_open`); the buffer grows until it fits.
    One,
    /// None is longer than so many bytes, whatever the host.
    UpTo(u16),
    /// Lines that begin with a name, always the same ones in the same order until the kernel is
    /// another: the last one is the last, once a text was read to its end.
    Fixed,
    /// They may be of any length, as a disk with all its partitions.
    Unbounded,
}

/// One file of `/proc`.
pub struct KeptFile {
    path: Box<Path>,
    records: Records,
    file: Option<Opened>,
}

struct Opened {
    file: OwnedFd,
    /// `Unbounded` for a file that is not the kernel's own, such as one of lxcfs.
    records: Records,
    /// Of [`Records::Fixed`], the name on the last line and the blank behind it; empty until that
    /// is known.
    last_name: Box<[u8]>,
}

impl Opened {
    /// Whether nothing can follow `text`, whose last `count` bytes a read has returned into more
    /// room.
    #[inline]
    fn is_over(&self, text: &[u8], count: usize) -> bool {
        match self.records {
            Records::One => true,
            Records::UpTo(longest) => count + usize::from(longest) <= SEQ_BUFFER_BYTES,
            Records::Fixed => {
                !self.last_name.is_empty()
                    && strip_prefix(last_line(text), &self.last_name).is_some()
            }
            Records::Unbounded => false,
        }
    }

    /// The whole `text` was read, to its end.
    #[inline]
    fn learn(&mut self, text: &[u8]) {
        if self.records == Records::Fixed && self.last_name.is_empty() {
            self.learn_last_name(text);
        }
    }

    #[cold]
    fn learn_last_name(&mut self, text: &[u8]) {
        let line = last_line(text);
        let end = line.iter().position(|byte| *byte == b' ').map_or(0, |blank| blank + 1);
        self.last_name = line[..end].into();
    }
}

/// The last line, if it has its line feed, without that; else nothing.
#[inline]
fn last_line(text: &[u8]) -> &[u8] {
    let Some(whole) = text.strip_suffix(b"\n") else { return &[] };
    let begin = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    &whole[begin..]
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
    pub fn new(path: PathBuf, records: Records) -> Self {
        KeptFile { path: path.into(), records, file: None }
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file from its beginning to its end.
    ///
    /// `seq_file` returns about a page for each read, so a short read is not the end; only a read
    /// of nothing is (`Documentation/filesystems/seq_file.rst`), or what [`Records`] says.
    ///
    /// # Errors
    /// [`NoText`].
    #[inline]
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b [u8], NoText> {
        let opened = match &mut self.file {
            Some(opened) => opened,
            None => self.file.insert(open(&self.path, self.records)?),
        };
        let mut filled = 0;
        loop {
            let room = &mut buffer[filled..];
            if room.is_empty() {
                return Err(NoText::BufferFull);
            }
            let room_bytes = room.len();
            match rustix::io::pread(&opened.file, room, filled as u64) {
                Ok(0) => {
                    opened.learn(&buffer[..filled]);
                    return Ok(&buffer[..filled]);
                }
                Ok(count) => {
                    filled += count;
                    if count < room_bytes && opened.is_over(&buffer[..filled], count) {
                        return Ok(&buffer[..filled]);
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    // Opened anew for the next sample: what is behind the name may be another.
                    self.file = None;
                    return Err(NoText::Fault(Fault::Read(errno(&error.into()))));
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

#[cold]
fn open(path: &Path, records: Records) -> Result<Opened, NoText> {
    // Does not wait for a pipe that somebody has put there.
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open(path).map_err(|error| NoText::Fault(Fault::Open(errno(&error))))?;
    let of_kernel =
        rustix::fs::fstatfs(&file).is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC);
    let records = if of_kernel { records } else { Records::Unbounded };
    Ok(Opened { file: file.into(), records, last_name: Box::default() })
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
        let mut file = KeptFile::new(path.clone(), Records::One);
        let mut buffer = vec![0; 8];
        assert_eq!(file.read(&mut buffer), Err(NoText::Fault(Fault::Open(2))), "not there yet");
        std::fs::write(&path, "1234567").unwrap();
        assert_eq!(file.read(&mut buffer), Ok(&b"1234567"[..]));
        std::fs::write(&path, "12345678").unwrap();
        assert_eq!(file.read(&mut buffer), Err(NoText::BufferFull));
        assert_eq!(file.read_growing(&mut buffer), Ok(&b"12345678"[..]));
        let mut directory = KeptFile::new(dir.path().to_owned(), Records::One);
        assert_eq!(directory.read(&mut buffer), Err(NoText::Fault(Fault::Read(21))));
    }

    #[test]
    fn a_fixed_list_ends_with_the_line_that_it_once_ended_with() {
        let file = File::open("/proc/self/maps").unwrap();
        let mut opened =
            Opened { file: file.into(), records: Records::Fixed, last_name: Box::default() };
        assert!(!opened.is_over(b"a 1\nb 2\n", 8), "nothing is known yet");
        opened.learn(b"a 1\nb 2\n");
        assert!(opened.is_over(b"a 100\nb 2345\n", 13));
        for part in ["", "a 1\n", "b 2", "a 1\nbb 2\n", "a 1\nb 2\nc 3\n"] {
            assert!(!opened.is_over(part.as_bytes(), part.len()), "{part:?}");
        }
        // A second text changes nothing: only the first was probed.
        opened.learn(b"a 1\n");
        assert!(opened.is_over(b"b 2\n", 4));
    }

    #[test]
    fn vmstat_is_whole_whether_its_end_was_known_or_not() {
        let mut buffer = vec![0; 64 << 10];
        let names = |text: &[u8]| -> Vec<String> {
            let text = String::from_utf8_lossy(text);
            text.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
        };
        let expected = names(&std::fs::read("/proc/vmstat").unwrap());
        let mut file = KeptFile::new("/proc/vmstat".into(), Records::Fixed);
        for _ in 0..3 {
            assert_eq!(names(file.read(&mut buffer).unwrap()), expected);
        }
    }

    #[test]
    fn the_kernels_files_take_more_than_one_read() {
        let mut buffer = Vec::new();
        let mut file = KeptFile::new("/proc/kallsyms".into(), Records::Unbounded);
        let length = file.read_growing(&mut buffer).unwrap().len();
        assert!(length > 8192, "{length} bytes: more than one page is what this is about");
        assert_eq!(&buffer[length - 1..length], b"\n");
    }
}
