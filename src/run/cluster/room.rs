//! Where the rings of other hosts go here, and how much of the disk each may take: for them, and as text.

use crate::cluster::collect::{MAX_HOST_BYTES, MAX_HOST_TEXT_BYTES};
use crate::place::Place;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory in a run's own in which there is one for each host.
pub(in crate::run) const HOSTS_DIR: &str = "hosts";
/// Part of the disk that all hosts together may take, one of so many.
const FREE_SHARE: u64 = 2;

/// Where the rings of a host go; made if need be.
pub(super) fn host_dir(dir: Option<&Path>, index: usize) -> io::Result<PathBuf> {
    let dir = dir.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let name = host_dir_name(index);
    Place::open(dir)?.dir_in(HOSTS_DIR)?.dir_in(&name)?;
    Ok(dir.join(HOSTS_DIR).join(name))
}

pub(super) fn host_dir_name(index: usize) -> String {
    format!("{index:05}")
}

/// What each of the hosts whose rings go to `dirs`, below `dir`, may take here. What they have already
/// counts as free: the bound is the same at each attempt.
pub(super) fn host_bytes(dir: Option<&Path>, dirs: &[&Path]) -> u64 {
    let taken = dirs.iter().map(|dir| taken_by(dir)).fold(0, u64::saturating_add);
    share(free(dir).saturating_add(taken), dirs.len()).min(MAX_HOST_BYTES)
}

/// Bytes of the disk that the files in a directory take.
fn taken_by(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = files.filter_map(|file| file.metadata().ok());
    // In units of 512 bytes, whatever the file system's are (stat(2)).
    files.map(|file| file.blocks().saturating_mul(512)).fold(0, u64::saturating_add)
}

/// What is free on the disk of a directory.
fn free(dir: Option<&Path>) -> u64 {
    let free = dir.and_then(|dir| rustix::fs::statvfs(dir).ok());
    free.map_or(u64::MAX, |it| it.f_bavail.saturating_mul(it.f_frsize))
}

/// The part of these bytes for one of so many hosts.
fn share(bytes: u64, hosts: usize) -> u64 {
    bytes / FREE_SHARE / (hosts.max(1) as u64)
}

/// What the samples of one of so many hosts may be as text, in files that go to that directory, which
/// need not be there yet.
pub(super) fn text_bytes(results_dir: &Path, hosts: usize) -> u64 {
    let is_there = results_dir.ancestors().find(|dir| dir.is_dir());
    share(free(is_there), hosts).min(MAX_HOST_TEXT_BYTES)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_share_of_the_disk_that_the_files_go_to() {
        let dir = tempfile::tempdir().unwrap();
        let free = free(Some(dir.path()));
        let share = text_bytes(&dir.path().join("not/there/yet"), 1000);
        // Others write too.
        assert!(
            share > 0 && share <= free / 1000 && share <= MAX_HOST_TEXT_BYTES,
            "{share} of {free}"
        );
        assert!(text_bytes(dir.path(), 1) <= MAX_HOST_TEXT_BYTES);
    }

    #[test]
    fn what_is_here_of_a_host_takes_nothing_off_its_bound() {
        let dir = tempfile::Builder::new().prefix("ringstat-").tempdir_in("/dev/shm").unwrap();
        let path = dir.path();
        let dirs = [path, Path::new("/nonexistent")];
        std::fs::write(path.join("00000.ring"), vec![1; 3 << 20]).unwrap();
        // Others write too; a file of holes takes nothing.
        std::fs::File::create(path.join("00001.ring")).unwrap().set_len(1 << 40).unwrap();
        let taken = taken_by(path);
        assert!((3 << 20..4 << 20).contains(&taken), "{taken}");
        assert_eq!(taken_by(dirs[1]), 0);
        assert_eq!(share(1000, 5), 100);
        assert_eq!(host_bytes(None, &dirs), MAX_HOST_BYTES);
        assert!(host_bytes(Some(path), &dirs) <= MAX_HOST_BYTES);
    }
}
