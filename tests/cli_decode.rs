//! `ringstat decode`: every way to name a ring, and rings that are alive, cut off, or no rings.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::json::{self, Value};
use common::{Cmd, Files, World, entries, format};
use std::fs;
use std::path::Path;

/// The `number`th word of a ring's header (`src/ring/FORMAT.md`).
fn header_word(ring: &[u8], number: usize) -> usize {
    u64::from_le_bytes(ring[number * 8..][..8].try_into().unwrap()) as usize
}

/// What `decode -o -` writes, read strictly.
fn decoded(world: &World, ring: &Path) -> Value {
    let ran = world.ringstat(&["decode", "-o", "-"]).arg(ring).succeeds();
    assert_eq!(ran.stderr, "", "nothing is said beside it");
    format::timeseries(ran.stdout.strip_suffix('\n').unwrap()).unwrap()
}

#[test]
fn a_file_a_directory_and_the_beginning_of_an_id_are_the_same_run() {
    let world = World::new();
    let (dir, files) = world.kept_run();
    let id = dir.file_name().unwrap().to_str().unwrap();
    for ring in [dir.join("00000.ring"), dir.clone()] {
        assert_eq!(decoded(&world, &ring), files.timeseries, "{}", ring.display());
    }
    for name in [id, &id[..8], &id[..20]] {
        let ran = world.looking(&["decode", "-o", "-", name]).succeeds();
        assert_eq!(json::parse(&ran.stdout).unwrap(), files.timeseries, "{name}");
    }
    // The mirror's file alone as well.
    let mirror = world.run_dir(&world.mirrors()).join("00000.ring");
    assert_eq!(decoded(&world, &mirror)["samples_by_host"], files.timeseries["samples_by_host"]);
    // Ring and mirror together are one run, and no sample is there twice.
    let ran = world.ringstat(&["decode", "-o", "-"]).arg(dir.join("00000.ring")).arg(&mirror);
    assert_eq!(json::parse(&ran.succeeds().stdout).unwrap(), files.timeseries);
}

#[test]
fn decoding_twice_writes_two_pairs() {
    let world = World::new();
    let (dir, files) = world.kept_run();
    let out = world.path("out").to_str().unwrap().to_owned();
    for _ in 0..2 {
        world.ringstat(&["decode", "-o", &out]).arg(&dir).succeeds().says(&["_timeseries.json"]);
    }
    let names = entries(Path::new(&out));
    assert_eq!(names.len(), 4, "{names:?}");
    for name in names.iter().filter(|name| name.ends_with("_timeseries.json")) {
        let again = common::read_timeseries(&Path::new(&out).join(name));
        assert_eq!(again, files.timeseries);
        // Each pair refers to itself.
        let metadata = Path::new(&out).join(name.replace("timeseries", "metadata"));
        let metadata = common::read_metadata(&metadata);
        assert_eq!(metadata["timeseries_data"]["file"].str(), name);
    }
    assert!(dir.join("00000.ring").exists(), "decoding takes nothing away");
}

#[test]
fn rings_of_two_runs_become_two_pairs_but_not_on_standard_output() {
    let world = World::new();
    for name in ["one", "two"] {
        world.run(&["--keep-ring", "--benchmark-type", name], &["true"]).succeeds();
    }
    let dirs: Vec<_> = entries(&world.rings()).iter().map(|id| world.rings().join(id)).collect();
    let [first, second] = &dirs[..] else { panic!("{dirs:?}") };
    let out = world.path("out");
    let decode = ["decode", "-o", out.to_str().unwrap()];
    world.ringstat(&decode).arg(second).arg(first.join("00000.ring")).succeeds();
    let names = entries(&out);
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names[..2].iter().all(|name| name.starts_with("one_")), "{names:?}");
    assert!(names[2..].iter().all(|name| name.starts_with("two_")), "{names:?}");
    let ran = world.ringstat(&["decode", "-o", "-"]).args(&[]).arg(first).arg(second).ends_with(2);
    assert_eq!(ran.says(&["one run"]).stdout, "");
    // Both ids begin with the same hour: more is needed.
    let ambiguous = world.looking(&["decode", "-o", "-", "0"]).ends_with(1);
    ambiguous.says(&["more than one run begins with \"0\""]);
}

#[test]
fn a_live_ring_is_decoded_and_goes_on() {
    let world = World::new();
    let live = world.record(&["--interval", "5ms", "--max-samples", "1000"]).start();
    let dir = world.run_dir(&world.rings());
    world.wait_for_samples(&dir.join("00000.ring"), 3);
    let mut before = 0;
    for ring in [&dir, &dir.join("00000.ring"), &dir] {
        let file = decoded(&world, ring);
        let kept = format::summary(&file)["samples_kept"].int();
        assert!(kept >= before.max(3), "{kept} after {before}");
        assert!(!format::summary(&file)["ended_cleanly"].bool());
        before = kept;
    }
    world.wait_for_samples(&dir.join("00000.ring"), before + 3);
    live.signal(rustix::process::Signal::TERM);
    live.end().has_status(0);
    assert!(world.files().samples().len() as u64 > before);
}

#[test]
fn what_is_no_ring_is_refused_by_name() {
    let world = World::new();
    fs::create_dir(world.path("nothing")).unwrap();
    let text: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    let cases = [
        (world.write("empty.ring", ""), "cannot read"),
        (world.write("zeros.ring", vec![0; 1 << 20]), "cannot read"),
        (world.write("garbage.ring", vec![0x5a; 100_000]), "cannot read"),
        (world.write("text", &text), "cannot read"),
        (world.write("short", "RINGSTAT"), "cannot read"),
        (world.path("nothing"), "has no ring file"),
        (world.path("missing"), "there is no ring file"),
        ("/dev/zero".into(), "not a regular file"),
        ("/proc/self/mem".into(), "cannot read"),
    ];
    for (path, why) in cases {
        for args in [&["decode", "-o", "out"][..], &["decode", "-o", "-"], &["info"]] {
            let ran = world.ringstat(args).arg(&path).ends_with(1);
            assert_eq!(ran.stdout, "");
            ran.says(&[path.to_str().unwrap(), why]).does_not_say(&["panicked"]);
            assert_eq!(entries(&world.path("out")), [""; 0]);
        }
    }
}

#[test]
fn one_bad_ring_among_good_ones_is_named() {
    let world = World::new();
    let (dir, _) = world.kept_run();
    let bad = world.write("bad.ring", "no ring");
    let ran = world.ringstat(&["decode", "-o", "out"]).arg(&dir).arg(&bad).ends_with(1);
    ran.says(&["bad.ring"]);
}

#[test]
fn a_ring_that_was_cut_off_gives_the_samples_that_are_left_or_says_why_not() {
    let world = World::new();
    let (dir, files) = world.kept_run();
    let ring = fs::read(dir.join("00000.ring")).unwrap();
    let [dictionary, slots, slot] = [5, 7, 8].map(|word| header_word(&ring, word));
    let slot = slot * 8;
    assert!(ring.len() > slots + 20 * slot, "{}", ring.len());
    let in_the_header = [1, 7, 8, 100, 256, 4000, 4096, 4097, dictionary / 2];
    for cut in in_the_header {
        let path = world.write(&format!("cut-{cut}.ring"), &ring[..cut]);
        let ran = world.ringstat(&["decode", "-o", "-"]).arg(&path).ends_with(1);
        assert_eq!(ran.stdout, "");
        ran.says(&["cannot read", path.to_str().unwrap()]).does_not_say(&["panicked"]);
    }
    let samples = files.samples();
    for whole in [0, 1, 2, samples.len() / 2, samples.len() - 1] {
        for more in [0, 8, 16, slot / 4] {
            let cut = slots + whole * slot + more;
            let path = world.write("cut.ring", &ring[..cut]);
            let file = decoded(&world, &path);
            let left = format::samples(&file);
            // In the slots, samples lie one after the other; the rest of them is gone.
            assert_eq!(left, &samples[..whole], "cut after {whole} slots and {more} bytes");
        }
    }
    // Names that are gone cost their rows, and the samples say so.
    let path = world.write("cut.ring", &ring[..slots]);
    assert_eq!(decoded(&world, &path)["num_samples"].int(), 0);
}

#[test]
fn bytes_that_were_changed_anywhere_never_give_a_wrong_value() {
    let world = World::new();
    let (dir, files) = world.kept_run();
    let ring = fs::read(dir.join("00000.ring")).unwrap();
    let [slots, slot] = [7, 8].map(|word| header_word(&ring, word));
    let by_time = |sample: &Value| sample["collection"]["time_unix_ns"].int();
    // Spread over header, description, dictionary and slots.
    let end = slots + files.samples().len() * slot * 8;
    for at in (0..40).map(|part| end / 40 * part + part * 3 % 8) {
        let mut changed = ring.clone();
        changed[at] ^= 0x10;
        let path = world.write("changed.ring", changed);
        let ran = world.ringstat(&["decode", "-o", "-"]).arg(&path).output();
        let ran = ran.does_not_say(&["panicked"]);
        if ran.status == 1 {
            ran.says(&[path.to_str().unwrap()]);
            continue;
        }
        let ran = ran.has_status(0);
        let file = format::timeseries(ran.stdout.trim_end()).unwrap();
        for sample in format::samples(&file) {
            let time = by_time(sample);
            let was = files.samples().iter().find(|was| by_time(was) == time).unwrap();
            // Rows whose name is gone are left out, and the sample says so.
            let is_less = sample.has("errors");
            assert!(sample == was || is_less, "byte {at}: {sample:?} was {was:?}");
        }
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let world = World::new();
    // More than a pipe holds.
    let dir = world.kept(100, &[]);
    for args in ["decode -o -", "info --json"] {
        let script = format!("{{ \"$0\" {args} \"$1\"; echo $? > \"$W/status\"; }} | head -c 1");
        let cmd = Cmd::new("sh", &world.path("")).args(&["-c", &script]);
        let ran = cmd.arg(env!("CARGO_BIN_EXE_ringstat")).arg(&dir).succeeds();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("{", ""), "{args}");
        assert_eq!(fs::read_to_string(world.path("status")).unwrap(), "0\n", "{args}");
    }
}

#[test]
fn standard_output_that_is_full_is_an_error() {
    let world = World::new();
    let (dir, _) = world.kept_run();
    let script = "exec \"$0\" decode -o - \"$1\" > /dev/full";
    let cmd = Cmd::new("sh", &world.path("")).args(&["-c", script]);
    let ran = cmd.arg(env!("CARGO_BIN_EXE_ringstat")).arg(&dir).ends_with(1);
    ran.says(&["cannot write the output", "No space left"]);
}

#[test]
fn a_decoded_run_can_be_merged_into_the_benchmarks_metadata() {
    let world = World::new();
    let (dir, files) = world.kept_run();
    let own = world.write("own.json", "{\n  \"a\": 1.0,\n  \"runtime\": 2\n}");
    let out = world.path("out");
    let args = ["decode", "-o", out.to_str().unwrap(), "--merge-metadata", own.to_str().unwrap()];
    world.ringstat(&args).arg(&dir).succeeds();
    let merged = json::parse(&fs::read_to_string(own).unwrap()).unwrap();
    assert_eq!(merged.keys(), ["a", "timeseries_data", "runtime"]);
    let names = entries(&out);
    let [timeseries] = &names[..] else { panic!("{names:?}") };
    assert_eq!(merged["timeseries_data"]["file"].str(), timeseries);
    assert_eq!(merged["timeseries_data"]["num_samples"], files.timeseries["num_samples"]);
    let _: Files = world.files();
}
