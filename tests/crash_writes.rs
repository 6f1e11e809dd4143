//! kill -9 before and after each system call that changes a file system, from the first one of
//! the program to its last: `recover` then writes both files, the same samples in them, and
//! nothing else is left. So it is with `recover` itself, and with a metadata file that is the
//! benchmark's.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::json::{self, Value};
use common::trace::{Call, End, Then, trace};
use common::{Cmd, World, entries, format, rounds};
use ringstat::ring::Ring;
use ringstat::{Decoder, JSON};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// The benchmark's own metadata file, of a form that is not ours.
const THEIRS: &str = "{\n  \"model\": \"unet3d\",\n  \"x\": 1.50,\n  \"runtime\": 2.0\n}\n";

/// What a killed program has left, and what must become of it.
struct Left {
    /// The samples that are in the rings, as a final file has them.
    in_rings: Option<String>,
    /// The final file, if it is there.
    in_results: Option<String>,
}

impl Left {
    fn of(world: &World) -> Left {
        let names = entries(&world.results());
        let named = names.iter().find(|name| name.ends_with("_timeseries.json"));
        let in_results = named.map(|name| fs::read_to_string(world.results().join(name)).unwrap());
        Left { in_rings: decoded(world), in_results }
    }

    /// What the final file must be.
    fn wanted(self) -> Option<String> {
        self.in_results.or(self.in_rings)
    }
}

/// The rings and mirrors that are there. One that was not begun is none.
fn rings(world: &World) -> Vec<Ring> {
    let files = [world.rings(), world.mirrors()].map(|dir| files_below(&dir)).concat();
    let is_ring = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "ring");
    files.iter().filter(is_ring).filter_map(|path| Ring::open(path).ok()).collect()
}

fn has_sample(world: &World) -> bool {
    rings(world).iter().any(|ring| ring.scan().is_ok_and(|scan| scan.newest.is_some()))
}

/// The time series in the rings.
fn decoded(world: &World) -> Option<String> {
    let mut decoder = Decoder::new(rings(world)).ok()?;
    if decoder.summary().samples_kept == 0 {
        return None;
    }
    let mut text = Vec::new();
    decoder.write(&JSON, &mut text, &mut |_, _| {}).unwrap();
    Some(String::from_utf8(text).unwrap())
}

/// The runs that have left a directory.
fn runs(world: &World) -> BTreeSet<String> {
    let dirs = [world.rings(), world.mirrors()];
    dirs.iter().flat_map(|dir| entries(dir)).collect()
}

/// Every file below `dir`.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let paths = entries(dir).into_iter().map(|name| dir.join(name));
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// Recovers what there is, and holds what comes of it against what there was.
fn recover_and_check(world: &World, options: &[&str], wanted: Option<&str>) {
    let ids = runs(world);
    for id in &ids {
        world.looking(&["recover", id]).args(options).succeeds();
    }
    world.assert_no_rings();
    for id in &ids {
        world.looking(&["recover", id]).ends_with(1).says(&["there is no", id]);
    }
    check_results(world, wanted);
}

fn check_results(world: &World, wanted: Option<&str>) {
    let Some(wanted) = wanted else {
        assert_eq!(entries(&world.results()), [""; 0], "there was no sample");
        assert_eq!(files_below(&world.path("bench")).len(), usize::from(has_theirs(world)));
        return;
    };
    let named = |ending| entries(&world.results()).into_iter().find(|name| name.ends_with(ending));
    let name = named("_timeseries.json").expect("a time series");
    let text = fs::read_to_string(world.results().join(&name)).unwrap();
    assert!(text == wanted, "other samples\n{wanted}\n{text}");
    if !has_theirs(world) {
        // Both files, rightly named, refering to each other, and nothing else.
        world.files();
        return;
    }
    let data = format::timeseries(&text).unwrap();
    assert_eq!(entries(&world.results()), [&*name], "theirs is the metadata");
    assert_eq!(entries(&world.path("bench")), ["meta.json"]);
    let reference = reference_in_theirs(world).expect("merged");
    assert_eq!(reference["file"].str(), name);
    assert_eq!(reference["num_samples"], data["num_samples"]);
}

fn has_theirs(world: &World) -> bool {
    world.path("bench").exists()
}

fn write_theirs(world: &World) -> String {
    let path = world.write("bench/meta.json", THEIRS);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Their file is whole at any time: as it was, or with the reference in it.
fn reference_in_theirs(world: &World) -> Option<Value> {
    let path = world.path("bench/meta.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let text = fs::read_to_string(path).unwrap();
    if text == THEIRS {
        return None;
    }
    let theirs = json::parse(&text).expect("half-written");
    assert_eq!(theirs.keys(), ["model", "x", "timeseries_data", "runtime"]);
    assert!(text.contains("\"x\": 1.50"), "{text}");
    Some(theirs["timeseries_data"].clone())
}

/// The calls at which to kill: each, before and after it, or in CI some that are spread evenly;
/// those that give names always.
fn points(calls: &[Call]) -> Vec<Call> {
    let most = usize::try_from(rounds(8, u64::MAX)).unwrap();
    let (mut points, others): (Vec<Call>, Vec<Call>) =
        calls.iter().partition(|call| gives_name(call));
    let step = others.len().div_ceil(most).max(1);
    points.extend(others.iter().step_by(step));
    points
}

fn gives_name(call: &Call) -> bool {
    call.name.starts_with("rename") || call.name.starts_with("link")
}

/// All calls of a run that is not killed.
fn calls_of(cmd: &Cmd) -> Vec<Call> {
    let mut calls = Vec::new();
    let end = trace(cmd, |call| {
        calls.push(call);
        Then::GoOn
    });
    assert_eq!(end, End::Exited(0));
    calls
}

/// What came of all kills.
#[derive(Default)]
struct Tally {
    kills: u64,
    ended: u64,
    no_sample: u64,
    by_name: BTreeMap<&'static str, u64>,
    /// At a call that gives a name: before it, and after it.
    at_names: [u64; 2],
}

impl Tally {
    fn add(&mut self, point: Call, end: &End, had_samples: bool) {
        match end {
            End::Killed => {
                *self.by_name.entry(point.name).or_default() += 1;
                self.at_names[usize::from(point.done)] += u64::from(gives_name(&point));
            }
            End::Exited(_) => self.ended += 1,
        }
        self.kills += u64::from(*end == End::Killed);
        self.no_sample += u64::from(!had_samples);
    }

    fn print(&self, what: &str, calls: usize, since: Instant) {
        let Tally { kills, ended, no_sample, by_name, at_names: [before, after] } = self;
        println!(
            "{what}: {kills} kills at {calls} points ({ended} came to their end before), \
             {no_sample} before the first sample, in {:.1} s; {before} before and {after} after a name \
             was given; by call: {by_name:?}",
            since.elapsed().as_secs_f64()
        );
        assert!(*kills > 0);
        assert!(*before >= 2 && *after >= 2, "{what}: too few kills at renames");
    }
}

/// Kills a recorder at each point of its life.
fn kill_recorder_everywhere(what: &str, cmd: impl Fn(&World) -> Cmd + Sync) {
    let since = Instant::now();
    let world = World::new();
    let calls = calls_of(&cmd(&world));
    check_results(&world, Left::of(&world).wanted().as_deref());
    let tally = Mutex::new(Tally::default());
    let todo = Mutex::new(points(&calls));
    let work = || {
        loop {
            let Some(point) = todo.lock().unwrap().pop() else { return };
            let world = World::new();
            let mut had_samples = false;
            let end = trace(&cmd(&world), |call| {
                had_samples = had_samples || has_sample(&world);
                if call == point { Then::Kill } else { Then::GoOn }
            });
            if has_theirs(&world) {
                reference_in_theirs(&world);
            }
            let wanted = Left::of(&world).wanted();
            assert!(wanted.is_some() || !had_samples, "{point:?}: lost all that was seen");
            println!("{what}: {point:?}");
            recover_and_check(&world, &[], wanted.as_deref());
            tally.lock().unwrap().add(point, &end, wanted.is_some());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(work);
        }
    });
    tally.into_inner().unwrap().print(what, calls.len(), since);
}

const SHORT: [&str; 6] = ["--interval", "5ms", "--max-samples", "50", "--sync-interval", "20ms"];

#[test]
fn a_recorder_is_killed_at_each_change_to_a_file() {
    kill_recorder_everywhere("record", |world| {
        world.record(&[&SHORT[..], &["--duration", "40ms"]].concat())
    });
}

#[test]
fn a_recorder_of_a_command_is_killed_at_each_change_to_a_file() {
    kill_recorder_everywhere("run", |world| world.run(&SHORT, &["sleep", "0.02"]));
}

#[test]
fn the_benchmarks_own_metadata_is_whole_whenever_its_recorder_is_killed() {
    kill_recorder_everywhere("run --merge-metadata", |world| {
        let theirs = write_theirs(world);
        let options = [&SHORT[..], &["--merge-metadata", &theirs]].concat();
        world.run(&options, &["sleep", "0.02"])
    });
}

/// A run that was killed while it recorded, to be put back as often as it is needed.
struct Dead {
    world: World,
    id: String,
    wanted: String,
}

impl Dead {
    /// After some samples, of which the mirror has a part, in that many segments.
    fn of(segments: usize, options: &[&str]) -> Dead {
        let world = World::new();
        let procfs = world.own_proc();
        let own = ["--interval", "5ms", "--max-samples", "200", "--sync-interval", "20ms"];
        let procfs_option = ["--procfs", procfs.to_str().unwrap()];
        let live = world.record(&[&own[..], &procfs_option, options].concat()).start();
        let dir = world.run_dir(&world.rings());
        let mirror = world.run_dir(&world.mirrors());
        for segment in 0..segments {
            let name = format!("{segment:05}.ring");
            if segment > 0 {
                let vmstat = fs::read_to_string(procfs.join("vmstat")).unwrap();
                fs::write(procfs.join("vmstat"), format!("{vmstat}new_{segment} 1\n")).unwrap();
                common::wait_for_file(&dir.join(&name));
            }
            world.wait_for_samples(&dir.join(&name), 3);
            world.wait_for_samples(&mirror.join(&name), 2);
        }
        live.kill();
        let wanted = decoded(&world).unwrap();
        let saved = Cmd::new("cp", &world.path("")).args(&["-a", "rings", "mirrors", "saved"]);
        fs::create_dir(world.path("saved")).unwrap();
        saved.succeeds();
        let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
        Dead { world, id, wanted }
    }

    fn put_back(&self, change: impl Fn(&World)) {
        for name in ["rings", "mirrors", "results", "bench"] {
            let _ = fs::remove_dir_all(self.world.path(name));
        }
        let back = Cmd::new("cp", &self.world.path(""));
        back.args(&["-a", "saved/rings", "saved/mirrors", "."]).succeeds();
        change(&self.world);
    }

    /// Kills `recover` at each point of its life, and recovers again.
    fn kill_recover_everywhere(&self, what: &str, options: &[&str], change: impl Fn(&World)) {
        let since = Instant::now();
        let world = &self.world;
        let cmd = || world.looking(&["recover", &self.id]).args(options);
        self.put_back(&change);
        let calls = calls_of(&cmd());
        check_results(world, Some(&self.wanted));
        let mut tally = Tally::default();
        for point in points(&calls) {
            self.put_back(&change);
            let kill = |call| if call == point { Then::Kill } else { Then::GoOn };
            let end = trace(&cmd(), kill);
            println!("{what}: {point:?}");
            if has_theirs(world) {
                reference_in_theirs(world);
            }
            recover_and_check(world, options, Some(&self.wanted));
            tally.add(point, &end, true);
        }
        tally.print(what, calls.len(), since);
    }
}

#[test]
fn recover_is_killed_at_each_change_to_a_file() {
    let dead = Dead::of(2, &[]);
    dead.kill_recover_everywhere("recover", &[], |_| {});
    dead.kill_recover_everywhere("recover without a manifest", &["-o", "results"], |world| {
        let files = [world.rings(), world.mirrors()].map(|dir| files_below(&dir)).concat();
        for path in files.iter().filter(|path| path.ends_with("run.json")) {
            fs::remove_file(path).unwrap();
        }
    });
}

#[test]
fn the_benchmarks_own_metadata_is_whole_whenever_recover_is_killed() {
    // Relative to where the recorder was started.
    let dead = Dead::of(2, &["--merge-metadata", "bench/meta.json"]);
    dead.kill_recover_everywhere("recover and merge", &[], |world| {
        write_theirs(world);
    });
}
