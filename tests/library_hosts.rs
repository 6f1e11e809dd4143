//! The library as an embedding program uses it for several hosts. Has an equivalent of each of the
//! reference collector's tests for several hosts; those over real connections are in `cluster_run`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use ringstat::checking::{CheckOptions, check};
use ringstat::{BuildError, HostOptions, Recorder, RecorderBuilder, RecorderError};
use std::path::Path;
use std::time::{Duration, Instant};

/// A recorder whose rings and files lie below `dir` alone.
fn builder(dir: &Path, hosts: &[&str]) -> RecorderBuilder {
    let mut options = HostOptions::default();
    options.ssh_config = Some("/dev/null".into());
    Recorder::builder()
        .interval(Duration::from_millis(10))
        .max_samples(1000)
        .ring_dir(dir.join("ring"))
        .mirror_dir(dir.join("mirror"))
        .results_dir(dir.join("results"))
        .hosts(hosts)
        .host_options(options)
}

/// A host that nobody is: a port that was free a moment ago.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("ssh://127.0.0.1:{}", listener.local_addr().unwrap().port())
}

/// Waits until so many samples of this host are taken, which they will be.
fn wait_for(recorder: &Recorder, samples: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while recorder.progress().0 < samples {
        assert!(Instant::now() < deadline, "no {samples} samples in a minute");
        std::thread::yield_now();
    }
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, |entries| entries.count())
}

#[test]
fn a_new_recorder_has_its_hosts_each_once_and_has_done_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = builder(dir.path(), &["host1,host1", "host2,,host2:2", " host3:4 "]).build();
    let recorder = recorder.unwrap();
    assert_eq!(recorder.hosts(), ["host1", "host2", "host3"]);
    assert_eq!((recorder.interval(), recorder.max_samples()), (Duration::from_millis(10), 1000));
    assert_eq!(recorder.progress(), (0, 0));
    assert!(!recorder.is_running() && recorder.info().is_none());
    let options = HostOptions::default();
    assert_eq!(options.heartbeat, Some(Duration::from_secs(300)));
    assert_eq!(options.stop_timeout, Duration::from_secs(30));
}

#[test]
fn what_cannot_be_a_host_or_a_program_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = builder(dir.path(), &["-oProxyCommand=touch"]).build().err().unwrap();
    assert!(matches!(error, BuildError::Hosts(_)), "{error}");
    let mut options = HostOptions::default();
    options.remote_binary = Some("/x'; touch y".into());
    let error = builder(dir.path(), &["a"]).host_options(options).build().err().unwrap();
    assert!(error.to_string().contains("--remote-binary"), "{error}");
}

#[test]
fn localhost_is_recorded_directly_between_start_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path(), &["localhost", "127.0.0.1"]).build().unwrap();
    recorder.start().unwrap();
    assert!(recorder.is_running());
    wait_for(&recorder, 3);
    let recording = recorder.stop().unwrap();
    assert!(!recorder.is_running());
    let data = recording.data().unwrap();
    assert_eq!(data.collection_method, "local", "nothing was reached by SSH");
    assert_eq!(data.hosts_requested, ["localhost", "127.0.0.1"]);
    assert_eq!(data.hosts_collected, ["localhost"], "one machine is one host");
    assert!(data.samples_by_host["localhost"].len() >= 4);
    assert!(data.samples_by_host["127.0.0.1"].is_empty());
    assert_eq!(data.collection_interval_seconds, 0.01);
    let sample = &data.samples_by_host["localhost"][0];
    assert!(sample.diskstats.is_some() && sample.vmstat.is_some() && sample.errors.is_none());
    assert_eq!(sample.collection.as_ref().unwrap().tick, 0);
    let again = recorder.stop().unwrap().data().unwrap();
    assert_eq!(again.samples_by_host, data.samples_by_host, "a second stop gives the same");
}

#[test]
fn each_host_keeps_its_newest_samples() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path(), &["localhost"]).max_samples(3).build().unwrap();
    recorder.start().unwrap();
    wait_for(&recorder, 6);
    let data = recorder.stop().unwrap().data().unwrap();
    assert_eq!(data.samples_by_host["localhost"].len(), 3);
}

#[test]
fn starts_and_stops_in_the_wrong_order_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path(), &["localhost"]).build().unwrap();
    assert!(matches!(recorder.stop().err().unwrap(), RecorderError::NotStarted));
    recorder.start().unwrap();
    assert!(matches!(recorder.start().err().unwrap(), RecorderError::AlreadyStarted));
    assert!(recorder.is_running(), "the error changed nothing");
    recorder.stop().unwrap();
    assert!(matches!(recorder.start().err().unwrap(), RecorderError::AlreadyStopped));
}

#[test]
fn an_unreachable_host_has_its_error_and_costs_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bad = nobody();
    let mut recorder = builder(dir.path(), &["localhost", &bad]).build().unwrap();
    let bad = recorder.hosts()[1].clone();
    let info = recorder.start().unwrap();
    assert!(info.notes.iter().any(|note| note.contains("not recorded")), "{:?}", info.notes);
    wait_for(&recorder, 3);
    let recording = recorder.stop().unwrap();
    let data = recording.data().unwrap();
    assert!(data.samples_by_host["localhost"].len() >= 4);
    assert_eq!(data.hosts_collected, ["localhost"]);
    let [error] = &data.samples_by_host[&bad][..] else { panic!("{data:?}") };
    assert_eq!(error.errors.as_ref().unwrap().keys().collect::<Vec<_>>(), ["ssh"]);
    let files = recording.write_files(&mut |_, _| {}).unwrap();
    assert!(files.timeseries.is_some() && files.problems.is_empty(), "{files:?}");
    assert_eq!(entries(&dir.path().join("ring")) + entries(&dir.path().join("mirror")), 0);
    assert_eq!(entries(&dir.path().join("results")), 2);
}

#[test]
fn times_that_no_clock_counts_are_as_good_as_without_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let (options, bad) = (options_of(Duration::MAX), nobody());
    let recorder = builder(dir.path(), &["localhost", &bad]).host_options(options).build();
    let mut recorder = recorder.unwrap();
    recorder.start().unwrap();
    wait_for(&recorder, 3);
    let data = recorder.stop().unwrap().data().unwrap();
    assert_eq!(data.hosts_collected, ["localhost"]);
    let hosts = [bad.parse().unwrap()];
    let mut checking = CheckOptions::new(&options_of(Duration::MAX)).unwrap();
    // As it can be set afterwards, too.
    for _ in 0..2 {
        let reports = check(&hosts, &checking, &mut |_| {});
        assert!(reports[0].trouble().is_some(), "{reports:?}");
        (checking.timeout, checking.ssh.timeout) = (Duration::MAX, Duration::MAX);
    }
}

/// Every time that can be chosen is this one.
fn options_of(time: Duration) -> HostOptions {
    let mut options = HostOptions::default();
    options.ssh_config = Some("/dev/null".into());
    (options.ssh_timeout, options.stop_timeout) = (time, time);
    (options.heartbeat, options.orphan_timeout) = (Some(time), Some(time));
    options.max_duration = Some(time);
    options
}
