//! Many hosts at once: 32, or 256 in the long form, are started, recorded and collected without a
//! failure; how far apart the samples of one tick are, and what each phase takes, is printed.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::cluster::{
    assert_clean, assert_no_tick_is_missing, assert_nothing_here, errors, run, strings, ticks,
};
use common::json::Value;
use common::sshd::{Site, Sshd};
use common::{World, rounds};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// What a run of many hosts took.
struct Took {
    file: Value,
    start: Duration,
    /// From the end of the command to that of the launcher: stop, collect, write, remove.
    end: Duration,
}

/// Records `hosts` every `interval` until each may have `samples`, and prints what that took.
fn record(site: &Site, hosts: &[Sshd], interval: Duration, samples: u32) -> Took {
    let world = World::new();
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    let interval_ms = format!("{}ms", interval.as_millis());
    let options =
        ["--interval", &interval_ms, "--ssh-timeout", "300", "--stop-timeout", "120", "-q"];
    let script = "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done; touch $W/ended";
    let since = Instant::now();
    let mut live = run(&world, site, &names.join(","), &options, script).start();
    let began = world.path("began");
    while !began.exists() {
        assert!(live.is_running() && since.elapsed() < Duration::from_secs(300), "{}", live.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    let start = since.elapsed();
    let [ready_ms, ready_kb] = used(live.pid().as_raw_nonzero().get());
    let recorded = Instant::now();
    // Nothing tells what is in the rings of so many hosts.
    std::thread::sleep(interval * samples);
    let [before_ms, _] = used(live.pid().as_raw_nonzero().get());
    let recorded = recorded.elapsed();
    world.write("end", "");
    let since = Instant::now();
    common::wait_for_file(&world.path("ended"));
    let ended = Instant::now();
    live.end_within_minutes().has_status(0);
    let end = ended.elapsed();
    println!(
        "{} hosts: started in {start:?}, stopped, collected and written in {end:?} ({:?} with the \
         command's own end); launcher: {ready_ms} ms of CPU to start, {} ms in {recorded:?} of \
         recording, {} MB at most until then",
        hosts.len(),
        since.elapsed(),
        before_ms - ready_ms,
        ready_kb >> 10,
    );
    let file = world.files().timeseries;
    assert_eq!(strings(&file["hosts_collected"]), names);
    for name in names {
        assert_eq!(errors(&file, name), [], "{name}");
        assert_no_tick_is_missing(&file, name);
    }
    assert_nothing_here(&file);
    Took { file, start, end }
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

#[test]
fn many_hosts_start_record_and_end_without_a_failure() {
    let Some(site) = Site::new("many hosts") else { return };
    let count = rounds(32, 256) as usize;
    let hosts: Vec<Sshd> =
        (0..count).map(|number| site.host(&format!("n{number:03}")).start()).collect();
    let interval = Duration::from_millis(rounds(250, 2000));
    let Took { file, .. } = record(&site, &hosts, interval, 12);
    let [taken, due] = distances(&file);
    let of = |all: &[f64]| (all[all.len() / 2], *all.last().unwrap());
    println!(
        "{count} hosts: samples of one tick are {:.3} ms apart (p50), {:.3} ms (max); their deadlines \
         {:.3} and {:.3} ms",
        of(&taken).0,
        of(&taken).1,
        of(&due).0,
        of(&due).1
    );
    // What is due is a matter of clocks; when it is taken, of who has the CPU.
    assert!(of(&due).1 < 50.0, "{due:?}");
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
    let Took { file, end, start } = record(&site, &hosts, Duration::from_millis(50), samples + 5);
    for host in &hosts {
        let kept = file["ringstat"]["hosts"][host.name.as_str()]["samples_kept"].int();
        assert!(kept >= u64::from(samples) / 2, "{}: {kept}", host.name);
    }
    if is_long && !cfg!(debug_assertions) {
        assert!(end < Duration::from_secs(5), "{end:?}, started in {start:?}");
    }
    hosts.iter().for_each(assert_clean);
}
