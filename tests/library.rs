//! The library as an embedding program uses it: the life of a recorder and what it leaves. Has an
//! equivalent of each of the reference collector's tests for one host.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use ringstat::{
    BuildError, CpuChoice, Policy, Recorder, RecorderBuilder, RecorderError, RunState, Store,
    ThreadSettings, TimeSeriesData,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// A recorder whose rings and files lie below `dir` alone.
fn builder(dir: &Path) -> RecorderBuilder {
    Recorder::builder()
        .interval(Duration::from_millis(10))
        .max_samples(1000)
        .ring_dir(dir.join("ring"))
        .mirror_dir(dir.join("mirror"))
        .results_dir(dir.join("results"))
}

/// Waits until so many samples are taken, which they will be.
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
fn a_new_recorder_has_the_defaults_and_has_done_nothing() {
    let recorder = Recorder::builder().build().unwrap();
    assert_eq!(recorder.interval(), Duration::from_secs(10));
    assert_eq!(recorder.max_samples(), 3600);
    assert_eq!(recorder.progress(), (0, 0));
    assert!(!recorder.is_running() && recorder.info().is_none());
    let recorder = Recorder::builder().interval(Duration::from_secs(1)).max_samples(7).build();
    let recorder = recorder.unwrap();
    assert_eq!((recorder.interval(), recorder.max_samples()), (Duration::from_secs(1), 7));
}

#[test]
fn it_records_between_start_and_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path()).build().unwrap();
    let info = recorder.start().unwrap().clone();
    assert!(recorder.is_running());
    assert_eq!(info.notes, Vec::<String>::new());
    wait_for(&recorder, 3);
    let recording = recorder.stop().unwrap();
    assert!(!recorder.is_running() && recorder.info().is_none());
    let data = recording.data().unwrap();
    assert!(data.num_samples >= 4, "three, and the one at the stop");
    assert_eq!(data.collection_interval_seconds, 0.01);
    assert_eq!(data.collection_method, "local");
    assert_eq!(data.hosts_requested, data.hosts_collected);
    let (host, samples) = data.samples_by_host.first().unwrap();
    assert_eq!(data.hosts_requested, [host.as_str()]);
    assert_eq!(samples.len() as u64, data.num_samples);
    for sample in samples {
        assert_eq!(&sample.hostname, host);
        assert!(sample.timestamp.contains('T') && sample.timestamp.ends_with('Z'));
        assert_eq!(sample.errors, None);
        assert!(sample.diskstats.is_some(), "a list, though a container may have no disks");
        assert!(!sample.vmstat.as_ref().unwrap().is_empty());
        assert!(sample.meminfo.as_ref().unwrap()["MemTotal"] > 0);
        assert!(sample.loadavg.as_ref().unwrap().load_15min >= 0.0);
        assert!(sample.netdev.as_ref().unwrap().iter().any(|dev| dev.interface_name == "lo"));
    }
    let ends = (samples.first().unwrap(), samples.last().unwrap());
    assert_eq!((&data.start_time, &data.end_time), (&ends.0.timestamp, &ends.1.timestamp));
    assert!(ends.1.collection.as_ref().unwrap().at_stop);
}

#[test]
fn the_newest_samples_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path()).max_samples(3).build().unwrap();
    recorder.start().unwrap();
    wait_for(&recorder, 6);
    let summary = recorder.stop().unwrap().summary().unwrap();
    assert_eq!(summary.samples_kept, 3);
    assert_eq!(summary.samples_overwritten, summary.samples_taken - 3);
    assert_eq!(summary.samples_lost, 0);
}

#[test]
fn starts_and_stops_in_the_wrong_order_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path()).build().unwrap();
    let not_started = recorder.stop().err().unwrap();
    assert!(matches!(not_started, RecorderError::NotStarted));
    assert!(not_started.to_string().contains("not started"));
    recorder.start().unwrap();
    let already_started = recorder.start().err().unwrap();
    assert!(matches!(already_started, RecorderError::AlreadyStarted));
    assert!(already_started.to_string().contains("already started"));
    assert!(recorder.is_running(), "the error changed nothing");
    let first = recorder.stop().unwrap();
    let already_stopped = recorder.start().err().unwrap();
    assert!(matches!(already_stopped, RecorderError::AlreadyStopped));
    assert!(already_stopped.to_string().contains("already stopped"));
    let second = recorder.stop().unwrap();
    assert_eq!(first.run_id(), second.run_id());
    assert_eq!(first.data().unwrap(), second.data().unwrap());
}

#[test]
fn a_stop_does_not_wait_for_the_next_tick() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path()).interval(Duration::from_secs(86_400)).build().unwrap();
    recorder.start().unwrap();
    // Were it to wait, this test would take a day.
    let data = recorder.stop().unwrap().data().unwrap();
    assert_eq!(data.num_samples, 2);
}

#[test]
fn written_files_have_the_samples_and_the_ring_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path()).benchmark_type("vectordb").build().unwrap();
    recorder.start().unwrap();
    let recording = recorder.stop().unwrap();
    let expected = recording.data().unwrap();
    let files = recording.write_files(&mut |_, _| {}).unwrap();
    assert_eq!(recording.write_files(&mut |_, _| {}).unwrap(), files, "written once");
    let path = files.timeseries.unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("vector_database_20") && name.ends_with("_timeseries.json"), "{name}");
    let data: TimeSeriesData = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(data, expected);
    let metadata: serde_json::Value =
        serde_json::from_slice(&std::fs::read(files.metadata.unwrap()).unwrap()).unwrap();
    let reference = &metadata["timeseries_data"];
    assert_eq!(reference["file"], name);
    assert_eq!(reference["num_samples"], data.num_samples);
    assert_eq!(reference["interval_seconds"], 0.01);
    assert_eq!(entries(&dir.path().join("ring")) + entries(&dir.path().join("mirror")), 0);
    assert_eq!(entries(&dir.path().join("results")), 2);
    assert_eq!(recording.ring_dirs(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_dropped_recorder_stops_and_leaves_its_ring_to_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let places = [dir.path().join("ring"), dir.path().join("mirror")];
    let store = Store::default().with(places);
    let found = |run_id| store.runs().into_iter().find(|run| run.run_id == run_id);
    let mut recorder = builder(dir.path()).build().unwrap();
    let run_id = recorder.start().unwrap().run_id;
    assert_eq!(found(run_id).unwrap().state, RunState::Recording);
    drop(recorder);
    let run = found(run_id).unwrap();
    assert_eq!(run.state, RunState::Owing);
    let summary = run.decoder().unwrap().summary().clone();
    assert!(summary.ended_cleanly && summary.samples_kept >= 2);
    let files = run.recover(None, &mut |_, _| {}).unwrap().unwrap();
    assert!(files.timeseries.unwrap().starts_with(dir.path().join("results")));
    assert!(found(run_id).is_none());
}

#[test]
fn a_discarded_recording_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = builder(dir.path()).build().unwrap();
    recorder.start().unwrap();
    let recording = recorder.stop().unwrap();
    recording.discard();
    assert_eq!(entries(&dir.path().join("ring")) + entries(&dir.path().join("mirror")), 0);
    assert_eq!(entries(&dir.path().join("results")), 0);
    assert!(recording.data().unwrap().num_samples >= 2, "what is held can still be read");
}

#[test]
fn two_recorders_at_once_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorders = [(); 2].map(|()| builder(dir.path()).build().unwrap());
    recorders.iter_mut().for_each(|recorder| {
        recorder.start().unwrap();
    });
    let files = recorders.map(|mut recorder| {
        recorder.stop().unwrap().write_files(&mut |_, _| {}).unwrap().timeseries.unwrap()
    });
    assert_ne!(files[0], files[1]);
    assert_eq!(entries(&dir.path().join("results")), 4);
}

#[test]
fn the_thread_runs_as_it_was_told_and_beside_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let thread = ThreadSettings { policy: Policy::Batch, nice: Some(5), cpu: CpuChoice::Unpinned };
    let mut recorder = builder(dir.path()).thread(thread).build().unwrap();
    let in_force = recorder.start().unwrap().thread.clone();
    assert_eq!((in_force.policy, in_force.nice, in_force.cpu), (Policy::Batch, 5, None));
    let names: Vec<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .collect();
    assert!(names.iter().any(|name| name == "rs-sampler\n"), "{names:?}");
    let summary = recorder.stop().unwrap().summary().unwrap();
    assert_eq!((summary.sampler.policy.as_str(), summary.sampler.nice), ("batch", 5));
}

#[test]
fn values_that_cannot_be_used_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: fn(RecorderBuilder) -> RecorderBuilder| {
        change(builder(dir.path())).build().err().unwrap()
    };
    let error = refused(|it| it.interval(Duration::ZERO));
    assert!(matches!(error, BuildError::Interval { .. }), "{error}");
    assert!(refused(|it| it.interval(Duration::MAX)).to_string().contains("from 1ms to 24h"));
    assert!(refused(|it| it.max_samples(0)).to_string().contains("choose a number from 1"));
    assert!(refused(|it| it.sources(&["foo"])).to_string().contains("diskstats"));
    assert!(refused(|it| it.sources::<&str>(&[])).to_string().contains("no source"));
    assert!(refused(|it| it.benchmark_type("a/b")).to_string().contains("letters"));
    assert!(refused(|it| it.results_dir("/dev/null/x")).to_string().contains("--results-dir"));
    assert!(refused(|it| it.ring_dir("/dev/null/x")).to_string().contains("--ring-dir"));
    assert!(refused(|it| it.procfs("/nonexistent")).to_string().contains("--procfs"));
    assert!(refused(|it| it.sync_interval(Duration::ZERO)).to_string().contains("10ms"));
    let cpu = ThreadSettings { cpu: CpuChoice::Cpu(100_000), policy: Policy::Other, nice: None };
    assert!(matches!(builder(dir.path()).thread(cpu).build(), Err(BuildError::Cpu { .. })));
}
