//! Many hosts at once: 32, or 16, 32, 64 and 256 one after the other in the long form, are started,
//! recorded and collected without a failure; how far apart the samples of one tick are, what each phase
//! takes, and what that comes to for 1,000 and 10,000 hosts is printed.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::cluster::{
    assert_clean, assert_no_tick_is_missing, assert_nothing_here, errors, run, strings, ticks,
};
use common::json::Value;
use common::sshd::{Site, Sshd};
use common::{World, rounds};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

/// As many files as the launcher may have open when it is started: with more hosts than this it must
/// ask for more, and the command must not see that it did.
const OPEN_FILES: u64 = 40;

/// What a run of many hosts took.
struct Took {
    file: Value,
    hosts: usize,
    start: Duration,
    /// From the end of the command to that of the launcher: stop, collect, write, remove.
    end: Duration,
    /// CPU time of the launcher until all hosts record.
    start_cpu_ms: u64,
    /// And the most memory that it had, kB.
    memory_kb: u64,
}

/// Records `hosts` every `interval` until each may have `samples`, and prints what that took.
fn record(site: &Site, hosts: &[Sshd], interval: Duration, samples: u32) -> Took {
    let world = World::new();
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    let interval_ms = format!("{}ms", interval.as_millis());
    let options =
        ["--interval", &interval_ms, "--ssh-timeout", "300", "--stop-timeout", "120", "-q"];
    let script = "ulimit -Sn > $W/limit; touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done; \
                  touch $W/ended";
    let since = Instant::now();
    let mut launcher = run(&world, site, &names.join(","), &options, script);
    // SAFETY: between fork and exec, two system calls on a value of its own.
    unsafe {
        launcher.command.pre_exec(|| {
            let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
            let few = Rlimit { current: Some(OPEN_FILES), maximum };
            Ok(setrlimit(Resource::Nofile, few)?)
        });
    }
    let mut live = launcher.start();
    let began = world.path("began");
    while !began.exists() {
        assert!(live.is_running() && since.elapsed() < Duration::from_secs(300), "{}", live.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    let start = since.elapsed();
    let limit = fs::read_to_string(world.path("limit")).unwrap();
    assert_eq!(limit.trim(), OPEN_FILES.to_string(), "what the command may open");
    let [start_cpu_ms, _] = used(live.pid().as_raw_nonzero().get());
    let recorded = Instant::now();
    // Nothing tells what is in the rings of so many hosts.
    std::thread::sleep(interval * samples);
    let [before_ms, memory_kb] = used(live.pid().as_raw_nonzero().get());
    let recorded = recorded.elapsed();
    world.write("end", "");
    let since = Instant::now();
    common::wait_for_file(&world.path("ended"));
    let ended = Instant::now();
    live.end_within_minutes().has_status(0);
    let end = ended.elapsed();
    println!(
        "{} hosts: started in {start:?}, stopped, collected and written in {end:?} ({:?} with the \
         command's own end); launcher: {start_cpu_ms} ms of CPU to start, {} ms in {recorded:?} of \
         recording, {} MB at most until then",
        hosts.len(),
        since.elapsed(),
        before_ms - start_cpu_ms,
        memory_kb >> 10,
    );
    let file = world.files().timeseries;
    assert_eq!(strings(&file["hosts_collected"]), names);
    for name in names {
        assert_eq!(errors(&file, name), [], "{name}");
        assert_no_tick_is_missing(&file, name);
    }
    assert_nothing_here(&file);
    Took { file, hosts: hosts.len(), start, end, start_cpu_ms, memory_kb }
}

/// What more hosts would take if each adds what those between the fewest and the most have added.
fn extrapolate(took: &[Took]) {
    let [few, .., many] = took else { return };
    let laws = |took: &Took| {
        [
            ("start, s", took.start.as_secs_f64()),
            ("stop, collect and write, s", took.end.as_secs_f64()),
            ("launcher's CPU to start, s", took.start_cpu_ms as f64 / 1e3),
            ("launcher's memory, MB", took.memory_kb as f64 / 1024.0),
        ]
    };
    println!("{:<30}{:>12}{:>12}{:>12}", "", "per host", "1,000", "10,000");
    let more = many.hosts as f64 - few.hosts as f64;
    for ((what, of_many), (_, of_few)) in laws(many).into_iter().zip(laws(few)) {
        let each = (of_many - of_few) / more;
        let at = |hosts: f64| of_many + each * (hosts - many.hosts as f64);
        println!("{what:<30}{each:>12.4}{:>12.1}{:>12.1}", at(1e3), at(1e4));
    }
}

/// CPU time of a process, ms, and the most memory that it had, kB.
fn used(pid: i32) -> [u64; 2] {
    let text = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let stat = text("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // proc_pid_stat(5): utime and stime, in ticks of 10 ms.
    let cpu: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum();
    let status = text("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    [cpu, peak.trim().trim_end_matches(" kB").parse().unwrap()]
}

/// How far apart the samples of one tick are, on the one wall clock that all hosts here have, ms: as
/// they were taken, and as they were due, which is what is known of each other's clocks.
fn distances(file: &Value) -> [Vec<f64>; 2] {
    let mut by_tick: BTreeMap<u64, Vec<(i128, i128)>> = BTreeMap::new();
    for (host, samples) in file["samples_by_host"].entries() {
        let last = ticks(file, host).last().copied();
        for sample in samples.list() {
            let Some(at) = sample.get("collection") else { continue };
            let tick = at["tick"].int();
            // The one at the stop is nobody's tick.
            if Some(tick) == last {
                continue;
            }
            let taken = i128::from(at["time_unix_ns"].int());
            let due = taken - (at["lateness_us"].float() * 1e3) as i128;
            by_tick.entry(tick).or_default().push((taken, due));
        }
    }
    let apart = |of: fn(&(i128, i128)) -> i128| {
        let spread = |times: &Vec<(i128, i128)>| {
            let all = times.iter().map(of);
            (all.clone().max().unwrap() - all.min().unwrap()) as f64 / 1e6
        };
        let mut all: Vec<f64> = by_tick.values().map(spread).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    [apart(|time| time.0), apart(|time| time.1)]
}

/// Every host's ticks are due when the launcher has said, as far as its clock was known there.
fn assert_due_together(file: &Value, interval: Duration) {
    let began_ms = |host: &str| {
        // One preemption between the two clocks of a sample is not the deadline's.
        let mut all: Vec<f64> = file["samples_by_host"][host]
            .list()
            .iter()
            .map(|sample| {
                let at = &sample["collection"];
                let since_ms = at["tick"].int() as f64 * interval.as_secs_f64() * 1e3;
                at["time_unix_ns"].int() as f64 / 1e6 - at["lateness_us"].float() / 1e3 - since_ms
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let hosts = file["ringstat"]["hosts"].entries();
    let all = hosts
        .iter()
        .map(|(host, facts)| (host, began_ms(host), facts["clock_uncertainty_ms"].float()));
    let all: Vec<_> = all.collect();
    for (one, began, doubt) in &all {
        for (other, other_began, other_doubt) in &all {
            let apart = (began - other_began).abs();
            // Between the readings of a host's two clocks.
            assert!(
                apart <= doubt + other_doubt + 1.0,
                "{one}, {other}: {apart} ms, {doubt} {other_doubt}"
            );
        }
    }
}

#[test]
fn many_hosts_start_record_and_end_without_a_failure() {
    let Some(site) = Site::new("many hosts") else { return };
    let is_long = rounds(0, 1) == 1;
    let counts: &[usize] = if is_long { &[16, 32, 64, 256] } else { &[32] };
    let hosts: Vec<Sshd> = (0..counts[counts.len() - 1])
        .map(|number| site.host(&format!("n{number:03}")).start())
        .collect();
    let interval = Duration::from_millis(if is_long { 2000 } else { 250 });
    let of = |all: &[f64]| (all[all.len() / 2], *all.last().unwrap());
    let took = counts.iter().map(|count| {
        let took = record(&site, &hosts[..*count], interval, 12);
        let [taken, due] = distances(&took.file);
        println!(
            "{count} hosts: samples of one tick are {:.3} ms apart (p50), {:.3} ms (max); their \
             deadlines {:.3} and {:.3} ms",
            of(&taken).0,
            of(&taken).1,
            of(&due).0,
            of(&due).1
        );
        assert_due_together(&took.file, interval);
        took
    });
    extrapolate(&took.collect::<Vec<_>>());
    hosts.iter().for_each(assert_clean);
}

#[test]
fn rings_of_51_hosts_are_here_in_seconds() {
    let Some(site) = Site::new("collecting from 51 hosts") else { return };
    // Other tests are at work beside this one: the figure that counts is that of the long form alone.
    let is_long = rounds(0, 1) == 1;
    let (count, samples) = if is_long { (51, 550) } else { (8, 100) };
    let hosts: Vec<Sshd> =
        (0..count).map(|number| site.host(&format!("m{number:02}")).start()).collect();
    let Took { file, end, start, .. } =
        record(&site, &hosts, Duration::from_millis(50), samples + 5);
    for host in &hosts {
        let kept = file["ringstat"]["hosts"][host.name.as_str()]["samples_kept"].int();
        assert!(kept >= u64::from(samples) / 2, "{}: {kept}", host.name);
    }
    if is_long && !cfg!(debug_assertions) {
        assert!(end < Duration::from_secs(5), "{end:?}, started in {start:?}");
    }
    hosts.iter().for_each(assert_clean);
}
