//! CPU time of a whole process, its kernel work and all its threads included: from a cgroup of its
//! own where one can be made, else from its threads' `schedstat`.

use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a process' CPU time is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// `usage_usec` in `cpu.stat` of a cgroup v2 of its own.
    Cgroup,
    /// The sum over `/proc/PID/task/*/schedstat`: what a thread has used that has ended is not in it.
    Schedstat,
}

impl UsageSource {
    /// As it is said in a table.
    pub fn name(self) -> &'static str {
        match self {
            UsageSource::Cgroup => "usage_usec of a cgroup of its own",
            UsageSource::Schedstat => "sum of its threads' schedstat",
        }
    }
}

/// The CPU time of one process, or of what there is in its cgroup.
pub struct Usage {
    pid: u32,
    cgroup: Option<Cgroup>,
}

impl Usage {
    /// Of the process `pid`, a child of this one, from now on.
    pub fn of(pid: u32) -> Usage {
        Usage { pid, cgroup: Cgroup::around(pid) }
    }

    /// Where it is from.
    pub fn source(&self) -> UsageSource {
        if self.cgroup.is_some() { UsageSource::Cgroup } else { UsageSource::Schedstat }
    }

    /// CPU time so far, us.
    ///
    /// # Errors
    /// What the kernel refused. From `schedstat`, also that the process has ended.
    pub fn cpu_us(&self) -> io::Result<f64> {
        match &self.cgroup {
            Some(cgroup) => cgroup.cpu_us(),
            None => schedstat_us(&PathBuf::from(format!("/proc/{}/task", self.pid))),
        }
    }
}

/// A cgroup v2 for one process; gone with this value, if the process is.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` if there is no cgroup v2, or none may be made.
    fn around(pid: u32) -> Option<Cgroup> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = cgroup2_mount(&mountinfo)?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringstat-bench-{}-{number}", std::process::id());
        let dir = mount.join(own_cgroup(&own)?).join(name);
        fs::create_dir(&dir).ok()?;
        let cgroup = Cgroup(dir);
        fs::write(cgroup.0.join("cgroup.procs"), pid.to_string()).ok()?;
        // Without this it cannot serve.
        cgroup.cpu_us().ok()?;
        Some(cgroup)
    }

    fn cpu_us(&self) -> io::Result<f64> {
        let stat = fs::read_to_string(self.0.join("cpu.stat"))?;
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        let usage = usage.and_then(|us| us.parse::<u64>().ok());
        usage.map(|us| us as f64).ok_or_else(|| unexpected("cpu.stat has no usage_usec"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Refused while there is a process in it; an empty one that stays does no harm.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where the hierarchy of version 2 is mounted, whatever it is called (proc(5), `mountinfo`).
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        // A part of the hierarchy alone, as some containers have it, has other paths.
        (filesystem.starts_with("cgroup2 ") && root == "/").then(|| unescaped(point))
    })
}

/// Spaces and the like are written as octal numbers (proc(5)).
fn unescaped(path: &str) -> PathBuf {
    let path = path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    PathBuf::from(path.replace("\\134", "\\"))
}

/// The cgroup v2 that this process is in, relative to the mount (cgroups(7)).
fn own_cgroup(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Outside of our namespace's root: it is not below the mount.
    (!path.split('/').any(|name| name == "..")).then_some(path)
}

/// The first number of each thread's `schedstat` is the time that it has run, in ns
/// (`Documentation/scheduler/sched-stats.rst`).
fn schedstat_us(tasks: &Path) -> io::Result<f64> {
    let mut total_ns = 0;
    for task in fs::read_dir(tasks)? {
        let text = match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(text) => text,
            // A thread that has just ended.
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let time = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        total_ns += time.ok_or_else(|| unexpected("schedstat has no time"))?;
    }
    Ok(total_ns as f64 / 1e3)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn unexpected(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_mount_and_the_own_cgroup_are_found() {
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw
36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:33 /docker/abc /part rw - cgroup2 cgroup2 rw
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw
";
        assert_eq!(cgroup2_mount(mountinfo), Some("/sys/fs/cgroup/uni fied".into()));
        assert_eq!(cgroup2_mount("31 23 0:28 / /sys rw - tmpfs tmpfs rw\n"), None);
        assert_eq!(own_cgroup("4:memory:/a\n0::/user.slice/b\n"), Some("user.slice/b"));
        assert_eq!(own_cgroup("0::/\n"), Some(""));
        assert_eq!(own_cgroup("0::/../outside\n"), None);
        assert_eq!(own_cgroup("4:memory:/a\n"), None);
    }

    #[test]
    fn the_times_of_all_threads_are_added() {
        let dir = tempfile::tempdir().unwrap();
        for (thread, text) in [("1", "1500000 7 3\n"), ("2", "500 0 1\n")] {
            fs::create_dir(dir.path().join(thread)).unwrap();
            fs::write(dir.path().join(thread).join("schedstat"), text).unwrap();
        }
        fs::create_dir(dir.path().join("3")).unwrap();
        assert_eq!(schedstat_us(dir.path()).unwrap(), 1500.5, "and one that has ended");
        fs::write(dir.path().join("3/schedstat"), "x").unwrap();
        assert!(schedstat_us(dir.path()).is_err());
        assert!(schedstat_us(&dir.path().join("none")).is_err());
    }
}
