//! One time series of several hosts: those with samples, those that could not be reached, one under
//! two names, all in one file that the strict reader takes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::format;
use common::json::Value;
use common::rings::{self, Plan, WALL_NS, common as common_words};
use ringstat::Seq;
use ringstat::ring::{MIN_INTERVAL_NS, ReadAt, Ring};
use ringstat::{
    ClusterDecoder, ClusterRun, CollectionMethod, DecodeError, Decoder, FORMATS, HostClock,
    HostData, HostError, HostErrorKind, HostRings, JSON, JSON_COMPACT,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use uuid::Uuid;

const RUN: Uuid = Uuid::from_u128(0x100);

fn run() -> ClusterRun {
    ClusterRun {
        run_id: RUN,
        interval_ns: MIN_INTERVAL_NS,
        start_wall_ns: WALL_NS,
        end_wall_ns: WALL_NS + 9_000_000_000,
        collection_method: CollectionMethod::Ssh,
    }
}

/// The ring of host number `number`, with so many samples, 1 ms apart.
fn record(dir: &TempDir, number: u64, hostname: &str, samples: u64) -> PathBuf {
    let path = dir.path().join(format!("{number}.ring"));
    let plan = Plan {
        sources: vec![rings::scalars("vmstat", &["pgpgin".to_owned()])],
        segment: 0,
        first_seq: 0,
        slots: samples + 2,
        max_samples: samples + 1,
        entries: 1,
        record_words: 16,
    };
    let run_id = Uuid::from_u128(u128::from(number));
    let ring = rings::create_on(&path, &plan, hostname, run_id);
    for seq in 0..samples {
        rings::write(&ring, seq, common_words(seq, 0), &[(1, &[100 * number + seq])]);
    }
    path
}

fn from(path: &Path) -> HostData {
    let path = path.to_owned();
    HostData::Rings(Box::new(move || Ok(vec![Ring::open(&path)?])))
}

fn error(kind: HostErrorKind, after_ns: u64, message: &str) -> HostError {
    HostError { kind, time_unix_ns: WALL_NS + after_ns, message: message.to_owned() }
}

/// Two hosts with samples, one that could not be reached, one name for a host that is there already,
/// and one whose recorder never took a sample.
fn five(dir: &TempDir) -> Vec<HostRings> {
    let clock = HostClock {
        offset_ms: -49_000.25,
        uncertainty_ms: 0.5,
        drift_ppm: Some(12.5),
        synchronised: Some(false),
    };
    vec![
        HostRings {
            clock: Some(clock),
            ..HostRings::new("node9", from(&record(dir, 1, "nine.example", 3)))
        },
        HostRings {
            errors: vec![
                error(HostErrorKind::Ssh, 2_000_000_000, "connection refused, again"),
                error(HostErrorKind::Ssh, 1_000_000_000, "connection refused"),
            ],
            ..HostRings::new("node1", HostData::Nothing)
        },
        HostRings {
            errors: vec![error(HostErrorKind::Collection, 500_000, "the agent was killed")],
            // JSON cannot say these.
            clock: Some(HostClock {
                offset_ms: f64::NAN,
                drift_ppm: Some(f64::INFINITY),
                ..HostClock::default()
            }),
            ..HostRings::new("user@node2", from(&record(dir, 2, "two", 2)))
        },
        HostRings::new("10.0.0.9", HostData::SameAs("node9".to_owned())),
        HostRings::new("node3", from(&record(dir, 3, "three", 0))),
    ]
}

fn text(decoder: &ClusterDecoder, format: &ringstat::Format) -> String {
    let mut text = Vec::new();
    decoder.write(format, &mut text, &mut |_, _| {}).unwrap();
    String::from_utf8(text).unwrap()
}

fn strings(list: &Value) -> Vec<&str> {
    list.list().iter().map(Value::str).collect()
}

#[test]
fn every_host_has_its_place_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = ClusterDecoder::new(run(), five(&dir)).unwrap();
    assert!(decoder.unread().is_empty());
    for format in FORMATS {
        let file = format::timeseries(&text(&decoder, format)).unwrap();
        let hosts = ["node9", "node1", "user@node2", "10.0.0.9", "node3"];
        assert_eq!(strings(&file["hosts_requested"]), hosts);
        assert_eq!(file["samples_by_host"].keys(), hosts);
        assert_eq!(strings(&file["hosts_collected"]), ["node9", "user@node2"]);
        assert_eq!(file["num_samples"], Value::Int(3 + 2 + 3));
        assert_eq!(file["collection_method"].str(), "ssh");
        assert_eq!(file["start_time"].str(), "2026-01-02T03:04:05Z");
        assert_eq!(file["end_time"].str(), "2026-01-02T03:04:07Z", "of the last error");
        let samples = |host: &str| file["samples_by_host"][host].list();
        let values: Vec<u64> =
            samples("node9").iter().map(|sample| sample["vmstat"]["pgpgin"].int()).collect();
        assert_eq!(values, [100, 101, 102]);
        assert_eq!(samples("node9")[0]["hostname"].str(), "nine.example");
        let said: Vec<&str> =
            samples("node1").iter().map(|sample| sample["errors"]["ssh"].str()).collect();
        assert_eq!(said, ["connection refused", "connection refused, again"], "in order");
        assert_eq!(samples("node1")[0]["hostname"].str(), "node1");
        assert_eq!(samples("node1")[1]["timestamp"].str(), "2026-01-02T03:04:07Z");
        let [first, failed, last] = samples("user@node2") else { panic!("not three") };
        assert_eq!(first["vmstat"]["pgpgin"].int(), 200);
        assert_eq!(failed["errors"]["collection"].str(), "the agent was killed");
        assert_eq!(failed["hostname"].str(), "two");
        assert_eq!(last["vmstat"]["pgpgin"].int(), 201);
        assert!(samples("10.0.0.9").is_empty() && samples("node3").is_empty());
    }
}

#[test]
fn what_is_known_of_each_host_stands_beside_its_samples() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = ClusterDecoder::new(run(), five(&dir)).unwrap();
    let file = format::timeseries(&text(&decoder, &JSON)).unwrap();
    assert_eq!(file["ringstat"]["run_id"].str(), RUN.to_string());
    let host = |name: &str| &file["ringstat"]["hosts"][name];
    let nine = host("node9");
    assert_eq!(nine["hostname"].str(), "nine.example");
    assert_eq!(nine["run_id"].str(), Uuid::from_u128(1).to_string());
    assert_eq!(nine["clock_offset_ms"].float(), -49_000.25);
    assert_eq!(nine["clock_uncertainty_ms"].float(), 0.5);
    assert_eq!(nine["clock_drift_ppm"].float(), 12.5);
    assert!(!nine["clock_synchronised"].bool());
    assert_eq!((nine["samples_kept"].int(), nine.has("error_samples")), (3, false));
    let one = host("node1");
    assert_eq!((one["samples_kept"].int(), one["error_samples"].int()), (0, 2));
    assert_eq!(one["errors"]["ssh"].int(), 2);
    assert!(!one.has("same_as") && !one.has("run_id") && !one.has("clock_offset_ms"));
    let two = host("user@node2");
    let is_left_out = |key: &str| !two.has(&format!("clock_{key}"));
    assert!(["offset_ms", "uncertainty_ms", "drift_ppm"].iter().all(|key| is_left_out(key)));
    assert_eq!(two["host_errors"].list()[0]["kind"].str(), "collection");
    assert_eq!(host("10.0.0.9")["same_as"].str(), "node9");
    assert_eq!(
        (host("node3")["hostname"].str(), host("node3")["samples_taken"].int()),
        ("three", 0)
    );
    let two = decoder.summary("user@node2").unwrap();
    assert_eq!((two.samples_kept, two.error_samples), (2, 1));
    assert!(decoder.summary("two").is_none());
    let data = decoder.data().unwrap();
    assert_eq!(data.samples_by_host["user@node2"][1].collection, None);
    assert_eq!(data.ringstat.unwrap(), *decoder.outline().summary);
    assert_eq!(decoder.duration_ns(), 2 * MIN_INTERVAL_NS);
}

#[test]
fn a_host_whose_samples_are_more_text_than_they_may_be_is_an_error_alone() {
    const SAMPLES: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    // A few words with names that are as long as can be, and take most room when they are quoted.
    let names: Vec<String> = (0..50).map(|n| format!("{n:02}{}", "\u{1}".repeat(254))).collect();
    let path = dir.path().join("hostile.ring");
    let plan = Plan {
        sources: vec![rings::scalars("vmstat", &names)],
        segment: 0,
        first_seq: 0,
        slots: SAMPLES + 2,
        max_samples: SAMPLES + 1,
        entries: 1,
        record_words: 100,
    };
    let ring = rings::create_on(&path, &plan, "hostile.example", Uuid::from_u128(9));
    for seq in 0..SAMPLES {
        rings::write(&ring, seq, common_words(seq, 0), &[(50, &[u64::MAX; 50])]);
    }
    let good = record(&dir, 1, "good.example", 3);
    let decoder = |most_text_bytes| {
        let good = HostRings::new("good", from(&good));
        let hostile = HostRings { most_text_bytes, ..HostRings::new("hostile", from(&path)) };
        ClusterDecoder::new(run(), vec![hostile, good]).unwrap()
    };
    let bytes = |decoder: &ClusterDecoder| text(decoder, &JSON).len() as u64;
    assert!(decoder(None).unread().is_empty(), "{:?}", decoder(None).unread());
    let all = bytes(&decoder(None));
    let words = std::fs::metadata(&path).unwrap().len();
    assert!(all > 50 * words, "{all} bytes of text from {words}");
    // All of the file but what is not its samples.
    assert_eq!(bytes(&decoder(Some(all))), all);
    let refused = decoder(Some(all / 2));
    assert!(bytes(&refused) < all / 10);
    let [(name, DecodeError::TooMuchText { most })] = refused.unread() else {
        panic!("{:?}", refused.unread())
    };
    assert_eq!((&**name, *most), ("hostile", all / 2));
    let file = format::timeseries(&text(&refused, &JSON)).unwrap();
    assert_eq!(strings(&file["hosts_collected"]), ["good"]);
    let [sample] = file["samples_by_host"]["hostile"].list() else { panic!("not one") };
    assert!(sample["errors"]["collection"].str().contains("bytes of text"), "{sample:?}");
}

#[test]
fn no_sample_is_more_text_than_its_words_are_thought_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.ring");
    let columns = ["\u{1}".repeat(200), "\"".repeat(200), "plain".to_owned()];
    let columns: Vec<&str> = columns.iter().map(|name| &**name).collect();
    let plan = Plan {
        sources: vec![rings::table("\u{1}\u{2}", &columns)],
        segment: 0,
        first_seq: 0,
        slots: 20,
        max_samples: 19,
        entries: 8,
        record_words: 100,
    };
    let ring = rings::create_on(&path, &plan, "\\", Uuid::from_u128(9));
    for (entry, byte) in (0_u64..).zip([b'\\', b'"', 1, 0xff, b'a', 127, 0xc3, b'/']) {
        ring.add_entry(0, entry, Seq(0), &[byte; 96]).unwrap();
    }
    for seq in 0..9 {
        let rows = (0..8)
            .flat_map(|entry| [rings::row_head(entry, 3), u64::MAX, u64::MAX - 1, u64::MAX / 2]);
        rings::write(&ring, seq, common_words(seq, 0), &[(8, &rows.collect::<Vec<u64>>())]);
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
    for path in [path, golden, record(&dir, 1, "one", 20)] {
        let decoder = |most_text_bytes| {
            let host = HostRings { most_text_bytes, ..HostRings::new("host", from(&path)) };
            ClusterDecoder::new(run(), vec![host]).unwrap()
        };
        // Less than the samples, without what stands between them.
        let all = text(&decoder(None), &JSON);
        let samples = all.find("\"timestamp\"").unwrap()..all.rfind("\"missed_ticks\"").unwrap();
        let refused = decoder(Some(samples.len() as u64 * 9 / 10));
        assert_eq!(refused.unread().len(), 1, "{} of {} bytes", path.display(), samples.len());
        assert!(decoder(Some(all.len() as u64)).unread().is_empty(), "{}", path.display());
    }
}

#[test]
fn rings_that_cannot_be_read_are_an_error_of_their_host_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut hosts = five(&dir);
    let broken = dir.path().join("broken.ring");
    std::fs::write(&broken, "no ring").unwrap();
    hosts.insert(0, HostRings::new("broken", from(&broken)));
    hosts.push(HostRings::new("none", HostData::Rings(Box::new(|| Ok(Vec::new())))));
    let decoder = ClusterDecoder::new(run(), hosts).unwrap();
    let names: Vec<&str> = decoder.unread().iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["broken", "none"]);
    assert!(matches!(decoder.unread()[1].1, DecodeError::NoRings));
    let file = format::timeseries(&text(&decoder, &JSON)).unwrap();
    assert_eq!(file["num_samples"], Value::Int(8 + 2));
    let [sample] = file["samples_by_host"]["broken"].list() else { panic!("not one") };
    assert!(sample["errors"]["collection"].str().contains("broken.ring"), "{sample:?}");
    assert_eq!(sample["timestamp"].str(), "2026-01-02T03:04:14Z", "when the run had ended");
    assert_eq!(strings(&file["hosts_collected"]), ["node9", "user@node2"]);
}

#[test]
fn hosts_that_make_no_file_are_refused() {
    let twice = ["a", "a"].map(|name| HostRings::new(name, HostData::Nothing));
    let forward = vec![
        HostRings::new("a", HostData::SameAs("b".to_owned())),
        HostRings::new("b", HostData::Nothing),
    ];
    let itself = vec![HostRings::new("a", HostData::SameAs("a".to_owned()))];
    for hosts in [twice.into(), forward, itself] {
        let error = ClusterDecoder::new(run(), hosts).err().unwrap();
        assert!(matches!(error, DecodeError::Hosts { .. }), "{error}");
    }
}

#[test]
fn a_run_without_a_sample_has_the_times_of_its_launcher() {
    for hosts in [vec![], vec![HostRings::new("a", HostData::Nothing)]] {
        let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
        let run = ClusterRun { collection_method: CollectionMethod::Local, ..run() };
        let decoder = ClusterDecoder::new(run, hosts).unwrap();
        for format in FORMATS {
            let file = format::timeseries(&text(&decoder, format)).unwrap();
            assert_eq!(file["start_time"].str(), "2026-01-02T03:04:05Z");
            assert_eq!(file["end_time"].str(), "2026-01-02T03:04:14Z");
            assert_eq!(file["num_samples"], Value::Int(0));
            assert_eq!(file["collection_method"].str(), "local");
            assert_eq!(file["samples_by_host"].keys(), names);
        }
    }
}

#[test]
fn one_host_under_its_own_name_is_what_a_decoder_of_one_host_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = record(&dir, 4, "four", 5);
    let mut one = Decoder::new(vec![Ring::open(&path).unwrap()]).unwrap();
    let run = ClusterRun {
        run_id: Uuid::from_u128(4),
        collection_method: CollectionMethod::Local,
        ..run()
    };
    let all = ClusterDecoder::new(run, vec![HostRings::new("four", from(&path))]).unwrap();
    for format in [&JSON, &JSON_COMPACT] {
        let mut alone = Vec::new();
        let written = one.write(format, &mut alone, &mut |_, _| {}).unwrap();
        assert_eq!(text(&all, format), String::from_utf8(alone).unwrap());
        assert_eq!(written, all.outline());
    }
}

/// A file that counts how many of its kind are open.
struct Counted(File, Arc<AtomicUsize>);

impl ReadAt for Counted {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
        ReadAt::read_at(&self.0, bytes, offset)
    }

    fn len_bytes(&self) -> std::io::Result<u64> {
        self.0.len_bytes()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn rings_are_open_only_when_it_is_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let (open, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let host = |number: u64| {
        let path = record(&dir, number, "h", 2);
        let (open, opened) = (open.clone(), opened.clone());
        let data = HostData::Rings(Box::new(move || {
            opened.fetch_add(1, Ordering::Relaxed);
            assert_eq!(open.fetch_add(1, Ordering::Relaxed), 0, "another host's is open");
            let file = Counted(File::open(&path).unwrap(), open.clone());
            Ok(vec![Ring::new(Box::new(file), &path)?])
        }));
        HostRings::new(format!("h{number}"), data)
    };
    let decoder = ClusterDecoder::new(run(), (0..20).map(host).collect()).unwrap();
    assert_eq!((open.load(Ordering::Relaxed), opened.load(Ordering::Relaxed)), (0, 20));
    let mut heard = Vec::new();
    let mut out = std::io::sink();
    decoder.write(&JSON, &mut out, &mut |done, of| heard.push((done, of))).unwrap();
    assert_eq!((open.load(Ordering::Relaxed), opened.load(Ordering::Relaxed)), (0, 40));
    assert_eq!(heard, (1..=40).map(|done| (done, 40)).collect::<Vec<_>>());
}

#[test]
fn rings_that_change_between_counting_and_writing_are_not_half_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = record(&dir, 5, "five", 3);
    let decoder = ClusterDecoder::new(run(), vec![HostRings::new("five", from(&path))]).unwrap();
    std::fs::remove_file(&path).unwrap();
    record(&dir, 5, "five", 2);
    let error = decoder.write(&JSON, &mut std::io::sink(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, DecodeError::Changed { .. }), "{error}");
}

#[test]
fn a_file_of_several_hosts_that_contradicts_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let decoder = ClusterDecoder::new(run(), five(&dir)).unwrap();
    let good = text(&decoder, &JSON);
    let changes = [
        ("\"same_as\": \"node9\"", "\"same_as\": \"node3\""),
        ("\"same_as\": \"node9\"", "\"same_as\": 9"),
        ("\"error_samples\": 2", "\"error_samples\": 1"),
        ("\"ssh\": 2", "\"ssh\": 1"),
        ("\"kind\": \"ssh\"", "\"kind\": \"json\""),
        ("\"ssh\": \"connection refused\"", "\"netdev\": \"connection refused\""),
        ("\"message\": \"connection refused\"", "\"message\": \"refused\""),
        ("1767323046000000000", "1767323049000000000"),
        ("\"clock_offset_ms\": -49000.25", "\"clock_offset_ms\": -49000"),
        ("\"clock_synchronised\": false", "\"clock_synchronised\": 0"),
        ("\"end_time\": \"2026-01-02T03:04:07Z\"", "\"end_time\": \"2026-01-02T03:04:06Z\""),
        ("\"num_samples\": 8", "\"num_samples\": 5"),
        ("    \"user@node2\"\n  ],\n  \"ring", "    \"node3\"\n  ],\n  \"ring"),
        ("    \"node3\": []", "    \"node4\": []"),
        ("    \"10.0.0.9\": [],\n", ""),
    ];
    for (from, to) in changes {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from:?}");
        assert!(format::timeseries(&bad).is_err(), "accepted: {from:?} -> {to:?}");
    }
    // Samples under both names of a machine.
    let (head, tail) = good.split_once("\"node9\": [").unwrap();
    let (samples, _) = tail.split_once("\n    ],").unwrap();
    let doubled = format!("{head}\"node9\": [{tail}")
        .replacen("\"10.0.0.9\": []", &format!("\"10.0.0.9\": [{samples}\n    ]"), 1)
        .replacen("\"num_samples\": 8", "\"num_samples\": 11", 1);
    assert!(format::timeseries(&doubled).is_err());
}
