//! Runs over several hosts, for their tests: how they are started, what their output says of each host,
//! and what is left there.

use super::json::Value;
use super::sshd::{Site, Sshd};
use super::{Cmd, Ran, World, entries, wait_until};
use rustix::process::Signal;
use std::path::PathBuf;

/// Where the program lies on the hosts, which see the same files: no upload for each of them.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringstat");

/// `ringstat run --hosts HOSTS OPTIONS -- sh -c SCRIPT`, by this site's configuration. Rings go where
/// they go by default: each host has directories of its own. The interval is one that each of many
/// samplers keeps, whatever else is at work on a small machine.
pub fn run(world: &World, site: &Site, hosts: &str, options: &[&str], script: &str) -> Cmd {
    let defaults = [
        ("--interval", "250ms"),
        ("--max-samples", "2000"),
        ("--remote-binary", PROGRAM),
        ("--ssh-timeout", "30"),
    ];
    let mut cmd = world.ringstat(&["run", "--hosts", hosts]);
    cmd = cmd.arg("--ssh-config").arg(site.path("config"));
    cmd = cmd.arg("--results-dir").arg(world.results());
    for (option, value) in defaults {
        if !options.contains(&option) {
            cmd = cmd.args(&[option, value]);
        }
    }
    cmd.args(options).args(&["--", "sh", "-c", script])
}

/// The ticks of a host's samples, in order, each once.
pub fn ticks(file: &Value, host: &str) -> Vec<u64> {
    let samples = file["samples_by_host"][host].list();
    let of_ring = samples.iter().filter(|sample| sample.get("collection").is_some());
    let mut ticks: Vec<u64> = of_ring.map(|sample| sample["collection"]["tick"].int()).collect();
    ticks.dedup();
    ticks
}

/// Every tick from the start to the last one has a sample, and none was lost on the way here.
pub fn assert_no_tick_is_missing(file: &Value, host: &str) {
    let ticks = ticks(file, host);
    let last = ticks.last().copied().unwrap_or_default();
    let facts = &file["ringstat"]["hosts"][host];
    let missed = facts["ticks_missed"].int();
    assert!(last >= 3 && missed == 0, "{host}: {missed} missed, {ticks:?}");
    assert!(ticks.iter().copied().eq(0..=last), "{host}: {ticks:?}");
    assert_eq!((facts["samples_lost"].int(), facts["samples_overwritten"].int()), (0, 0), "{host}");
}

/// What is said of a host that failed: kinds and words.
pub fn errors(file: &Value, host: &str) -> Vec<(String, String)> {
    let samples = file["samples_by_host"][host].list();
    let mut all = Vec::new();
    for sample in samples.iter().filter(|sample| sample.get("collection").is_none()) {
        for kind in ["ssh", "collection"] {
            if let Some(what) = sample["errors"].get(kind) {
                all.push((kind.to_owned(), what.str().to_owned()));
            }
        }
    }
    all
}

pub fn strings(value: &Value) -> Vec<&str> {
    value.list().iter().map(Value::str).collect()
}

/// The runs that a host has directories of.
pub fn left(host: &Sshd) -> Vec<PathBuf> {
    let bases = [host.shm.join("ringstat-0"), host.path("var-tmp/ringstat-0")];
    let runs = bases.iter().flat_map(|base| entries(base).into_iter().map(|run| base.join(run)));
    runs.collect()
}

/// The recorders on a host, by their numbers as seen from here.
pub fn recorders(host: &Sshd) -> Vec<u32> {
    let is_recorder = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"--recorder")
    };
    host.processes().into_iter().filter(is_recorder).collect()
}

/// Neither a process of ours nor a file is on the host any more.
pub fn assert_clean(host: &Sshd) {
    wait_until("the agents' end", || {
        let is_ours = |pid: &u32| {
            // One that is dead and not reaped has no command line.
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            // A recorder has this name and no path.
            program.ends_with(b"ringstat")
        };
        host.processes().iter().all(|pid| !is_ours(pid)).then_some(())
    });
    let left = left(host);
    assert!(left.is_empty(), "{}: {left:?}", host.name);
}

/// Ends every connection to a host, and nothing else of it.
pub fn cut_connections(host: &Sshd) {
    let init = host.init();
    for pid in host.processes() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if pid != init
            && name.starts_with("sshd")
            && let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed())
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Ends a process and nothing else, as `kill -9` does.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// The ring of a host's one run, where rings are by default.
pub fn ring_of(host: &Sshd) -> PathBuf {
    let base = host.shm.join("ringstat-0");
    let run = wait_until("a run on a host", || entries(&base).into_iter().next());
    base.join(run).join("00000.ring")
}

/// What is known of it by now, once it has begun.
pub fn summary(world: &World, host: &Sshd) -> Value {
    let info = wait_until("a ring that has begun", || world.info(&ring_of(host)));
    info["summary"].clone()
}

/// Waits until a host has that many samples of its one run.
pub fn wait_for_samples(world: &World, host: &Sshd, count: u64) {
    world.wait_for_samples(&ring_of(host), count);
}

/// Waits until it has so many more.
pub fn wait_for_more_samples(world: &World, host: &Sshd, count: u64) {
    let there = summary(world, host)["samples_taken"].int();
    wait_for_samples(world, host, there + count);
}

/// Does what the end of a run advises until everything is fetched: each time has a bound, which on a busy
/// machine may not be enough for one attempt.
pub fn fetch_what_is_owed(world: &World, ran: &Ran) {
    wait_until("what hosts owe", || {
        let again = world.take_the_advice(ran);
        eprintln!("{}", again.stderr);
        (again.status == 0).then_some(())
    });
}

/// A launcher whose run `file` is of has nothing of it on this machine any more, where its rings were by
/// default.
pub fn assert_nothing_here(file: &Value) {
    let run_id = file["ringstat"]["run_id"].str();
    let uid = rustix::process::geteuid().as_raw();
    for base in ["/dev/shm", "/var/tmp"] {
        let dir = PathBuf::from(format!("{base}/ringstat-{uid}")).join(run_id);
        assert!(!dir.exists(), "left: {}", dir.display());
    }
}
