//! What the mirror asks of a file system, as a trait, so that tests bring a medium that loses what
//! was not synced. Nothing here knows what is written.

use super::storage::check_free;
use super::watch;
use crate::place;
use crate::ring::{Blocks, allocate, punch, reserve};
use crate::units::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A directory for the segments of one run.
pub trait Disk {
    /// A file in it.
    type File: DiskFile;

    /// Creates a file of `bytes` zeros that must not exist; on an error nothing is left.
    ///
    /// # Errors
    /// The kernel's, `StorageFull` among them.
    fn create(&self, name: &str, bytes: Bytes) -> io::Result<Self::File>;

    /// Removes a file, if its name still leads to it and not to what others have put there; what cannot be
    /// removed stays for `recover`.
    fn remove(&self, name: &str, file: &Self::File);

    /// What others have done to a file of ours of `bytes`, whatever is in it, and whether it still is
    /// there to be written to.
    fn damage(&self, name: &str, file: &Self::File, bytes: Bytes) -> Option<(&'static str, bool)>;

    /// Makes durable which files there are.
    ///
    /// # Errors
    /// The kernel's.
    fn sync(&self) -> io::Result<()>;

    /// For messages.
    fn shown(&self) -> String;
}

/// A file that is written at any place.
pub trait DiskFile {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The kernel's.
    fn write_at(&self, bytes: &[u8], offset: Bytes) -> io::Result<()>;

    /// Fills `bytes` with what is there.
    ///
    /// # Errors
    /// The kernel's, `UnexpectedEof` if the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: Bytes) -> io::Result<()>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// The kernel's. What was written since the last success may be lost even if a later call
    /// succeeds (fsync(2), "EIO").
    fn sync_data(&self) -> io::Result<()>;

    /// Makes durable what was written and that the file is as long as it is.
    ///
    /// # Errors
    /// As [`sync_data`](Self::sync_data).
    fn sync_all(&self) -> io::Result<()>;

    /// Makes it `bytes` long again, if it is shorter, with room for all of it.
    ///
    /// # Errors
    /// The kernel's.
    fn extend(&self, bytes: Bytes) -> io::Result<()>;

    /// Gives back blocks that hold only zeros.
    fn punch(&self, from: Bytes, end: Bytes);
}

/// A directory of the kernel's.
pub struct Dir(pub PathBuf);

impl Disk for Dir {
    type File = File;

    fn create(&self, name: &str, bytes: Bytes) -> io::Result<File> {
        check_free(&self.0, bytes)?;
        allocate(&self.0.join(name), bytes, Blocks::Reserved)
    }

    fn remove(&self, name: &str, file: &File) {
        let _ = place::remove_file_if(&self.0.join(name), file);
    }

    fn damage(&self, name: &str, file: &File, bytes: Bytes) -> Option<(&'static str, bool)> {
        let what = watch::damage(file, &self.0.join(name), bytes)?;
        Some((what, what == watch::CUT_OFF))
    }

    fn sync(&self) -> io::Result<()> {
        place::sync_with_parents(&self.0)
    }

    fn shown(&self) -> String {
        self.0.display().to_string()
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: Bytes) -> io::Result<()> {
        self.write_all_at(bytes, offset.0)
    }

    fn read_at(&self, bytes: &mut [u8], offset: Bytes) -> io::Result<()> {
        self.read_exact_at(bytes, offset.0)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn extend(&self, bytes: Bytes) -> io::Result<()> {
        if self.metadata()?.len() < bytes.0 { reserve(self, bytes) } else { Ok(()) }
    }

    fn punch(&self, from: Bytes, end: Bytes) {
        punch(self, from, end);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_removed_only_as_long_as_its_name_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (Dir(dir.path().to_owned()), dir.path().join("00000.ring"));
        let file = disk.create("00000.ring", Bytes(512)).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        fs::write(&path, "theirs").unwrap();
        disk.remove("00000.ring", &file);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        fs::rename(dir.path().join("moved"), &path).unwrap();
        disk.remove("00000.ring", &file);
        assert!(!path.exists());
    }
}
