//! How much memory a process takes, as the kernel counts it.

use super::Cmd;
use rustix::process::Pid;
use std::fs;
use std::path::Path;

/// Lines of `/proc/PID/status`, kB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// All that is resident, the ring's pages among it.
    pub resident_kb: u64,
    /// The same at its highest.
    pub highest_kb: u64,
    /// Resident and the process's own: heap and stacks.
    pub anonymous_kb: u64,
    /// Address space for data, resident or not.
    pub data_kb: u64,
    /// All address space, that of files and of memory that is shared among it.
    pub size_kb: u64,
}

impl Memory {
    /// What the process takes now.
    pub fn of(pid: Pid) -> Memory {
        let path = format!("/proc/{}/status", pid.as_raw_nonzero());
        let text = fs::read_to_string(path).unwrap();
        let kb = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Memory {
            resident_kb: kb("VmRSS:"),
            highest_kb: kb("VmHWM:"),
            anonymous_kb: kb("RssAnon:"),
            data_kb: kb("VmData:"),
            size_kb: kb("VmSize:"),
        }
    }
}

/// What a process holds of files that have no name any more: how often one is mapped, and how often
/// one is open; and how many files it has open in all.
pub fn held(pid: Pid) -> (usize, usize, usize) {
    let proc = format!("/proc/{}", pid.as_raw_nonzero());
    let maps = fs::read_to_string(format!("{proc}/maps")).unwrap();
    let open = fs::read_dir(format!("{proc}/fd")).unwrap();
    // Some are closed while they are looked through.
    let links = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let links: Vec<String> = links.map(|link| link.display().to_string()).collect();
    let is_deleted = |name: &&str| name.ends_with(".ring (deleted)");
    let deleted = links.iter().map(String::as_str).filter(is_deleted).count();
    (maps.lines().filter(is_deleted).count(), deleted, links.len())
}

/// Runs its arguments and says last on standard error what the kernel counted as their peak. Not in
/// this process: what its own memory has been counts as its children's.
const MEASURE: &str = "import resource, subprocess, sys\n\
    status = subprocess.run(sys.argv[1:]).returncode\n\
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n\
    print('peak', peak, file=sys.stderr)\n\
    sys.exit(status)";

/// Runs `ringstat ARGS` with standard output to `output`; the peak of its resident memory, kB, or
/// `None` where there is no Python.
pub fn peak_kb(args: &[&str], output: &Path) -> Option<u64> {
    let stdout = fs::File::create(output).unwrap();
    let mut cmd = Cmd::new("python3", Path::new("/")).args(&["-S", "-c", MEASURE]);
    cmd = cmd.arg(env!("CARGO_BIN_EXE_ringstat")).args(args);
    if std::process::Command::new("python3").arg("-V").output().is_err() {
        super::say_skipped("measuring peak memory", "python3");
        return None;
    }
    let stderr = tempfile::tempfile().unwrap();
    cmd.command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let ran = cmd.spawn(tempfile::tempfile().unwrap(), stderr).end_within_minutes().has_status(0);
    let peak = ran.stderr.lines().last().and_then(|line| line.strip_prefix("peak "));
    Some(peak.unwrap_or_else(|| ran.fail("no peak")).parse().unwrap())
}
