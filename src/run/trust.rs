//! Whose files are believed. Directories for rings and results may be shared: what somebody else
//! has put there must not make us write, remove, follow or wait. Looks at owners and modes; what
//! is done about it is for others.

use rustix::process::geteuid;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Why what lies in a directory may be somebody else's; `None` if only this user can write there.
/// A symbolic link is not followed.
///
/// # Errors
/// The kernel's.
pub fn distrust(dir: &Path) -> io::Result<Option<String>> {
    Ok(why_not(&fs::symlink_metadata(dir)?))
}

/// The same of what was found in its place.
pub fn why_not(meta: &Metadata) -> Option<String> {
    if meta.is_symlink() {
        Some("is a symbolic link".to_owned())
    } else if !meta.is_dir() {
        Some("is not a directory".to_owned())
    } else if !is_ours(meta) {
        Some(format!("belongs to user {}", meta.uid()))
    } else if others_can_write(meta) {
        Some("can be written to by other users".to_owned())
    } else {
        None
    }
}

/// Whether two directories, neither a symbolic link, are of the same user and of nobody else: what
/// one says of the other may be believed.
pub fn are_of_one_user(one: &Path, other: &Path) -> bool {
    let owner = |dir: &Path| {
        let meta = fs::symlink_metadata(dir).ok()?;
        (meta.is_dir() && !others_can_write(&meta)).then(|| meta.uid())
    };
    owner(one).is_some_and(|user| owner(other) == Some(user))
}

/// Opens a plain file for reading: no symbolic link, and no pipe that would wait for a writer.
///
/// # Errors
/// The kernel's, and `InvalidInput` for anything else.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// As [`open_plain`]; `None` for a file that somebody else may have put there, too: one of another
/// user in a directory where others can make files. (On some file systems root's are of nobody.)
pub fn open_own(path: &Path) -> Option<File> {
    let file = open_plain(path).ok()?;
    let (meta, dir) = (file.metadata().ok()?, fs::metadata(path.parent()?).ok()?);
    let is_known = is_ours(&meta) || meta.uid() == dir.uid();
    (is_known || !others_can_write(&dir)).then_some(file)
}

fn is_ours(meta: &Metadata) -> bool {
    meta.uid() == geteuid().as_raw()
}

fn others_can_write(meta: &Metadata) -> bool {
    meta.mode() & 0o022 != 0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_a_directory_that_nobody_else_writes_to_is_trusted() {
        let world = tempfile::tempdir().unwrap();
        let (dir, link) = (world.path().join("dir"), world.path().join("link"));
        fs::create_dir(&dir).unwrap();
        symlink(&dir, &link).unwrap();
        fs::write(world.path().join("file"), "").unwrap();
        let why = |name: &str| distrust(&world.path().join(name)).unwrap().unwrap_or_default();
        for (mode, expected) in [(0o755, ""), (0o700, ""), (0o770, "other users"), (0o702, "other")]
        {
            fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
            assert!(why("dir").contains(expected), "{mode:o}: {}", why("dir"));
            assert_eq!(why("dir").is_empty(), expected.is_empty(), "{mode:o}: {}", why("dir"));
            assert_eq!(are_of_one_user(world.path(), &dir), expected.is_empty(), "{mode:o}");
        }
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        assert!(!are_of_one_user(world.path(), &link));
        assert!(why("link").contains("symbolic link"));
        assert!(why("file").contains("not a directory"));
        assert!(distrust(&world.path().join("none")).is_err());
    }

    #[test]
    fn neither_links_nor_pipes_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| dir.path().join(name));
        fs::write(&file, "text").unwrap();
        symlink(&file, &link).unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(open_own(&file).is_some());
        for other in [&link, &pipe, &dir.path().to_owned()] {
            assert!(open_plain(other).is_err(), "{}", other.display());
        }
    }
}
