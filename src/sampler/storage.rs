//! Where a segment's memory comes from: a file in memory-backed storage, a file on a disk, or
//! private memory; how much of each may be taken. The benchmark comes first: never more than half
//! of what is free.

use crate::place;
use crate::ring::{Blocks, WordMap, allocate, allocate_nameless};
use crate::units::Bytes;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of `include/uapi/linux/magic.h`.
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// What a file system keeps its files in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// tmpfs: a store never waits.
    SharedMemory,
    /// Anything else: a store can wait for the device.
    Disk,
    /// No file at all.
    PrivateMemory,
}

impl Medium {
    /// As the output says it.
    pub fn name(self) -> &'static str {
        match self {
            Medium::SharedMemory => "shared memory",
            Medium::Disk => "disk",
            Medium::PrivateMemory => "private memory",
        }
    }

    /// The medium below a directory.
    pub fn of(dir: &Path) -> Medium {
        match rustix::fs::statfs(dir) {
            Ok(stat) if MEMORY_FILE_SYSTEMS.contains(&stat.f_type) => Medium::SharedMemory,
            _ => Medium::Disk,
        }
    }
}

/// Memory for one segment.
pub struct Storage {
    /// The words.
    pub map: WordMap,
    /// What they lie in.
    pub medium: Medium,
    /// The file behind them, if there is one.
    pub file: Option<File>,
    /// Its name, unless the memory is private.
    pub path: Option<PathBuf>,
}

/// There is not enough memory for a ring of any kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a ring of {need_mb} MB is more than half of the {available_mb} MB of memory that are \
     available; keep fewer samples (--max-samples) or fewer sources (--sources)"
)]
pub struct NotEnoughMemory {
    /// Size of the ring.
    pub need_mb: u64,
    /// `MemAvailable`.
    pub available_mb: u64,
}

impl Storage {
    /// A file of `bytes` at `path`.
    ///
    /// # Errors
    /// The kernel's, or that it would be more than half of what is free.
    pub fn file(path: &Path, bytes: Bytes) -> io::Result<Storage> {
        let dir = path.parent().unwrap_or(Path::new("."));
        check_free(dir, bytes)?;
        let medium = Medium::of(dir);
        // tmpfs has every page when it says so; other file systems may only promise.
        let blocks = match medium {
            Medium::SharedMemory => Blocks::Reserved,
            Medium::Disk | Medium::PrivateMemory => Blocks::Written,
        };
        let file = allocate(path, bytes, blocks)?;
        let map = WordMap::of_file(&file, bytes).inspect_err(|_| {
            let _ = place::remove_file_if(path, &file);
        })?;
        Ok(Storage { map, medium, file: Some(file), path: Some(path.to_owned()) })
    }

    /// Private memory.
    ///
    /// # Errors
    /// [`NotEnoughMemory`].
    pub fn private(bytes: Bytes) -> Result<Storage, NotEnoughMemory> {
        check_memory(bytes)?;
        // A file without a name, so that what is not needed any more can be given back.
        let nameless = allocate_nameless(bytes)
            .and_then(|file| Ok((WordMap::of_file(&file, bytes)?, Some(file))));
        let (map, file) = match nameless {
            Ok(both) => both,
            Err(_) => {
                (WordMap::private(bytes).map_err(|_| not_enough(bytes, available_memory()))?, None)
            }
        };
        Ok(Storage { map, medium: Medium::PrivateMemory, file, path: None })
    }
}

/// Whether a ring of `bytes` is at most half of the memory that is available: wherever it lies, its
/// pages are in memory as long as it is written.
///
/// # Errors
/// [`NotEnoughMemory`].
pub fn check_memory(bytes: Bytes) -> Result<(), NotEnoughMemory> {
    let available = available_memory();
    if bytes.0 > available.0 / 2 { Err(not_enough(bytes, available)) } else { Ok(()) }
}

/// Whether a file of `bytes` is at most half of what is free in `dir`.
///
/// # Errors
/// The kernel's, and `StorageFull` with the sizes.
pub fn check_free(dir: &Path, bytes: Bytes) -> io::Result<()> {
    let free = rustix::fs::statvfs(dir).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))?;
    if bytes.0 <= free / 2 {
        return Ok(());
    }
    let (need, free) = (bytes.0.div_ceil(1000), free / 1000);
    let what = format!("{need} kB are more than half of the {free} kB that are free there");
    Err(io::Error::new(io::ErrorKind::StorageFull, what))
}

fn not_enough(need: Bytes, available: Bytes) -> NotEnoughMemory {
    NotEnoughMemory { need_mb: megabytes(need.0), available_mb: megabytes(available.0) }
}

/// Memory that can be had without swapping: `MemAvailable`, or what the cgroup still allows if
/// that is less.
fn available_memory() -> Bytes {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of_host = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024));
    Bytes(
        of_host.min(cgroup_allowance(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))),
    )
}

/// What the memory limits of our cgroup and of those above it leave, versions 1 and 2
/// (`Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`): the ring's pages count
/// towards the job's limit.
fn cgroup_allowance(own: &Path, root: &Path) -> u64 {
    let number = |path: PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let text = std::fs::read_to_string(own).unwrap_or_default();
    let mut allowance = u64::MAX;
    // `hierarchy:controllers:path`; version 2 has no controllers there.
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (base, limit, usage, cache) = match controllers {
            "" => {
                (root.to_owned(), "memory.max", "memory.current", ["inactive_file", "active_file"])
            }
            some if some.split(',').any(|name| name == "memory") => {
                let cache = ["total_inactive_file", "total_active_file"];
                (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", cache)
            }
            _ => continue,
        };
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            let dir = base.join(group);
            if let (Some(most), Some(now)) = (number(dir.join(limit)), number(dir.join(usage))) {
                // What benchmarks leave in the page cache counts as used, and gives way.
                let cached = cached(&dir.join("memory.stat"), cache);
                allowance = allowance.min(most.saturating_sub(now.saturating_sub(cached)));
            }
        }
    }
    allowance
}

/// The sum of some lines of a `memory.stat`, in bytes.
fn cached(stat: &Path, names: [&str; 2]) -> u64 {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    let value = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        names.contains(&name).then(|| value.parse::<u64>().ok())?
    };
    text.lines().filter_map(value).fold(0, u64::saturating_add)
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_half_of_the_memory_is_taken() {
        let all = available_memory();
        assert!(all.0 > 0 && all.0 < u64::MAX);
        let error = Storage::private(all).err().unwrap();
        assert!(error.to_string().contains("--max-samples"), "{error}");
        assert_eq!(Storage::private(Bytes(4096)).unwrap().medium, Medium::PrivateMemory);
    }

    #[test]
    fn the_least_that_any_cgroup_above_leaves_is_what_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let allowance = || cgroup_allowance(&dir.path().join("own"), dir.path());
        assert_eq!(allowance(), u64::MAX);
        write("own", "9:cpu:/x\n4:cpuset,memory:/job/step\n0::/job/step\n");
        write("job/step/memory.max", "max\n");
        write("job/step/memory.current", "10\n");
        assert_eq!(allowance(), u64::MAX);
        write("job/memory.max", "1000\n");
        write("job/memory.current", "300\n");
        assert_eq!(allowance(), 700);
        write("job/memory.stat", "anon 7\ninactive_file 40\nactive_file 60\nshmem 5\n");
        assert_eq!(allowance(), 800, "the page cache gives way");
        write("memory/job/step/memory.limit_in_bytes", "500\n");
        write("memory/job/step/memory.usage_in_bytes", "100\n");
        assert_eq!(allowance(), 400);
    }

    #[test]
    fn no_more_than_half_of_a_file_system_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let free = rustix::fs::statvfs(dir.path()).unwrap();
        let half = Bytes(free.f_bavail * free.f_frsize / 2 + (64 << 20));
        let error = Storage::file(&path, half).err().unwrap();
        assert!(error.to_string().contains("more than half"), "{error}");
        assert!(!path.exists());
        let storage = Storage::file(&path, Bytes(8192)).unwrap();
        assert_eq!(storage.medium, Medium::of(dir.path()));
    }
}
