//! `ringstat bench`: that it measures what it says, on a host and with a command of the user's own,
//! and leaves nothing behind. Figures of time are only seen to be there: this machine is busy.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::json::{Value, parse};
use common::{Cmd, Ran, World, entries, say_skipped, wait_for_file};
use rustix::process::{Pid, Signal};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

/// Another user, who may make no cgroup.
const NOBODY: u32 = 65534;
const SOURCES: [&str; 6] = ["all", "diskstats", "vmstat", "meminfo", "loadavg", "netdev"];

fn bench(world: &World, args: &[&str]) -> Cmd {
    world.ringstat(&[&["bench"], args].concat())
}

/// The one JSON object that it prints.
fn report(ran: &Ran) -> Value {
    parse(&ran.stdout).unwrap_or_else(|error| ran.fail(&error))
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Int(number) => *number as f64,
        other => other.float(),
    }
}

/// Fails if the process has left a directory of its own where it makes them.
fn assert_nothing_left_by(pid: Pid) {
    let prefix = format!("ringstat-bench-{}-", pid.as_raw_nonzero());
    for dir in ["/dev/shm", "/var/tmp", "/tmp", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let left = entries(Path::new(dir)).into_iter().find(|name| name.starts_with(&prefix));
        assert_eq!(left, None, "in {dir}");
    }
}

/// Runs it to its end, and sees that nothing is left.
fn succeeds(cmd: Cmd) -> Ran {
    let live = cmd.start();
    let pid = live.pid();
    let ran = live.end().has_status(0);
    assert_nothing_left_by(pid);
    ran
}

#[test]
fn the_cost_of_every_source_is_a_table_and_json() {
    let world = World::new();
    let ran = succeeds(bench(&world, &["--only", "hot", "--quick"]));
    for name in SOURCES {
        assert!(ran.stdout.contains(&format!("\n{name} ")), "{}", ran.stdout);
    }
    ran.says(&["cost back to back: 2000 rounds of each, about 1 s"]);

    let ran = succeeds(bench(&world, &["--only", "hot", "--quick", "--json", "--quiet"]));
    assert_eq!(ran.stderr, "");
    let report = report(&ran);
    assert_eq!(report.keys(), ["ringstat_version", "machine", "interval_seconds", "hot"]);
    assert!(report["machine"]["cpus"].int() >= 1);
    assert_eq!(report["interval_seconds"].float(), 10.0);
    let costs = report["hot"]["sources"].list();
    assert_eq!(costs.iter().map(|cost| cost["source"].str()).collect::<Vec<_>>(), SOURCES);
    for cost in costs {
        let text = fs::read(match cost["source"].str() {
            "all" => continue,
            "netdev" => "/proc/net/dev".to_owned(),
            name => format!("/proc/{name}"),
        });
        let length = text.unwrap().len() as f64;
        let bytes = number(&cost["text_bytes"]);
        assert!((bytes / length - 1.0).abs() < 0.5, "{cost:?} {length}");
        let [floor, sample] = ["floor_us", "sample_us"].map(|key| cost[key]["median"].float());
        assert!(floor > 0.0 && sample > 0.0 && cost["ratio"]["median"].float() > 0.0);
        let parts = ["read_us", "parse_us", "commit_us"].map(|part| cost[part].float());
        assert!((parts.iter().sum::<f64>() - sample).abs() < 1e-6, "{parts:?} {sample}");
    }
}

/// `cold` in a second and a half.
const COLD: [&str; 9] =
    ["--only", "cold", "--quick", "--seconds", "300ms", "--interval", "10ms", "--json", "--quiet"];

fn assert_is_cold(report: &Value, usage_from: &str) {
    let cold = &report["cold"];
    assert_eq!(cold["interval_seconds"].float(), 0.01);
    assert_eq!(cold["usage_from"].str(), usage_from);
    let processes = cold["processes"].list();
    let names: Vec<&str> = processes.iter().map(|cost| cost["process"].str()).collect();
    assert_eq!(names, ["floor", "no_mirror"]);
    for cost in processes {
        // Thirty samples; none costs less than reading one small file, or a whole interval.
        let us = cost["sample_us"]["median"].float();
        assert!((5.0..10_000.0).contains(&us), "{cost:?}");
    }
    assert_eq!(processes[0]["ratio"]["median"].float(), 1.0);
    let [us, percent] =
        [processes[1]["sample_us"]["median"].float(), report["cpu_percent"].float()];
    assert!((percent - us / 100.0).abs() < 1e-6, "{us} us of every 10 ms, {percent} %");
}

#[test]
fn whole_processes_are_measured_in_cgroups_of_their_own() {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !mountinfo.contains(" - cgroup2 ") {
        return say_skipped("CPU time by cgroup", "root and a cgroup v2");
    }
    let world = World::new();
    assert_is_cold(&report(&succeeds(bench(&world, &COLD))), "cgroup");
}

#[test]
fn who_may_make_no_cgroup_measures_by_schedstat() {
    if !rustix::process::geteuid().is_root() {
        return say_skipped("measuring as another user", "root");
    }
    let world = World::new();
    fs::set_permissions(world.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    // Where the other user can start it.
    let program = world.path("ringstat");
    fs::copy(env!("CARGO_BIN_EXE_ringstat"), &program).unwrap();
    let mut cmd = Cmd::new(&program, &world.path("")).arg("bench").args(&COLD);
    cmd.command.uid(NOBODY).gid(NOBODY);
    assert_is_cold(&report(&succeeds(cmd)), "schedstat");
}

#[test]
fn lateness_has_a_row_for_each_policy_idle_and_busy() {
    let world = World::new();
    let options =
        ["--only", "lateness", "--quick", "--seconds", "200ms", "--interval", "2ms", "--json"];
    let report = report(&succeeds(bench(&world, &options)));
    let rows = report["lateness"].list();
    let named: Vec<(u64, &str)> =
        rows.iter().map(|row| (row["busy_per_cpu"].int(), row["policy"].str())).collect();
    let policies = ["idle", "batch", "other"];
    let expected: Vec<(u64, &str)> =
        [0, 1].iter().flat_map(|busy| policies.map(|policy| (*busy, policy))).collect();
    assert_eq!(named, expected);
    for row in rows {
        assert_eq!(row["interval_seconds"].float(), 0.002);
        let [elapsed, missed] = ["ticks_elapsed", "ticks_missed"].map(|key| row[key].int());
        assert!(elapsed >= 100 && missed <= elapsed, "{row:?}");
        let late = ["p50", "p99", "max"].map(|key| row["lateness_us"][key].float());
        assert!(late.is_sorted(), "{late:?}");
    }
}

#[test]
fn high_rates_and_long_runs_are_measured_and_said_to_be_extrapolated() {
    let world = World::new();
    let parts = ["--only", "high-rate,long-run", "--quick", "--interval", "100ms"];
    let ran = succeeds(bench(&world, &[&parts[..], &["--json"]].concat()));
    let report = report(&ran);
    let rate = &report["high_rate"];
    let [elapsed, taken] = ["ticks_elapsed", "ticks_taken"].map(|key| rate[key].int());
    assert!((1000..2_000_000).contains(&elapsed) && 0 < taken && taken <= elapsed + 1, "{rate:?}");
    let run = &report["long_run"];
    let [start, measured, whole] =
        ["start_cpu_seconds", "measured_cpu_seconds", "extrapolated_cpu_seconds"]
            .map(|key| run[key].float());
    assert!(start > 0.0 && measured > 0.0);
    assert_eq!(run["measured_seconds"].float(), 10.0);
    assert!((whole - start - measured * 3600.0).abs() < 1e-6 * whole, "{run:?}");
}

/// Says a figure, and leaves a line in `$W/runs`.
const SAYS_A_RATE: &str = "echo rate 1; echo run >>$W/runs; echo rate 12.5k";

#[test]
fn a_command_runs_in_pairs_and_its_figures_are_compared() {
    let world = World::new();
    let compare = |seed: &str| {
        let options = ["--pairs", "4", "--interval", "5ms", "--seed", seed, "--json"];
        let metric = ["--metric", "rate (?<rate>[0-9.]+k?)", "--", "sh", "-c", SAYS_A_RATE];
        let ran = succeeds(bench(&world, &[&options[..], &metric].concat()));
        let report = report(&ran);
        ran.says(&[&format!("seed {seed}"), "pair 4 of 4"]);
        report["comparison"].clone()
    };
    let comparison = compare("7");
    let runs = fs::read_to_string(world.path("runs")).unwrap();
    assert_eq!(runs.lines().count(), 1 + 2 * 4, "one to warm up, then the pairs");
    assert_eq!(comparison["seed"].int(), 7);
    assert_eq!(comparison["pairs"].int(), 4);
    let samples = ["samples_per_run", "samples_during_run"].map(|key| comparison[key].float());
    assert!(samples[0] >= 2.0);
    assert_eq!(samples[1], samples[0] - 2.0, "those of start and stop are outside");
    let order = |comparison: &Value| -> Vec<bool> {
        comparison["recorded_first"].list().iter().map(Value::bool).collect()
    };
    assert!(order(&comparison).chunks(2).all(|two| two[0] != two[1]));
    assert_eq!(order(&comparison), order(&compare("7")));

    let figures = comparison["figures"].list();
    let names: Vec<&str> = figures.iter().map(|figure| figure["name"].str()).collect();
    assert_eq!(names, ["wall time, s", "CPU time, s", "rate"]);
    let rate = &figures[2];
    for pair in rate["pairs"].list() {
        assert_eq!(pair.list(), [Value::Float(12_500.0), Value::Float(12_500.0)]);
    }
    for key in ["difference", "difference_percent"] {
        let ends = ["mean", "low", "high"].map(|end| rate[key][end].float());
        assert_eq!(ends, [0.0; 3]);
    }
    let conclusion = "no difference seen; anything above 0.000 % would have been";
    assert_eq!(rate["conclusion"].str(), conclusion);
    assert!(figures[0]["without"]["median"].float() > 0.0);
}

#[test]
fn what_recording_does_to_a_command_is_seen() {
    let world = World::new();
    // A benchmark that is disturbed by every ring there is, and says so.
    let script = "set -- /dev/shm/ringstat-bench-$PPID-*; test -e $1 && echo 90.5 || echo 100";
    let options = ["--pairs", "3", "--quiet", "--metric", r"(\d+\.?\d*)", "--", "sh", "-c", script];
    let ran = succeeds(bench(&world, &options));
    let words = "lower by 9.5 % (9.5 to 9.5)";
    assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    assert_eq!(ran.stderr, "");
}

#[test]
fn the_output_of_a_command_is_shown_to_who_asks() {
    let world = World::new();
    let options = ["--pairs", "2", "-v", "--", "sh", "-c", "echo on one; echo on the other >&2"];
    let ran = succeeds(bench(&world, &options));
    assert_eq!(ran.stderr.matches("on one\non the other\n").count(), 5);
    assert!(!ran.stdout.contains("on one\n"));
}

#[test]
fn a_command_that_fails_ends_it_and_nothing_is_compared() {
    let world = World::new();
    // The second run fails.
    let script = "echo all is $W; test -e $W/ran && exit 3; touch $W/ran";
    let failed = |script, words: &[&str]| {
        let live = bench(&world, &["--pairs", "2", "--json", "--", "sh", "-c", script]).start();
        let pid = live.pid();
        let ran = live.end().has_status(1);
        assert_nothing_left_by(pid);
        assert_eq!(ran.stdout, "");
        ran.says(words);
    };
    let words = ["Pair 1: the run with", "of the command failed (exit status: 3)", "all is /"];
    failed(script, &words);
    failed("kill -9 $$", &["The run to warm up of the command failed (signal: 9"]);
    let ran = bench(&world, &["--", "/no/such/command"]).ends_with(1);
    ran.says(&["cannot start \"/no/such/command\": No such file"]);
    let ran = bench(&world, &["--metric", "IOPS=([0-9]+)", "--", "echo", "no figure"]).ends_with(1);
    ran.says(&[
        "The run to warm up of the command has no number for \"IOPS=([0-9]+)\"",
        "no figure",
    ]);
}

#[test]
fn an_interrupt_ends_the_command_and_leaves_nothing() {
    let world = World::new();
    let script = "test -e $W/warm || exec touch $W/warm; touch $W/runs; exec sleep 3600";
    let live = bench(&world, &["--pairs", "2", "--", "sh", "-c", script]).start();
    wait_for_file(&world.path("runs"));
    let pid = live.pid();
    live.signal(Signal::TERM);
    live.end().has_status(1).says(&["interrupted"]);
    assert_nothing_left_by(pid);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let world = World::new();
    let rows: [(&[&str], &str); 15] = [
        (&["--interval", "0"], "more than 0"),
        (&["--interval", "0.9ms"], "choose one from 1ms to 24h"),
        (&["--only", "warm"], "[possible values: hot, cold, lateness, high-rate, long-run]"),
        (&["--seconds", "0"], "more than 0"),
        (&["--seconds", "1"], "choose from 2s to 10m"),
        (&["--seconds", "601"], "choose from 2s to 10m"),
        (&["--only", "long-run", "--interval", "2m"], "choose one of 60s at most"),
        (&["--nice", "20"], "choose one from -20 to 19"),
        (&["--cpu", "9999"], "choose one of its CPUs, auto or none"),
        (&["--pairs", "3"], "<COMMAND>"),
        (&["--pairs", "1", "--", "true"], "2..=10000"),
        (&["--pairs", "x", "--", "true"], "invalid digit"),
        (&["--metric", "(", "--", "true"], "unclosed group"),
        (&["--metric", "x", "--", "true"], "exactly one group"),
        (&["--quick", "--", "true"], "cannot be used with"),
    ];
    for (options, words) in rows {
        bench(&world, options).ends_with(2).says(&[words]);
    }
}

#[test]
fn a_comparison_without_a_sample_in_it_says_so() {
    let world = World::new();
    let ran = succeeds(bench(&world, &["--pairs", "2", "--interval", "1h", "--", "true"]));
    let ran = ran.says(&["hardly any sample will fall into a run"]);
    assert!(ran.stdout.contains("NOT EVERY RUN HAD A SAMPLE IN IT"), "{}", ran.stdout);
}
