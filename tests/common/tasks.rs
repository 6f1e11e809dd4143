//! The threads of a process, and what the kernel counts of each (`proc_pid_stat(5)`,
//! `proc_pid_status(5)`, `proc_pid_io(5)`).

use rustix::process::Pid;
use std::fs;
use std::ops::Sub;
use std::path::Path;

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub tid: i32,
    /// At most 15 bytes of it; the main thread has the program's.
    pub name: String,
    pub counts: Counts,
}

/// What a thread has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Page faults that took no reading from a disk.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// It gave the CPU up to wait for something.
    pub voluntary_switches: u64,
    /// Calls of `write` and its like.
    pub write_calls: u64,
    /// Bytes that it had read from a disk.
    pub disk_read_bytes: u64,
    /// Bytes that it dirtied for a disk.
    pub disk_written_bytes: u64,
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        Counts {
            minor_faults: self.minor_faults - before.minor_faults,
            major_faults: self.major_faults - before.major_faults,
            voluntary_switches: self.voluntary_switches - before.voluntary_switches,
            write_calls: self.write_calls - before.write_calls,
            disk_read_bytes: self.disk_read_bytes - before.disk_read_bytes,
            disk_written_bytes: self.disk_written_bytes - before.disk_written_bytes,
        }
    }
}

/// All threads that process `pid` has now, in the order of their numbers.
pub fn tasks(pid: Pid) -> Vec<Task> {
    let dir = format!("/proc/{}/task", pid.as_raw_nonzero());
    let mut tids: Vec<i32> =
        super::entries(Path::new(&dir)).iter().map(|tid| tid.parse().unwrap()).collect();
    tids.sort_unstable();
    // One may end just now.
    tids.into_iter().filter_map(|tid| task(&format!("{dir}/{tid}"), tid)).collect()
}

fn task(dir: &str, tid: i32) -> Option<Task> {
    let read = |name: &str| fs::read_to_string(format!("{dir}/{name}")).ok();
    let [stat, status, io] = [read("stat")?, read("status")?, read("io")?];
    // The name, in brackets, may have anything in it; field 3 follows.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let field = |number: usize| fields[number - 3].parse().unwrap();
    let named = |text: &str, name: &str| -> u64 {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
    };
    let counts = Counts {
        minor_faults: field(10),
        major_faults: field(12),
        voluntary_switches: named(&status, "voluntary_ctxt_switches"),
        write_calls: named(&io, "syscw"),
        disk_read_bytes: named(&io, "read_bytes"),
        disk_written_bytes: named(&io, "write_bytes"),
    };
    let name = status.lines().next()?.strip_prefix("Name:")?.trim().to_owned();
    Some(Task { tid, name, counts })
}
