//! The strict reader itself, which every other test trusts: it takes what ringstat writes from the
//! real `/proc` and from a fixed one, and refuses the same file with anything changed.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::{Files, World, entries, format, json};
use std::fs;

/// One run's files as text: the time series and the metadata.
fn texts(world: &World) -> (String, String) {
    let names = entries(&world.results());
    let read = |suffix: &str| {
        let name = names.iter().find(|name| name.ends_with(suffix)).unwrap();
        fs::read_to_string(world.results().join(name)).unwrap()
    };
    (read("_timeseries.json"), read("_metadata.json"))
}

#[test]
fn files_from_the_real_proc_pass() {
    let world = World::new();
    world.run(&["--procfs", "/proc", "--interval", "20ms"], &["sleep", "0.1"]).succeeds();
    let files = world.files();
    assert!(files.samples().len() >= 2);
    for source in format::SOURCES {
        assert!(files.last().has(source), "no {source}");
    }
    assert!(!files.last().has("errors"), "{:?}", files.last()["errors"]);
}

#[test]
fn every_change_of_a_time_series_is_refused() {
    let world = World::new();
    world.run(&[], &["true"]).succeeds();
    let (good, _) = texts(&world);
    format::timeseries(&good).unwrap();
    let first_flush = "\"flush_requests_completed\"";
    let changes = [
        // Keys: one too many, one too few, another order, twice.
        ("  \"num_samples\"", "  \"count\": 1,\n  \"num_samples\""),
        ("\"collection_method\": \"local\",\n  ", ""),
        ("\"start_time\"", "\"begin_time\""),
        ("\"device_name\"", "\"name\""),
        ("\"device_name\": \"loop0\"", "\"device_name\": \"loop0\",\n            \"major\": 7"),
        ("            \"sectors_discarded\": 0,\n", ""),
        (first_flush, "\"flushes\""),
        ("\"rx_bytes\"", "\"bytes_rx\""),
        ("\"ringstat\": {", "\"sampler\": {"),
        ("\"pswpin\": 0", "\"pgpgin\": 0"),
        ("\"loadavg_extra\"", "\"something_else\""),
        // Types and number forms.
        ("\"collection_interval_seconds\": 10.0", "\"collection_interval_seconds\": 10"),
        ("\"load_15min\": 100.0", "\"load_15min\": 100"),
        ("\"rx_packets\": 902113", "\"rx_packets\": 902113.0"),
        ("\"rx_packets\": 902113", "\"rx_packets\": \"902113\""),
        ("\"rx_packets\": 902113", "\"rx_packets\": -1"),
        ("\"rx_packets\": 902113", "\"rx_packets\": null"),
        ("\"at_stop\": true", "\"at_stop\": false"),
        // Times.
        ("Z\",\n  \"end_time\"", "+00:00\",\n  \"end_time\""),
        ("\"end_time\": \"2", "\"end_time\": \"1"),
        // What is there must agree.
        ("\"num_samples\": 2", "\"num_samples\": 3"),
        ("\"hosts_requested\": [\n    \"", "\"hosts_requested\": [\n    \"x"),
        ("\"hosts_collected\": [\n    \"", "\"hosts_collected\": [\n    \"x"),
        ("\"collection_method\": \"local\"", "\"collection_method\": \"serial\""),
        ("\"collection\": {", "\"errors\": {},\n        \"collection\": {"),
    ];
    for (from, to) in changes {
        assert!(good.contains(from), "nothing to change: {from:?}");
        let bad = good.replacen(from, to, 1);
        assert!(format::timeseries(&bad).is_err(), "accepted: {from:?} -> {to:?}");
    }
    for bad in [&good[..good.len() / 2], "", "[]", "{}"] {
        assert!(format::timeseries(bad).is_err());
    }
}

#[test]
fn every_change_of_the_layout_is_refused() {
    if json::as_python_writes_it("1", true).is_none() {
        return common::say_skipped("refusing other layouts", "python3");
    }
    let world = World::new();
    world.run(&[], &["true"]).succeeds();
    let (good, _) = texts(&world);
    let changes = [
        ("  \"num_samples\"", "    \"num_samples\""),
        ("\"num_samples\": ", "\"num_samples\":  "),
        ("\"load_1min\": 12.05", "\"load_1min\": 1.205e1"),
        ("\"collection_method\": \"local\"", "\"collection_method\": \"\\u006cocal\""),
    ];
    for (from, to) in changes {
        let bad = good.replacen(from, to, 1);
        assert!(bad != good && format::timeseries(&bad).is_err(), "accepted: {from:?} -> {to:?}");
    }
    assert!(format::timeseries(&format!("{good}\n")).is_err());
}

#[test]
fn every_change_of_metadata_is_refused() {
    let world = World::new();
    world.run(&[], &["true"]).succeeds();
    let (_, good) = texts(&world);
    format::metadata(&good).unwrap();
    let changes = [
        ("  \"command\"", "  \"cmd\""),
        ("\"interval_seconds\": 10.0", "\"interval_seconds\": 10"),
        ("\"num_samples\": 2", "\"num_samples\": 2,\n    \"samples\": 2"),
        ("\"num_samples\": 2", "\"num_samples\": 0"),
        ("\"file\": \"true_2", "\"file\": \"false_2"),
        ("\"runtime\": 0", "\"runtime\": -0"),
        ("\"exit_status\": 0", "\"exit_status\": 256"),
        ("\"exit_status\": 0", "\"exit_status\": null"),
        ("\"run_datetime\": \"2", "\"run_datetime\": \"T"),
        ("  \"ringstat\": {", "  \"args\": {},\n  \"ringstat\": {"),
    ];
    for (from, to) in changes {
        assert!(good.contains(from), "nothing to change: {from:?}");
        let bad = good.replacen(from, to, 1);
        assert!(format::metadata(&bad).is_err(), "accepted: {from:?} -> {to:?}");
    }
}

#[test]
fn a_name_that_is_not_ascii_stays_what_it_is() {
    let world = World::new();
    let command = world.write("bénch märk", "#!/bin/sh\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&command, mode).unwrap();
    world.run(&[], &[command.to_str().unwrap(), "\"ü\\\u{1}"]).succeeds();
    let Files { benchmark_type, metadata, .. } = world.files();
    assert_eq!(benchmark_type, "b_nch_m_rk");
    assert!(metadata["executed_command"].str().contains("ü"));
}
