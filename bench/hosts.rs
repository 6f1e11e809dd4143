//! What a sample of another host costs, on the launcher and on the host, beside the way that opens a
//! connection and starts Python for every sample, both in one run over a real sshd on loopback. CPU
//! time as the kernel counts it for two control groups: one has all that the launcher starts, the other
//! the host's server and whatever runs there. Needs root, `sshd`, `python3`, and the program beside this
//! one: `cargo build --release` first.
//!
//! `cargo run --release -p ringstat-bench --bin hosts [-- SECONDS [HOSTS]]`
//!
//! Both ways ask all hosts at the same time, as both do in earnest: they meet the same crowd on the
//! machine's CPUs.
//!
//! Beside them stands what it takes to merely read the five files on every host and throw the text away: no
//! recorder can take less.
//!
//! What a run costs once, at its start and its end, is given apart from what each sample adds, and
//! spread over an hour at the default interval of 10 s.

use ringstat::measure::{child_main, machine, reader};
use sshd::{Site, Sshd};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

// As the tests make them, who may panic.
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)]
#[path = "../tests/common/bad_memory.rs"]
mod bad_memory;
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)]
#[path = "../tests/common/proxy.rs"]
mod proxy;
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)]
#[path = "../tests/common/sshd.rs"]
mod sshd;
#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)]
#[path = "../tests/common/wall_clock.rs"]
mod wall_clock;

/// Hosts of a run, by default: what the launcher does once for all of them is shared.
const HOSTS: usize = 8;
/// Samples of each host by Python.
const PYTHON_SAMPLES: u32 = 10;
const INTERVAL: Duration = Duration::from_millis(500);
/// In an hour at the default interval.
const SAMPLES_PER_HOUR: f64 = 360.0;

/// Reads the five files, parses them into dicts, prints JSON.
const PYTHON: &str = r#"
import json, socket, time
def rows(path, skip=0):
    with open(path) as file:
        return [line.split() for line in file.readlines()[skip:]]
load = rows("/proc/loadavg")[0]
print(json.dumps({
    "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "hostname": socket.gethostname(),
    "diskstats": [dict(device_name=row[2], values=[int(value) for value in row[3:]])
                  for row in rows("/proc/diskstats")],
    "vmstat": {row[0]: int(row[1]) for row in rows("/proc/vmstat")},
    "meminfo": {row[0].rstrip(":"): int(row[1]) for row in rows("/proc/meminfo")},
    "loadavg": dict(load_1min=float(load[0]), load_5min=float(load[1]), load_15min=float(load[2])),
    "netdev": [dict(interface_name=row[0].rstrip(":"), values=[int(value) for value in row[1:]])
               for row in rows("/proc/net/dev", 2)],
}))
"#;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn say_skipped(what: &str, needs: &str) {
    println!("SKIPPED: {what} needs {needs}");
}

fn wait_until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A control group whose CPU time is counted; removed with this value.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Result<Group> {
        // The old hierarchy, where it is there, has the same in another place.
        let bases = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"];
        let base = bases.into_iter().find(|base| Path::new(base).join("cgroup.procs").exists());
        let base = base.ok_or("no control groups are mounted at /sys/fs/cgroup")?;
        let dir = Path::new(base).join(format!("ringstat-{name}-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Group(dir))
    }

    /// `sh` that puts itself into it: what it starts is in it too.
    fn enter(&self) -> String {
        format!("echo 0 > {}/cgroup.procs", self.0.display())
    }

    fn cpu_us(&self) -> Result<f64> {
        if let Ok(ns) = fs::read_to_string(self.0.join("cpuacct.usage")) {
            return Ok(ns.trim().parse::<f64>()? / 1e3);
        }
        let stat = fs::read_to_string(self.0.join("cpu.stat"))?;
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(usage.ok_or("no usage_usec")?.parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What ran in it has just ended, and may not be reaped yet.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Both ends, us of CPU.
#[derive(Clone, Copy)]
struct Cost {
    launcher: f64,
    host: f64,
}

struct Bench {
    site: Site,
    hosts: Vec<Sshd>,
    launcher_group: Group,
    host_group: Group,
    program: PathBuf,
}

impl Bench {
    fn now(&self) -> Result<Cost> {
        Ok(Cost { launcher: self.launcher_group.cpu_us()?, host: self.host_group.cpu_us()? })
    }

    fn launcher(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{} && exec \"$@\"", self.launcher_group.enter()));
        command.arg("sh").arg(program).stdin(Stdio::null());
        command
    }

    /// A connection, a shell and Python for each sample of each host.
    fn by_python(&self) -> Result<Cost> {
        let before = self.now()?;
        for _ in 0..PYTHON_SAMPLES {
            let started: Vec<Child> =
                self.hosts.iter().map(|host| self.python(host)).collect::<Result<_>>()?;
            for child in started {
                let said = child.wait_with_output()?;
                if !said.stdout.starts_with(b"{\"timestamp\"") {
                    return Err(format!("ssh gives no sample: {}", said.status).into());
                }
            }
        }
        let after = self.now()?;
        let samples = f64::from(PYTHON_SAMPLES) * self.hosts.len() as f64;
        let per_sample = |before: f64, after: f64| (after - before) / samples;
        Ok(Cost {
            launcher: per_sample(before.launcher, after.launcher),
            host: per_sample(before.host, after.host),
        })
    }

    fn python(&self, host: &Sshd) -> Result<Child> {
        let mut ssh = self.launcher(Path::new("ssh"));
        ssh.arg("-F").arg(self.site.path("config")).args(["-o", "BatchMode=yes", &host.name]);
        Ok(ssh.arg(format!("python3 -c '{PYTHON}'")).stdout(Stdio::piped()).spawn()?)
    }

    /// One process per host that reads the five files when a recorder would.
    fn by_reading(&self, seconds: u64) -> Result<Cost> {
        let mut readers = Vec::new();
        for _ in &self.hosts {
            let reader = reader(INTERVAL)?;
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("{} && exec \"$@\"", self.host_group.enter()));
            command.arg("sh").arg(reader.get_program()).args(reader.get_args());
            readers.push(command.spawn()?);
        }
        std::thread::sleep(Duration::from_secs(2));
        let before = self.now()?;
        std::thread::sleep(Duration::from_secs(seconds));
        let after = self.now()?;
        for mut reader in readers {
            reader.kill()?;
            reader.wait()?;
        }
        let samples = Duration::from_secs(seconds).as_secs_f64() / INTERVAL.as_secs_f64();
        let host = (after.host - before.host) / samples / self.hosts.len() as f64;
        Ok(Cost { launcher: 0.0, host })
    }

    /// What a run costs once for each host, and what each sample of one adds, for so long and with these heartbeats.
    fn by_agent(&self, seconds: u64, heartbeat: &str) -> Result<[Cost; 2]> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str| dir.path().join(name);
        let before = self.now()?;
        let mut run = self.launcher(&self.program);
        let names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        run.args(["run", "-q", "--hosts", &names.join(","), "--heartbeat", heartbeat]);
        run.arg("--interval");
        run.arg(format!("{}ms", INTERVAL.as_millis())).arg("--remote-binary").arg(&self.program);
        run.arg("--ssh-config").arg(self.site.path("config"));
        run.arg("--results-dir").arg(dir.path()).arg("--");
        let script = "touch $0/began; while [ ! -e $0/end ]; do sleep 1; done";
        // The benchmark itself is none of it.
        let leave = self.launcher_group.0.with_file_name("cgroup.procs");
        let script = format!("echo 0 > {}; {script}", leave.display());
        let mut run = run.args(["sh", "-c", &script]).arg(dir.path()).spawn()?;
        wait_until("the run's begin", || file("began").exists().then_some(()));
        std::thread::sleep(Duration::from_secs(2));
        let recording = self.now()?;
        std::thread::sleep(Duration::from_secs(seconds));
        let recorded = self.now()?;
        fs::write(file("end"), "")?;
        let status = run.wait()?;
        if !status.success() {
            return Err(format!("the run ends with {status}").into());
        }
        let after = self.now()?;
        let samples = Duration::from_secs(seconds).as_secs_f64() / INTERVAL.as_secs_f64();
        let hosts = self.hosts.len() as f64;
        let per_sample = |from: f64, to: f64| (to - from) / samples / hosts;
        let rest = |before: f64, recording: f64, recorded: f64, after: f64| {
            (recording - before + (after - recorded)) / hosts
        };
        Ok([
            Cost {
                launcher: rest(
                    before.launcher,
                    recording.launcher,
                    recorded.launcher,
                    after.launcher,
                ),
                host: rest(before.host, recording.host, recorded.host, after.host),
            },
            Cost {
                launcher: per_sample(recording.launcher, recorded.launcher),
                host: per_sample(recording.host, recorded.host),
            },
        ])
    }
}

fn main() -> Result<ExitCode> {
    if let Some(ended) = child_main() {
        return Ok(ended);
    }
    let seconds = match std::env::args().nth(1) {
        Some(seconds) => seconds.parse()?,
        None => 60,
    };
    let hosts = match std::env::args().nth(2) {
        Some(hosts) => hosts.parse()?,
        None => HOSTS,
    };
    let Some(site) = Site::new("samples of another host") else {
        return Ok(ExitCode::SUCCESS);
    };
    let program = std::env::current_exe()?.with_file_name("ringstat");
    if !program.exists() {
        return Err(format!("{} is not there: cargo build --release", program.display()).into());
    }
    let (launcher_group, host_group) = (Group::new("launcher")?, Group::new("host")?);
    // As Debian and others ship their servers.
    let host = |number| {
        let host = site.host(&format!("node{number}")).setup(&host_group.enter());
        host.server_config("UsePAM yes").start()
    };
    let hosts = (0..hosts).map(host).collect();
    let bench = Bench { site, hosts, launcher_group, host_group, program };
    println!(
        "CPU us per sample of one host, of {} (control groups); {}",
        bench.hosts.len(),
        machine()
    );
    println!("\n{:<48}{:>12}{:>12}", "", "launcher", "host");
    let row = |what: &str, cost: Cost| {
        println!("{what:<48}{:>12.1}{:>12.1}", cost.launcher, cost.host);
    };
    let python = bench.by_python()?;
    row("ssh and python3 for every sample", python);
    let times = |of: Cost| Cost {
        launcher: python.launcher / of.launcher.max(0.1),
        host: python.host / of.host.max(0.1),
    };
    let reading = bench.by_reading(seconds)?;
    row("merely reading the files on the host", reading);
    println!("{:<60}{:>12.1}", "    times less than python", times(reading).host);
    // By default there are 30 samples to a heartbeat, at 10 s.
    let rows = [("no heartbeat", "off"), ("one to 30 samples", "15s"), ("one to each", "500ms")];
    for (what, heartbeat) in rows {
        let [once, each] = bench.by_agent(seconds, heartbeat)?;
        row(&format!("agent, {what}: each sample"), each);
        row("    once for each host, start and end of a run", once);
        let hour = Cost {
            launcher: each.launcher + once.launcher / SAMPLES_PER_HOUR,
            host: each.host + once.host / SAMPLES_PER_HOUR,
        };
        row("    an hour at 10 s, all in all, per sample", hour);
        row("    times less than python, each sample", times(each));
        row("    times less than python, all in all", times(hour));
    }
    drop(bench.hosts);
    Ok(ExitCode::SUCCESS)
}
