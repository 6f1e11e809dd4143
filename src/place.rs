//! A directory held open, and files in it by their bare names: made, read, replaced and removed so
//! that no symbolic link is followed, neither in the place of the directory nor of the file. What
//! holds in a directory that others can write to holds in the others too.

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fstat, mkdirat, openat, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Which file one is, whatever its name. No other is the same as long as somebody holds it open: its number
/// is given to another only when it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    dev: u64,
    ino: u64,
}

impl Identity {
    /// Of an open file or directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(file: &File) -> io::Result<Identity> {
        Ok(Identity::from_stat(&fstat(file)?))
    }

    /// Of what `metadata` is of.
    pub fn of_metadata(metadata: &Metadata) -> Identity {
        Identity { dev: metadata.dev(), ino: metadata.ino() }
    }

    fn from_stat(stat: &rustix::fs::Stat) -> Identity {
        Identity { dev: stat.st_dev, ino: stat.st_ino }
    }
}

/// A directory, whatever becomes of its name.
#[derive(Debug)]
pub(crate) struct Place(File);

impl Place {
    /// Opens a directory; one behind a symbolic link is refused.
    ///
    /// # Errors
    /// The kernel's; `NotADirectory` for a link.
    pub fn open(dir: &Path) -> io::Result<Place> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(rustix::fs::CWD, dir, flags, Mode::empty());
        // Both are what a link there gives, by kernel version (open(2)).
        let opened =
            opened.map_err(|errno| if errno == Errno::LOOP { Errno::NOTDIR } else { errno });
        Ok(Place(opened?.into()))
    }

    /// The directory of `path`, and the name in it.
    ///
    /// # Errors
    /// As [`open`](Self::open); `InvalidInput` for a path that ends in no name.
    pub fn of(path: &Path) -> io::Result<(Place, &str)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok((Place::open(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// The directory itself, to lock or sync.
    pub fn dir(&self) -> &File {
        &self.0
    }

    /// A path to `name` in it that is short, and leads there whatever becomes of the directory's name.
    /// For sockets, whose paths have 107 bytes at most (unix(7)).
    pub fn short_path(&self, name: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// Makes a file that is not there yet, readable by its owner only.
    ///
    /// # Errors
    /// The kernel's; `AlreadyExists` for anything that has the name, a dangling link too.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Opens a plain file that is there, to be read and written.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn append(&self, name: &str) -> io::Result<File> {
        self.open_plain(name, OFlags::RDWR | OFlags::NOFOLLOW)
    }

    /// Gives a file another name in it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    /// Makes a directory for its owner only, if it is not there yet, and opens it.
    ///
    /// # Errors
    /// The kernel's; `NotADirectory` for anything else of that name.
    pub fn dir_in(&self, name: &str) -> io::Result<Place> {
        match mkdirat(&self.0, name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Place(openat(&self.0, name, flags, Mode::empty())?.into()))
    }

    /// Opens a plain file; does not wait for the other end of anything else.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` for what is not a plain file.
    pub fn read(&self, name: &str) -> io::Result<File> {
        self.open_plain(name, OFlags::RDONLY | OFlags::NOFOLLOW)
    }

    /// As [`read`](Self::read), also behind a symbolic link: for a directory in which nobody else can
    /// have put one.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_behind(&self, name: &str) -> io::Result<File> {
        self.open_plain(name, OFlags::RDONLY)
    }

    /// Holds on to whatever has this name, a link itself too, without opening it: nothing is waited for, and
    /// nothing can be read.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hold(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::empty())?.into())
    }

    fn open_plain(&self, name: &str, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, name, flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }

    /// Gives `name` to what `write` writes, once it is synced: a reader sees the old file or the new.
    /// Until then its name begins with `prefix`. The new file.
    ///
    /// # Errors
    /// The kernel's: then nothing has changed.
    pub fn replace(
        &self,
        name: &str,
        prefix: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<File> {
        let temporary = format!("{prefix}.{}", Uuid::now_v7());
        let mut file = self.create(&temporary)?;
        let written = write(&mut file)
            .and_then(|()| file.flush())
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&self.0, temporary.as_str(), &self.0, name)?));
        if let Err(error) = written {
            let _ = self.remove_if(&temporary, &file);
            return Err(error);
        }
        self.0.sync_all()?;
        Ok(file)
    }

    /// Gives whatever has `name` another one, `NAME.not-ringstat`, unless it is one of `own`: so that
    /// nothing of others is in the way of what is to have the name, and nothing of theirs is lost.
    ///
    /// # Errors
    /// The kernel's, `AlreadyExists` if the other name is taken.
    pub fn set_aside(&self, name: &str, own: &[Identity]) -> io::Result<()> {
        let found = match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => Identity::from_stat(&found?),
        };
        if own.contains(&found) {
            return Ok(());
        }
        let aside = format!("{name}.not-ringstat");
        match renameat_with(&self.0, name, &self.0, &*aside, RenameFlags::NOREPLACE) {
            // A file system that cannot promise it.
            Err(Errno::INVAL | Errno::NOSYS)
                if statat(&self.0, &*aside, AtFlags::SYMLINK_NOFOLLOW).err()
                    == Some(Errno::NOENT) =>
            {
                Ok(renameat(&self.0, name, &self.0, &*aside)?)
            }
            renamed => Ok(renamed?),
        }
    }

    /// Removes a file, if its name leads to this one: the one that was looked at, or made. What others
    /// have put in its place meanwhile stays. Whether it was removed.
    ///
    /// Linux removes names and not files: a swap between the last look and the removal, two system calls
    /// on one directory, would go unseen.
    ///
    /// # Errors
    /// The kernel's, `NotFound` if nothing has the name.
    pub fn remove_if(&self, name: &str, file: &File) -> io::Result<bool> {
        self.remove_same(name, file, AtFlags::empty())
    }

    fn remove_same(&self, name: &str, file: &File, flags: AtFlags) -> io::Result<bool> {
        let found = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if Identity::from_stat(&found) != Identity::of(file)? {
            return Ok(false);
        }
        unlinkat(&self.0, name, flags)?;
        Ok(true)
    }

    /// Removes what has this name, whatever it is but a directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// The names in it that are UTF-8.
    ///
    /// # Errors
    /// The kernel's.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

/// Makes the names in a directory durable, and its own, as far up as they are on the same disk:
/// some of these directories may have been made a moment ago. Waits for the disk.
///
/// # Errors
/// The disk's. A directory above that cannot be opened, or whose file system has no such thing, is as
/// durable as it can be.
pub(crate) fn sync_with_parents(dir: &Path) -> io::Result<()> {
    let own = File::open(dir)?;
    own.sync_all()?;
    let disk = own.metadata()?.dev();
    for above in std::fs::canonicalize(dir)?.ancestors().skip(1) {
        let Ok(above) = File::open(above) else { break };
        if above.metadata()?.dev() != disk {
            break;
        }
        match above.sync_all() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP)) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Removes the file at `path`, whose directory is no link either, if that is this one, as
/// [`Place::remove_if`] does.
///
/// # Errors
/// The kernel's.
pub(crate) fn remove_file_if(path: &Path, file: &File) -> io::Result<bool> {
    let (place, name) = Place::of(path)?;
    place.remove_if(name, file)
}

/// Removes the directory at `path`, which must be empty, if that is this one. Whether it was removed. Links
/// above it are followed: they are whoever's who has named it.
///
/// # Errors
/// The kernel's, `DirectoryNotEmpty` among them; `NotFound` if nothing has the name.
pub(crate) fn remove_dir_if(path: &Path, dir: &Place) -> io::Result<bool> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name().and_then(|it| it.to_str()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    // It need not be readable.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = Place(openat(rustix::fs::CWD, above, flags, Mode::empty())?.into());
    above.remove_same(name, &dir.0, AtFlags::REMOVEDIR)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_is_synced_with_those_above_it_that_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        assert_eq!(sync_with_parents(&deep).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir_all(&deep).unwrap();
        sync_with_parents(&deep).unwrap();
        // Nothing below /proc can be synced, and nothing need be.
        assert!(sync_with_parents(Path::new("/proc/self")).is_err());
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let theirs = dir.path().join("theirs");
        fs::write(&theirs, "theirs").unwrap();
        symlink(&inner, dir.path().join("link")).unwrap();
        let error = Place::open(&dir.path().join("link")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        let place = Place::open(&inner).unwrap();
        symlink(&theirs, inner.join("name")).unwrap();
        assert!(place.read("name").is_err());
        assert_eq!(place.create("name").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        place.replace("name", "run.json", |file| file.write_all(b"ours")).unwrap();
        assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
        assert!(fs::symlink_metadata(inner.join("name")).unwrap().is_file());
        // Wherever the directory goes, and whatever takes its name.
        fs::rename(&inner, dir.path().join("moved")).unwrap();
        symlink("/", &inner).unwrap();
        assert_eq!(place.names().unwrap(), ["name"]);
        place.remove("name").unwrap();
        assert_eq!(place.names().unwrap(), [""; 0]);
    }

    #[test]
    fn what_has_taken_a_name_since_it_was_looked_at_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let place = Place::open(dir.path()).unwrap();
        let ours = place.create("ours").unwrap();
        // The same bytes, owner and mode: only which file it is tells.
        drop(place.create("theirs").unwrap());
        let swaps: [&dyn Fn(); 3] = [
            &|| fs::rename(path("theirs"), path("ours")).unwrap(),
            &|| {
                fs::rename(path("ours"), path("theirs")).unwrap();
                symlink(path("theirs"), path("ours")).unwrap();
            },
            &|| {
                fs::remove_file(path("ours")).unwrap();
                fs::create_dir(path("ours")).unwrap();
            },
        ];
        for swap in swaps {
            swap();
            assert!(!place.remove_if("ours", &ours).unwrap());
            assert!(fs::symlink_metadata(path("ours")).is_ok());
        }
        fs::remove_dir(path("ours")).unwrap();
        let error = place.remove_if("ours", &ours).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let held = place.hold("theirs").unwrap();
        assert!(remove_file_if(&path("theirs"), &held).unwrap());
        assert_eq!(place.names().unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_not_ours_has_another_name_before_a_name_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        let is = |file| Identity::of(&file).unwrap();
        place.set_aside("free", &[]).unwrap();
        let ours = is(place.create("ours").unwrap());
        place.set_aside("ours", &[is(place.create("older").unwrap()), ours]).unwrap();
        symlink("nowhere", dir.path().join("theirs")).unwrap();
        place.set_aside("theirs", &[ours]).unwrap();
        drop(place.create("theirs").unwrap());
        let error = place.set_aside("theirs", &[ours]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let mut names = place.names().unwrap();
        names.sort();
        assert_eq!(names, ["older", "ours", "theirs", "theirs.not-ringstat"]);
    }

    #[test]
    fn a_directory_is_removed_and_no_other_of_its_name() {
        let above = tempfile::tempdir().unwrap();
        let path = |name: &str| above.path().join(name);
        fs::create_dir(path("ours")).unwrap();
        let place = Place::open(&path("ours")).unwrap();
        drop(place.create("file").unwrap());
        let error = remove_dir_if(&path("ours"), &place).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);
        place.remove("file").unwrap();
        fs::rename(path("ours"), path("moved")).unwrap();
        fs::create_dir(path("ours")).unwrap();
        assert!(!remove_dir_if(&path("ours"), &place).unwrap() && path("ours").exists());
        assert!(remove_dir_if(&path("moved"), &place).unwrap() && !path("moved").exists());
    }

    #[test]
    fn a_pipe_is_not_waited_for_and_a_failed_replacement_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let place = Place::open(dir.path()).unwrap();
        assert_eq!(place.read("pipe").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let failing = |_: &mut File| Err(io::Error::other("no"));
        assert!(place.replace("pipe", "x", failing).is_err());
        assert_eq!(place.names().unwrap(), ["pipe"]);
    }
}
