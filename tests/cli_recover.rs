//! `ringstat recover`: what is left of a run that was killed, whatever of its two directories is
//! still there, and however often one tries.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::json::{self, Value};
use common::{Files, Live, Tmpfs, World, entries, format, hands, with_own_mounts};
use ringstat::ring::{Ring, SlotState};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A recording that goes on until it is killed, in small slots.
fn endless(world: &World, options: &[&str]) -> (Live, PathBuf) {
    let live = world.record(&[&["--interval", "5ms", "--max-samples", "4000"], options].concat());
    (live.start(), world.run_dir(&world.rings()))
}

/// A run that was killed with that many samples or more; its directory and its id.
fn killed(world: &World, samples: u64) -> (PathBuf, String) {
    let (live, dir) = endless(world, &["--benchmark-type", "dead"]);
    world.wait_for_samples(&dir.join("00000.ring"), samples);
    live.kill();
    let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
    (dir, id)
}

/// When each tick was sampled.
fn times(samples: &[Value]) -> BTreeMap<u64, u64> {
    let collections = samples.iter().map(|sample| &sample["collection"]);
    collections.map(|sample| (sample["tick"].int(), sample["time_unix_ns"].int())).collect()
}

#[test]
fn every_sample_that_was_seen_before_a_kill_is_recovered() {
    let world = World::new();
    let (live, dir) = endless(&world, &[]);
    world.wait_for_samples(&dir.join("00000.ring"), 1);
    let id = dir.file_name().unwrap().to_str().unwrap();
    let mut seen = BTreeMap::new();
    let mut taken = 0;
    for _ in 0..8 {
        let decode = ["decode", "-o", "-", "--format", "json-compact"];
        let decoded = world.ringstat(&decode).arg(&dir).succeeds();
        let file = format::timeseries(decoded.stdout.trim_end()).unwrap();
        seen.extend(times(format::samples(&file)));
        let info = world.info(&dir).unwrap();
        assert_eq!(info["health"].str(), "ends_without_stop");
        taken = info["summary"]["samples_taken"].int();
        if taken > 2000 {
            break; // Long before the first one is overwritten.
        }
    }
    let listed = world.looking(&["recover", "--list", id]).succeeds().stdout;
    assert!(listed.contains("recording") && listed.contains(id), "{listed}");
    live.kill();
    let listed = world.looking(&["recover", "--list", id]).succeeds().stdout;
    assert!(listed.contains("owing") && !listed.contains("recording"), "{listed}");
    world.looking(&["recover", id]).succeeds().says(&["recovered run", id]);
    let files = world.files();
    let recovered = times(files.samples());
    // A machine that is busy with other things may be so slow that the first are overwritten.
    let oldest = recovered.keys().next().unwrap();
    assert!(seen.keys().next_back() >= Some(oldest));
    for (tick, time) in seen.range(oldest..) {
        assert_eq!(recovered.get(tick), Some(time), "tick {tick}");
    }
    let summary = files.summary();
    assert!(summary["samples_taken"].int() >= taken && taken > 0);
    assert_eq!((summary["samples_lost"].int(), summary["slots_torn"].int()), (0, 0));
    assert!(!summary["ended_cleanly"].bool());
    assert!(files.metadata["ringstat"]["recovered"].bool());
    world.assert_no_rings();
    world.looking(&["recover", id]).ends_with(1).says(&["there is no", id]);
    assert_eq!(entries(&world.results()).len(), 2);
}

#[test]
fn a_living_run_is_left_alone() {
    let world = World::new();
    let (live, dir) = endless(&world, &[]);
    world.wait_for_samples(&dir.join("00000.ring"), 1);
    let id = dir.file_name().unwrap().to_str().unwrap();
    world.looking(&["recover", id]).ends_with(1).says(&["still recording"]);
    assert!(dir.join("00000.ring").exists());
    assert_eq!(entries(&world.results()), [""; 0]);
    live.signal(rustix::process::Signal::INT);
    live.end().has_status(0);
    world.files();
}

#[test]
fn the_mirror_alone_is_enough() {
    let world = World::new();
    let (live, dir) = endless(&world, &["--sync-interval", "50ms"]);
    let mirror = world.run_dir(&world.mirrors()).join("00000.ring");
    world.wait_for_samples(&mirror, 10);
    live.kill();
    fs::remove_dir_all(&dir).unwrap();
    let copied = world.info(&mirror).unwrap()["summary"]["samples_kept"].int();
    let id = dir.file_name().unwrap().to_str().unwrap();
    // The first characters of the id are enough.
    world.looking(&["recover", &id[..13]]).succeeds();
    let files = world.files();
    assert_eq!(files.samples().len() as u64, copied);
    assert_eq!(files.summary()["samples_lost"].int(), 0);
    world.assert_no_rings();
}

#[test]
fn a_damaged_ring_is_made_up_for_by_its_mirror() {
    let world = World::new();
    let (live, dir) = endless(&world, &["--sync-interval", "50ms"]);
    let mirror = world.run_dir(&world.mirrors()).join("00000.ring");
    world.wait_for_samples(&mirror, 10);
    live.kill();
    fs::write(dir.join("00000.ring"), vec![0xa5; 10_000]).unwrap();
    let copied = world.info(&mirror).unwrap()["summary"]["samples_kept"].int();
    world.looking(&["recover"]).arg(dir.file_name().unwrap()).succeeds();
    assert_eq!(world.files().samples().len() as u64, copied);
    world.assert_no_rings();
}

/// The length of a ring that is cut off, by where its first slot begins and how long one is.
type Cut = fn(u64, u64) -> u64;

/// Cuts a ring off, and says how it ends: where, and what is not there of it, called what.
fn cut_off(ring: &Path, cut: Cut) -> (String, &'static str) {
    let layout = Ring::open(ring).unwrap().header().layout;
    let (first, slot) = (layout.slots_offset.0, layout.slot.bytes().0);
    let length = cut(first, slot);
    hands::writable(ring).set_len(length).unwrap();
    if length <= first {
        let ends = format!("{length} bytes, and its first sample would be at byte {first}");
        return (ends, "it");
    }
    // A record that is shorter than its slot may be there all the same.
    let (whole, slots) = (layout.file_bytes().0, (length - first) / slot);
    let last = Ring::open(ring).unwrap().read_slot(ringstat::Slot(slots), &mut Vec::new());
    let slots = slots + u64::from(matches!(last, Ok(SlotState::Valid(..))));
    (format!("{length} of {whole} bytes, and its slots from {slots} on are not there"), "them")
}

#[test]
fn a_ring_that_is_cut_off_is_named_though_its_mirror_makes_up_for_it() {
    // In the header, in the description, in the names, and in the samples.
    let cuts: [Cut; 8] = [
        |_, _| 0,
        |_, _| 100,
        |_, _| 5000,
        |first, _| first - 8,
        |first, _| first,
        |first, _| first + 8,
        |first, slot| first + slot / 2,
        |first, slot| first + 3 * slot,
    ];
    for cut in cuts {
        let world = World::new();
        let (live, dir) = endless(&world, &["--sync-interval", "50ms"]);
        let mirror = world.run_dir(&world.mirrors()).join("00000.ring");
        world.wait_for_samples(&mirror, 10);
        live.kill();
        let ring = dir.join("00000.ring");
        let (ends, of) = cut_off(&ring, cut);
        let copied = world.info(&mirror).unwrap()["summary"]["samples_kept"].int();
        let said = format!(
            "samples are missing: {} was cut off: it ends after {ends}; what {} has is all that is left of \
             {of}",
            ring.display(),
            mirror.display()
        );
        world.ringstat(&["decode", "-o", "-"]).arg(&dir).succeeds().says(&[&said]);
        world.looking(&["recover"]).arg(dir.file_name().unwrap()).succeeds().says(&[&said]);
        let files = world.files();
        assert_eq!(files.samples().len() as u64, copied);
        assert!(files.metadata["ringstat"]["warnings"].list().iter().any(|it| it.str() == said));
        world.assert_no_rings();
    }
}

#[test]
fn a_ring_that_is_cut_off_and_has_no_mirror_is_not_taken_for_one_that_never_had_a_sample() {
    let cuts: [Cut; 4] =
        [|_, _| 100, |first, _| first - 8, |first, _| first + 8, |first, _| first + 512];
    for more in [&[][..], &OF_HOSTS] {
        for cut in cuts {
            let world = World::new();
            let (id, rings) = killed_of(&world, more, 1);
            let (ends, of) = cut_off(&rings[0], cut);
            let before = fs::read(&rings[0]).unwrap();
            let ran = world.looking(&["recover", &id]).ends_with(1);
            if more.is_empty() {
                let name = rings[0].to_str().unwrap();
                let ends = match ends.as_str() {
                    ends if ends.starts_with("100 ") => {
                        "it ends after 100 bytes, in its header, which has 4096".to_owned()
                    }
                    _ => format!("it ends after {ends}; there is no copy of {of}"),
                };
                ran.says(&["cannot recover run", name, &ends, "its rings stay in"]);
                assert_eq!(entries(&world.results()), [""; 0]);
            }
            assert!(fs::read(&rings[0]).unwrap() == before, "touched");
        }
    }
}

#[test]
fn what_a_ring_that_is_cut_off_has_is_recovered_and_the_rest_is_spoken_of() {
    let cuts: [(Cut, usize); 2] =
        [(|first, slot| first + slot / 2, 1), (|first, slot| first + 3 * slot, 3)];
    for more in [&[][..], &OF_HOSTS] {
        for (cut, left) in cuts {
            let world = World::new();
            let (id, rings) = killed_of(&world, more, 1);
            let (ends, of) = cut_off(&rings[0], cut);
            let said = format!("it ends after {ends}; there is no copy of {of}");
            world.looking(&["recover", &id]).succeeds().says(&["was cut off", &said]);
            let files = world.files();
            assert_eq!(files.samples().len(), left);
            let warnings = files.metadata["ringstat"]["warnings"].list();
            assert!(warnings.iter().any(|it| it.str().ends_with(&said)), "{warnings:?}");
            world.assert_no_rings();
        }
    }
}

/// What is done to a ring with the bytes from the first of its slots on.
type Spoil = fn(&File, u64, u64);

#[test]
fn a_ring_that_gives_no_sample_is_removed_only_if_it_never_had_one() {
    let spoil: [(&str, Spoil); 4] = [
        ("all overwritten", |ring, first, slot| {
            ring.write_all_at(&vec![0xa5; 4000 * slot as usize], first).unwrap();
        }),
        ("one overwritten, the others zeroed", |ring, first, slot| {
            ring.write_all_at(&vec![0; 4000 * slot as usize], first).unwrap();
            ring.write_all_at(&[0xa5; 8], first + 5 * slot).unwrap();
        }),
        ("two busy, the others zeroed", |ring, first, slot| {
            ring.write_all_at(&vec![0; 4000 * slot as usize], first).unwrap();
            for nth in [3, 4] {
                let busy = 1_u64 << 63 | (nth + 1);
                ring.write_all_at(&busy.to_le_bytes(), first + nth * slot).unwrap();
            }
        }),
        ("zeroed and cut off", |ring, first, slot| {
            ring.write_all_at(&vec![0; 4000 * slot as usize], first).unwrap();
            ring.set_len(first + 100 * slot).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        for more in [&[][..], &OF_HOSTS] {
            let world = World::new();
            let (id, rings) = killed_of(&world, more, 1);
            let (first, slot) = hands::slots(&rings[0]);
            spoil(&hands::writable(&rings[0]), first, slot);
            let before = fs::read(&rings[0]).unwrap();
            let ran = world.looking(&["recover", &id]).ends_with(1);
            if more.is_empty() {
                let name = rings[0].to_str().unwrap();
                ran.says(&["there is nothing left to write", name, "its rings stay in"]);
                assert_eq!(entries(&world.results()), [""; 0]);
            }
            assert!(fs::read(&rings[0]).unwrap() == before, "{what}: touched");
        }
    }
    // Killed in its first record.
    for busy in [0, 1_u64 << 63 | 1] {
        let world = World::new();
        let (id, rings) = killed_without_mirror(&world, 1);
        let (first, _) = hands::slots(&rings[0]);
        let ring = hands::writable(&rings[0]);
        let length = ring.metadata().unwrap().len();
        ring.set_len(first).unwrap();
        ring.set_len(length).unwrap();
        ring.write_all_at(&busy.to_le_bytes(), first).unwrap();
        world.looking(&["recover", &id]).succeeds().says(&["nothing left to write"]);
        world.assert_no_rings();
    }
}

#[test]
fn rings_that_cannot_be_read_stay_where_they_are() {
    let world = World::new();
    let (dir, id) = killed(&world, 3);
    let mirror = world.run_dir(&world.mirrors());
    for dir in [&dir, &mirror] {
        fs::write(dir.join("00000.ring"), vec![0xa5; 10_000]).unwrap();
    }
    let ran = world.looking(&["recover", &id]).ends_with(1);
    ran.says(&["cannot recover run", "00000.ring", "stay in", dir.to_str().unwrap()]);
    assert!(dir.join("00000.ring").exists() && mirror.join("00000.ring").exists());
    assert_eq!(entries(&world.results()), [""; 0]);
}

#[test]
fn a_run_without_a_manifest_is_recovered_where_the_user_wants_it() {
    let world = World::new();
    let (dir, id) = killed(&world, 5);
    for dir in [&dir, &world.run_dir(&world.mirrors())] {
        fs::remove_file(dir.join("run.json")).unwrap();
    }
    let out = world.path("elsewhere");
    world.looking(&["recover", "-o", out.to_str().unwrap(), &id]).succeeds();
    let files = Files::of(&out);
    assert_eq!(files.benchmark_type, "dead", "the ring knows it");
    assert!(files.samples().len() >= 5);
    world.assert_no_rings();
}

#[test]
fn a_results_directory_that_has_gone_is_made_again() {
    let world = World::new();
    let (_, id) = killed(&world, 3);
    let _ = fs::remove_dir_all(world.results());
    world.looking(&["recover", &id]).succeeds();
    world.files();
}

/// A finished run, as if ringstat had been killed just before it removed the rings.
fn killed_at_the_very_end(world: &World) -> (String, Files) {
    let (dir, files) = world.kept_run();
    for dir in [&dir, &world.run_dir(&world.mirrors())] {
        let path = dir.join("run.json");
        let manifest = fs::read_to_string(&path).unwrap();
        assert!(json::parse(&manifest).unwrap().has("final_datetime"));
        let undone = manifest.replace("\"done\": true", "\"done\": false");
        assert_ne!(undone, manifest);
        fs::write(path, undone).unwrap();
    }
    (dir.file_name().unwrap().to_str().unwrap().to_owned(), files)
}

#[test]
fn files_that_were_written_already_are_not_written_again() {
    let world = World::new();
    let (id, before) = killed_at_the_very_end(&world);
    let modified = |name: &String| fs::metadata(world.results().join(name)).unwrap().modified();
    let names = entries(&world.results());
    let times: Vec<_> = names.iter().map(|name| modified(name).unwrap()).collect();
    world.looking(&["recover", &id]).succeeds();
    assert_eq!(entries(&world.results()), names);
    assert!(names.iter().map(|name| modified(name).unwrap()).eq(times), "touched");
    assert_eq!(world.files().timeseries, before.timeseries);
    world.assert_no_rings();
}

/// The pairs of files in the results directory, by date and time.
fn pairs(world: &World) -> Vec<(String, Value)> {
    let names = entries(&world.results()).into_iter();
    let series = names.filter_map(|name| {
        let datetime = name.strip_suffix("_timeseries.json")?.strip_prefix("record_")?.to_owned();
        assert!(world.results().join(format!("record_{datetime}_metadata.json")).exists());
        Some((datetime, common::read_timeseries(&world.results().join(name))))
    });
    series.collect()
}

/// Records into a ring of so many samples, decodes it into the results directory after the first of
/// them, and kills it when there are many more.
fn decoded_and_killed(world: &World, max_samples: &str) -> (PathBuf, String, u64) {
    let live = world.record(&["--interval", "5ms", "--max-samples", max_samples]).start();
    let dir = world.run_dir(&world.rings());
    let ring = dir.join("00000.ring");
    world.wait_for_samples(&ring, 40);
    world.ringstat(&["decode", "-o"]).arg(world.results()).arg(&dir).succeeds();
    let [(_, early)] = &pairs(world)[..] else { panic!("one pair") };
    let had = format::summary(early)["samples_taken"].int();
    world.wait_for_samples(&ring, had + 100);
    let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
    live.kill();
    let taken = world.info(&ring).unwrap()["summary"]["samples_taken"].int();
    (dir, id, taken)
}

#[test]
fn what_was_decoded_while_it_ran_is_not_taken_for_the_files_that_it_owes() {
    // With a ring that keeps all, and one in which newer samples have replaced all of the first.
    for max_samples in ["4000", "20"] {
        let world = World::new();
        let (_, id, taken) = decoded_and_killed(&world, max_samples);
        world.looking(&["recover", &id]).succeeds().says(&["recovered run"]);
        let [(_, early), (_, whole)] = &pairs(&world)[..] else { panic!("not two pairs") };
        assert!(format::summary(early)["samples_taken"].int() < taken);
        assert_eq!(format::summary(whole)["samples_taken"].int(), taken);
        assert_eq!(format::samples(whole).len() as u64, taken.min(max_samples.parse().unwrap()));
        world.assert_no_rings();
    }
}

#[test]
fn neither_is_it_under_the_name_that_was_meant_for_them() {
    let world = World::new();
    let (dir, id, taken) = decoded_and_killed(&world, "4000");
    // As if the recorder had chosen the name, and been killed before it could take it.
    let [(datetime, _)] = &pairs(&world)[..] else { panic!("one pair") };
    for dir in [&dir, &world.run_dir(&world.mirrors())] {
        let path = dir.join("run.json");
        let manifest = fs::read_to_string(&path).unwrap();
        let named = format!("\"final_datetime\": \"{datetime}\"");
        let chosen = manifest.replace("\"final_datetime\": null", &named);
        assert_ne!(chosen, manifest);
        fs::write(path, chosen).unwrap();
    }
    world.looking(&["recover", &id]).succeeds();
    let [_, (_, whole)] = &pairs(&world)[..] else { panic!("not two pairs") };
    assert_eq!(format::summary(whole)["samples_taken"].int(), taken);
    world.assert_no_rings();
}

#[test]
fn all_that_was_decoded_after_a_kill_need_not_be_written_again() {
    let world = World::new();
    let (live, dir) = endless(&world, &[]);
    world.wait_for_samples(&dir.join("00000.ring"), 20);
    live.kill();
    world.ringstat(&["decode", "-o"]).arg(world.results()).arg(&dir).succeeds();
    let before = world.files();
    world.looking(&["recover"]).arg(dir.file_name().unwrap()).succeeds();
    assert_eq!(world.files().timeseries, before.timeseries);
    world.assert_no_rings();
}

#[test]
fn what_is_missing_of_two_files_is_completed() {
    let world = World::new();
    let (id, before) = killed_at_the_very_end(&world);
    let metadata = format!("record_{}_metadata.json", before.datetime);
    fs::remove_file(world.results().join(metadata)).unwrap();
    let leftover = world.write(&format!("results/.ringstat-{id}-xyz.tmp"), "{\"half\": ");
    world.looking(&["recover", &id]).succeeds();
    let after = world.files();
    assert_eq!(after.datetime, before.datetime);
    assert_eq!(after.timeseries, before.timeseries);
    assert!(!leftover.exists());
    world.assert_no_rings();
}

#[test]
fn a_run_that_was_killed_before_its_first_sample_owes_nothing() {
    let world = World::new();
    let (dir, id) = killed(&world, 1);
    for dir in [&dir, &world.run_dir(&world.mirrors())] {
        fs::write(dir.join("00000.ring"), vec![0; 100_000]).unwrap();
    }
    let ran = world.looking(&["recover", &id]).succeeds();
    ran.says(&["nothing left to write", "00000.ring was empty", "somebody has emptied the file"]);
    assert_eq!(entries(&world.results()), [""; 0]);
    world.assert_no_rings();
}

/// A run without a mirror that was killed with some samples in each of so many segments, and each
/// of its rings.
fn killed_without_mirror(world: &World, segments: usize) -> (String, Vec<PathBuf>) {
    killed_of(world, &[], segments)
}

/// The same of a run with more options.
fn killed_of(world: &World, more: &[&str], segments: usize) -> (String, Vec<PathBuf>) {
    let procfs = world.own_proc();
    let options = ["--interval", "5ms", "--max-samples", "4000", "--no-mirror", "--procfs"];
    let live = world.record(&[more, &options].concat()).arg(procfs).start();
    let dir = world.run_dir(&world.rings());
    let rings: Vec<PathBuf> = (0..segments).map(|nth| dir.join(format!("{nth:05}.ring"))).collect();
    for (nth, ring) in rings.iter().enumerate() {
        if nth > 0 {
            // A counter that there was not before: another layout.
            let mut vmstat = File::options().append(true).open(world.path("proc/vmstat")).unwrap();
            writeln!(vmstat, "new_{nth} 1").unwrap();
        }
        world.wait_for_samples(ring, 10);
    }
    live.kill();
    (dir.file_name().unwrap().to_str().unwrap().to_owned(), rings)
}

#[test]
fn a_ring_that_has_lost_its_first_bytes_is_not_one_that_was_never_begun() {
    // The magic alone, the header, header and description: what is behind them may still be read by
    // somebody who knows how.
    for zeroed in [8, 256, 4096, 8192] {
        let world = World::new();
        let (id, rings) = killed_without_mirror(&world, 1);
        hands::writable(&rings[0]).write_all_at(&vec![0; zeroed], 0).unwrap();
        let before = fs::read(&rings[0]).unwrap();
        let ran = world.looking(&["recover", &id]).ends_with(1);
        ran.says(&["cannot recover run", "00000.ring", "has no header", "its rings stay in"]);
        assert!(fs::read(&rings[0]).unwrap() == before, "{zeroed}: touched");
        assert_eq!(entries(&world.results()), [""; 0]);
    }
}

#[test]
fn neither_is_one_of_several() {
    // Emptied, too, the first of them must have been a ring: another one follows it.
    for (zeroed, length) in [(8, None), (4096, None), (0, Some(0))] {
        let world = World::new();
        let (id, rings) = killed_without_mirror(&world, 2);
        let file = hands::writable(&rings[0]);
        file.write_all_at(&vec![0; zeroed], 0).unwrap();
        if let Some(length) = length {
            file.set_len(length).unwrap();
        }
        let ran = world.looking(&["recover", &id]).ends_with(1);
        ran.says(&["recovered run", "samples are missing", "00000.ring"]);
        assert!(rings.iter().all(|ring| ring.exists()), "{zeroed}: removed");
        let files = world.files();
        assert!(files.samples().len() >= 10);
        assert!(files.samples()[0]["vmstat"].has("new_1"), "those of the second ring");
    }
}

/// A run of several hosts, of which this one is recorded.
const OF_HOSTS: [&str; 2] = ["--hosts", "localhost"];

#[test]
fn a_run_of_hosts_keeps_a_ring_that_cannot_be_read() {
    let world = World::new();
    let (id, rings) = killed_of(&world, &OF_HOSTS, 1);
    // Of the description, which is what its records mean.
    hands::writable(&rings[0]).write_all_at(&[0; 4], 4096).unwrap();
    let before = fs::read(&rings[0]).unwrap();
    for _ in 0..2 {
        let ran = world.looking(&["recover", &id]).ends_with(1);
        ran.says(&["not all rings of localhost can be read", "they stay in"]);
        assert!(fs::read(&rings[0]).unwrap() == before, "touched");
        let names = entries(&world.results());
        let metadata: Vec<&String> =
            names.iter().filter(|it| it.ends_with("_metadata.json")).collect();
        assert_eq!(metadata.len(), 1, "written again, and not beside");
        let said = fs::read_to_string(world.results().join(metadata[0])).unwrap();
        assert!(
            said.contains("not all rings of localhost") && !said.contains("still ha"),
            "{said}"
        );
    }
}

#[test]
fn a_run_of_hosts_keeps_nothing_of_one_that_was_never_begun() {
    let world = World::new();
    let (id, rings) = killed_of(&world, &OF_HOSTS, 1);
    fs::write(&rings[0], vec![0; 100_000]).unwrap();
    world.looking(&["recover", &id]).succeeds();
    world.assert_no_rings();
}

#[test]
fn neither_does_it_lose_one_of_several_nor_take_in_anothers() {
    let world = World::new();
    let (id, rings) = killed_of(&world, &OF_HOSTS, 2);
    hands::writable(&rings[0]).write_all_at(&[0; 256], 0).unwrap();
    let ran = world.looking(&["recover", &id]).ends_with(1);
    ran.says(&["recovered run", "not all rings of localhost can be read"]);
    let files = world.files();
    assert!(files.samples().iter().any(|sample| sample["vmstat"].has("new_1")), "the second");
    assert!(files.samples().iter().any(|sample| sample.has("errors")), "what is missing");
    assert!(rings.iter().all(|ring| ring.exists()), "removed");

    let (world, other) = (World::new(), World::new());
    let (id, rings) = killed_of(&world, &OF_HOSTS, 1);
    let (_, theirs) = killed_without_mirror(&other, 1);
    let foreign = rings[0].with_file_name("00007.ring");
    fs::copy(&theirs[0], &foreign).unwrap();
    let ran = world.looking(&["recover", &id]).ends_with(1);
    ran.says(&["not all rings of localhost can be read"]);
    let taken = world.files().samples().iter().filter(|sample| sample.has("vmstat")).count();
    assert!(taken >= 10 && foreign.exists() && rings[0].exists(), "{taken}");
}

#[test]
fn samples_that_are_lost_are_spoken_of() {
    for more in [&[][..], &OF_HOSTS] {
        let world = World::new();
        let (id, rings) = killed_of(&world, more, 1);
        let layout = ringstat::ring::Ring::open(&rings[0]).unwrap().header().layout;
        let slot = |slot| layout.slot_offset(ringstat::Slot(slot)).0;
        hands::writable(&rings[0]).write_all_at(&[0xa5; 64], slot(3) + 64).unwrap();
        let ran = world.looking(&["recover", &id]).ends_with(0);
        ran.says(&["1 of ", "are lost: no copy of its rings has them"]);
    }
}

/// Runs `test` where the default directories are its own.
fn where_nobody_else_records(test: impl FnOnce(&World) + Send) {
    with_own_mounts("recovering from the default directories", || {
        let world = World::new();
        let _shm = Tmpfs::over(Path::new("/dev/shm"), "size=200m");
        let _var_tmp = Tmpfs::over(Path::new("/var/tmp"), "size=200m");
        test(&world);
    });
}

#[test]
fn what_another_host_may_still_record_is_left_to_it_unless_it_is_named() {
    where_nobody_else_records(|world| {
        let (dir, id) = killed(world, 5);
        let dirs = [dir, world.run_dir(&world.mirrors())];
        let paths = dirs.each_ref().map(|dir| dir.join("run.json"));
        let text = fs::read_to_string(&paths[0]).unwrap();
        let manifest = json::parse(&text).unwrap();
        let of = |key: &str| manifest[key].str().to_owned();
        let (name, machine, boot) = (of("hostname"), of("machine_id"), of("boot_id"));
        let other = "01234567-89ab-cdef-0123-456789abcdef";
        let now_of = |hostname: &str, machine_id: &str, boot_id: &str| {
            let text = text.replace(&format!(": \"{name}\""), &format!(": \"{hostname}\""));
            let text = text.replace(&boot, boot_id).replace(&machine, machine_id);
            paths.iter().for_each(|path| fs::write(path, &text).unwrap());
        };
        let listed = || world.looking(&["recover", "--list"]).succeeds().stdout;
        let alone = format!(
            "run {id} is left alone: it was begun on node7, and may be recording there. Recover it on \
             node7, or name it if it is dead: ringstat recover {id}"
        );
        // Another host, and one that was made of the same image.
        for machine_id in [other, &machine] {
            now_of("node7", machine_id, other);
            assert!(listed().contains("elsewhere"), "{}", listed());
            let ran = world.looking(&["recover"]).succeeds();
            ran.says(&[&alone, "no run owes any files"]);
            assert!(dirs.iter().all(|dir| dir.join("00000.ring").exists()));
        }
        // This one, before it was booted again.
        now_of(&name, &machine, other);
        assert!(listed().contains("owing"), "{}", listed());
        now_of("node7", other, other);
        world.looking(&["recover", &id]).succeeds().says(&["recovered run", &id]);
        world.files();
        world.assert_no_rings();
    });
}

#[test]
fn a_run_of_this_host_that_was_booted_since_is_dead() {
    where_nobody_else_records(|world| {
        let (dir, id) = killed(world, 5);
        for dir in [dir, world.run_dir(&world.mirrors())] {
            let path = dir.join("run.json");
            let text = fs::read_to_string(&path).unwrap();
            let boot = json::parse(&text).unwrap()["boot_id"].str().to_owned();
            fs::write(path, text.replace(&boot, "01234567-89ab-cdef-0123-456789abcdef")).unwrap();
        }
        world.looking(&["recover"]).succeeds().says(&["recovered run", &id]);
        world.files();
        world.assert_no_rings();
    });
}

#[test]
fn without_a_name_all_dead_runs_are_recovered_and_then_none_is_left() {
    where_nobody_else_records(|world| {
        let base =
            PathBuf::from(format!("/dev/shm/ringstat-{}", rustix::process::geteuid().as_raw()));
        let mut live = Vec::new();
        for name in ["one", "two"] {
            let procfs = common::fixed_proc();
            let args = ["record", "--interval", "5ms", "--max-samples", "500", "--results-dir"];
            let cmd = world.ringstat(&args).arg(world.path(name)).arg("--procfs").arg(procfs);
            let running = cmd.args(&["--benchmark-type", name]).start();
            common::wait_until("the run's ring", || {
                let dirs = entries(&base);
                let dir = base.join(dirs.get(live.len())?);
                world.info(&dir.join("00000.ring")).map(|_| ())
            });
            live.push(running);
        }
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&base).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
        world.ringstat(&["recover"]).succeeds().says(&["no run owes any files"]);
        live.into_iter().for_each(Live::kill);
        let listed = world.ringstat(&["recover", "--list"]).succeeds().stdout;
        assert_eq!(listed.matches("owing").count(), 2, "{listed}");
        world.ringstat(&["recover"]).succeeds();
        for name in ["one", "two"] {
            let files = Files::of(&world.path(name));
            assert_eq!(files.benchmark_type, name);
            assert_eq!(files.summary()["sampler"]["storage"].str(), "shared memory");
        }
        world.ringstat(&["recover"]).succeeds().says(&["no run owes any files"]);
        assert_eq!(world.ringstat(&["recover", "--list"]).succeeds().stdout.lines().count(), 1);
        assert_eq!(entries(&base), [""; 0]);
    });
}
