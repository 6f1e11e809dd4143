//! A small disk that is full, has no inode left, turns read-only or breaks, below the ring, the mirror, the
//! results or all of them: the benchmark ends as it would have, nothing half is left under a final
//! name, and once there is room again the advice that was given leads to the complete files.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::disk::{LoopExt4, remount};
use common::{
    Cmd, Files, Live, Ran, Tmpfs, World, advice, entries, fixed_proc, rounds, wait_for_file,
    with_own_mounts,
};
use std::any::Any;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Small records: a ring of some 600 kB.
const OPTIONS: [&str; 8] = [
    "--interval",
    "20ms",
    "--sync-interval",
    "50ms",
    "--sources",
    "vmstat,meminfo,loadavg",
    "--max-samples",
    "60",
];
const BRIEFLY: &str = "sleep 0.2; echo ran; exit 4";
const UNTIL_TOLD: &str = "touch \"$W/begun\"; until [ -e \"$W/end\" ]; do sleep 0.01; done; exit 4";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Memory,
    Ext4,
}
const KINDS: [Kind; 2] = [Kind::Memory, Kind::Ext4];

/// What lies on the disk that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Ring,
    Mirror,
    Results,
    All,
}
const PLACES: [Place; 4] = [Place::Ring, Place::Mirror, Place::Results, Place::All];

/// What a file system may not give to the last file on it: it is given in blocks.
const SLACK_KIB: u64 = 8;

/// A world of which one part, or all, lies on a small disk.
struct Scene {
    world: World,
    place: Place,
    what: String,
    /// Default places, so that what is saved there is the test's own. Unmounted with the disk before
    /// the world is removed.
    mounts: Option<[Box<dyn Any>; 2]>,
}

impl Scene {
    fn new(kind: Kind, place: Place, what: &str) -> Scene {
        Scene::of_size("3m", kind, place, what)
    }

    fn of_size(size: &str, kind: Kind, place: Place, what: &str) -> Scene {
        let world = World::new();
        let disk = world.path("disk");
        let disk: Box<dyn Any> = match kind {
            Kind::Memory => Box::new(Tmpfs::over(&disk, &format!("size={size},nr_inodes=40"))),
            Kind::Ext4 => Box::new(LoopExt4::over(&disk, size, &["-N", "40", "-m", "0"])),
        };
        for dir in ["disk/ours", "disk/ours/rings", "disk/ours/mirrors", "disk/ours/results"] {
            fs::create_dir(world.path(dir)).unwrap();
        }
        let shm: Box<dyn Any> = Box::new(Tmpfs::over(Path::new("/dev/shm"), "size=50m,mode=1777"));
        let what = format!("{what}, {place:?} on {kind:?} of {size}");
        println!("{what}");
        Scene { world, place, what, mounts: Some([disk, shm]) }
    }

    fn dir(&self, place: Place, name: &str) -> PathBuf {
        let is_on_disk = [place, Place::All].contains(&self.place);
        self.world.path(if is_on_disk { "disk/ours" } else { "else" }).join(name)
    }

    fn results(&self) -> PathBuf {
        self.dir(Place::Results, "results")
    }

    fn ring_dirs(&self) -> [PathBuf; 2] {
        [self.dir(Place::Ring, "rings"), self.dir(Place::Mirror, "mirrors")]
    }

    fn run_sh(&self, script: &str) -> Cmd {
        self.run_with(&OPTIONS, script)
    }

    fn run_with(&self, options: &[&str], script: &str) -> Cmd {
        let [rings, mirrors] = self.ring_dirs();
        let results = self.results();
        let dirs = [
            "--ring-dir",
            rings.to_str().unwrap(),
            "--mirror-dir",
            mirrors.to_str().unwrap(),
            "--results-dir",
            results.to_str().unwrap(),
        ];
        self.world.run_sh(&[options, &dirs].concat(), script)
    }

    /// Takes all room but `kib`.
    fn fill(&self, kib: u64) {
        let fill = self.world.path("disk/fill");
        let script = "dd if=/dev/zero of=\"$0\" bs=1k 2> /dev/null; \
                      truncate -s -\"$1\"k \"$0\" 2> /dev/null || truncate -s 0 \"$0\"; sync \"$0\"";
        let status =
            Command::new("sh").args(["-c", script]).arg(fill).arg(kib.to_string()).status();
        assert!(status.unwrap().success());
        let free = rustix::fs::statvfs(self.world.path("disk")).unwrap();
        let free_kib = free.f_bavail * free.f_frsize / 1024;
        assert!(free_kib <= kib + SLACK_KIB, "{}: {free_kib} kB are left", self.what);
    }

    /// Takes all inodes but some.
    fn take_inodes(&self, left: usize) {
        let path = |number| self.world.path("disk").join(format!("inode{number}"));
        let taken = (0..).take_while(|number| fs::write(path(*number), "").is_ok()).count();
        (taken.saturating_sub(left)..taken)
            .for_each(|number| fs::remove_file(path(number)).unwrap());
    }

    /// Gives back all that was taken.
    fn make_room(&self) {
        for name in entries(&self.world.path("disk")) {
            if name != "ours" {
                fs::remove_file(self.world.path("disk").join(name)).unwrap();
            }
        }
    }

    /// What a user may rely on, whatever happened: `relieve` does away with the cause.
    fn has_lost_nothing(&self, ran: Ran, relieve: impl FnOnce()) {
        self.world.check_files();
        let files = || self.results();
        let names = entries(&files());
        let is_complete = names.iter().any(|name| name.ends_with("_metadata.json"));
        let ran = if is_complete {
            ran
        } else {
            // Where it is, and what to do.
            ran.says(&["safe in", "ringstat recover /"])
        };
        relieve();
        if ran.stderr.contains("ringstat recover ") {
            self.world.take_the_advice(&ran).has_status(0);
        }
        // Of several directories one is named, and all are found.
        let [rings, mirrors] = self.ring_dirs();
        let recover = ["recover", "--ring-dir", rings.to_str().unwrap(), "--mirror-dir"];
        self.world.ringstat(&recover).arg(mirrors).succeeds();
        let files = Files::of(&files());
        // Where every directory of the run refuses, there is no place to note it.
        if self.place != Place::All || files.metadata.has("exit_status") {
            assert_eq!(files.metadata["exit_status"].int(), 4, "{}", self.what);
        }
        assert!(files.last()["collection"]["at_stop"].bool(), "{}", self.what);
        assert_eq!(files.summary()["samples_lost"].int(), 0, "{}", self.what);
        for dir in self.ring_dirs().iter().chain([&"/dev/shm/ringstat-0".into()]) {
            assert_eq!(entries(dir), [""; 0], "{}: left in {}", self.what, dir.display());
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.mounts = None;
    }
}

#[test]
fn a_disk_without_room_costs_no_sample() {
    with_own_mounts("small disks", || {
        for kind in KINDS {
            for place in PLACES {
                // Up to some kB of results, and for each of two rings or for one.
                let rooms = (0..40).step_by(rounds(20, 2) as usize).chain([700, 1300]);
                for kib in rooms {
                    let scene = Scene::new(kind, place, &format!("{kib} kB left"));
                    scene.fill(kib);
                    let ran = scene.run_sh(BRIEFLY).ends_with(4);
                    assert_eq!(ran.stdout, "ran\n");
                    let says = |what: &str| ran.stderr.contains(what);
                    let is_on = |other| [other, Place::All].contains(&place);
                    // A mirror takes half of the room at most, and so does its ring, made later, of what is left.
                    let (no_ring, no_mirror) = (kib < 1300 || place == Place::All, kib < 1300);
                    let expected =
                        (is_on(Place::Ring) && no_ring, is_on(Place::Mirror) && no_mirror);
                    let said = (says("no ring"), says("no mirror"));
                    assert_eq!(said, expected, "{}: {}", scene.what, ran.stderr);
                    scene.has_lost_nothing(ran, || scene.make_room());
                }
            }
        }
    });
}

/// Less than any ring takes, whose names alone have room for 512 kB; the files go on it or do not.
const TINY: &str = "400k";

#[test]
fn a_disk_of_a_few_hundred_kilobytes_costs_no_sample() {
    with_own_mounts("tiny disks", || {
        for kind in KINDS {
            for place in PLACES {
                let is_on = |other| [other, Place::All].contains(&place);
                for kib in [0, 1, 4, 12, 40, 300] {
                    let scene = Scene::of_size(TINY, kind, place, &format!("{kib} kB left"));
                    scene.fill(kib);
                    let ran = scene.run_sh(BRIEFLY).ends_with(4);
                    assert_eq!(ran.stdout, "ran\n");
                    let said = ["no ring", "no mirror"].map(|what| ran.stderr.contains(what));
                    assert_eq!(said, [is_on(Place::Ring), is_on(Place::Mirror)], "{}", ran.stderr);
                    scene.has_lost_nothing(ran, || scene.make_room());
                }
                let scene = Scene::of_size(TINY, kind, place, "filled in mid-run");
                let live = begun(&scene);
                scene.fill(0);
                let ran = ended(&scene, live);
                scene.has_lost_nothing(ran, || scene.make_room());
                let scene = Scene::of_size(TINY, kind, place, "inodes taken in mid-run");
                let live = begun(&scene);
                scene.take_inodes(0);
                let ran = ended(&scene, live);
                scene.has_lost_nothing(ran, || scene.make_room());
            }
        }
    });
}

/// What is written of the files until the room is gone.
#[test]
fn room_that_runs_out_while_the_files_are_written_leaves_the_rings_and_no_half_file() {
    with_own_mounts("tiny disks", || {
        for kind in KINDS {
            let scene = Scene::of_size(TINY, kind, Place::Results, "the files are larger");
            let options =
                ["--interval", "2ms", "--max-samples", "400", "--sources", "vmstat,meminfo"];
            let live = scene.run_with(&options, UNTIL_TOLD).start();
            let [rings, _] = scene.ring_dirs();
            let ring = scene.world.run_dir(&rings).join("00000.ring");
            scene.world.wait_for_samples(&ring, 400);
            let ran = ended(&scene, live).says(&["No space left", "safe in", "ringstat recover /"]);
            assert_eq!(entries(&scene.results()), [""; 0], "{}", scene.what);
            assert!(ring.exists());
            // A larger disk.
            let other = scene.world.path("other");
            let [.., dir] = advice(&ran)[..] else { ran.fail("no advice") };
            scene.world.ringstat(&["recover", dir, "-o"]).arg(&other).succeeds();
            let files = Files::of(&other);
            let written: u64 =
                entries(&other).iter().map(|it| fs::metadata(other.join(it)).unwrap().len()).sum();
            assert!(written > 400 << 10, "{written} bytes would have had room");
            assert_eq!(files.samples().len(), 400);
            assert_eq!(files.summary()["samples_lost"].int(), 0);
            assert_eq!(files.metadata["exit_status"].int(), 4);
            for dir in scene.ring_dirs() {
                assert_eq!(entries(&dir), [""; 0], "{}", scene.what);
            }
        }
    });
}

#[test]
fn room_that_runs_out_during_the_run_costs_no_sample() {
    with_own_mounts("small disks", || {
        for kind in KINDS {
            for place in PLACES {
                let scene = Scene::new(kind, place, "filled in mid-run");
                let live = begun(&scene);
                scene.fill(rounds(20, 40));
                let ran = ended(&scene, live);
                scene.has_lost_nothing(ran, || scene.make_room());
            }
        }
    });
}

fn begun(scene: &Scene) -> Live {
    let live = scene.run_sh(UNTIL_TOLD).start();
    wait_for_file(&scene.world.path("begun"));
    live
}

fn ended(scene: &Scene, live: Live) -> Ran {
    scene.world.write("end", "");
    live.end().has_status(4)
}

#[test]
fn a_disk_without_inodes_costs_no_sample() {
    with_own_mounts("small disks", || {
        for kind in KINDS {
            for place in PLACES {
                for left in 0..rounds(4, 10) {
                    let scene = Scene::new(kind, place, &format!("{left} inodes left"));
                    scene.take_inodes(left as usize);
                    let ran = scene.run_sh(BRIEFLY).output();
                    if left == 0 {
                        // Seen before anything begins, as any directory that cannot be used.
                        let ran = ran.has_status(2).says(&["No space left", "disk/ours"]);
                        assert_eq!(ran.stdout, "");
                        continue;
                    }
                    let ran = ran.has_status(4);
                    scene.has_lost_nothing(ran, || scene.make_room());
                }
                let scene = Scene::new(kind, place, "inodes taken in mid-run");
                let live = begun(&scene);
                scene.take_inodes(0);
                let ran = ended(&scene, live);
                scene.has_lost_nothing(ran, || scene.make_room());
            }
        }
    });
}

fn mount(args: &[&str]) -> bool {
    Command::new("mount").args(args).output().unwrap().status.success()
}

/// As with the mount of a container: what is open can still be written, and nothing else.
#[test]
fn a_directory_that_turns_read_only_costs_no_sample() {
    with_own_mounts("small disks", || {
        for kind in KINDS {
            for place in PLACES {
                let scene = Scene::new(kind, place, "read-only in mid-run");
                let live = begun(&scene);
                let ours = scene.world.path("disk/ours");
                let ours = ours.to_str().unwrap();
                assert!(mount(&["--bind", ours, ours]) && mount(&["-o", "remount,bind,ro", ours]));
                let ran = ended(&scene, live);
                let ran = ran.says(&["Read-only file system", ours, "ringstat recover"]);
                scene.has_lost_nothing(ran, || {
                    assert!(Command::new("umount").arg(ours).status().unwrap().success());
                });
            }
        }
    });
}

/// As a whole, a file system can only turn read-only when nothing on it is being written.
#[test]
fn a_file_system_that_is_remounted_read_only_costs_no_sample() {
    with_own_mounts("small disks", || {
        for kind in KINDS {
            for place in PLACES {
                let scene = Scene::new(kind, place, "remounted in mid-run");
                let live = begun(&scene);
                let disk = scene.world.path("disk");
                let is_read_only = mount(&["-o", "remount,ro", disk.to_str().unwrap()]);
                assert_eq!(is_read_only, place == Place::Results, "a ring keeps it from it");
                let ran = ended(&scene, live);
                let ran = if is_read_only { ran.says(&["Read-only file system"]) } else { ran };
                scene.has_lost_nothing(ran, || remount(&disk, "rw"));
            }
        }
    });
}

/// Mapped or not: an ext4 that has met an error lets nothing be changed any more, and needs a new
/// mount.
#[test]
fn a_disk_that_breaks_costs_no_sample() {
    with_own_mounts("a disk that breaks", || {
        for place in [Place::Ring, Place::Mirror, Place::Results] {
            let world = World::new();
            let [rings, mirrors, results] = [world.rings(), world.mirrors(), world.results()];
            let dir = match place {
                Place::Ring => &rings,
                Place::Mirror => &mirrors,
                _ => &results,
            };
            let disk = LoopExt4::over(dir, "16m", &[]);
            let live = world.run_sh(&OPTIONS, UNTIL_TOLD).start();
            let ring = world.run_dir(&rings).join("00000.ring");
            world.wait_for_samples(&ring, 10);
            disk.break_down();
            let taken = world.info(&ring).unwrap()["summary"]["samples_taken"].int();
            // Long enough for every page of a mapped ring to be stored to once more.
            world.wait_for_samples(&ring, taken + 100);
            world.write("end", "");
            let ran = live.end().has_status(4);
            let ran = ran.says(&["Read-only file system", dir.to_str().unwrap()]);
            world.check_files();
            if place == Place::Results {
                // It will not be this disk.
                let other = world.path("other");
                let id = ring.parent().unwrap().to_str().unwrap();
                let recover = ["recover", id, "-o", other.to_str().unwrap()];
                world.ringstat(&recover).succeeds();
                assert!(Files::of(&other).last()["collection"]["at_stop"].bool());
                assert_eq!(entries(&rings), [""; 0]);
                assert_eq!(entries(&mirrors), [""; 0]);
            } else {
                let files = world.files();
                assert_eq!(files.summary()["samples_lost"].int(), 0);
                assert!(files.last()["collection"]["at_stop"].bool());
                drop(ran);
            }
        }
    });
}

/// Space that a file system promises and its device does not have: a thin volume.
#[test]
fn a_ring_on_a_promise_that_is_not_kept_is_no_bus_error() {
    with_own_mounts("a thin volume", || {
        let world = World::new();
        let thin = Tmpfs::over(&world.path("thin"), "size=2m");
        let disk = LoopExt4::over(&world.path("thin/disk"), "64m", &[]);
        let _ = fs::write(world.path("thin/fill"), vec![1; 2 << 20]);
        let rings = world.path("thin/disk/rings");
        let script = format!("sleep 0.3; sync -f {}; sleep 0.3; exit 4", rings.display());
        let mut options = vec!["--ring-dir", rings.to_str().unwrap(), "--max-samples", "300"];
        options.extend(&OPTIONS[..4]);
        let ran = world.run_sh(&options, &script).ends_with(4);
        ran.says(&["no ring at", "private memory"]);
        let files = world.files();
        assert!(files.last()["collection"]["at_stop"].bool());
        assert_eq!(files.summary()["samples_lost"].int(), 0);
        drop((disk, thin));
    });
}

/// The blocks that ext4 keeps for root are no room for anybody else.
#[test]
fn blocks_that_are_kept_for_root_are_not_counted_on() {
    with_own_mounts("a user without privileges", || {
        const NOBODY: u32 = 65534;
        let world = World::new();
        let all = PermissionsExt::from_mode(0o777);
        fs::set_permissions(world.path(""), all).unwrap();
        let program = world.path("ringstat");
        fs::copy(env!("CARGO_BIN_EXE_ringstat"), &program).unwrap();
        let procfs = world.own_proc();
        for place in [Place::Ring, Place::Mirror, Place::Results] {
            // The time series must have room where nothing is kept for root, too.
            let size = if place == Place::Results { "6m" } else { "2m" };
            let disk = LoopExt4::over(&world.path("disk"), size, &["-m", "45"]);
            let dirs = [Place::Ring, Place::Mirror, Place::Results].map(|other| {
                let on = if other == place { "disk" } else { "else" };
                let dir = world.path(&format!("{on}/{other:?}-{place:?}"));
                fs::create_dir_all(&dir).unwrap();
                std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
                dir
            });
            let [rings, mirrors, results] = &dirs;
            // All but the last blocks of those that are everybody's.
            let free = rustix::fs::statvfs(results.parent().unwrap()).unwrap();
            if place == Place::Results {
                let fill = vec![1; (free.f_bavail * free.f_frsize) as usize];
                fs::write(world.path("disk/fill"), fill).unwrap();
            }
            let mut cmd = Cmd::new(&program, &world.path("")).args(&["run"]).args(&OPTIONS);
            cmd = cmd.arg("--ring-dir").arg(rings).arg("--mirror-dir").arg(mirrors);
            cmd = cmd.arg("--results-dir").arg(results).arg("--procfs").arg(&procfs);
            cmd.command.uid(NOBODY).gid(NOBODY);
            let ran = cmd.args(&["--", "sh", "-c", BRIEFLY]).ends_with(4);
            world.check_files();
            if place == Place::Results {
                let ran = ran.says(&["No space left", "safe in"]);
                fs::remove_file(world.path("disk/fill")).unwrap();
                // The blocks are free when the journal says so; root need not wait for that.
                rustix::fs::syncfs(fs::File::open(world.path("disk")).unwrap()).unwrap();
                let mut recover = Cmd::new(&program, &world.path("")).args(&advice(&ran));
                recover.command.uid(NOBODY).gid(NOBODY);
                recover.succeeds();
            }
            let files = Files::of(results);
            assert!(files.last()["collection"]["at_stop"].bool());
            assert_eq!(files.metadata["exit_status"].int(), 4);
            drop(disk);
        }
        assert!(fixed_proc().is_dir());
    });
}

/// `ulimit -f`: beyond it the kernel sends a signal that kills.
#[test]
fn a_limit_on_the_size_of_files_kills_nothing() {
    let (mut complete, mut kept, mut lost) = (0, 0, 0);
    let without_slots_kib = 520;
    for kib in (4..800).step_by(rounds(132, 12) as usize) {
        let world = World::new();
        let limit = format!("--fsize={}", kib * 1024);
        let ran = world.run_sh(&OPTIONS, BRIEFLY).behind("prlimit", &[&limit]).ends_with(4);
        assert_eq!(ran.stdout, "ran\n");
        world.check_files();
        if entries(&world.results()).len() == 2 {
            complete += 1;
        } else if ran.stderr.contains("they are lost") {
            // Too small for the samples in any form.
            assert!(kib < without_slots_kib);
            lost += 1;
            continue;
        } else {
            kept += 1;
            let ran = ran.says(&["File too large", "safe in"]);
            world.take_the_advice(&ran).has_status(0);
        }
        let files = world.files();
        assert!(files.last()["collection"]["at_stop"].bool(), "{kib} kB");
        assert_eq!(files.summary()["samples_lost"].int(), 0, "{kib} kB");
        world.assert_no_rings();
    }
    println!("{complete} complete at once, {kept} kept and recovered, {lost} said to be lost");
    assert!(complete > 0 && lost > 0);
}

/// A ring below the limit, and files above it.
#[test]
fn files_that_are_larger_than_a_limit_leave_the_ring_and_a_sentence_that_says_where() {
    const LIMIT: u64 = 1_500_000;
    let world = World::new();
    let options = ["--interval", "2ms", "--max-samples", "1000", "--no-mirror", "--sources"];
    let cmd = world.run_sh(&[&options[..], &["vmstat,meminfo"]].concat(), UNTIL_TOLD);
    let live = cmd.behind("prlimit", &[&format!("--fsize={LIMIT}")]).start();
    let ring = world.run_dir(&world.rings()).join("00000.ring");
    world.wait_for_samples(&ring, 1000);
    assert!(fs::metadata(&ring).unwrap().len() < LIMIT);
    world.write("end", "");
    let dir = ring.parent().unwrap().to_str().unwrap();
    let safe = format!("safe in {dir}");
    let ran = live.end().has_status(4);
    let ran = ran.says(&["File too large", &safe, &format!("ringstat recover {dir}")]);
    assert_eq!(entries(&world.results()), [""; 0], "nothing half");
    assert!(ring.exists());
    world.take_the_advice(&ran).has_status(0);
    let files = world.files();
    assert_eq!(files.samples().len(), 1000);
    assert!(files.last()["collection"]["at_stop"].bool());
    assert_eq!(files.summary()["samples_lost"].int(), 0);
    assert_eq!(files.metadata["exit_status"].int(), 4);
    let of = |name: &String| fs::metadata(world.results().join(name)).unwrap().len();
    assert!(entries(&world.results()).iter().map(of).max().unwrap() > LIMIT);
    world.assert_no_rings();
}

#[test]
fn samples_beyond_the_limit_of_a_ring_are_saved_without_its_empty_slots() {
    with_own_mounts("a full disk for the results", || {
        let world = World::new();
        let results = Tmpfs::over(&world.results(), "size=64k");
        let _ = fs::write(world.path("results/fill"), vec![1; 64 << 10]);
        let options = [&OPTIONS[..6], &["--max-samples", "3600"]].concat();
        let cmd = world.run_sh(&options, "exit 4").behind("prlimit", &["--fsize=700000"]);
        let ran = cmd.ends_with(4).says(&["too large", "private memory", "safe in"]);
        fs::remove_file(world.path("results/fill")).unwrap();
        world.take_the_advice(&ran).has_status(0);
        let files = world.files();
        assert!(files.last()["collection"]["at_stop"].bool());
        assert_eq!(files.summary()["samples_lost"].int(), 0);
        world.assert_no_rings();
        drop(results);
    });
}
