//! Long runs and large hosts: the memory of the recorder stays what it was, and that of the decoder
//! below a bound, whatever the ring.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::json::{self, Value};
use common::memory::{Memory, held, peak_kb};
use common::{World, fixed_proc, format, rings, rounds, wait_until};
use rings::{Plan, common as common_words, row_head};
use ringstat::Description;
use ringstat::ring::Ring;
use rustix::process::Signal;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;
use uuid::Uuid;

/// Resident memory of `ringstat decode` at its highest.
const MOST_KB: u64 = 64 << 10;

/// Decodes `rings` to a file, and says what it took. The first and last bytes of the file.
fn decode(world: &World, what: &str, rings: &[&str]) -> Option<(String, String)> {
    let output = world.path("decoded");
    let args = [&["decode"], rings, &["-o", "-", "--format", "json-compact"]].concat();
    let since = Instant::now();
    let peak_kb = peak_kb(&args, &output)?;
    let file = fs::File::open(&output).unwrap();
    let length = file.metadata().unwrap().len();
    println!(
        "{what}: decoded to {} MB in {:.1} s, peak {:.1} MiB",
        length / 1_000_000,
        since.elapsed().as_secs_f64(),
        peak_kb as f64 / 1024.0
    );
    assert!(peak_kb < MOST_KB, "{what}: {peak_kb} kB");
    let part = |from: u64, bytes: u64| {
        let mut part = vec![0; bytes.min(length - from) as usize];
        file.read_exact_at(&mut part, from).unwrap();
        String::from_utf8(part).unwrap()
    };
    let head = part(0, 500);
    let tail = part(length.saturating_sub(8 << 20), 8 << 20);
    fs::remove_file(&output).unwrap();
    Some((head, tail))
}

/// What stands at the end of a time series: the last sample, and the summary.
fn end_of(tail: &str) -> (Value, Value) {
    let (samples, summary) = tail.split_once(r#"]},"collection_method""#).unwrap();
    let last = &samples[samples.rfind(r#"{"timestamp""#).unwrap()..];
    let summary = format!(r#"{{"collection_method"{summary}"#);
    let summary = json::parse(&summary).unwrap();
    let [(_, host)] = summary["ringstat"]["hosts"].entries() else { panic!("not one host") };
    (json::parse(last).unwrap(), host.clone())
}

/// Fails unless the recorder takes what it took `before`, as far as it is its own.
fn assert_fixed(what: &str, before: Memory, after: Memory, ring: &Path) {
    let ring_kb = fs::metadata(ring).unwrap().len() / 1024;
    println!(
        "{what}: recorder's own memory {} kB, then {} kB; data {} kB, then {} kB; mapped in all {} kB, \
         then {} kB; resident at its highest {} kB with a ring of {ring_kb} kB",
        before.anonymous_kb,
        after.anonymous_kb,
        before.data_kb,
        after.data_kb,
        before.size_kb,
        after.size_kb,
        after.highest_kb
    );
    assert_eq!(after.data_kb, before.data_kb, "it has asked for more");
    assert_eq!(after.size_kb, before.size_kb, "it has mapped more");
    // Pages of stacks and of the allocator that are touched late.
    assert!(after.anonymous_kb <= before.anonymous_kb + 512, "{before:?} {after:?}");
}

#[test]
fn a_run_that_laps_its_ring_a_hundred_times_keeps_the_newest_and_its_memory() {
    let world = World::new();
    let options = ["--interval", "1ms", "--max-samples", "10", "--sources", "loadavg,vmstat"];
    let live = world.record(&options).start();
    let ring = world.run_dir(&world.rings()).join("00000.ring");
    world.wait_for_samples(&ring, 30);
    // What the mirror needs for its first look has been asked for by then.
    world.wait_for_samples(&world.run_dir(&world.mirrors()).join("00000.ring"), 1);
    let before = Memory::of(live.pid());
    // With a mirror it has more slots than samples to keep.
    let slots = Ring::open(&ring).unwrap().header().layout.slots;
    let laps = rounds(101, 1001);
    world.wait_for_samples(&ring, laps * slots);
    let what = format!("{laps} laps of {slots} slots");
    assert_fixed(&what, before, Memory::of(live.pid()), &ring);
    live.signal(Signal::INT);
    live.end().has_status(0);
    let files = world.files();
    let summary = files.summary();
    assert_eq!(files.samples().len(), 10);
    assert!(summary["samples_taken"].int() >= laps * slots);
    assert_eq!(summary["samples_overwritten"].int(), summary["samples_taken"].int() - 10);
    assert_eq!((summary["samples_lost"].int(), summary["slots_torn"].int()), (0, 0));
    assert_eq!(summary["segments"].int(), 1);
    format::ticks_add_up(summary, files.samples()).unwrap();
}

#[test]
fn a_run_whose_layout_changes_again_and_again_holds_on_to_no_old_segment() {
    let world = World::new();
    let procfs = world.own_proc();
    let options = ["--interval", "2ms", "--max-samples", "10", "--sync-interval", "20ms"];
    let live = world.record(&[&options[..], &["--procfs"]].concat()).arg(procfs).start();
    let dir = world.run_dir(&world.rings());
    let vmstat = world.path("proc/vmstat");
    let mut vmstat = fs::File::options().append(true).open(vmstat).unwrap();
    let changes = rounds(100, 1000);
    let mut files_early = 0;
    for change in 0..=changes {
        let ring = dir.join(format!("{change:05}.ring"));
        wait_until("the next segment", || ring.exists().then_some(()));
        world.wait_for_samples(&ring, 1);
        if change == 10 {
            files_early = held(live.pid()).2;
        }
        // A counter that there was not before.
        writeln!(vmstat, "new_{change} 1").unwrap();
    }
    let mut last = (0, 0, 0);
    wait_until("old segments to be let go of", || {
        last = held(live.pid());
        let (mapped, open, files) = last;
        // What is kept of the last ten samples may have a segment each.
        (mapped <= 1 && open <= 2 && files <= files_early + 20).then_some(())
    });
    let (mapped, open, files) = last;
    println!(
        "{changes} changes: {mapped} maps and {open} descriptors of removed segments, {files} \
         descriptors in all, {files_early} after ten changes"
    );
    live.signal(Signal::INT);
    live.end().has_status(0);
    assert!(world.files().summary()["segments"].int() > 0);
}

#[test]
fn as_many_as_a_million_samples_in_one_ring_are_all_there() {
    let world = World::new();
    let samples = rounds(100_000, 1_000_000);
    let path = world.path("made.ring");
    let names = ["pgpgin", "pgpgout"].map(str::to_owned);
    let plan = Plan {
        sources: vec![rings::scalars("vmstat", &names)],
        segment: 0,
        first_seq: 0,
        slots: samples + 1,
        max_samples: samples,
        entries: 1,
        record_words: 16,
    };
    let ring = rings::create(&path, &plan);
    for seq in 0..samples {
        // One tick in a thousand was missed.
        rings::write(&ring, seq, common_words(seq, seq / 1000), &[(2, &[seq, u64::MAX])]);
    }
    drop(ring);
    let name =
        format!("{samples} samples, a ring of {} MB", fs::metadata(&path).unwrap().len() >> 20);
    let Some((head, tail)) = decode(&world, &name, &[path.to_str().unwrap()]) else { return };
    assert!(head.contains(&format!(r#""num_samples":{samples},"#)), "{head}");
    let (last, summary) = end_of(&tail);
    assert_eq!(last["vmstat"]["pgpgin"].int(), samples - 1);
    assert_eq!(last["vmstat"]["pgpgout"].int(), u64::MAX);
    let number = |key: &str| summary[key].int();
    assert_eq!((number("samples_kept"), number("samples_lost")), (samples, 0));
    assert_eq!((number("ticks_inconsistent"), number("slots_torn")), (0, 0));
    let missed = (samples - 1) / 1000;
    assert_eq!((number("ticks_missed"), number("ticks_elapsed")), (missed, samples + missed));
    assert_eq!(number("gaps_total"), missed);
}

#[test]
fn a_host_of_two_thousand_disks_and_interfaces_is_recorded_whole() {
    const DEVICES: u64 = 2000;
    let world = World::new();
    let procfs = world.own_proc();
    let (mut disks, mut interfaces) = (String::new(), String::new());
    let text = fs::read_to_string(fixed_proc().join("net/dev")).unwrap();
    text.lines().take(2).for_each(|line| writeln!(interfaces, "{line}").unwrap());
    for number in 0..DEVICES {
        let values = format!(" {number}").repeat(17);
        writeln!(disks, " 259 {number:7} nvme{number}n1{values}").unwrap();
        writeln!(interfaces, "veth{number}:{}", format!(" {number}").repeat(16)).unwrap();
    }
    world.write("proc/diskstats", disks);
    world.write("proc/net/dev", interfaces);
    let options = ["--procfs", procfs.to_str().unwrap(), "--interval", "50ms", "--keep-ring"];
    let live = world.record(&[&options[..], &["--max-samples", "4"]].concat()).start();
    let ring = world.run_dir(&world.rings()).join("00000.ring");
    world.wait_for_samples(&ring, 6);
    // What the mirror needs for its first look has been asked for by then.
    world.wait_for_samples(&world.run_dir(&world.mirrors()).join("00000.ring"), 1);
    let before = Memory::of(live.pid());
    world.wait_for_samples(&ring, rounds(40, 400));
    assert_fixed("4000 devices", before, Memory::of(live.pid()), &ring);
    live.signal(Signal::INT);
    live.end().has_status(0);
    let files = world.files();
    for sample in files.samples() {
        for (source, name, key) in
            [("diskstats", "nvme", "writes_merged"), ("netdev", "veth", "tx_fifo")]
        {
            let rows = sample[source].list();
            assert_eq!(rows.len() as u64, DEVICES, "{source}");
            for (row, number) in rows.iter().zip(0..) {
                assert!(row.entries()[0].1.str().starts_with(&format!("{name}{number}")));
                assert_eq!(row[key].int(), number);
            }
        }
    }
    assert!(files.summary()["errors"].entries().is_empty());
    assert_eq!(files.summary()["segments"].int(), 1);
    decode(&world, "4000 devices", &[ring.to_str().unwrap()]);
}

#[test]
fn a_large_ring_that_is_still_being_written_is_decoded_within_bounds() {
    let world = World::new();
    let procfs = world.own_proc();
    const COUNTERS: u64 = 10_000;
    let counters: String = (0..COUNTERS).map(|number| format!("counter_{number} 7\n")).collect();
    world.write("proc/vmstat", counters);
    let samples = rounds(1000, 3000);
    let kept = samples.to_string();
    let options = ["--sources", "vmstat", "--interval", "10ms", "--no-mirror"];
    let more = ["--max-samples", &kept, "--procfs", procfs.to_str().unwrap()];
    let live = world.record(&[&options[..], &more].concat()).start();
    let dir = world.run_dir(&world.rings());
    let ring = dir.join("00000.ring");
    let newest = || Ring::open(&ring).ok()?.scan().unwrap().newest;
    // It has lapped its ring, and goes on doing so.
    wait_until("a lap of the ring", || {
        newest().is_some_and(|newest| newest.0 > samples).then_some(())
    });
    let megabytes = fs::metadata(&ring).unwrap().len() >> 20;
    assert!(megabytes > MOST_KB >> 10, "{megabytes} MB");
    let name = format!("a ring of {megabytes} MB that is being written");
    let Some((head, tail)) = decode(&world, &name, &[dir.to_str().unwrap()]) else { return };
    assert!(head.contains(&format!(r#""num_samples":{samples},"#)), "{head}");
    let (last, summary) = end_of(&tail);
    assert_eq!(last["vmstat"][format!("counter_{}", COUNTERS - 1).as_str()].int(), 7);
    assert_eq!(summary["samples_lost"].int(), 0);
    let peak_kb = peak_kb(&["info", dir.to_str().unwrap()], &world.path("info")).unwrap();
    println!("{name}: info, peak {:.1} MiB", peak_kb as f64 / 1024.0);
    assert!(peak_kb < MOST_KB, "{peak_kb} kB");

    // What is decoded is a copy on the disk: the reader takes its time, and the recorder its slots.
    let (mut reader, writer) = UnixStream::pair().unwrap();
    fs::create_dir(world.path("tmp")).unwrap();
    let mut cmd = world.looking(&["decode", "-o", "-", "--format", "json-compact"]).arg(&dir);
    cmd = cmd.env("TMPDIR", world.path("tmp"));
    let output = || tempfile::tempfile().unwrap();
    cmd.command.stdout(OwnedFd::from(writer)).stderr(std::process::Stdio::null());
    let decoding = cmd.spawn(output(), output());
    reader.read_exact(&mut [0]).unwrap();
    let links = fs::read_dir(format!("/proc/{}/fd", decoding.pid().as_raw_nonzero())).unwrap();
    let links = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok());
    let is_deleted = |link: &PathBuf| link.to_string_lossy().ends_with(" (deleted)");
    let copies: Vec<PathBuf> = links.filter(is_deleted).collect();
    assert!(matches!(&copies[..], [copy] if copy.starts_with(world.path("tmp"))), "{copies:?}");
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0, "it has no name");
    let before = newest().unwrap().0;
    wait_until("samples in the place of those", || (newest()?.0 > before + 20).then_some(()));
    let mut tail = Vec::new();
    let mut part = vec![0; 1 << 20];
    loop {
        let count = reader.read(&mut part).unwrap();
        tail.extend_from_slice(&part[..count]);
        if tail.len() > 32 << 20 {
            tail.drain(..tail.len() - (8 << 20));
        }
        if count == 0 {
            break;
        }
    }
    decoding.end().has_status(0);
    let (_, summary) = end_of(std::str::from_utf8(&tail).unwrap());
    let number = |key: &str| summary[key].int();
    assert_eq!((number("samples_kept"), number("samples_lost")), (samples, 0));
    live.kill();
}

/// Makes segment number `segment` of `count` samples, each with `rows` rows of devices that no
/// sample before has had, and gives its path.
fn changing_segment(
    world: &World,
    segment: u64,
    count: u64,
    rows: u64,
    max_samples: u64,
) -> String {
    let path = world.path(&format!("{segment:05}.ring"));
    let first_seq = segment * count;
    let plan = Plan {
        sources: vec![rings::table("diskstats", &["reads_completed"])],
        segment,
        first_seq,
        slots: max_samples + 1,
        max_samples,
        entries: count * rows,
        record_words: 10 + rows * 2,
    };
    let ring = rings::create(&path, &plan);
    for seq in first_seq..first_seq + count {
        let entries = (0..rows).map(|row| {
            let number = seq * rows + row;
            let name = format!("a-device-with-a-rather-long-name-{number}");
            ring.add_entry(0, number + 1, ringstat::Seq(seq), name.as_bytes()).unwrap()
        });
        let words: Vec<u64> =
            entries.flat_map(|entry| [row_head(entry, 1), u64::from(entry)]).collect();
        rings::write(&ring, seq, common_words(seq, 0), &[(rows as usize, &words)]);
    }
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_largest_dictionary_is_decoded_within_bounds() {
    let world = World::new();
    let count = rounds(20, 64);
    let path = changing_segment(&world, 0, count, 16_384, count);
    let names = count * 16_384;
    let what = format!("{names} names in one segment");
    let Some((_, tail)) = decode(&world, &what, &[&path]) else { return };
    let (last, summary) = end_of(&tail);
    let rows = last["diskstats"].list();
    assert_eq!(rows.len(), 16_384, "every row has its name");
    let name = format!("a-device-with-a-rather-long-name-{}", names - 1);
    assert_eq!(rows[16_383]["device_name"].str(), name);
    assert_eq!(rows[16_383]["reads_completed"].int(), names - 1);
    assert_eq!(summary["instances"]["diskstats"].list().len(), 10_000);
    assert_eq!(summary["instances_unlisted"].int(), names - 10_000);
}

#[test]
fn names_that_change_over_many_segments_are_decoded_within_bounds() {
    let world = World::new();
    let (segments, names) = (rounds(32, 256), 2000);
    let paths: Vec<String> = (0..segments)
        .map(|segment| changing_segment(&world, segment, 4, names, 4 * segments))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let what = format!("{} names in {segments} segments", segments * 4 * names);
    let Some((_, tail)) = decode(&world, &what, &paths) else { return };
    let (last, summary) = end_of(&tail);
    let name = format!("a-device-with-a-rather-long-name-{}", segments * 4 * names - 1);
    assert_eq!(last["diskstats"].list().last().unwrap()["device_name"].str(), name);
    assert_eq!(summary["samples_kept"].int(), segments * 4);
    assert_eq!(summary["segments"].int(), segments);
}

#[test]
fn layouts_that_change_over_many_segments_are_decoded_within_bounds() {
    let world = World::new();
    let segments = rounds(48, 256);
    let paths: Vec<String> = (0..segments)
        .map(|segment| {
            let path = world.path(&format!("{segment:05}.ring"));
            let names: Vec<String> =
                (0..5000).map(|name| format!("counter_{segment}_{name}")).collect();
            let plan = Plan {
                sources: vec![rings::scalars("vmstat", &names)],
                segment,
                first_seq: segment,
                slots: segments + 1,
                max_samples: segments,
                entries: 1,
                record_words: 5010,
            };
            let ring = rings::create(&path, &plan);
            rings::write(&ring, segment, common_words(segment, 0), &[(5000, &[segment; 5000])]);
            path.to_str().unwrap().to_owned()
        })
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let what = format!("{segments} segments of 5000 other counters each");
    let Some((_, tail)) = decode(&world, &what, &paths) else { return };
    let (last, summary) = end_of(&tail);
    assert_eq!(
        last["vmstat"][format!("counter_{}_4999", segments - 1).as_str()].int(),
        segments - 1
    );
    assert_eq!(summary["samples_kept"].int(), segments);
}

/// Makes a segment of one sample that says of itself what `change` has it say, and gives its path.
fn saying_segment(
    world: &World,
    segment: u64,
    segments: u64,
    change: impl FnOnce(&mut Description),
) -> String {
    let path = world.path(&format!("{segment:05}.ring"));
    let plan = Plan {
        sources: vec![rings::scalars("vmstat", &["pgpgin".to_owned()])],
        segment,
        first_seq: segment,
        slots: segments + 1,
        max_samples: segments,
        entries: 1,
        record_words: 16,
    };
    let ring = rings::create_saying(&path, &plan, Uuid::from_u128(7), |description| {
        description.hostname = "made".to_owned();
        change(description);
    });
    rings::write(&ring, segment, common_words(segment, 0), &[(1, &[segment])]);
    path.to_str().unwrap().to_owned()
}

/// Decodes such segments, and looks at them.
fn decode_saying(what: &str, segments: u64, change: impl Fn(u64, &mut Description)) {
    let world = World::new();
    let segments = rounds(segments, 8 * segments);
    let paths: Vec<String> = (0..segments)
        .map(|segment| saying_segment(&world, segment, segments, |it| change(segment, it)))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let Some((_, tail)) = decode(&world, what, &paths) else { return };
    let (_, summary) = end_of(&tail);
    assert_eq!(summary["samples_kept"].int(), segments);
    let peak_kb = peak_kb(&[&["info"], &paths[..]].concat(), &world.path("info")).unwrap();
    println!("{what}: info, peak {:.1} MiB", peak_kb as f64 / 1024.0);
    assert!(peak_kb < MOST_KB, "{what}: {peak_kb} kB");
}

#[test]
fn whatever_segments_say_in_words_they_are_decoded_within_bounds() {
    decode_saying("long notes", 20, |segment, description| {
        let note = |number| format!("{segment} {number} {}", "x".repeat(90));
        description.sampler.notes = (0..19_000).map(note).collect();
    });
    decode_saying("short notes", 4, |segment, description| {
        let first = 200_000 * segment;
        description.sampler.notes = (first..first + 200_000).map(|it| it.to_string()).collect();
    });
    decode_saying("a long command", 3, |_, description| {
        description.run.command = vec!["a".to_owned(); 500_000];
    });
}

#[test]
fn the_largest_record_is_decoded_within_bounds() {
    let world = World::new();
    let path = world.path("made.ring");
    let rows = (1 << 21) - 100;
    let plan = Plan {
        sources: vec![rings::table("diskstats", &["reads_completed"])],
        segment: 0,
        first_seq: 0,
        slots: 3,
        max_samples: 2,
        entries: 1,
        record_words: ringstat::ring::MAX_SLOT_WORDS - 3,
    };
    let ring = rings::create(&path, &plan);
    let entry = ring.add_entry(0, 1, ringstat::Seq(0), b"sda").unwrap();
    let words: Vec<u64> = (0..rows).flat_map(|_| [row_head(entry, 1), 7]).collect();
    let samples = rounds(1, 2);
    for seq in 0..samples {
        rings::write(&ring, seq, common_words(seq, 0), &[(rows, &words)]);
    }
    decode(&world, "records of 32 MiB", &[path.to_str().unwrap()]);
}
