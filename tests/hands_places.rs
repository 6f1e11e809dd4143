//! Other people's hands on the places that ringstat uses. What comes of it:
//!
//! | what | outcome |
//! |---|---|
//! | `--ring-dir` is a symbolic link | followed once, at the start; the run lies behind it |
//! | a default directory is a link, another user's, or open to others | not used: private memory, or no mirror, and a warning (`cli_fallbacks`) |
//! | a run's directory is exchanged for a link | the link is not followed: nothing is made, changed or removed behind it |
//! | another user's run in a shared directory | not seen by `recover`; refused when it is named |
//! | a file, link, pipe or directory with the name of the ring's next segment | left alone; the segment is in private memory, copied to the mirror every second, and a warning; the one behind it has its file again |
//! | the same with that of the mirror's | left alone; the ring goes on, the mirror without what begins there, and a warning |
//! | a link, pipe or file with the name of a final file | left alone, not opened, not waited for; the name is bumped |
//! | recorders with the same everything | each has a run and files of its own |
//! | the number of a dead recorder belongs to another process | it is dead all the same |
//! | a ring of another run, or of another boot, in a run's directory | left out, and said; the run's own copies are decoded |
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::hands::{self, assert_true_and_accounted, watched};
use common::trace::{End, Then, trace};
use common::{Files, World, entries, say_skipped, wait_until};
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Another user, who owns nothing.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        say_skipped("what another user does", "root");
    }
    is_root
}

/// As that other user.
fn as_nobody(script: &str, world: &World) {
    let output = std::os::unix::process::CommandExt::uid(
        Command::new("sh").args(["-ec", script]).env("W", world.path("")),
        NOBODY,
    )
    .output()
    .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// A directory of this world that everybody can write to, with or without the sticky bit.
fn shared(world: &World, name: &str, mode: u32) -> PathBuf {
    let dir = world.path(name);
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(world.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
    dir
}

#[test]
fn a_ring_directory_that_is_a_link_is_followed_once() {
    let world = World::in_memory();
    fs::create_dir(world.path("real")).unwrap();
    symlink(world.path("real"), world.rings()).unwrap();
    let live = world.record(&["--interval", "2ms"]).start();
    let dir = world.run_dir(&world.path("real"));
    world.wait_for_samples(&dir.join("00000.ring"), 5);
    let named = world.rings().join(dir.file_name().unwrap()).join("00000.ring");
    assert!(world.info(&named).is_some(), "also read through the link");
    // Wherever the link leads later.
    fs::remove_file(world.rings()).unwrap();
    fs::create_dir(world.path("theirs")).unwrap();
    symlink(world.path("theirs"), world.rings()).unwrap();
    live.signal(Signal::INT);
    live.end().has_status(0).does_not_say(&["warning"]);
    assert_true_and_accounted(&world, &world.files());
    assert_eq!(entries(&world.path("real")), [""; 0]);
}

#[test]
fn nothing_is_done_behind_a_link_in_the_place_of_a_run() {
    if !is_root() {
        return;
    }
    let world = World::in_memory();
    let victim = world.path("victim");
    fs::create_dir(&victim).unwrap();
    for name in ["00000.ring", "precious.ring", "run.json", "run.json.1"] {
        fs::write(victim.join(name), "precious").unwrap();
    }
    // Not sticky: whoever can write to it can rename what others have in it.
    for base in ["rings", "mirrors"] {
        shared(&world, base, 0o777);
    }
    let (live, dir, mirror) = watched(&world, 10);
    as_nobody(
        "for base in rings mirrors; do cd \"$W/$base\"; for run in *; do mv $run gone; \
         ln -s \"$W/victim\" $run; done; done",
        &world,
    );
    // Until the recorder has noticed, has tried to make its next ring there, and has one without a name.
    let maps = format!("/proc/{}/maps", live.pid().as_raw_nonzero());
    wait_until("a ring in private memory", || {
        fs::read_to_string(&maps).unwrap().contains("(deleted)").then_some(())
    });
    live.signal(Signal::INT);
    live.end().has_status(0).says(&["was replaced"]);
    let files = world.files();
    assert_true_and_accounted(&world, &files);
    assert_eq!(files.summary()["samples_lost"].int(), 0);
    let names = entries(&victim);
    assert_eq!(names, ["00000.ring", "precious.ring", "run.json", "run.json.1"]);
    for name in names {
        assert_eq!(fs::read(victim.join(name)).unwrap(), b"precious");
    }
    // Or it would be taken for something that was left behind.
    fs::remove_dir_all(victim).unwrap();
    drop((dir, mirror));
}

#[test]
fn another_users_run_is_not_acted_on() {
    if !is_root() {
        return;
    }
    let world = World::in_memory();
    let base = shared(&world, "rings", 0o1777);
    let (live, dir, mirror) = watched(&world, 10);
    live.kill();
    // As if that user had made it, with a manifest that says where root is to write.
    fs::remove_dir_all(&mirror).unwrap();
    for path in [dir.join("00000.ring"), dir.join("run.json"), dir.clone()] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let id = dir.file_name().unwrap().to_str().unwrap();
    let listed = world.looking(&["recover", "--list"]).succeeds().stdout;
    assert!(listed.contains(id), "{listed}");
    world.ringstat(&["recover", "--ring-dir"]).arg(&base).succeeds();
    world.ringstat(&["recover"]).arg(&dir).ends_with(1).says(&["belongs to user 65534"]);
    assert_eq!(entries(&world.results()), [""; 0]);
    assert!(dir.join("00000.ring").exists());
    // To read it is another matter.
    world.ringstat(&["decode", "-o", "out"]).arg(&dir).succeeds();
    Files::of(&world.path("out"));
}

#[test]
fn what_lies_under_the_names_of_final_files_is_neither_followed_nor_waited_for() {
    let world = World::in_memory();
    let (live, dir, _) = watched(&world, 10);
    live.kill();
    let manifest = fs::read_to_string(dir.join("run.json")).unwrap();
    let manifest = common::json::parse(&manifest).unwrap();
    let stem = format!("record_{}", manifest["datetime"].str());
    fs::create_dir_all(world.results()).unwrap();
    let id = dir.file_name().unwrap().to_str().unwrap();
    // A pipe without a writer under one name; under the other a link to what has the run's id.
    let pipe = world.results().join(format!("{stem}_timeseries.json"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let theirs = world.write("theirs", format!("{{\"run_id\": \"{id}\"}}"));
    symlink(&theirs, world.results().join(format!("{stem}_metadata.json"))).unwrap();
    world.looking(&["recover", id]).succeeds();
    assert_eq!(fs::read_to_string(&theirs).unwrap(), format!("{{\"run_id\": \"{id}\"}}"));
    fs::remove_file(pipe).unwrap();
    fs::remove_file(world.results().join(format!("{stem}_metadata.json"))).unwrap();
    let files = world.files();
    assert_ne!(files.datetime, manifest["datetime"].str());
    assert_true_and_accounted(&world, &files);
    world.assert_no_rings();
}

#[test]
fn recorders_with_the_same_everything_do_not_get_in_each_others_way() {
    const RECORDERS: usize = 6;
    let world = World::in_memory();
    let options = ["--interval", "5ms", "--benchmark-type", "same"];
    let start =
        |status: usize| world.run_sh(&options, &format!("sleep 0.2; exit {status}")).start();
    let running: Vec<_> = (0..RECORDERS).map(|nth| start(40 + nth)).collect();
    for (nth, live) in running.into_iter().enumerate() {
        live.end().has_status(40 + nth as i32);
    }
    let names = entries(&world.results());
    assert_eq!(names.len(), 2 * RECORDERS, "{names:?}");
    let mut statuses = Vec::new();
    for name in names.iter().filter(|name| name.ends_with("_metadata.json")) {
        let metadata = common::read_metadata(&world.results().join(name));
        statuses.push(metadata["exit_status"].int());
        let series = metadata["timeseries_data"]["file"].str();
        let series = common::read_timeseries(&world.results().join(series));
        assert_eq!(series["ringstat"]["run_id"], metadata["ringstat"]["run_id"]);
    }
    statuses.sort();
    assert_eq!(statuses, (40..40 + RECORDERS as u64).collect::<Vec<_>>());
    world.assert_no_rings();
}

#[test]
fn the_number_of_a_dead_recorder_says_nothing() {
    let world = World::in_memory();
    let (live, dir, mirror) = watched(&world, 10);
    live.kill();
    for dir in [&dir, &mirror] {
        let path = dir.join("run.json");
        let manifest = fs::read_to_string(&path).unwrap();
        let line = manifest.lines().find(|line| line.contains("\"pid\"")).unwrap().to_owned();
        let ours = format!("  \"pid\": {},", std::process::id());
        fs::write(&path, manifest.replace(&line, &ours)).unwrap();
    }
    let id = dir.file_name().unwrap().to_str().unwrap();
    world.looking(&["recover", id]).succeeds();
    assert_true_and_accounted(&world, &world.files());
    world.assert_no_rings();
}

/// Gives a ring another boot id, under a right checksum.
fn of_another_boot(ring: &Path) {
    let mut bytes = fs::read(ring).unwrap();
    bytes[18 * 8] ^= 0x55;
    let check = xxhash_rust::xxh64::xxh64(&bytes[..31 * 8], 0);
    bytes[31 * 8..32 * 8].copy_from_slice(&check.to_ne_bytes());
    fs::write(ring, bytes).unwrap();
}

#[test]
fn a_mirror_of_a_boot_ago_is_recovered() {
    let world = World::in_memory();
    let (live, dir, mirror) = watched(&world, 10);
    live.kill();
    // Memory is empty after a boot.
    fs::remove_dir_all(&dir).unwrap();
    of_another_boot(&mirror.join("00000.ring"));
    let id = dir.file_name().unwrap().to_str().unwrap();
    world.looking(&["recover", id]).succeeds();
    assert_true_and_accounted(&world, &world.files());
    world.assert_no_rings();
}

#[test]
fn two_files_that_say_they_are_one_ring_are_refused_and_kept() {
    let world = World::in_memory();
    let (live, dir, mirror) = watched(&world, 10);
    live.kill();
    of_another_boot(&dir.join("00000.ring"));
    let id = dir.file_name().unwrap().to_str().unwrap();
    world.looking(&["recover", id]).ends_with(1).says(&["differ", "one by one", "stay in"]);
    assert!(dir.join("00000.ring").exists() && mirror.join("00000.ring").exists());
    for ring in [&dir, &mirror].map(|dir| dir.join("00000.ring")) {
        world.ringstat(&["decode", "-o", "out"]).arg(ring).succeeds();
    }
}

#[test]
fn a_ring_of_another_run_is_left_out() {
    let world = World::in_memory();
    let (live, dir, _) = watched(&world, 30);
    live.kill();
    let other = World::in_memory();
    let theirs = other.kept(5, &["--no-mirror"]).join("00000.ring");
    for name in ["00000.ring", "00007.ring"] {
        fs::copy(&theirs, dir.join(name)).unwrap();
    }
    let id = dir.file_name().unwrap().to_str().unwrap();
    let ran = world.looking(&["recover", id]).ends_with(1);
    ran.says(&["00007.ring", "another run"]);
    let files = world.files();
    assert_true_and_accounted(&world, &files);
    assert!(files.samples().len() >= 30, "those of the mirror");
    assert!(dir.join("00007.ring").exists(), "it is somebody's");
}

/// Whether the files have no sample, which is then accounted for.
fn says_that_nothing_is_left(dir: &Path) -> bool {
    let names = entries(dir);
    let Some(name) = names.iter().find(|name| name.ends_with("_timeseries.json")) else {
        return false;
    };
    let file = common::json::parse(&fs::read_to_string(dir.join(name)).unwrap()).unwrap();
    if file["num_samples"].int() > 0 {
        return false;
    }
    let count = |key: &str| common::format::summary(&file)[key].int();
    assert_eq!(count("samples_kept"), 0);
    assert_eq!(count("samples_taken"), count("samples_lost") + count("samples_overwritten"));
    true
}

#[test]
fn what_is_read_while_others_change_it_is_right_or_refused() {
    let mut dice = common::hands::Dice(common::seed());
    let mut hands = common::hands::Meddler::default();
    let world = World::in_memory();
    let (mut live, dir, mirror) = watched(&world, 20);
    let ring = dir.join("00000.ring");
    for _ in 0..common::rounds(6, 200) {
        for path in [&ring, &mirror.join("00000.ring")] {
            hands.meddle(path, &mut dice);
        }
        let _ = fs::remove_dir_all(world.path("out"));
        let readers = [
            world.ringstat(&["decode", "-o", "out"]).arg(&dir).start(),
            world.ringstat(&["info"]).arg(&dir).start(),
            world.looking(&["recover", "--list"]).start(),
        ];
        for path in [&ring, &mirror.join("00000.ring")] {
            hands.meddle(path, &mut dice);
        }
        for (nth, reader) in readers.into_iter().enumerate() {
            let ran = reader.end();
            if !(ran.status == 0 || ran.status == 1) {
                ran.fail("a reader is to give an answer or refuse");
            }
            if nth == 0 && ran.status == 0 && !says_that_nothing_is_left(&world.path("out")) {
                assert_true_and_accounted(&world, &Files::of(&world.path("out")));
            }
        }
        assert!(live.is_running());
    }
    live.signal(Signal::INT);
    live.end().has_status(0);
    assert_true_and_accounted(&world, &world.files());
}

#[test]
fn a_ring_that_is_cut_off_while_the_final_files_are_written_costs_what_only_it_had() {
    let world = World::in_memory();
    let options = ["--interval", "2ms", "--max-samples", "1500", "--sync-interval", "50ms"];
    let cmd = world.record(&[&options[..], &["--duration", "3s"]].concat());
    let half_written = || {
        let names = entries(&world.results());
        let name = names.into_iter().find(|name| name.starts_with(".ringstat-"))?;
        Some(fs::metadata(world.results().join(name)).ok()?.len())
    };
    let mut written = 0;
    // It stands still while it is looked at.
    let end = trace(&cmd, |call| {
        if call.name == "write"
            && call.done
            && written == 0
            && let Some(length) = half_written().filter(|length| *length > 100_000)
        {
            let run = entries(&world.rings()).pop().unwrap();
            hands::writable(&world.rings().join(run).join("00000.ring")).set_len(0).unwrap();
            written = length;
        }
        Then::GoOn
    });
    assert_eq!(end, End::Exited(0));
    let files = world.files();
    let name = format!("record_{}_timeseries.json", files.datetime);
    let length = fs::metadata(world.results().join(name)).unwrap().len();
    assert!(written > 0 && written < length, "{written} of {length} bytes, and then the ring went");
    assert_true_and_accounted(&world, &files);
    assert_eq!(files.summary()["samples_lost"].int(), 0, "the mirror was complete");
    assert_eq!(entries(&world.rings()), [""; 0]);
}

/// What somebody has put where a run's next segment is to go.
struct InTheWay {
    path: PathBuf,
    what: &'static str,
}

impl InTheWay {
    fn put(world: &World, path: PathBuf, what: &'static str) -> InTheWay {
        match what {
            // Whatever the umask is: one of mode 0600 is taken for a ring that was overwritten.
            "a file" => {
                fs::write(&path, "theirs").unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            }
            "a link" => symlink(world.write("victim", "theirs"), &path).unwrap(),
            "a link to nothing" => symlink(world.path("nothing"), &path).unwrap(),
            "a pipe" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
            _ => fs::create_dir(&path).unwrap(),
        }
        InTheWay { path, what }
    }

    /// It is as it was put there, and nothing has gone through it.
    fn assert_untouched(&self, world: &World) {
        let kind = fs::symlink_metadata(&self.path).unwrap().file_type();
        match self.what {
            "a file" => assert_eq!(fs::read(&self.path).unwrap(), b"theirs"),
            "a link" => assert!(kind.is_symlink()),
            "a link to nothing" => assert!(kind.is_symlink() && !world.path("nothing").exists()),
            "a pipe" => assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind)),
            _ => assert!(kind.is_dir() && entries(&self.path).is_empty()),
        }
        let victim = world.path("victim");
        assert!(!victim.exists() || fs::read(victim).unwrap() == b"theirs");
    }
}

/// Has the segment begin in whose place something lies, and another one; whether it is the ring's or the
/// mirror's, that is left alone, no sample is lost, and it is said.
fn with_something_in_the_way(what: &'static str, base: &str) {
    let world = World::in_memory();
    let procfs = world.own_proc();
    let options = ["--interval", "10ms", "--max-samples", "3000", "--sync-interval", "50ms"];
    let more = ["--procfs", procfs.to_str().unwrap()];
    let live = world.record(&[&options[..], &more].concat()).start();
    let [dir, mirror] = [world.run_dir(&world.rings()), world.run_dir(&world.mirrors())];
    for dir in [&dir, &mirror] {
        world.wait_for_samples(&dir.join("00000.ring"), 5);
    }
    let of_base = if base == "rings" { &dir } else { &mirror };
    let in_the_way = InTheWay::put(&world, of_base.join("00001.ring"), what);
    let change = |name: &str| {
        let vmstat = fs::read_to_string(procfs.join("vmstat")).unwrap();
        fs::write(procfs.join("vmstat"), format!("{vmstat}{name} 7\n")).unwrap();
    };
    change("first_change");
    let other = if base == "rings" { &mirror } else { &dir };
    world.wait_for_samples(&other.join("00001.ring"), 5);
    in_the_way.assert_untouched(&world);
    change("second_change");
    for dir in [&dir, &mirror] {
        world.wait_for_samples(&dir.join("00002.ring"), 5);
    }
    in_the_way.assert_untouched(&world);
    live.signal(Signal::INT);
    let in_place = format!("{}: File exists", in_the_way.path.display());
    let mirrors = format!("no complete mirror in {}: File exists", mirror.display());
    let refused = if base == "rings" { in_place } else { mirrors };
    live.end().has_status(0).says(&[&refused]);
    let files = world.files();
    let count = |key: &str| files.summary()[key].int();
    assert_eq!((count("samples_lost"), count("segments")), (0, 3), "{what} in {base}");
    assert_eq!(count("samples_kept"), count("samples_taken"));
    common::format::ticks_add_up(files.summary(), files.samples()).unwrap();
    let has = |name: &str| files.samples().iter().filter(|it| it["vmstat"].has(name)).count();
    assert!(has("first_change") >= 10 && has("second_change") >= 5);
    in_the_way.assert_untouched(&world);
    // There is nothing else.
    assert_eq!(entries(of_base), ["00001.ring"]);
    assert!(!other.exists());
    // Nor is it taken for a run later.
    let list = world.looking(&["recover", "--list"]).succeeds().stdout;
    assert!(!list.contains(of_base.file_name().unwrap().to_str().unwrap()), "{list}");
}

#[test]
fn what_lies_under_the_name_of_the_next_segment_is_left_alone_and_costs_no_sample() {
    let kinds = ["a file", "a link", "a link to nothing", "a pipe", "a directory"];
    for base in ["rings", "mirrors"] {
        std::thread::scope(|scope| {
            let running = kinds
                .map(|what| (what, scope.spawn(move || with_something_in_the_way(what, base))));
            for (what, thread) in running {
                assert!(thread.join().is_ok(), "the case is: {what} among the {base}");
            }
        });
    }
}
