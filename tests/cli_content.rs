//! What is in the files: the values that `/proc` had, exactly; what it had at the stop; what could
//! not be read; and the benchmark's own metadata with ours in it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::format::{DISCARDS, DISK, FLUSHES, LOADS, NET};
use common::json::{self, Value};
use common::{World, entries, fixed_proc, format, wait_for_file};
use std::fs;

/// What a sample must have, from the text of `/proc`, in the plainest way that there is.
fn expected(source: &str, text: &str) -> Value {
    let int = |word: &str| Value::Int(word.parse().unwrap());
    let named = |keys: Vec<&str>, values: Vec<Value>| {
        Value::Object(keys.into_iter().map(str::to_owned).zip(values).collect())
    };
    let rows = |rows: Vec<Value>| Value::List(rows);
    match source {
        "diskstats" => rows(
            text.lines()
                .map(|line| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let name = Value::Text(words[2].to_owned());
                    let values = [name].into_iter().chain(words[3..].iter().map(|word| int(word)));
                    let keys = DISK.into_iter().chain(DISCARDS).chain(FLUSHES);
                    named(keys.collect(), values.collect())
                })
                .collect(),
        ),
        "netdev" => rows(
            text.lines()
                .skip(2)
                .map(|line| {
                    let (name, counters) = line.rsplit_once(':').unwrap();
                    let name = Value::Text(name.trim().to_owned());
                    let values = [name].into_iter().chain(counters.split_whitespace().map(int));
                    named(NET.to_vec(), values.collect())
                })
                .collect(),
        ),
        "loadavg" => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let loads = words[..3].iter().map(|word| Value::Float(word.parse().unwrap()));
            let values = loads.chain(words[3].split('/').map(int));
            named(LOADS.to_vec(), values.collect())
        }
        _ => {
            let pairs = text.lines().map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                (words[0].trim_end_matches(':').to_owned(), int(words[1]))
            });
            Value::Object(pairs.collect())
        }
    }
}

fn fixed(file: &str) -> String {
    fs::read_to_string(fixed_proc().join(file)).unwrap()
}

const FILES: [(&str, &str); 5] = [
    ("diskstats", "diskstats"),
    ("vmstat", "vmstat"),
    ("meminfo", "meminfo"),
    ("loadavg", "loadavg"),
    ("netdev", "net/dev"),
];

#[test]
fn every_value_is_the_one_that_proc_had() {
    let world = World::new();
    world.run(&[], &["true"]).succeeds();
    let files = world.files();
    for sample in files.samples() {
        for (source, file) in FILES {
            assert_eq!(sample[source], expected(source, &fixed(file)), "{source}");
        }
    }
    // And some of them by hand, should the lines above be wrong in the same way.
    let sample = files.last();
    let disk = &sample["diskstats"].list()[2];
    assert_eq!(disk["device_name"].str(), "nvme0n1");
    assert_eq!(disk["sectors_written"].int(), 1_204_499_821);
    assert_eq!(disk["flush_requests_completed"].int(), 120_033);
    assert_eq!(sample["diskstats"].list()[8]["time_writing_ms"].int(), u64::MAX);
    assert_eq!(sample["vmstat"]["numa_hit"].int(), u64::MAX);
    assert_eq!(sample["meminfo"]["Active(anon)"].int(), 1536);
    assert_eq!(sample["meminfo"]["HugePages_Total"].int(), 512);
    assert_eq!(sample["loadavg"]["load_15min"].float(), 100.0);
    let interface = |at: usize| &sample["netdev"].list()[at];
    assert_eq!(interface(2)["interface_name"].str(), "eth0:1");
    assert_eq!(interface(3)["rx_bytes"].int(), 1_234_567_890);
    assert_eq!(interface(1)["tx_compressed"].int(), 11);
    assert_eq!(files.timeseries["collection_interval_seconds"].float(), 10.0);
}

#[test]
fn the_last_sample_is_taken_at_the_stop_so_that_there_are_differences() {
    let world = World::new();
    let procfs = world.own_proc();
    let changed = [
        ("diskstats", "1203344", "1203999"),
        ("vmstat", "1204499821", "1204500000"),
        ("meminfo", "51880", "1"),
        ("loadavg", "12.05", "0.01"),
        ("net/dev", "77120045", "99999999999"),
    ];
    for (file, from, to) in changed {
        let text = fixed(file);
        assert_eq!(text.matches(from).count(), 1, "{file}");
        world.write(&format!("new/{file}"), text.replace(from, to));
    }
    // The same files with other contents, as `/proc` does it.
    let script = "cd \"$W/new\" && for f in diskstats vmstat meminfo loadavg net/dev; do \
                  cat $f > ../proc/$f; done";
    // The interval is so long that the second sample can only be the one at the stop.
    world.run_sh(&["--procfs", procfs.to_str().unwrap(), "--interval", "1h"], script).succeeds();
    let files = world.files();
    let [first, last] = files.samples() else { panic!("{}", files.samples().len()) };
    for (source, file) in FILES {
        assert_eq!(first[source], expected(source, &fixed(file)), "{source} before");
        let new = fs::read_to_string(world.path("new").join(file)).unwrap();
        assert_eq!(last[source], expected(source, &new), "{source} after");
        assert_ne!(first[source], last[source]);
    }
    assert!(!first["collection"].has("at_stop"));
    assert!(last["collection"]["at_stop"].bool() && last["collection"]["extra"].bool());
    assert_eq!(files.summary()["ticks_elapsed"].int(), 1);
}

#[test]
fn devices_that_come_and_go_are_in_the_samples_that_had_them() {
    let world = World::new();
    let procfs = world.own_proc();
    let other = "   8      48 sdz 1 2 3 4 5 6 7 8 9 10 11 0 0 0 0 0 0\n";
    let without_sda: String = fixed("diskstats")
        .lines()
        .filter(|line| !line.contains(" sda "))
        .fold(String::new(), |text, line| text + line + "\n");
    world.write("new", without_sda + other);
    let options = ["--procfs", procfs.to_str().unwrap(), "--interval", "1h"];
    world.run_sh(&options, "cat \"$W/new\" > \"$W/proc/diskstats\"").succeeds();
    let files = world.files();
    let names = |sample: &Value| -> Vec<String> {
        let disks = sample["diskstats"].list().iter();
        disks.map(|disk| disk["device_name"].str().to_owned()).collect()
    };
    let (first, last) = (names(&files.samples()[0]), names(files.last()));
    assert!(first.contains(&"sda".to_owned()) && !first.contains(&"sdz".to_owned()), "{first:?}");
    assert!(!last.contains(&"sda".to_owned()) && last.contains(&"sdz".to_owned()), "{last:?}");
    let new = fs::read_to_string(world.path("new")).unwrap();
    assert_eq!(files.last()["diskstats"], expected("diskstats", &new));
}

#[test]
fn a_kernel_that_prints_another_layout_in_mid_run_shifts_no_value() {
    let world = World::new();
    let procfs = world.own_proc();
    let new = format!("nr_brand_new 7\n{}", fixed("vmstat").replace("pgpgin", "pgpgin_renamed"));
    world.write("new", &new);
    let options = ["--procfs", procfs.to_str().unwrap(), "--interval", "1h"];
    world.run_sh(&options, "cat \"$W/new\" > \"$W/proc/vmstat\"").succeeds();
    let files = world.files();
    assert_eq!(files.samples()[0]["vmstat"], expected("vmstat", &fixed("vmstat")));
    assert_eq!(files.last()["vmstat"], expected("vmstat", &new));
    assert_eq!(files.summary()["segments"].int(), 2);
    world.assert_no_rings();
}

#[test]
fn a_source_that_fails_says_so_and_the_others_go_on() {
    let world = World::new();
    let procfs = world.own_proc();
    fs::remove_file(procfs.join("meminfo")).unwrap();
    fs::write(procfs.join("vmstat"), "nr_free_pages many\n").unwrap();
    world.run_sh(&["--procfs", procfs.to_str().unwrap()], "exit 9").ends_with(9);
    let files = world.files();
    for sample in files.samples() {
        let errors = &sample["errors"];
        assert_eq!(errors.keys(), ["vmstat", "meminfo"]);
        assert!(errors["meminfo"].str().contains("No such file"), "{errors:?}");
        assert!(errors["vmstat"].str().contains("line 1: a number was expected"), "{errors:?}");
        assert!(!sample.has("vmstat") && !sample.has("meminfo"));
        assert_eq!(sample["diskstats"], expected("diskstats", &fixed("diskstats")));
    }
    assert_eq!(files.summary()["errors"]["vmstat"].int(), 2);
}

#[test]
fn a_host_without_any_data_is_not_collected() {
    let world = World::new();
    fs::create_dir(world.path("empty")).unwrap();
    let options = ["--procfs", world.path("empty").to_str().unwrap().to_owned().leak()];
    world.run(&options, &["true"]).succeeds();
    let file = common::read_timeseries(&world.results().join(
        entries(&world.results()).iter().find(|name| name.ends_with("_timeseries.json")).unwrap(),
    ));
    assert_eq!(file["hosts_collected"].list().len(), 0);
    assert_eq!(file["hosts_requested"].list().len(), 1);
    assert_eq!(format::samples(&file)[0]["errors"].keys(), format::SOURCES);
}

#[test]
fn only_the_sources_that_were_asked_for_are_there() {
    let world = World::new();
    world.run(&["--sources", "netdev,loadavg"], &["true"]).succeeds();
    let files = world.files();
    let keys = ["timestamp", "hostname", "loadavg", "netdev", "collection", "loadavg_extra"];
    assert_eq!(files.last().keys(), keys);
}

#[test]
fn metadata_of_the_benchmark_gets_one_key_and_keeps_every_character() {
    let world = World::new();
    let own = "{\n  \"zeta\": 0.10,\n\n  \"big\": 123456789012345678901234567890,\n  \
               \"exp\": 1E+2, \"text\": \"\\u00e4\\/ \\\"x\\\"\",\n  \"list\": [1,\n 2],\n  \
               \"runtime\": 1.50,\n  \"args\": {\"b\": null, \"a\": {}}\n}\n";
    world.write("own.json", own);
    // The benchmark writes it while it runs, as it ends.
    let script = "mkdir -p \"$W/results\" && cat \"$W/own.json\" > \"$W/results/b_metadata.json\"";
    let merge_into = world.results().join("b_metadata.json");
    world.run_sh(&["--merge-metadata", merge_into.to_str().unwrap()], script).succeeds();
    let names = entries(&world.results());
    let [merged, timeseries] = &names[..] else { panic!("{names:?}") };
    assert_eq!(merged, "b_metadata.json");
    let text = fs::read_to_string(&merge_into).unwrap();
    // The reference's reader gets what it expects, and where it expects it.
    let file = json::parse(&text).unwrap();
    let keys = ["zeta", "big", "exp", "text", "list", "timeseries_data", "runtime", "args"];
    assert_eq!(file.keys(), keys);
    format::reference(&file["timeseries_data"]).unwrap();
    assert_eq!(file["timeseries_data"]["file"].str(), timeseries);
    let words = ["0.10", "123456789012345678901234567890", "1E+2", "\"\\u00e4\\/ \\\"x\\\"\""];
    for word in words.iter().chain(&["1.50", "[1,\n 2]", "{\"b\": null, \"a\": {}}"]) {
        assert!(text.contains(word), "{word} was changed: {text}");
    }
    fs::remove_file(merge_into).unwrap(); // It is not ours, and not to be read as such.
}

#[test]
fn metadata_that_cannot_be_merged_into_is_a_warning_and_a_file_of_its_own() {
    let world = World::new();
    world.write("broken.json", "{\"a\": ");
    for (file, why) in [("missing.json", "No such file"), ("broken.json", "EOF")] {
        let path = world.path(file);
        let ran = world.run_sh(&["--merge-metadata", path.to_str().unwrap()], "exit 3");
        let ran =
            ran.ends_with(3).says(&["warning", file, why, "merge its timeseries_data by hand"]);
        let names = entries(&world.results());
        let [metadata, timeseries] = &names[..] else { panic!("{names:?}") };
        ran.says(&[metadata, timeseries]);
        assert_eq!(common::read_metadata(&world.results().join(metadata))["exit_status"].int(), 3);
        for name in &names {
            fs::remove_file(world.results().join(name)).unwrap();
        }
    }
    assert_eq!(fs::read_to_string(world.path("broken.json")).unwrap(), "{\"a\": ");
}

#[test]
fn the_run_is_known_by_its_ring_while_the_command_runs() {
    let world = World::new();
    let script = "while [ -d \"$W\" ] && [ ! -e \"$W/go\" ]; do sleep 0.02; done";
    let live = world.run_sh(&["--interval", "5ms"], script).start();
    let dir = world.run_dir(&world.rings());
    world.wait_for_samples(&dir.join("00000.ring"), 3);
    let mode = |path: &std::path::Path| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
    };
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("00000.ring")), 0o600);
    wait_for_file(&world.run_dir(&world.mirrors()).join("00000.ring"));
    world.write("go", "");
    live.end().has_status(0);
    world.assert_no_rings();
}
