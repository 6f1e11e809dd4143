//! What all tests of the program share: a world of its own for each test, with directories for
//! rings, mirrors and results; commands that tell all there is to know when they do not do as
//! expected; waiting for a state. Nothing of a test stays behind.
#![allow(dead_code)] // Each test crate uses another part.

pub mod allocations;
pub mod bad_memory;
pub mod cable;
pub mod cluster;
pub mod disk;
pub mod format;
pub mod hands;
pub mod json;
pub mod links;
pub mod lives;
pub mod loops;
pub mod memory;
pub mod process;
pub mod proxy;
pub mod random;
pub mod rings;
pub mod sshd;
pub mod tasks;
pub mod terminal;
pub mod trace;
pub mod wall_clock;

use json::Value;
#[allow(unused_imports)]
pub use process::{Cmd, Live, Ran};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for a machine that is busy with other things.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A `/proc` with known values: small records, so that rings are small and quickly made.
pub fn fixed_proc() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proc/modern")
}

/// The directories of one test. When it goes, every file that ringstat has left in it is read once
/// more, strictly.
pub struct World {
    dir: TempDir,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::Builder::new().prefix("ringstat-test-").tempdir().unwrap();
        World { dir }
    }

    /// In memory, for tests that must not wait for a disk that is busy with others.
    pub fn in_memory() -> World {
        let dir = tempfile::Builder::new().prefix("ringstat-test-").tempdir_in("/dev/shm").unwrap();
        World { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn rings(&self) -> PathBuf {
        self.path("rings")
    }

    pub fn mirrors(&self) -> PathBuf {
        self.path("mirrors")
    }

    pub fn results(&self) -> PathBuf {
        self.path("results")
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A copy of the fixed `/proc` that a test may change.
    pub fn own_proc(&self) -> PathBuf {
        for file in ["diskstats", "vmstat", "meminfo", "loadavg", "net/dev"] {
            self.write(&format!("proc/{file}"), fs::read(fixed_proc().join(file)).unwrap());
        }
        self.path("proc")
    }

    /// `ringstat ARGS`, nothing added.
    pub fn ringstat(&self, args: &[&str]) -> Cmd {
        Cmd::new(env!("CARGO_BIN_EXE_ringstat"), self.dir.path()).args(args)
    }

    /// `ringstat recover` (or decode, or info) that also looks into this world.
    pub fn looking(&self, args: &[&str]) -> Cmd {
        let [rings, mirrors] = [self.rings(), self.mirrors()];
        self.ringstat(args).arg("--ring-dir").arg(rings).arg("--mirror-dir").arg(mirrors)
    }

    /// `ringstat run OPTIONS -- COMMAND` in this world, with a fixed `/proc` and few slots unless
    /// the options say otherwise.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Cmd {
        self.recording("run", options).arg("--").args(command)
    }

    /// `ringstat run OPTIONS -- sh -c SCRIPT`; `$W` is this world.
    pub fn run_sh(&self, options: &[&str], script: &str) -> Cmd {
        self.run(options, &["sh", "-c", script])
    }

    /// `ringstat record OPTIONS` in this world.
    pub fn record(&self, options: &[&str]) -> Cmd {
        self.recording("record", options)
    }

    fn recording(&self, subcommand: &str, options: &[&str]) -> Cmd {
        let mut cmd = self.ringstat(&[subcommand]);
        let defaults = [
            ("--ring-dir", self.rings()),
            ("--mirror-dir", self.mirrors()),
            ("--results-dir", self.results()),
            ("--procfs", fixed_proc()),
            ("--max-samples", "100".into()),
        ];
        for (option, value) in defaults {
            let other_name = match option {
                "--mirror-dir" => "--no-mirror",
                "--max-samples" => "--max-timeseries-samples",
                _ => option,
            };
            let is_given = options.contains(&option) || options.contains(&other_name);
            if !is_given {
                cmd = cmd.arg(option).arg(value);
            }
        }
        cmd.args(options)
    }

    /// The files of the one run whose results are in `results`.
    pub fn files(&self) -> Files {
        Files::of(&self.results())
    }

    /// The directory of the one run below `base`, once it is there with a ring in it.
    pub fn run_dir(&self, base: &Path) -> PathBuf {
        wait_until("a run's directory with its ring", || {
            let dirs = entries(base);
            assert!(dirs.len() <= 1, "more than one run: {dirs:?}");
            let dir = base.join(dirs.first()?);
            dir.join("00000.ring").exists().then_some(dir)
        })
    }

    /// Records that many samples or a few more, with `options`, and stops; the ring is kept.
    pub fn kept(&self, samples: u64, options: &[&str]) -> PathBuf {
        let options = [&["--keep-ring", "--interval", "2ms", "--max-samples", "1000"], options];
        let live = self.record(&options.concat()).start();
        let dir = self.run_dir(&self.rings());
        self.wait_for_samples(&dir.join("00000.ring"), samples);
        live.signal(rustix::process::Signal::INT);
        live.end().has_status(0);
        dir
    }

    /// A run of some 20 samples with its ring kept: the directory and the files.
    pub fn kept_run(&self) -> (PathBuf, Files) {
        let dir = self.kept(20, &[]);
        (dir, self.files())
    }

    /// What `info --json` says of `ring`; `None` if it cannot be read.
    pub fn info(&self, ring: &Path) -> Option<Value> {
        let ran = self.ringstat(&["info", "--json"]).arg(ring).output();
        (ran.status == 0).then(|| json::parse(&ran.stdout).unwrap())
    }

    /// Waits until `ring` has that many samples.
    pub fn wait_for_samples(&self, ring: &Path, count: u64) {
        wait_until("samples in the ring", || {
            let info = self.info(ring)?;
            (info["summary"]["samples_taken"].int() >= count).then_some(())
        });
    }

    /// The command line that ringstat says will put things in order, run as it is said.
    pub fn take_the_advice(&self, ran: &Ran) -> Ran {
        self.ringstat(&advice(ran)).output()
    }

    /// Reads every output file that is there now, strictly; none may be a temporary one.
    pub fn check_files(&self) {
        check_all(self.dir.path());
    }

    /// Fails unless no run has left anything in the directories for rings.
    pub fn assert_no_rings(&self) {
        for base in [self.rings(), self.mirrors()] {
            assert_eq!(entries(&base), [""; 0], "left in {}", base.display());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            check_all(self.dir.path());
        }
    }
}

/// Reads every output file below `dir`, and makes sure that no temporary one is there.
fn check_all(dir: &Path) {
    for name in entries(dir) {
        let path = dir.join(&name);
        // A disk that has broken down has names of files that it cannot say anything of.
        let found = fs::symlink_metadata(&path);
        if let Err(error) = &found {
            assert!(!name.ends_with(".json"), "{}: {error}", path.display());
            continue;
        }
        if found.is_ok_and(|it| it.is_dir()) {
            check_all(&path);
        } else if name.ends_with("_timeseries.json") {
            read_timeseries(&path);
        } else if name.ends_with("_metadata.json") {
            read_metadata(&path);
        }
        let is_temporary =
            name.starts_with(".ringstat-") || (name.starts_with("run.json") && name != "run.json");
        assert!(!is_temporary, "left behind: {}", path.display());
    }
}

/// The arguments of the `ringstat recover` that a program has advised.
pub fn advice(ran: &Ran) -> Vec<&str> {
    let Some(at) = ran.stderr.find("ringstat recover ") else { ran.fail("no advice") };
    let line = ran.stderr[at..].lines().next().unwrap();
    line.trim_end_matches('.').split_whitespace().skip(1).collect()
}

/// Reads a time series by the format's table.
pub fn read_timeseries(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    format::timeseries(&text).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()))
}

/// Reads a metadata file of ours by the format's table.
pub fn read_metadata(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    format::metadata(&text).unwrap_or_else(|wrong| panic!("{}: {wrong}", path.display()))
}

/// The names in a directory, sorted; none if it is not there.
pub fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The two files of a run.
pub struct Files {
    pub benchmark_type: String,
    pub datetime: String,
    pub timeseries: Value,
    pub metadata: Value,
}

impl Files {
    /// The only two files in `dir`: rightly named, and refering to each other.
    pub fn of(dir: &Path) -> Files {
        let names = entries(dir);
        let [metadata, timeseries] = &names[..] else { panic!("not two files: {names:?}") };
        let stem = metadata.strip_suffix("_metadata.json").expect("metadata's name");
        assert_eq!(*timeseries, format!("{stem}_timeseries.json"));
        let (benchmark_type, datetime) = stem.split_at(stem.len() - 16);
        let datetime = datetime.strip_prefix('_').expect("date and time in the name");
        assert!(format::is_datetime(datetime), "{stem}");
        let files = Files {
            benchmark_type: benchmark_type.to_owned(),
            datetime: datetime.to_owned(),
            timeseries: read_timeseries(&dir.join(timeseries)),
            metadata: read_metadata(&dir.join(metadata)),
        };
        let Files { metadata, timeseries: data, .. } = &files;
        assert_eq!(metadata["benchmark_type"].str(), benchmark_type);
        assert_eq!(metadata["run_datetime"].str(), datetime);
        let reference = &metadata["timeseries_data"];
        assert_eq!(reference["file"].str(), timeseries);
        assert_eq!(reference["num_samples"], data["num_samples"]);
        assert_eq!(reference["interval_seconds"], data["collection_interval_seconds"]);
        assert_eq!(reference["hosts_collected"], data["hosts_collected"]);
        files
    }

    pub fn samples(&self) -> &[Value] {
        format::samples(&self.timeseries)
    }

    pub fn last(&self) -> &Value {
        self.samples().last().unwrap()
    }

    pub fn summary(&self) -> &Value {
        format::summary(&self.timeseries)
    }
}

/// Asks again and again until there is an answer.
pub fn wait_until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(since.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a file to appear.
pub fn wait_for_file(path: &Path) {
    wait_until(&path.display().to_string(), || path.exists().then_some(()));
}

/// How much a test does: `ci`, or `long` if RINGSTAT_LONG is set.
pub fn rounds(ci: u64, long: u64) -> u64 {
    if std::env::var_os("RINGSTAT_LONG").is_some() { long } else { ci }
}

/// A seed for what a test chooses at random, printed; RINGSTAT_SEED sets it.
pub fn seed() -> u64 {
    let given = std::env::var("RINGSTAT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64
    });
    println!("RINGSTAT_SEED={seed}");
    seed
}

/// Says where everybody sees it that something was not tested; in CI nothing may be skipped.
pub fn say_skipped(what: &str, needs: &str) {
    // Not `eprintln`, which the test harness swallows.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what} needs {needs}");
    assert!(std::env::var_os("CI").is_none(), "in CI nothing skips");
}

/// Where a program is, as a shell looks for it; says that `what` was not tested if it is nowhere.
pub fn program_for(what: &str, program: &str) -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).map(|dir| dir.join(program)).find(|it| it.exists());
    if found.is_none() {
        say_skipped(&format!("{what} {program}"), program);
    }
    found
}

/// Runs `test` where its mounts are seen by it and its commands alone, and gone with it: on a
/// thread with a mount namespace of its own. Needs root; says so loudly where that is not given.
pub fn with_own_mounts(what: &str, test: impl FnOnce() + Send) {
    with_own(rustix::thread::UnshareFlags::NEWNS, what, || {
        mount(&["--make-rprivate", "/"]);
        test();
    });
}

/// Runs `test` where there is no network interface but its own, in a network namespace for it and
/// its commands. Needs root; says so loudly where that is not given.
pub fn with_own_network(what: &str, test: impl FnOnce() + Send) {
    with_own(rustix::thread::UnshareFlags::NEWNET, what, test);
}

fn with_own(flags: rustix::thread::UnshareFlags, what: &str, test: impl FnOnce() + Send) {
    if !rustix::process::geteuid().is_root() {
        return say_skipped(what, "root");
    }
    let on_thread = || {
        // SAFETY: the file descriptors stay shared; that this thread alone has another view of
        // the file systems or the network is what is wanted, and it ends with the test.
        unsafe { rustix::thread::unshare_unsafe(flags) }.unwrap();
        test();
    };
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(on_thread).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A small file system in memory, as long as this value lives.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one over `dir`, which is made; `options` like `size=256k` or `ro`.
    pub fn over(dir: &Path, options: &str) -> Tmpfs {
        fs::create_dir_all(dir).unwrap();
        mount(&["-t", "tmpfs", "-o", options, "ringstat-test", dir.to_str().unwrap()]);
        Tmpfs(dir.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn mount(args: &[&str]) {
    let output = Command::new("mount").args(args).output().unwrap();
    assert!(output.status.success(), "mount {args:?}: {output:?}");
}
