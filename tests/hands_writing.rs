//! Other people's hands on the files of a run that is being recorded. What comes of it:
//!
//! | what is done | to the ring | to its mirror |
//! |---|---|---|
//! | cut off, to nothing or in part | no signal: the next segment begins; what the mirror had is there, the rest is counted as lost | written again from the ring |
//! | made longer, a hard link, chmod 000 | nothing | nothing |
//! | deleted, renamed, moved out, replaced by another file | the next segment begins; nothing is lost: the open file is read at the end | written again from the ring, under its name if that is free |
//! | head overwritten | the next segment begins; nothing is lost: the recorder knows what the head was | written again |
//! | names overwritten | the next segment begins; no sample is lost: the mirror has the names, without it the rows are missing, and said, until then | written again |
//! | slots overwritten | those do not verify; what the mirror had of them is there, the rest is counted as lost | those do not verify; the ring has them |
//! | directory deleted or moved | the next segment is in private memory, copied to the mirror every second | said, and the ring goes on alone |
//! | `run.json` deleted, overwritten, a link | written anew at the stop; the link is replaced, not followed | the same |
//!
//! In each case a warning says so, the recorder lives, no value in the output is wrong, and samples
//! that are not there are counted.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::hands::{
    Dice, Meddler, assert_none_is_lost_silently, assert_true_and_accounted, meddlings, slots,
    taken, wait_for_next_segment, watched, writable,
};
use common::{DEADLINE, Files, Live, World, entries, seed, wait_until};
use ringstat::ring::Ring;
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is done to the ring, told as its path and its run's directory.
type Hand = fn(&World, &Path);

struct Case {
    name: &'static str,
    hand: Hand,
    /// Among the warnings.
    says: &'static str,
    /// Whether samples that the mirror does not have yet may be lost.
    may_lose: bool,
}

const fn case(name: &'static str, says: &'static str, may_lose: bool, hand: Hand) -> Case {
    Case { name, hand, says, may_lose }
}

/// Stores these bytes where the names of a ring begin.
fn spoil_names(ring: &Path, bytes: &[u8]) {
    let names = Ring::open(ring).unwrap().header().layout.dictionary_offset;
    writable(ring).write_all_at(bytes, names.0).unwrap();
}

/// What ends a segment.
const ENDING: &[Case] = &[
    case("cut off to nothing", "was cut off", true, |_, ring| writable(ring).set_len(0).unwrap()),
    case("cut off to half", "was cut off", true, |_, ring| {
        let file = writable(ring);
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }),
    case("cut off in its first slots", "was cut off", true, |_, ring| {
        let (offset, slot) = slots(ring);
        writable(ring).set_len(offset + 3 * slot + 100).unwrap();
    }),
    case("replaced in place by zeros", "was", true, |_, ring| {
        let length = fs::metadata(ring).unwrap().len();
        fs::write(ring, vec![0; length as usize]).unwrap();
    }),
    case("deleted", "was deleted", false, |_, ring| fs::remove_file(ring).unwrap()),
    case("renamed", "was moved away", false, |_, ring| {
        fs::rename(ring, ring.with_file_name("mine")).unwrap();
    }),
    case("moved out", "was moved away", false, |world, ring| {
        fs::rename(ring, world.path("moved")).unwrap();
    }),
    case("replaced by a file", "was replaced", false, |world, ring| {
        let other = world.write("rings/other", "something else");
        fs::rename(other, ring).unwrap();
    }),
    case("replaced by a link", "was replaced", false, |world, ring| {
        fs::remove_file(ring).unwrap();
        symlink(world.write("theirs", "theirs"), ring).unwrap();
    }),
    case("replaced by a ring", "was replaced", false, |world, ring| {
        let other = World::in_memory();
        let dir = other.kept(5, &["--no-mirror"]);
        // Not by a rename: the other world may lie elsewhere.
        fs::copy(dir.join("00000.ring"), world.path("rings/other")).unwrap();
        fs::rename(world.path("rings/other"), ring).unwrap();
    }),
    case("head overwritten", "was overwritten", false, |_, ring| {
        writable(ring).write_all_at(&[0xa5; 4096], 0).unwrap();
    }),
    case("description overwritten", "was overwritten", false, |_, ring| {
        writable(ring).write_all_at(&[0xa5; 64], 4096).unwrap();
    }),
    case("names overwritten", "was overwritten", false, |_, ring| spoil_names(ring, &[0; 4096])),
    case("a name overwritten", "was overwritten", false, |_, ring| spoil_names(ring, &[0xa5; 40])),
    case("wholly overwritten", "was overwritten", true, |_, ring| {
        let file = writable(ring);
        let length = file.metadata().unwrap().len();
        file.write_all_at(&vec![0xa5; length as usize], 0).unwrap();
    }),
    case("directory deleted", "was deleted", false, |_, ring| {
        fs::remove_dir_all(ring.parent().unwrap()).unwrap();
    }),
    case("directory moved", "was moved away", false, |world, ring| {
        fs::rename(ring.parent().unwrap(), world.path("moved")).unwrap();
    }),
];

/// Runs cases next to each other: most of their time is waiting.
fn each(cases: &'static [Case], test: fn(&Case)) {
    for some in cases.chunks(5) {
        std::thread::scope(|scope| {
            let running: Vec<_> =
                some.iter().map(|case| (case.name, scope.spawn(|| test(case)))).collect();
            for (name, thread) in running {
                assert!(thread.join().is_ok(), "the case is: {name}");
            }
        });
    }
}

#[test]
fn a_ring_that_others_spoil_is_followed_by_a_new_one() {
    each(ENDING, |case| {
        let world = World::in_memory();
        let (live, dir, mirror) = watched(&world, 20);
        let had = world.info(&mirror.join("00000.ring")).unwrap()["summary"]["samples_kept"].int();
        let ring = dir.join("00000.ring");
        let before = taken(&world, &ring);
        (case.hand)(&world, &ring);
        wait_for_next_segment(&world, &[&dir, &mirror]);
        live.signal(Signal::INT);
        let ran = live.end().has_status(0).says(&[case.says, "goes on in"]);
        let files = world.files();
        assert_true_and_accounted(&world, &files);
        assert!(files.summary()["samples_taken"].int() >= before, "{}", ran.stderr);
        let summary = files.summary();
        assert!(summary["ended_cleanly"].bool() && summary["segments"].int() >= 2);
        // On a busy machine newer ones have taken the place of some.
        assert!(summary["samples_kept"].int() + summary["samples_overwritten"].int() >= had);
        if !case.may_lose {
            assert_eq!(summary["samples_lost"].int(), 0);
        }
        let warnings = files.metadata["ringstat"]["warnings"].list();
        assert!(warnings.iter().any(|warning| warning.str().contains(case.says)), "{warnings:?}");
        if world.path("theirs").exists() {
            assert_eq!(fs::read(world.path("theirs")).unwrap(), b"theirs");
        }
        assert_eq!(entries(&world.mirrors()), [""; 0]);
    });
}

#[test]
fn what_is_spoiled_and_then_killed_is_recovered() {
    each(ENDING, |case| {
        let world = World::in_memory();
        let (live, dir, mirror) = watched(&world, 20);
        let had = world.info(&mirror.join("00000.ring")).unwrap()["summary"]["samples_kept"].int();
        let ring = dir.join("00000.ring");
        let before = taken(&world, &ring);
        (case.hand)(&world, &ring);
        wait_for_next_segment(&world, &[&dir, &mirror]);
        live.kill();
        let id = mirror.file_name().unwrap().to_str().unwrap();
        world.looking(&["recover", id]).succeeds();
        let files = world.files();
        assert_true_and_accounted(&world, &files);
        let count = |key: &str| files.summary()[key].int();
        // The next segment knows how many there were before it.
        assert!(count("samples_taken") >= before);
        assert!(count("samples_kept") + count("samples_overwritten") >= had);
    });
}

/// What changes nothing.
const HARMLESS: &[Case] = &[
    case("made longer", "", false, |_, ring| {
        let file = writable(ring);
        file.set_len(file.metadata().unwrap().len() + (1 << 40)).unwrap();
    }),
    case("chmod 000", "", false, |_, ring| {
        fs::set_permissions(ring, Permissions::from_mode(0o000)).unwrap();
    }),
    case("a hard link", "", false, |world, ring| {
        fs::hard_link(ring, world.path("link")).unwrap();
    }),
];

#[test]
fn what_does_no_harm_changes_nothing() {
    each(HARMLESS, |case| {
        let world = World::in_memory();
        let (live, dir, _) = watched(&world, 20);
        let ring = dir.join("00000.ring");
        (case.hand)(&world, &ring);
        if rustix::process::geteuid().is_root() {
            // Also read while it is so.
            let taken = world.info(&ring).unwrap()["summary"]["samples_taken"].int();
            world.wait_for_samples(&ring, taken + 10);
        }
        live.signal(Signal::INT);
        live.end().has_status(0).does_not_say(&["warning"]);
        let files = world.files();
        assert_true_and_accounted(&world, &files);
        assert_eq!(files.summary()["segments"].int(), 1);
        assert_eq!(files.summary()["samples_lost"].int(), 0);
        world.assert_no_rings();
    });
}

/// What the mirror is made again after.
const TO_THE_MIRROR: &[Case] = &[
    case("cut off", "was cut off", false, |_, copy| writable(copy).set_len(0).unwrap()),
    case("deleted", "was deleted", false, |_, copy| fs::remove_file(copy).unwrap()),
    case("renamed", "was moved away", false, |world, copy| {
        fs::rename(copy, world.path("moved")).unwrap();
    }),
    case("head overwritten", "was overwritten", false, |_, copy| {
        writable(copy).write_all_at(&[0xa5; 256], 0).unwrap();
    }),
    case("description overwritten", "was overwritten", false, |_, copy| {
        writable(copy).write_all_at(&[0xa5; 8], 4100).unwrap();
    }),
    case("names overwritten", "was overwritten", false, |_, copy| {
        let names = Ring::open(copy).unwrap().header().layout.dictionary_offset;
        writable(copy).write_all_at(&[0; 4096], names.0).unwrap();
    }),
];

/// Waits until a mirror has its head, all names and more samples than the ring has now, and which that
/// is.
fn wait_until_made_again(world: &World, copy: &Path, ring: &Path) -> u64 {
    let taken = world.info(ring).unwrap()["summary"]["samples_taken"].int();
    let ring = Ring::open(ring).unwrap();
    let names = (0..).take_while(|entry| ring.entry(*entry).unwrap().is_some()).count() as u32;
    assert!(names > 0);
    wait_until("the mirror, whole again", || {
        let summary = world.info(copy)?["summary"].clone();
        let copy = Ring::open(copy).ok()?;
        let has_names = (0..names).all(|entry| matches!(copy.entry(entry), Ok(Some(_))));
        let is_whole = has_names && summary["samples_lost"].int() == 0;
        (is_whole && summary["samples_taken"].int() > taken).then_some(())
    });
    taken
}

#[test]
fn a_mirror_that_was_made_again_is_all_that_a_power_cut_needs_to_leave() {
    each(TO_THE_MIRROR, |case| {
        let world = World::in_memory();
        let (live, dir, mirror) = watched(&world, 20);
        let copy = mirror.join("00000.ring");
        (case.hand)(&world, &copy);
        let taken = wait_until_made_again(&world, &copy, &dir.join("00000.ring"));
        live.kill();
        // The memory is gone.
        fs::remove_dir_all(world.rings()).unwrap();
        world.looking(&["recover", mirror.to_str().unwrap()]).succeeds();
        let files = world.files();
        assert_true_and_accounted(&world, &files);
        assert!(files.samples().iter().all(|sample| !sample.has("errors")), "rows are missing");
        let count = |key: &str| files.summary()[key].int();
        assert!(count("samples_taken") >= taken && count("samples_lost") == 0);
    });
}

#[test]
fn a_mirror_that_others_spoil_is_made_again() {
    each(TO_THE_MIRROR, |case| {
        let world = World::in_memory();
        let (live, dir, mirror) = watched(&world, 20);
        let copy = mirror.join("00000.ring");
        (case.hand)(&world, &copy);
        wait_until_made_again(&world, &copy, &dir.join("00000.ring"));
        live.signal(Signal::INT);
        let ran = live.end().has_status(0);
        // On a host whose CPUs are all taken the mirror's thread may be late with its last words.
        if !ran.stderr.contains("has not answered") {
            ran.says(&[case.says, "made again"]);
        }
        let files = world.files();
        assert_true_and_accounted(&world, &files);
        assert_eq!(files.summary()["samples_lost"].int(), 0);
        world.assert_no_rings();
    });
}

/// Another file under its name, which is not ours to write to.
const REPLACING_THE_MIRROR: &[Case] = &[
    case("replaced by a file", "was replaced", false, |world, copy| {
        let theirs = world.write("theirs", "theirs");
        fs::rename(theirs, copy).unwrap();
    }),
    case("replaced by a link", "was replaced", false, |world, copy| {
        symlink(world.write("theirs", "theirs"), world.path("link")).unwrap();
        fs::rename(world.path("link"), copy).unwrap();
    }),
];

#[test]
fn a_mirror_that_is_replaced_is_a_warning_and_what_took_its_place_is_left_alone() {
    each(REPLACING_THE_MIRROR, |case| {
        let world = World::in_memory();
        let (live, dir, mirror) = watched(&world, 20);
        let copy = mirror.join("00000.ring");
        (case.hand)(&world, &copy);
        let ring = dir.join("00000.ring");
        let taken = world.info(&ring).unwrap()["summary"]["samples_taken"].int();
        world.wait_for_samples(&ring, taken + 20);
        assert_eq!(fs::read(&copy).unwrap(), b"theirs");
        live.signal(Signal::INT);
        let ran = live.end().has_status(0);
        if !ran.stderr.contains("has not answered") {
            ran.says(&[case.says, "cannot be made again"]);
        }
        let theirs = world.path("theirs");
        assert!(!theirs.exists() || fs::read(theirs).unwrap() == b"theirs");
        let files = world.files();
        assert_true_and_accounted(&world, &files);
        assert_eq!(files.summary()["samples_lost"].int(), 0);
    });
}

#[test]
fn a_mirror_whose_directory_is_deleted_is_a_warning() {
    let world = World::in_memory();
    let (live, _, mirror) = watched(&world, 20);
    fs::remove_dir_all(mirror).unwrap();
    live.signal(Signal::INT);
    live.end().has_status(0).says(&["mirror", "cannot be made again"]);
    let files = world.files();
    assert_true_and_accounted(&world, &files);
    assert_eq!(files.summary()["samples_lost"].int(), 0);
}

#[test]
fn slots_that_are_overwritten_are_taken_from_the_mirror() {
    let world = World::in_memory();
    let (live, dir, mirror) = watched(&world, 30);
    let ring = dir.join("00000.ring");
    let (offset, slot) = slots(&ring);
    // Zeros under one, garbage over the next, and another's words under a third.
    let file = writable(&ring);
    file.write_all_at(&vec![0; slot as usize], offset + 3 * slot).unwrap();
    file.write_all_at(&vec![0xa5; slot as usize], offset + 4 * slot).unwrap();
    let mut other = vec![0; slot as usize];
    fs::File::open(&ring).unwrap().read_exact_at(&mut other, offset + 9 * slot).unwrap();
    file.write_all_at(&other, offset + 5 * slot).unwrap();
    let seen = world.info(&ring).unwrap();
    assert_eq!(seen["summary"]["samples_lost"].int(), 3, "the ring alone");
    assert_eq!(seen["summary"]["slots_torn"].int(), 2);
    live.signal(Signal::INT);
    live.end().has_status(0);
    let files = world.files();
    assert_true_and_accounted(&world, &files);
    assert_eq!(files.summary()["samples_lost"].int(), 0, "the mirror had them");
    drop(mirror);
}

/// A recorder that has 50 samples in its ring alone, and the ring's directory.
fn without_mirror(world: &World) -> (Live, PathBuf) {
    let options =
        ["--interval", "10ms", "--max-samples", "300", "--no-mirror", "--sync-interval", "50ms"];
    let live = world.record(&options).start();
    let dir = world.run_dir(&world.rings());
    world.wait_for_samples(&dir.join("00000.ring"), 50);
    (live, dir)
}

#[test]
fn without_a_mirror_what_is_lost_is_counted_and_said() {
    let world = World::in_memory();
    let (live, dir) = without_mirror(&world);
    writable(&dir.join("00000.ring")).set_len(0).unwrap();
    wait_for_next_segment(&world, &[&dir]);
    live.signal(Signal::INT);
    live.end().has_status(0).says(&["was cut off", "are lost: no copy of its rings has them"]);
    let files = world.files();
    assert_true_and_accounted(&world, &files);
    assert!(files.summary()["samples_lost"].int() >= 50);
    let warnings = files.metadata["ringstat"]["warnings"].list();
    assert!(warnings.iter().any(|warning| warning.str().contains("are lost")), "{warnings:?}");
    world.assert_no_rings();
}

#[test]
fn a_recorder_removes_the_rings_that_it_has_made_whatever_became_of_them_and_no_others() {
    let spoiled = |hand: &dyn Fn(&World, &Path)| {
        let world = World::in_memory();
        let (live, dir) = without_mirror(&world);
        hand(&world, &dir.join("00000.ring"));
        wait_for_next_segment(&world, &[&dir]);
        live.signal(Signal::INT);
        let ran = live.end().has_status(0).says(&["goes on in"]);
        assert_true_and_accounted(&world, &world.files());
        (world, dir, ran)
    };
    // With neither the mode of a ring nor what one begins with.
    let (world, _, ran) = spoiled(&|_, ring| {
        writable(ring).write_all_at(&[0xa5; 4096], 0).unwrap();
        fs::set_permissions(ring, Permissions::from_mode(0o644)).unwrap();
    });
    world.assert_no_rings();
    assert!(!ran.stderr.contains("has not put there"), "{}", ran.stderr);
    // With the mode of one.
    let (world, dir, ran) = spoiled(&|world, ring| {
        let theirs = world.write("rings/theirs", "precious");
        fs::set_permissions(&theirs, Permissions::from_mode(0o600)).unwrap();
        fs::rename(theirs, ring).unwrap();
    });
    ran.says(&["what ringstat has not put there: 00000.ring"]);
    assert_eq!(entries(&dir), ["00000.ring"]);
    assert_eq!(fs::read(dir.join("00000.ring")).unwrap(), b"precious");
    // Nor does anybody else, to whom it is a ring that cannot be read.
    world.looking(&["recover"]).ends_with(1).says(&["it is not a ring", "stay in"]);
    assert_eq!(fs::read(dir.join("00000.ring")).unwrap(), b"precious");
    drop(fs::remove_dir_all(dir));
}

#[test]
fn names_that_are_overwritten_are_the_mirrors_or_missing_until_the_next_segment() {
    for has_mirror in [true, false] {
        let world = World::in_memory();
        let (live, dir) = if has_mirror {
            let (live, dir, _) = watched(&world, 50);
            (live, dir)
        } else {
            without_mirror(&world)
        };
        spoil_names(&dir.join("00000.ring"), &[0; 4096]);
        wait_for_next_segment(&world, &[&dir]);
        live.signal(Signal::INT);
        live.end().has_status(0).says(&["was overwritten", "goes on in"]);
        let files = world.files();
        assert_true_and_accounted(&world, &files);
        assert_eq!(files.summary()["samples_lost"].int(), 0);
        let lacks_rows: Vec<bool> =
            files.samples().iter().map(|sample| sample.has("errors")).collect();
        if has_mirror {
            assert!(lacks_rows.iter().all(|lacks| !lacks), "{lacks_rows:?}");
        } else {
            // Those of the first segment alone.
            let lacking = lacks_rows.iter().take_while(|lacks| **lacks).count();
            assert!(lacking >= 50 && lacks_rows.len() > lacking + 2, "{lacks_rows:?}");
            assert!(lacks_rows[lacking..].iter().all(|lacks| !lacks), "{lacks_rows:?}");
        }
    }
}

/// Says that a test is over when it goes.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn names_that_are_overwritten_while_they_are_read_make_no_value_wrong() {
    let world = World::in_memory();
    let dir = world.kept(100, &["--no-mirror"]);
    let ring = dir.join("00000.ring");
    let names = Ring::open(&ring).unwrap().header().layout.dictionary_offset.0;
    let mut whole = vec![0; 8192];
    fs::File::open(&ring).unwrap().read_exact_at(&mut whole, names).unwrap();
    // Another's words are what a name of another entry is.
    let moved = [&whole[128..], &whole[..128]].concat();
    let (mut lacking, mut complete, mut changed) = (0, 0, 0);
    let is_over = AtomicBool::new(false);
    let since = Instant::now();
    std::thread::scope(|scope| {
        // Also if this thread panics.
        let _end = End(&is_over);
        scope.spawn(|| {
            let file = writable(&ring);
            for bytes in [&vec![0; 8192], &whole, &moved, &whole].into_iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                file.write_all_at(bytes, names).unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        for nth in 0.. {
            let has_met_both = complete > 0 && lacking + changed > 0;
            if nth >= 20 && (has_met_both || since.elapsed() > DEADLINE) {
                break;
            }
            let out = world.path(&format!("read-{nth}"));
            let ran = world.ringstat(&["decode", "-o"]).arg(&out).arg(&dir).output();
            if ran.status != 0 {
                ran.says(&["changed while they were read"]);
                changed += 1;
                continue;
            }
            let files = Files::of(&out);
            assert_true_and_accounted(&world, &files);
            assert_eq!(files.summary()["samples_lost"].int(), 0);
            let lacks = files.samples().iter().filter(|sample| sample.has("errors")).count();
            lacking += usize::from(lacks > 0);
            complete += usize::from(lacks == 0);
        }
    });
    println!("{complete} complete, {lacking} that lack rows and say so, {changed} refused");
    assert!(complete > 0 && lacking + changed > 0);
}

fn put_a_file_in_place_of_the_results(world: &World) {
    let _ = fs::remove_dir_all(world.results());
    fs::write(world.results(), "theirs").unwrap();
}

/// Makes room for the results again: all of a run that was saved is recovered.
fn assert_recovered_whole(world: &World, dir: &Path) {
    fs::remove_file(world.results()).unwrap();
    world.looking(&["recover"]).arg(dir.file_name().unwrap()).succeeds();
    let files = world.files();
    assert_true_and_accounted(world, &files);
    assert!(files.summary()["samples_kept"].int() >= 50);
    assert_eq!(files.summary()["samples_lost"].int(), 0);
}

#[test]
fn a_ring_without_its_head_is_saved_with_it_when_the_files_cannot_be_written() {
    let world = World::in_memory();
    let (live, dir) = without_mirror(&world);
    writable(&dir.join("00000.ring")).write_all_at(&[0xa5; 4096], 0).unwrap();
    wait_for_next_segment(&world, &[&dir]);
    put_a_file_in_place_of_the_results(&world);
    live.signal(Signal::INT);
    live.end().has_status(1).says(&["was overwritten", "safe in"]);
    assert_recovered_whole(&world, &dir);
    world.assert_no_rings();
}

#[test]
fn a_ring_that_is_saved_destroys_nothing_that_has_its_name() {
    let world = World::in_memory();
    let (live, dir) = without_mirror(&world);
    let ring = dir.join("00000.ring");
    fs::rename(world.write("rings/theirs", "precious"), &ring).unwrap();
    wait_for_next_segment(&world, &[&dir]);
    put_a_file_in_place_of_the_results(&world);
    live.signal(Signal::INT);
    live.end().has_status(1).says(&["goes on in", "safe in"]);
    let aside = dir.join("00000.ring.not-ringstat");
    assert_eq!(fs::read(&aside).unwrap(), b"precious");
    assert_recovered_whole(&world, &dir);
    assert_eq!(entries(&dir), ["00000.ring.not-ringstat"]);
    assert_eq!(fs::read(aside).unwrap(), b"precious");
    drop(fs::remove_dir_all(dir));
}

#[test]
fn a_manifest_that_others_spoil_is_written_anew() {
    for (name, hand) in [
        ("deleted", (|path| fs::remove_file(path).unwrap()) as fn(&Path)),
        ("overwritten", |path| fs::write(path, [0xa5; 5000]).unwrap()),
        ("a link", |path| {
            fs::remove_file(path).unwrap();
            let theirs = path.parent().unwrap().parent().unwrap().join("theirs");
            fs::write(&theirs, "theirs").unwrap();
            symlink(theirs, path).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ] {
        let world = World::in_memory();
        let (live, dir, mirror) = watched(&world, 5);
        for dir in [&dir, &mirror] {
            hand(&dir.join("run.json"));
        }
        live.signal(Signal::INT);
        live.end().has_status(0);
        assert_true_and_accounted(&world, &world.files());
        for base in [world.rings(), world.mirrors()] {
            let theirs = base.join("theirs");
            if theirs.exists() {
                assert_eq!(fs::read(theirs).unwrap(), b"theirs", "{name}");
            }
        }
    }
}

#[test]
fn the_command_and_its_status_are_none_the_wiser() {
    let world = World::in_memory();
    let script = "sleep 0.1; for file in \"$W\"/rings/*/* \"$W\"/mirrors/*/*; do : > \"$file\"; done; \
                  sleep 0.1; exit 7";
    world.run_sh(&["--interval", "1ms"], script).ends_with(7).says(&["was cut off"]);
    let files = world.files();
    assert_true_and_accounted(&world, &files);
    assert_eq!(files.metadata["exit_status"].int(), 7);
    world.assert_no_rings();
}

#[test]
fn random_hands_never_stop_it_and_no_value_is_ever_wrong() {
    let mut dice = Dice(seed());
    let world = World::in_memory();
    let options = ["--interval", "1ms", "--max-samples", "1000", "--sync-interval", "20ms"];
    let mut live = world.record(&options).start();
    let dirs = [world.run_dir(&world.rings()), world.run_dir(&world.mirrors())];
    let (mut done, mut before) = (Vec::new(), 0);
    let mut hands = Meddler::default();
    let since = Instant::now();
    while (done.len() as u64) < meddlings() || !hands.has_done_all() {
        assert!(since.elapsed() < DEADLINE * meddlings() as u32, "not all is done: {done:?}");
        let first_choice = usize::from(dice.below(4) == 0);
        // A ring whose file somebody cuts off while it is made is kept in private memory: then
        // there is the mirror alone.
        let ring = wait_until("a ring to meddle with", || {
            [&dirs[first_choice], &dirs[1 - first_choice]].into_iter().find_map(|dir| {
                let rings = entries(dir).into_iter().filter(|name| name.ends_with(".ring"));
                rings.max().map(|newest| dir.join(newest))
            })
        });
        let info = world.info(&ring);
        before = info.map_or(0, |info| info["summary"]["samples_taken"].int()).max(before);
        done.push((ring.clone(), hands.meddle(&ring, &mut dice)));
        std::thread::sleep(Duration::from_millis(dice.below(1200)));
        assert!(live.is_running(), "after {done:?}");
    }
    // It has noticed, and goes on.
    wait_until("samples after all that", || {
        dirs.iter().find_map(|dir| {
            let rings = entries(dir).into_iter().filter(|name| name.ends_with(".ring"));
            let info = world.info(&dir.join(rings.max()?))?;
            (info["summary"]["samples_kept"].int() >= 3).then_some(())
        })
    });
    live.signal(Signal::INT);
    live.end().has_status(0);
    let files = world.files();
    assert_true_and_accounted(&world, &files);
    assert!(files.summary()["ended_cleanly"].bool(), "{done:?}");
    let count = |key: &str| files.summary()[key].int();
    assert!(
        count("samples_kept") > 0 && count("samples_taken") >= before && before > 0,
        "{done:?}"
    );
    println!(
        "{} meddlings: {} samples taken, {} kept, {} lost, {} segments",
        done.len(),
        count("samples_taken"),
        count("samples_kept"),
        count("samples_lost"),
        count("segments")
    );
}

/// What `recover` makes of a dead recorder's only ring after somebody has had it: the files of all that
/// it still gives, or a refusal that leaves it as it is. Nothing is removed that has a record.
#[test]
fn whatever_was_done_to_the_only_ring_of_a_dead_recorder_nothing_readable_is_removed() {
    let mut dice = Dice(seed());
    let world = World::in_memory();
    let options = ["--interval", "2ms", "--max-samples", "200", "--no-mirror"];
    let live = world.record(&options).start();
    let dir = world.run_dir(&world.rings());
    let ring = dir.join("00000.ring");
    world.wait_for_samples(&ring, 50);
    live.kill();
    let before = taken(&world, &ring);
    let [manifest, whole] =
        ["run.json", "00000.ring"].map(|name| fs::read(dir.join(name)).unwrap());
    let id = dir.file_name().unwrap().to_str().unwrap();
    let (mut written, mut refused, mut nothing) = (0, 0, 0);
    let mut hands = Meddler::default();
    for _ in 0..common::rounds(44, 2000) {
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        fs::write(dir.join("run.json"), &manifest).unwrap();
        fs::write(&ring, &whole).unwrap();
        let _ = fs::remove_dir_all(world.results());
        let what = hands.meddle(&ring, &mut dice);
        let left = fs::read(&ring).ok();
        let ran = world.looking(&["recover", id]).output();
        match ran.status {
            0 if ran.stderr.contains("nothing left to write") => {
                let is_empty = left.is_none_or(|left| left.iter().all(|byte| *byte == 0));
                assert!(is_empty, "{what}: {}", ran.stderr);
                nothing += 1;
            }
            0 => {
                let files = world.files();
                assert_true_and_accounted(&world, &files);
                assert_none_is_lost_silently(&files, before, &ring, &ran.stderr);
                written += 1;
            }
            1 => {
                assert!(fs::read(&ring).ok() == left, "{what}: touched");
                assert_eq!(entries(&world.results()), [""; 0], "{what}");
                refused += 1;
            }
            _ => ran.fail(what),
        }
    }
    println!("{written} recovered, {refused} refused and kept, {nothing} with nothing in them");
    assert!(written > 0 && refused > 0 && nothing > 0 && hands.has_done_all());
}
