//! Directories that are shared with others: what `recover` does about runs, manifests and results
//! that somebody else has put there, or that say something else than a recorder writes. Files
//! appear where the user's own run says, its own rings go, and nothing else changes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::{Files, World, entries, format, say_skipped};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

const NOBODY: u32 = 65534;

/// A run whose recorder died before it wrote its files: its directories, ring first, and its id.
struct Dead {
    dirs: [PathBuf; 2],
    id: String,
}

impl Dead {
    fn new(world: &World) -> Dead {
        let dir = world.kept(5, &["--benchmark-type", "dead"]);
        fs::remove_dir_all(world.results()).unwrap();
        let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let dead = Dead { dirs: [dir, world.mirrors().join(&id)], id };
        dead.say(&json!({"done": false, "final_datetime": null}));
        dead
    }

    /// Changes both manifests.
    fn say(&self, changes: &Value) {
        for dir in &self.dirs {
            let path = dir.join("run.json");
            let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for (key, value) in changes.as_object().unwrap() {
                manifest[key] = value.clone();
            }
            fs::write(path, manifest.to_string()).unwrap();
        }
    }

    fn owned_by(&self, user: u32) {
        for dir in &self.dirs {
            chown(dir, Some(user), None).unwrap();
            for name in entries(dir) {
                chown(dir.join(name), Some(user), None).unwrap();
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.dirs.iter().all(|dir| entries(dir) == ["00000.ring", "run.json"])
    }
}

/// Whether files can be given to somebody else; says so if not.
fn can_give_away(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        say_skipped(what, "root");
    }
    is_root
}

#[test]
fn a_run_of_another_user_is_shown_and_decoded_but_never_acted_upon() {
    if !can_give_away("a run of another user") {
        return;
    }
    let world = World::new();
    let own = world.write("own.json", "{\"a\": 1}\n");
    let dead = Dead::new(&world);
    let out = world.path("out");
    dead.say(&json!({"results_dir": world.path("anywhere"), "merge_metadata": own}));
    dead.owned_by(NOBODY);
    let ran = world.looking(&["recover", &dead.id]).ends_with(1);
    ran.says(&["cannot recover run", "belongs to user 65534", "ringstat decode"]);
    let ran = world.looking(&["recover"]).succeeds();
    ran.says(&["is left alone", "belongs to user 65534", "no run owes any files"]);
    let to = world.path("chosen");
    world.looking(&["recover", "-o", to.to_str().unwrap(), &dead.id]).ends_with(1);
    assert!(dead.is_whole() && !world.path("anywhere").exists() && !to.exists());
    let listed = world.looking(&["recover", "--list"]).succeeds().stdout;
    assert!(listed.contains(&dead.id) && listed.contains("owing"), "{listed}");
    world.looking(&["info", &dead.id]).succeeds();
    world.looking(&["decode", "-o", out.to_str().unwrap(), &dead.id]).succeeds();
    assert!(Files::of(&out).samples().len() >= 5);
    assert_eq!(fs::read_to_string(own).unwrap(), "{\"a\": 1}\n");
    assert!(dead.is_whole() && !world.path("anywhere").exists());
    dead.owned_by(0);
    world.looking(&["recover", &dead.id]).succeeds();
    // What the manifest says is done once it is the user's own.
    assert_eq!(entries(&world.path("anywhere")).len(), 1);
    assert!(fs::read_to_string(world.path("own.json")).unwrap().contains("timeseries_data"));
}

#[test]
fn a_directory_that_others_can_write_to_is_not_acted_upon() {
    let world = World::new();
    let dead = Dead::new(&world);
    for mode in [0o777, 0o720] {
        fs::set_permissions(&dead.dirs[0], Permissions::from_mode(mode)).unwrap();
        let ran = world.looking(&["recover", &dead.id]).ends_with(1);
        ran.says(&["can be written to by other users"]);
        assert!(dead.is_whole() && !world.results().exists());
    }
    fs::set_permissions(&dead.dirs[0], Permissions::from_mode(0o700)).unwrap();
    world.looking(&["recover", &dead.id]).succeeds();
    world.assert_no_rings();
}

#[test]
fn somebody_elses_directory_of_the_same_name_changes_nothing() {
    if !can_give_away("a directory of another user") {
        return;
    }
    let world = World::new();
    let dead = Dead::new(&world);
    let shared = world.path("shared").join(&dead.id);
    fs::create_dir_all(&shared).unwrap();
    for name in ["run.json", "00000.ring"] {
        fs::copy(dead.dirs[0].join(name), shared.join(name)).unwrap();
    }
    let theirs = Dead { dirs: [shared.clone(), shared], id: dead.id.clone() };
    theirs.say(&json!({"done": true, "results_dir": world.path("anywhere")}));
    theirs.owned_by(NOBODY);
    // Our own mirror is found by our manifest.
    let cmd = world.ringstat(&["recover", &dead.id]).arg("--ring-dir").arg(world.rings());
    cmd.arg("--mirror-dir").arg(world.path("shared")).succeeds();
    assert!(world.files().samples().len() >= 5);
    world.assert_no_rings();
    assert!(theirs.is_whole() && !world.path("anywhere").exists());
}

#[test]
fn a_manifest_cannot_name_another_runs_directories() {
    let world = World::new();
    let other = Dead::new(&world);
    let other_rings = other.dirs[0].clone();
    let plain = world.path("plain");
    fs::create_dir(&plain).unwrap();
    for (named, of_run) in [(&other_rings, None), (&plain, None), (&other_rings, Some(&other.id))] {
        let dead = {
            let before = entries(&world.rings());
            let live = world.record(&["--keep-ring", "--interval", "2ms"]).start();
            let id = common::wait_until("another run", || {
                entries(&world.rings()).into_iter().find(|name| !before.contains(name))
            });
            let dirs = [world.rings().join(&id), world.mirrors().join(&id)];
            world.wait_for_samples(&dirs[0].join("00000.ring"), 3);
            live.signal(rustix::process::Signal::INT);
            live.end().has_status(0);
            fs::remove_dir_all(world.results()).unwrap();
            Dead { dirs, id }
        };
        dead.say(&json!({"done": false, "final_datetime": null}));
        dead.say(&json!({"ring_dir": named, "mirror_dir": named}));
        if let Some(id) = of_run {
            dead.say(&json!({"run_id": id}));
        }
        let out = world.path("out");
        let ran = world.looking(&["recover", "-o", out.to_str().unwrap(), &dead.id]).succeeds();
        ran.says(&["recovered run", &dead.id]);
        assert!(Files::of(&out).samples().len() >= 3);
        fs::remove_dir_all(&out).unwrap();
        assert!(other.is_whole(), "{:?}", entries(&other_rings));
        assert_eq!(entries(&plain), [""; 0]);
        assert!(dead.dirs.iter().all(|dir| !dir.exists()), "its own rings go");
    }
}

#[test]
fn a_link_in_the_place_of_a_run_is_not_followed() {
    let world = World::new();
    let dead = Dead::new(&world);
    // The run itself lies somewhere else, and the mirror's place is a link to something.
    let elsewhere = world.path("elsewhere");
    fs::rename(&dead.dirs[0], &elsewhere).unwrap();
    fs::rename(&dead.dirs[1], world.path("mirror")).unwrap();
    symlink(&elsewhere, &dead.dirs[0]).unwrap();
    world.looking(&["recover"]).succeeds().says(&["no run owes any files"]);
    world.looking(&["recover", &dead.id]).ends_with(1).says(&["there is no"]);
    assert_eq!(entries(&elsewhere), ["00000.ring", "run.json"]);
    assert!(!world.results().exists());
}

#[test]
fn a_manifest_that_is_no_plain_file_is_not_waited_for() {
    for kind in ["pipe", "link"] {
        let world = World::new();
        let dead = Dead::new(&world);
        for dir in &dead.dirs {
            let path = dir.join("run.json");
            let moved = world.path(&format!("moved-{}", dir.parent().unwrap().ends_with("rings")));
            fs::rename(&path, &moved).unwrap();
            match kind {
                "pipe" => {
                    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap()
                }
                _ => symlink(&moved, &path).unwrap(),
            }
        }
        let out = world.path("out");
        world.looking(&["recover", "-o", out.to_str().unwrap(), &dead.id]).succeeds();
        assert!(Files::of(&out).samples().len() >= 5, "{kind}");
        world.assert_no_rings();
        assert_eq!(entries(world.path("moved-true").parent().unwrap()).len(), 5, "{kind}");
    }
}

/// The name that the run's time series is to get, and a place for it.
fn wanted_name(world: &World, dead: &Dead) -> PathBuf {
    let manifest = fs::read(dead.dirs[0].join("run.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let datetime = manifest["datetime"].as_str().unwrap();
    dead.say(&json!({"final_datetime": datetime}));
    fs::create_dir_all(world.results()).unwrap();
    world.results().join(format!("dead_{datetime}_timeseries.json"))
}

#[test]
fn somebody_elses_file_does_not_pass_for_the_results() {
    if !can_give_away("a file of another user") {
        return;
    }
    let world = World::new();
    let dead = Dead::new(&world);
    let path = wanted_name(&world, &dead);
    fs::set_permissions(world.results(), Permissions::from_mode(0o1777)).unwrap();
    // With the id in it, as ours would have.
    let text = format!("{{\"ringstat\": {{\"run_id\": \"{}\"}}}}", dead.id);
    fs::write(&path, &text).unwrap();
    chown(&path, Some(NOBODY), None).unwrap();
    world.looking(&["recover", &dead.id]).succeeds();
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "theirs stays");
    fs::remove_file(&path).unwrap();
    assert!(world.files().samples().len() >= 5, "ours has the next name");
    world.assert_no_rings();
}

#[test]
fn a_pipe_or_link_under_the_results_name_is_stepped_around() {
    for kind in ["pipe", "link"] {
        let world = World::new();
        let dead = Dead::new(&world);
        let path = wanted_name(&world, &dead);
        let own = world.write("own.json", &dead.id);
        match kind {
            "pipe" => mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
            _ => symlink(&own, &path).unwrap(),
        }
        world.looking(&["recover", &dead.id]).succeeds();
        assert!(fs::symlink_metadata(&path).is_ok(), "{kind} stays");
        fs::remove_file(&path).unwrap();
        assert!(world.files().samples().len() >= 5, "{kind}");
        assert_eq!(fs::read_to_string(own).unwrap(), dead.id);
        world.assert_no_rings();
    }
}

#[test]
fn a_manifest_that_no_recorder_writes_is_as_good_as_none() {
    for changes in [
        json!({"datetime": "+262142 12 31_23 59 59"}),
        json!({"final_datetime": "../../20260102_0304"}),
        json!({"benchmark_type": "../up"}),
        json!({"version": 2}),
        json!({"results_dir": null}),
        json!({"ended": {"runtime_seconds": "1"}}),
    ] {
        let world = World::new();
        let dead = Dead::new(&world);
        dead.say(&changes);
        let out = world.path("out");
        world.looking(&["recover", "-o", out.to_str().unwrap(), &dead.id]).succeeds();
        let names = entries(&out);
        assert_eq!(names.len(), 2, "{changes}: {names:?}");
        let text = fs::read_to_string(out.join(&names[1])).unwrap();
        format::timeseries(&text).unwrap_or_else(|wrong| panic!("{changes}: {wrong}"));
        world.assert_no_rings();
        assert_eq!(entries(Path::new(&world.path(""))), ["mirrors", "out", "rings"], "{changes}");
    }
}

/// The seeds of the fuzz targets are files that this program still reads: what it refuses at once
/// teaches a fuzzer nothing.
#[test]
fn the_seeds_of_the_fuzz_targets_are_up_to_date() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let read = |name: &str| fs::read(seeds.join(name)).unwrap();
    for name in entries(&seeds.join("ring_bytes")) {
        let bytes = Box::new(read(&format!("ring_bytes/{name}")));
        let ring = ringstat::ring::Ring::new(bytes, Path::new(&name)).unwrap();
        let decoder = ringstat::Decoder::new(vec![ring]);
        let kept = decoder.unwrap_or_else(|error| panic!("{name}: {error}")).summary().samples_kept;
        assert!(kept > 0, "{name}");
    }
    for name in ["all", "compact", "small"] {
        let data: ringstat::TimeSeriesData =
            serde_json::from_slice(&read(&format!("timeseries_json/{name}"))).unwrap();
        assert!(data.num_samples > 0 && data.ringstat.is_some(), "{name}");
    }
    let manifest = "manifest/plain";
    serde_json::from_slice::<ringstat::Manifest>(&read(manifest)).unwrap();
    let metadata = "timeseries_json/metadata";
    serde_json::from_slice::<ringstat::metadata::Metadata>(&read(metadata)).unwrap();
    // Five sources, the first byte of a seed is which.
    let texts = entries(&seeds.join("proc_text"));
    let sources = texts.iter().map(|name| read(&format!("proc_text/{name}"))[0]);
    let sources: std::collections::BTreeSet<u8> = sources.collect();
    assert!(sources.into_iter().eq(0..ringstat::source::SOURCES.len() as u8), "{texts:?}");
}
