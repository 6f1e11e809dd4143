//! The main job with the real thing: fio runs under `ringstat run`, and what the files say lies
//! between what `/proc` said before and after.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use ringstat::{DiskStats, TimeSeriesData};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Counters of `/proc/diskstats` that only grow, by device.
fn disks() -> HashMap<String, Vec<u64>> {
    let text = std::fs::read_to_string("/proc/diskstats").unwrap();
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let value = |index: usize| words[index].parse().unwrap();
            (words[2].to_owned(), [3, 5, 7, 9].map(value).to_vec())
        })
        .collect()
}

fn of_sample(disk: &DiskStats) -> Vec<u64> {
    [disk.reads_completed, disk.sectors_read, disk.writes_completed, disk.sectors_written]
        .map(|counter| u64::try_from(counter).unwrap())
        .to_vec()
}

fn vmstat(name: &str) -> i128 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    line.split_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn what_fio_did_is_in_the_files() {
    if Command::new("fio").arg("--version").output().is_err() {
        // Not `eprintln!`, which the test runner would keep to itself.
        let line = "SKIPPED: what_fio_did_is_in_the_files needs fio (apt-get install fio)\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        assert!(std::env::var_os("CI").is_none(), "in CI nothing skips");
        return;
    }
    let dir = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| dir.path().join(name);
    let disks_before = disks();
    let paged_before = vmstat("pgpgout");
    let output = Command::new(env!("CARGO_BIN_EXE_ringstat"))
        .args(["run", "--interval", "1", "--benchmark-type", "training", "--results-dir"])
        .arg(path("r"))
        .arg("--ring-dir")
        .arg(path("ring"))
        .arg("--mirror-dir")
        .arg(path("mirror"))
        .args(["--", "fio", "--name=job", "--rw=write", "--bs=1M", "--size=32M", "--direct=1"])
        .args(["--time_based", "--runtime=2", "--rate=8M", "--output-format=json"])
        .arg(format!("--directory={}", dir.path().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let (disks_after, paged_after) = (disks(), vmstat("pgpgout"));
    let fio: serde_json::Value = serde_json::from_slice(&output.stdout).expect("fio's own output");
    let written = fio["jobs"][0]["write"]["io_bytes"].as_u64().unwrap();
    assert!(written >= 8 * MIB);

    let data = only_file(&path("r"), "_timeseries.json");
    let data: TimeSeriesData = serde_json::from_slice(&data).unwrap();
    let samples = data.samples_by_host.values().next().unwrap();
    assert!((4..=5).contains(&samples.len()), "ticks 0, 1, 2 and the stop: {}", samples.len());
    let (first, last) = (samples.first().unwrap(), samples.last().unwrap());
    let mut grown = 0;
    let pairs = first.diskstats.iter().flatten().zip(last.diskstats.iter().flatten());
    for (begin, end) in pairs {
        assert_eq!(begin.device_name, end.device_name);
        let name = &begin.device_name;
        let (begin, end) = (of_sample(begin), of_sample(end));
        for index in 0..4 {
            let steps =
                [disks_before[name][index], begin[index], end[index], disks_after[name][index]];
            assert!(steps.is_sorted(), "{name} {index}: {steps:?}");
        }
        grown = grown.max((end[3] - begin[3]) * 512);
    }
    assert!(grown >= written, "fio wrote {written} bytes, the busiest disk has {grown}");
    let pgpgout = |sample: &ringstat::TimeSeriesSample| sample.vmstat.as_ref().unwrap()["pgpgout"];
    let steps = [paged_before, pgpgout(first), pgpgout(last), paged_after];
    assert!(steps.is_sorted(), "pgpgout: {steps:?}");
    let metadata = only_file(&path("r"), "_metadata.json");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(metadata["timeseries_data"]["num_samples"], samples.len());
    assert_eq!(metadata["exit_status"], 0);
    assert!(metadata["executed_command"].as_str().unwrap().starts_with("fio '--name=job'"));
    assert!(metadata["runtime"].as_f64().unwrap() >= 2.0);
}

/// The one file in `dir` whose name is a training run's and ends so.
fn only_file(dir: &Path, end: &str) -> Vec<u8> {
    let names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(end))
        .collect();
    let [name] = &names[..] else { panic!("{names:?}") };
    let datetime = name.strip_prefix("training_").unwrap().strip_suffix(end).unwrap();
    assert!(datetime.len() == 15 && datetime.as_bytes()[8] == b'_', "{name}");
    std::fs::read(dir.join(name)).unwrap()
}
