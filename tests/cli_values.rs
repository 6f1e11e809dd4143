//! Values that cannot be: each is refused before the command is started, with a sentence that says
//! what to do instead; and values that look odd and are fine.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::{World, entries};

/// What is given, and words that the sentence must have: what to give instead.
const BAD: [(&[&str], &str); 35] = [
    (&["--interval", "0"], "more than 0"),
    (&["--interval", "0s"], "more than 0"),
    (&["--interval", "-1"], "more than 0"),
    (&["--interval=-1"], "more than 0"),
    (&["--interval", "nan"], "give seconds"),
    (&["--interval", "inf"], "give seconds"),
    (&["--interval", "1e12"], "choose one from"),
    (&["--interval", "999999999999"], "choose one from 1ms to 24h"),
    (&["--interval", "25h"], "choose one from 1ms to 24h"),
    (&["--interval", "0.0001"], "choose one from 1ms to 24h"),
    (&["--interval", "0.9ms"], "choose one from 1ms to 24h"),
    (&["--interval", "abc"], "give seconds"),
    (&["--interval", ""], "give seconds"),
    (&["--timeseries-interval", "0"], "more than 0"),
    (&["--max-samples", "0"], "choose a number from 1"),
    (&["--max-samples", "-5"], "from 1 to"),
    (&["--max-samples", "1.5"], "from 1 to"),
    (&["--max-samples", "999999999999"], "choose a number from 1"),
    (&["--max-samples", "99999999999999999999999"], "from 1 to"),
    (&["--max-timeseries-samples", "0"], "choose a number from 1"),
    (&["--cpu", "9999"], "choose one of its CPUs, auto or none"),
    (&["--cpu", "x"], "give the number of a CPU, auto or none"),
    (&["--cpu", "-1"], "a CPU, auto or none"),
    (&["--nice", "50"], "choose one from -20 to 19"),
    (&["--nice", "low"], "-20 to 19"),
    (&["--nice", "-21"], "choose one from -20 to 19"),
    (&["--policy", "fifo"], "[possible values: idle, batch, other]"),
    (&["--sources", "foo"], "choose from diskstats, vmstat, meminfo, loadavg, netdev"),
    (&["--sources", ""], "choose from diskstats"),
    (&["--sources", "vmstat,,"], "choose from diskstats"),
    (&["--benchmark-type", "a/b"], "use letters, digits"),
    (&["--benchmark-type", ""], "use letters, digits"),
    (&["--sync-interval", "0"], "more than 0"),
    (&["--sync-interval", "1ms"], "choose one from 10ms to 24h"),
    (&["--format", "xml"], "[possible values: json, json-compact]"),
];

#[test]
fn bad_values_are_refused_before_the_command_is_started() {
    let mut wrong = Vec::new();
    for (options, advice) in BAD {
        let world = World::new();
        let ran = world.run_sh(options, "touch \"$W/started\"").output();
        let is_untouched = !world.path("started").exists()
            && entries(&world.results()).is_empty()
            && entries(&world.rings()).is_empty();
        if ran.status != 2 || !ran.stdout.is_empty() || !is_untouched {
            ran.fail("expected status 2 and nothing done");
        }
        if !ran.stderr.contains(advice) {
            wrong.push(format!("{options:?}: no {advice:?} in {:?}", ran.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_values_of_record_are_refused_as_well() {
    let of_its_own: [(&[&str], &str); 5] = [
        (&["--duration", "0"], "more than 0"),
        (&["--duration", "-1s"], "more than 0"),
        (&["--duration", "soon"], "give seconds"),
        (&["--interval", "0"], "more than 0"),
        (&["--benchmark-type", "a/b"], "use letters, digits"),
    ];
    for (options, advice) in of_its_own {
        let world = World::new();
        world.record(options).ends_with(2).says(&[advice]);
        world.assert_no_rings();
        assert_eq!(entries(&world.results()), [""; 0], "{options:?}");
    }
}

#[test]
fn directories_that_cannot_be_are_refused_by_name() {
    let world = World::new();
    let file = world.write("file", "");
    let below_a_file = file.join("x");
    let below_a_file = below_a_file.to_str().unwrap();
    for (option, dir, what) in [
        ("--results-dir", below_a_file, "results directory"),
        ("--results-dir", file.to_str().unwrap(), "results directory"),
        ("--results-dir", "/proc/x", "results directory"),
        ("--ring-dir", "/proc/x", "ring directory"),
        ("--ring-dir", below_a_file, "ring directory"),
        ("--mirror-dir", "/proc/x", "mirror directory"),
        ("--mirror-dir", below_a_file, "mirror directory"),
        ("--procfs", "/nonexistent", "like /proc"),
        ("--procfs", "/etc/passwd", "like /proc"),
    ] {
        let ran = world.run_sh(&[option, dir], "touch \"$W/started\"").ends_with(2);
        let ran = ran.says(&[dir, what, option]);
        if world.path("started").exists() {
            ran.fail("the command was started");
        }
        world.assert_no_rings();
    }
}

#[test]
fn contradictions_are_refused() {
    let world = World::new();
    for options in [&["-v", "-q"][..], &["--no-mirror", "--mirror-dir", "m"]] {
        let ran = world.run_sh(options, "touch \"$W/started\"").ends_with(2);
        let ran = ran.says(&["cannot be used with"]);
        if world.path("started").exists() {
            ran.fail("the command was started");
        }
    }
    world.ringstat(&["run"]).ends_with(2).says(&["<COMMAND>"]);
    world.ringstat(&["run", "true"]).ends_with(2).says(&["--"]);
    world.ringstat(&["decode"]).ends_with(2).says(&["RING_OR_RUN"]);
}

#[test]
fn odd_values_that_can_be_are_taken() {
    let cpu = {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
        line.rsplit(['\t', ',', '-']).next().unwrap().to_owned()
    };
    let taken: [&[&str]; 12] = [
        &["--interval", "1ms"],
        &["--interval", "0.001"],
        &["--interval", "24h"],
        &["--interval", "1000"],
        &["--timeseries-interval", "1m"],
        &["--max-timeseries-samples", "1"],
        &["--cpu", "none"],
        &["--cpu", &cpu],
        &["--nice", "19"],
        &["--policy", "idle"],
        &["--policy", "batch"],
        &["--sources", "netdev,loadavg,netdev"],
    ];
    for options in taken {
        let world = World::new();
        world.run(options, &["true"]).succeeds().does_not_say(&["warning"]);
        let files = world.files();
        assert!(files.summary()["ended_cleanly"].bool(), "{options:?}");
    }
}

#[test]
fn what_was_asked_of_the_thread_is_in_the_file() {
    let world = World::new();
    let options = ["--policy", "batch", "--nice", "7", "--cpu", "none", "--sync-interval", "2s"];
    world.run(&options, &["true"]).succeeds();
    let files = world.files();
    let sampler = &files.summary()["sampler"];
    assert_eq!(sampler["policy"].str(), "batch");
    assert_eq!(sampler["nice"].int(), 7);
    assert!(!sampler.has("cpu"));
    assert_eq!(sampler["sync_interval_seconds"].float(), 2.0);
}

#[test]
fn the_help_names_every_option_with_its_unit_and_default() {
    let world = World::new();
    for subcommand in ["run", "record"] {
        let help = world.ringstat(&[subcommand, "--help"]).succeeds().stdout;
        for words in [
            "--interval",
            "--timeseries-interval",
            "1ms to 24h",
            "[default: 10]",
            "--max-samples",
            "--max-timeseries-samples",
            "[default: 3600]",
            "--skip-timeseries",
            "--benchmark-type",
            "vectordb",
            "kvcache",
            "--results-dir",
            "--ring-dir",
            "/dev/shm/ringstat-UID",
            "--mirror-dir",
            "/var/tmp/ringstat-UID",
            "--no-mirror",
            "--sync-interval",
            "--cpu",
            "[default: auto]",
            "--policy",
            "idle",
            "batch",
            "other",
            "--nice",
            "--sources",
            "--procfs",
            "--keep-ring",
            "--verbose",
            "--quiet",
            "--merge-metadata",
            "json-compact",
        ] {
            assert!(help.contains(words), "{subcommand} --help does not say {words:?}");
        }
    }
}
