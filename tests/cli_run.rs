//! `ringstat run` as a wrapper: status, standard input and output, the names of the files, and
//! what is said about them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use chrono::{Duration, NaiveDateTime, Utc};
use common::{World, entries, json, read_metadata};
use std::collections::BTreeSet;
use std::fs;

const DATETIME: &str = "%Y%m%d_%H%M%S";

#[test]
fn the_exit_status_is_the_commands_and_the_files_are_written_anyway() {
    for (script, status) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
        ("kill -INT $$", 128 + 2),
        ("kill -ABRT $$", 128 + 6),
    ] {
        let world = World::new();
        world.run_sh(&[], script).ends_with(status);
        let files = world.files();
        assert_eq!(files.metadata["exit_status"].int(), status as u64, "{script}");
        assert_eq!(files.samples().len(), 2, "{script}: at the start and at the stop");
        world.assert_no_rings();
    }
}

#[test]
fn a_command_that_cannot_be_started_leaves_nothing() {
    let world = World::new();
    world.write("plain", "not a program");
    for (command, status) in [("./plain", 126), ("./missing", 127), ("no-such-command-here", 127)] {
        let ran = world.run(&[], &[command]).ends_with(status);
        ran.says(&["cannot start", command]);
        assert_eq!(entries(&world.results()), [""; 0]);
        world.assert_no_rings();
    }
}

#[test]
fn standard_input_and_output_are_the_commands_alone() {
    let world = World::new();
    let text = "one\ntwo\n\u{1}three without end";
    let ran = world.run(&["-v"], &["cat"]).input(text).succeeds();
    assert_eq!(ran.stdout, text);
    let ran = world.run_sh(&[], "echo out; echo err >&2; exit 4").ends_with(4);
    assert_eq!(ran.stdout, "out\n");
    assert!(ran.stderr.starts_with("err\n"), "{}", ran.stderr);
}

#[test]
fn options_behind_the_dashes_and_odd_arguments_are_the_commands() {
    let world = World::new();
    let args = ["printf", "<%s>", "--interval", "", "a b", "--", "-q", "\u{fc}'\""];
    let ran = world.run(&[], &args).succeeds();
    assert_eq!(ran.stdout, "<--interval><><a b><--><-q><\u{fc}'\">");
    let metadata = world.files().metadata;
    assert_eq!(metadata["command"].str(), "run");
    let words = metadata["executed_command"].str();
    // A shell understands it as the very words that were run.
    let shell = common::Cmd::new("sh", &world.path("")).args(&["-c", words]).succeeds();
    assert_eq!(shell.stdout, ran.stdout);
}

#[test]
fn the_benchmark_type_is_the_commands_file_name_or_what_was_asked_for() {
    let cases = [
        (None, "true"),
        (Some("training"), "training"),
        (Some("checkpointing"), "checkpointing"),
        (Some("vectordb"), "vector_database"),
        (Some("kvcache"), "kv_cache"),
        (Some("kv_cache"), "kv_cache"),
        (Some("My.own-Type_2"), "My.own-Type_2"),
    ];
    for (asked, expected) in cases {
        let world = World::new();
        let options: Vec<&str> = asked.iter().flat_map(|name| ["--benchmark-type", name]).collect();
        world.run(&options, &["/bin/true"]).succeeds();
        assert_eq!(world.files().benchmark_type, expected, "{asked:?}");
    }
}

#[test]
fn skipped_time_series_leave_no_file_no_key_and_no_ring() {
    let world = World::new();
    world.run_sh(&["--skip-timeseries"], "ls -A \"$W\"; exit 6").ends_with(6);
    let names = entries(&world.results());
    let [name] = &names[..] else { panic!("{names:?}") };
    assert!(name.starts_with("sh_") && name.ends_with("_metadata.json"), "{name}");
    let metadata = read_metadata(&world.results().join(name));
    assert!(!metadata.has("timeseries_data"));
    assert_eq!(metadata["exit_status"].int(), 6);
    assert!(metadata["runtime"].float() > 0.0);
    world.assert_no_rings();
}

#[test]
fn the_results_directory_is_made_and_may_be_relative() {
    let world = World::new();
    let options = ["--results-dir", "a/new/one"];
    let ran = world.run(&options, &["true"]).dir(&world.path("")).succeeds();
    let files = common::Files::of(&world.path("a/new/one"));
    let dir = world.path("a/new/one");
    assert_eq!(files.metadata["result_dir"].str(), dir.to_str().unwrap());
    let stem = format!("a/new/one/true_{}", files.datetime);
    ran.says(&[&format!("{stem}_timeseries.json"), &format!("{stem}_metadata.json")]);
}

#[test]
fn the_current_directory_is_the_default_for_results() {
    let world = World::new();
    let here = world.path("here");
    fs::create_dir(&here).unwrap();
    let options =
        ["run", "--ring-dir", "../r", "--mirror-dir", "../m", "--max-samples", "2", "--", "true"];
    world.ringstat(&options).dir(&here).succeeds();
    common::Files::of(&here);
}

#[test]
fn a_taken_name_is_bumped_and_never_overwritten() {
    let world = World::new();
    let first = Utc::now().naive_utc() - Duration::seconds(1);
    // Every second from now on, either of the two names, as far ahead as any test can take.
    for second in 0..120 {
        let at = (first + Duration::seconds(second)).format(DATETIME);
        let what = if second % 2 == 0 { "timeseries" } else { "metadata" };
        world.write(&format!("results/x_{at}_{what}.json.taken"), "");
        let path = world.results().join(format!("x_{at}_{what}.json"));
        fs::rename(world.results().join(format!("x_{at}_{what}.json.taken")), path).unwrap();
    }
    let before: BTreeSet<String> = entries(&world.results()).into_iter().collect();
    for bump in 0..2 {
        world.run(&["--benchmark-type", "x"], &["true"]).succeeds();
        let at = (first + Duration::seconds(120 + bump)).format(DATETIME);
        for what in ["timeseries", "metadata"] {
            assert!(world.results().join(format!("x_{at}_{what}.json")).exists(), "{bump} {what}");
        }
        let metadata = read_metadata(&world.results().join(format!("x_{at}_metadata.json")));
        assert_eq!(metadata["run_datetime"].str(), at.to_string());
    }
    assert_eq!(entries(&world.results()).len(), before.len() + 4);
    for name in before {
        let path = world.results().join(name);
        assert_eq!(fs::read(&path).unwrap(), b"", "{} was overwritten", path.display());
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn names_have_the_local_time_and_contents_have_utc() {
    let world = World::new();
    // 5:45 east of Greenwich, said in a way that needs no time zone database.
    world.run(&[], &["true"]).env("TZ", "NPT-05:45").succeeds();
    let files = world.files();
    let start = files.timeseries["start_time"].str();
    let utc = NaiveDateTime::parse_from_str(start, "%Y-%m-%dT%H:%M:%SZ").unwrap();
    let local = NaiveDateTime::parse_from_str(&files.datetime, DATETIME).unwrap();
    let offset = local - utc - Duration::minutes(5 * 60 + 45);
    assert!(offset.num_seconds().abs() <= 60, "{local} is not {utc} there");
    assert!((Utc::now().naive_utc() - utc).num_seconds().abs() <= 60, "{start}");
}

#[test]
fn little_is_said_nothing_when_quiet_and_the_place_of_the_ring_when_asked() {
    let world = World::new();
    let normal = world.run(&[], &["true"]).succeeds().says(&["2 samples", "_timeseries.json"]);
    assert!(normal.stderr.lines().count() <= 4, "{}", normal.stderr);
    assert!(normal.stderr.lines().all(|line| line.starts_with("ringstat: ")), "{}", normal.stderr);
    let quiet = world.run(&["-q"], &["true"]).succeeds();
    assert_eq!(quiet.stderr, "");
    // The command looks where its own ring is, which is gone afterwards.
    let verbose = world.run_sh(&["-v"], "ls -d \"$W\"/rings/*").succeeds();
    let ring = verbose.stdout.trim_end().to_owned();
    assert!(ring.contains("/rings/"), "{ring}");
    verbose.says(&[&format!("ring {ring}"), "mirror ", "sampler: policy other"]);
}

#[test]
fn compact_files_have_the_same_content_without_white_space() {
    let world = World::new();
    world.run(&["--format", "json-compact", "--keep-ring"], &["true"]).succeeds();
    let files = world.files();
    let dir = world.run_dir(&world.rings());
    let name = format!("true_{}_timeseries.json", files.datetime);
    let text = fs::read_to_string(world.results().join(name)).unwrap();
    assert!(!text.contains([' ', '\n']) || !text.contains("\": "), "white space");
    let decoded = world.ringstat(&["decode", "-o", "-"]).arg(&dir).succeeds();
    assert!(decoded.stdout.starts_with("{\n  \""), "indented unless told otherwise");
    assert_eq!(json::parse(&decoded.stdout).unwrap(), files.timeseries);
}

#[test]
fn a_kept_ring_decodes_to_the_same_file() {
    let world = World::new();
    let options = ["--keep-ring", "--interval", "5ms", "--benchmark-type", "kept"];
    let ran = world.run(&options, &["sleep", "0.05"]).succeeds();
    let files = world.files();
    let dir = world.run_dir(&world.rings());
    ran.says(&[&format!("ring kept in {}", dir.display())]);
    let out = world.path("again");
    world.ringstat(&["decode", "-o"]).arg(&out).arg(&dir).succeeds();
    let again = common::Files::of(&out);
    assert_eq!(again.timeseries, files.timeseries);
    assert_eq!((again.benchmark_type, again.datetime), (files.benchmark_type, files.datetime));
    for key in ["system_info", "timeseries_data", "runtime", "executed_command", "exit_status"] {
        assert_eq!(again.metadata[key], files.metadata[key], "{key}");
    }
    // It owes nothing: `recover` leaves it alone.
    world.looking(&["recover"]).arg(dir.file_name().unwrap()).succeeds();
    assert!(dir.join("00000.ring").exists());
    assert_eq!(entries(&world.results()).len(), 2);
}
