//! What there is too little of: memory for the ring, a disk for the mirror, room for the results.
//! The benchmark runs all the same, and what it means is said. On file systems of the tests' own,
//! which needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::{Cmd, Files, Tmpfs, World, entries, fixed_proc, wait_for_file, with_own_mounts};
use std::fs;
use std::path::Path;

const NOW_PRIVATE: &str = "private memory";

#[test]
fn a_ring_that_finds_no_room_is_kept_in_private_memory() {
    with_own_mounts("a small tmpfs for the ring", || {
        let world = World::new();
        let _small = Tmpfs::over(&world.rings(), "size=256k");
        let ran = world.run_sh(&["--interval", "5ms"], "sleep 0.05; exit 4").ends_with(4);
        ran.says(&["warning: no ring at", NOW_PRIVATE, "copied to", "a crash loses"]);
        let files = world.files();
        assert!(files.samples().len() > 2);
        assert_eq!(files.summary()["sampler"]["storage"].str(), NOW_PRIVATE);
        let warnings = files.metadata["ringstat"]["warnings"].list();
        assert!(warnings[0].str().contains(NOW_PRIVATE), "{warnings:?}");
        world.assert_no_rings();
    });
}

#[test]
fn without_a_mirror_private_memory_is_all_there_is() {
    with_own_mounts("a small tmpfs for the ring", || {
        let world = World::new();
        let _small = Tmpfs::over(&world.rings(), "size=256k");
        let ran = world.run(&["--no-mirror"], &["true"]).succeeds();
        ran.says(&["warning: no ring at", "private memory alone: a crash loses them all"]);
        world.files();
        world.assert_no_rings();
    });
}

#[test]
fn a_killed_recorder_in_private_memory_is_recovered_from_its_mirror() {
    with_own_mounts("a small tmpfs for the ring", || {
        let world = World::new();
        let small = Tmpfs::over(&world.rings(), "size=256k");
        let live = world.record(&["--interval", "5ms", "--sync-interval", "50ms"]).start();
        let mirror = world.run_dir(&world.mirrors()).join("00000.ring");
        world.wait_for_samples(&mirror, 10);
        live.kill();
        let copied = world.info(&mirror).unwrap()["summary"]["samples_kept"].int();
        let id = mirror.parent().unwrap().file_name().unwrap().to_str().unwrap();
        world.looking(&["recover", id]).succeeds();
        assert_eq!(world.files().samples().len() as u64, copied);
        world.assert_no_rings();
        drop(small);
    });
}

#[test]
fn a_mirror_that_finds_no_room_is_a_warning() {
    with_own_mounts("a small tmpfs for the mirror", || {
        let world = World::new();
        let _small = Tmpfs::over(&world.mirrors(), "size=256k");
        let ran = world.run_sh(&["--interval", "5ms"], "sleep 0.05; exit 4").ends_with(4);
        let files = world.files();
        assert!(files.samples().len() > 2);
        assert_eq!(files.summary()["samples_lost"].int(), 0);
        let warnings = files.metadata["ringstat"]["warnings"].list();
        assert!(warnings.iter().any(|warning| warning.str().contains("mirror")), "{warnings:?}");
        world.assert_no_rings();
        ran.says(&["warning", "mirror", world.mirrors().to_str().unwrap()]);
    });
}

#[test]
fn a_mirror_that_could_not_be_made_is_not_said_to_be_in_force() {
    with_own_mounts("a small tmpfs for the mirror", || {
        let world = World::new();
        let _small = Tmpfs::over(&world.mirrors(), "size=256k");
        world.run(&[], &["true"]).succeeds();
        let files = world.files();
        let sampler = &files.summary()["sampler"];
        assert!(!sampler.has("mirror"), "{:?} was never there", sampler["mirror"]);
    });
}

#[test]
fn default_directories_that_cannot_be_written_are_warnings() {
    with_own_mounts("read-only default directories", || {
        let world = World::new();
        let _shm = Tmpfs::over(Path::new("/dev/shm"), "ro");
        let _var_tmp = Tmpfs::over(Path::new("/var/tmp"), "ro");
        let procfs = fixed_proc();
        let results = world.results();
        let args = ["run", "--results-dir", results.to_str().unwrap(), "--procfs"];
        let run = world.ringstat(&args).arg(procfs).args(&["--", "sh", "-c", "exit 4"]);
        let ran = run.ends_with(4);
        ran.says(&["warning: no ring", "warning: no mirror", "a crash loses them all"]);
        assert_eq!(world.files().summary()["sampler"]["storage"].str(), NOW_PRIVATE);
    });
}

#[test]
fn a_default_directory_that_others_can_enter_is_not_used() {
    with_own_mounts("default directories of its own", || {
        let world = World::new();
        let _shm = Tmpfs::over(Path::new("/dev/shm"), "mode=1777,size=50m");
        let _var_tmp = Tmpfs::over(Path::new("/var/tmp"), "mode=1777,size=50m");
        let base = format!("/dev/shm/ringstat-{}", rustix::process::geteuid().as_raw());
        fs::create_dir(&base).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&base, mode).unwrap();
        let results = world.results();
        let args = ["run", "--max-samples", "10", "--results-dir", results.to_str().unwrap()];
        world.ringstat(&args).args(&["--", "true"]).succeeds().says(&["warning", "other users"]);
        assert_eq!(entries(Path::new(&base)), [""; 0]);
        world.files();
    });
}

#[test]
fn more_samples_than_there_is_memory_for_are_refused_before_the_command_starts() {
    let world = World::new();
    let ran = world.run_sh(&["--max-samples", "1000000000"], "echo ran; exit 4").ends_with(2);
    assert_eq!(ran.stdout, "");
    ran.says(&["more than half", "--max-samples"]);
    assert_eq!(entries(&world.results()), Vec::<String>::new());
    world.record(&["--max-samples", "1000000000"]).ends_with(2).says(&["--max-samples"]);
    world.assert_no_rings();
}

#[test]
fn a_command_runs_though_there_is_no_memory_to_record_it() {
    let world = World::new();
    // Room for the program, but not for a ring of the default size.
    let script = "ulimit -v 45000; exec \"$0\" run --ring-dir \"$W/rings\" --mirror-dir \
                  \"$W/mirrors\" --results-dir \"$W/results\" -- sh -c 'echo ran; exit 4'";
    let ran = Cmd::new("sh", &world.path(""))
        .args(&["-c", script, env!("CARGO_BIN_EXE_ringstat")])
        .ends_with(4);
    assert_eq!(ran.stdout, "ran\n");
    ran.says(&["warning: nothing is recorded"]);
    let names = entries(&world.results());
    let [name] = &names[..] else { panic!("{names:?}") };
    let metadata = common::read_metadata(&world.results().join(name));
    assert!(!metadata.has("timeseries_data"));
    assert!(metadata["ringstat"]["warnings"].list()[0].str().contains("nothing was recorded"));
    world.assert_no_rings();
}

/// Fills the results' file system to the last byte.
const FILL: &str = "dd if=/dev/zero of=\"$W/results/fill\" bs=4096 2> /dev/null";

fn only_the_filling_is_there(world: &World) {
    assert_eq!(entries(&world.results()), ["fill"], "half a file was left");
}

#[test]
fn results_that_find_no_room_stay_in_the_ring_and_are_recovered() {
    with_own_mounts("a small tmpfs for the results", || {
        let world = World::new();
        let small = Tmpfs::over(&world.results(), "size=1m");
        let ran = world.run_sh(&[], &format!("{FILL}; exit 4")).ends_with(4);
        only_the_filling_is_there(&world);
        let dir = world.run_dir(&world.rings());
        let id = dir.file_name().unwrap().to_str().unwrap();
        let ran = ran.says(&["No space left", dir.to_str().unwrap(), "ringstat recover"]);
        // As long as it is full, the attempt changes nothing.
        world.looking(&["recover", id]).ends_with(1).says(&["No space left", "stay in"]);
        only_the_filling_is_there(&world);
        assert!(dir.join("00000.ring").exists());
        fs::remove_file(world.results().join("fill")).unwrap();
        world.looking(&["recover", id]).succeeds();
        let files = world.files();
        assert_eq!(files.samples().len(), 2);
        assert_eq!(files.metadata["exit_status"].int(), 4, "it was known");
        assert!(files.summary()["ended_cleanly"].bool());
        world.assert_no_rings();
        drop((small, ran));
    });
}

#[test]
fn samples_in_private_memory_are_saved_when_the_results_find_no_room() {
    with_own_mounts("small tmpfs for everything", || {
        let world = World::new();
        // Too small for a ring of 100 slots, but not for the two samples that are taken.
        let _rings = Tmpfs::over(&world.rings(), "size=700k");
        let _mirrors = Tmpfs::over(&world.mirrors(), "size=16k");
        let results = Tmpfs::over(&world.results(), "size=1m");
        let ran = world.run_sh(&[], &format!("{FILL}; exit 4")).ends_with(4);
        let ran = ran.says(&["private memory", "No space left", "safe in"]);
        let dir = world.run_dir(&world.rings());
        let ran = ran.says(&[dir.to_str().unwrap()]);
        fs::remove_file(world.results().join("fill")).unwrap();
        world.take_the_advice(&ran).has_status(0);
        assert_eq!(world.files().samples().len(), 2);
        assert_eq!(world.files().metadata["exit_status"].int(), 4);
        world.assert_no_rings();
        drop(results);
    });
}

#[test]
fn the_advice_that_is_given_is_right() {
    with_own_mounts("a small tmpfs for the results", || {
        let world = World::new();
        let small = Tmpfs::over(&world.results(), "size=1m");
        let ran = world.run_sh(&[], &format!("{FILL}; exit 4")).ends_with(4);
        fs::remove_file(world.results().join("fill")).unwrap();
        world.take_the_advice(&ran).has_status(0);
        assert_eq!(world.files().samples().len(), 2);
        drop(small);
    });
}

#[test]
fn record_fails_where_its_results_find_no_room() {
    with_own_mounts("a small tmpfs for the results", || {
        let world = World::new();
        let small = Tmpfs::over(&world.results(), "size=1m");
        let live = world.record(&["--interval", "5ms"]).start();
        world.wait_for_samples(&world.run_dir(&world.rings()).join("00000.ring"), 2);
        let filling = common::Cmd::new("sh", &world.path("")).args(&["-c", FILL]);
        let _ = filling.output();
        live.signal(rustix::process::Signal::INT);
        live.end().has_status(1).says(&["No space left", "safe in", "ringstat recover"]);
        only_the_filling_is_there(&world);
        fs::remove_file(world.results().join("fill")).unwrap();
        let id = entries(&world.rings()).remove(0);
        world.looking(&["recover", &id]).succeeds();
        world.files();
        drop(small);
    });
}

#[test]
fn decode_fails_where_its_results_find_no_room_and_leaves_nothing() {
    with_own_mounts("a small tmpfs for the results", || {
        let world = World::new();
        let (dir, _) = world.kept_run();
        let out = world.path("out");
        let small = Tmpfs::over(&out, "size=8k");
        let ran = world.ringstat(&["decode", "-o", out.to_str().unwrap()]).arg(&dir).ends_with(1);
        ran.says(&["No space left", out.to_str().unwrap()]);
        assert_eq!(entries(&out), [""; 0]);
        drop(small);
    });
}

#[test]
fn results_that_vanish_during_the_run_are_made_again() {
    let world = World::new();
    world.run_sh(&[], "rm -r \"$W/results\"; exit 4").ends_with(4);
    let files: Files = world.files();
    assert_eq!(files.metadata["exit_status"].int(), 4);
}

#[test]
fn a_ring_whose_files_are_deleted_during_the_run_is_still_written() {
    let world = World::new();
    let script = "rm -r \"$W/rings\" \"$W/mirrors\"; touch \"$W/gone\"; exit 4";
    let live = world.run_sh(&["--interval", "5ms"], script).start();
    wait_for_file(&world.path("gone"));
    live.end().has_status(4);
    assert!(world.files().last()["collection"]["at_stop"].bool());
}
