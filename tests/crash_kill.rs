//! kill -9 of a recorder at 1 ms, at any instant of its life: what a watcher had seen in the ring
//! before is in the recovered file, with the same values; nothing in that file is wrong; and at
//! most the sample that was being written is not there. A wrapped command lives on.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::json::Value;
use common::{World, entries, rounds, seed};
use ringstat::fuzzing::{Common, RecordView};
use ringstat::ring::{Ring, SlotState};
use ringstat::{Description, Kind, Schema, Seq, Shape, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Few enough that the ring laps several times.
const MAX_SAMPLES: u64 = 25;
/// How often the watched `/proc` changes.
const CHANGE: Duration = Duration::from_micros(300);
/// How often its layout does, where it does.
const ROLL: Duration = Duration::from_millis(15);

/// When the recorder is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// So long after it was started.
    Start,
    /// After the first sample.
    Recording,
    /// After a new segment has begun.
    Roll,
    /// After the last sample, while it writes its files.
    End,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    wraps: bool,
    phase: Phase,
    delay: Duration,
}

impl Plan {
    fn of(seed: u64, round: u64) -> Plan {
        let number = mixed(seed.wrapping_add(round));
        let (phase, most_us) = match number % 5 {
            0 => (Phase::Start, 60_000),
            1 | 2 => (Phase::Recording, 80_000),
            3 => (Phase::Roll, 2_000),
            _ => (Phase::End, 150_000),
        };
        let delay = Duration::from_micros((number >> 16) % most_us);
        Plan { wraps: round % 2 == 1, phase, delay }
    }
}

/// SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One record as the ring has it, and what its words mean.
#[derive(Clone)]
struct Seen {
    words: Vec<u64>,
    schema: Arc<Schema>,
}

impl Seen {
    fn common(&self, which: Common) -> u64 {
        self.words[which as usize]
    }

    /// Fails unless `sample` is this record, in every number.
    fn check(&self, sample: &Value) {
        let collection = &sample["collection"];
        for (which, key) in [
            (Common::Tick, "tick"),
            (Common::WallNs, "time_unix_ns"),
            (Common::BeginNs, "monotonic_ns"),
            (Common::MissedTicks, "missed_ticks"),
        ] {
            assert_eq!(collection[key].int(), self.common(which), "{key}");
        }
        let mut numbers = 0;
        for block in RecordView::new(&self.words, &self.schema).unwrap().blocks() {
            let (rows, fields, skipped) = match &block.source.shape {
                None => continue,
                Some(Shape::Scalars { fields }) => (1, fields, 0),
                Some(Shape::Table { columns, .. }) => (block.rows, columns, 1),
            };
            if block.data.is_empty() {
                continue;
            }
            let in_file = &sample[&*block.source.name];
            for (row, words) in block.data.chunks_exact(block.data.len() / rows).enumerate() {
                let values = if skipped == 0 { in_file } else { &in_file.list()[row] };
                for (field, word) in
                    fields.iter().zip(&words[skipped..]).filter(|(field, _)| !field.extra)
                {
                    let expected = match field.kind {
                        Kind::Unsigned => Value::Int((*word).into()),
                        Kind::Signed => Value::Int(word.cast_signed().into()),
                        Kind::Hundredths => Value::Float(*word as f64 / 100.0),
                    };
                    let Some(value) = values.get(&field.name) else { continue };
                    assert_eq!(*value, expected, "{} {}", block.source.name, field.name);
                    numbers += 1;
                }
            }
        }
        assert!(numbers > 0 || sample.has("errors"), "{sample:?}");
    }
}

/// An open ring, and its schema.
struct Opened {
    ring: Ring,
    schema: Arc<Schema>,
}

impl Opened {
    fn of(path: &Path) -> Option<Opened> {
        let ring = Ring::open(path).ok()?;
        let description: Description =
            serde_json::from_slice(&ring.description().unwrap()).unwrap();
        Some(Opened { ring, schema: description.schema.into() })
    }
}

/// Reads what a recorder writes, as it writes it.
struct Watcher<'w> {
    world: &'w World,
    ring: Option<Opened>,
    segment: u64,
    next: u64,
    seen: BTreeMap<u64, Seen>,
    at_stop: bool,
}

impl Watcher<'_> {
    fn new(world: &World) -> Watcher<'_> {
        Watcher { world, ring: None, segment: 0, next: 0, seen: BTreeMap::new(), at_stop: false }
    }

    fn poll(&mut self) {
        if self.ring.is_none() || !self.read_new() {
            self.open_next();
        }
    }

    /// Whether there was a record that it had not seen.
    fn read_new(&mut self) -> bool {
        let Some(Opened { ring, schema }) = &self.ring else { return false };
        let first = ring.header().first_seq;
        let mut words = Vec::new();
        let before = self.next;
        while let Some(slot) = ring.header().layout.slot_of(first, Seq(self.next)) {
            match ring.read_slot(slot, &mut words).unwrap() {
                SlotState::Valid(seq, _) if seq.0 >= self.next => {
                    let seen = Seen { words: words.clone(), schema: schema.clone() };
                    self.at_stop |= seen.common(Common::Flags) & 1 != 0;
                    self.seen.insert(seq.0, seen);
                    self.next = seq.0 + 1;
                }
                _ => break,
            }
        }
        self.next > before
    }

    /// The segment behind the one that is open. Others may be gone by now.
    fn open_next(&mut self) {
        let Some(run) = entries(&self.world.rings()).pop() else { return };
        let dir = self.world.rings().join(run);
        let number = |name: &String| name.strip_suffix(".ring")?.parse::<u64>().ok();
        let numbers = entries(&dir).iter().filter_map(number).collect::<Vec<_>>();
        let is_new = |number: &u64| self.ring.is_none() || *number > self.segment;
        let Some(next) = numbers.into_iter().find(is_new) else { return };
        if let Some(opened) = Opened::of(&dir.join(format!("{next:05}.ring"))) {
            self.next = opened.ring.header().first_seq.0.max(self.next);
            self.segment = next;
            self.ring = Some(opened);
        }
    }
}

/// All that the rings have after the kill, by number; and the numbers of those that were begun and
/// are not whole. A slot is only begun when its record is made and fits: in one segment, once.
fn in_rings(world: &World) -> (BTreeMap<u64, Seen>, BTreeSet<u64>) {
    let (mut records, mut begun) = (BTreeMap::new(), BTreeSet::new());
    let dirs = entries(&world.rings()).into_iter().map(|run| world.rings().join(run));
    let files = dirs.flat_map(|dir| entries(&dir).into_iter().map(move |name| dir.join(name)));
    for opened in files.filter_map(|path| Opened::of(&path)) {
        let mut words = Vec::new();
        for slot in 0..opened.ring.header().layout.slots {
            match opened.ring.read_slot(Slot(slot), &mut words).unwrap() {
                SlotState::Empty => {}
                SlotState::Valid(seq, _) => {
                    let seen = Seen { words: words.clone(), schema: opened.schema.clone() };
                    assert!(records.insert(seq.0, seen).is_none(), "record {seq:?} is there twice");
                }
                SlotState::Busy(seq) => _ = begun.insert(seq.0),
                SlotState::Torn => panic!("slot {slot} is torn"),
            }
        }
    }
    assert!(begun.iter().all(|seq| !records.contains_key(seq)), "begun twice: {begun:?}");
    (records, begun)
}

/// What came of all rounds.
#[derive(Default)]
struct Tally {
    phases: BTreeMap<Phase, u64>,
    without_samples: u64,
    files_were_there: u64,
    seen: u64,
    compared: u64,
    recovered: u64,
    in_flight: u64,
    segments: u64,
    lived_on: u64,
}

impl Tally {
    fn add(&mut self, one: Tally) {
        for (phase, count) in one.phases {
            *self.phases.entry(phase).or_default() += count;
        }
        self.without_samples += one.without_samples;
        self.files_were_there += one.files_were_there;
        self.seen += one.seen;
        self.compared += one.compared;
        self.recovered += one.recovered;
        self.in_flight += one.in_flight;
        self.segments += one.segments;
        self.lived_on += one.lived_on;
    }
}

/// A recorder, killed as planned, and what its watcher saw.
fn round(plan: Plan, tally: &Mutex<Tally>) {
    let world = World::new();
    let procfs = world.own_proc();
    let most = MAX_SAMPLES.to_string();
    let options = ["--interval", "1ms", "--max-samples", &most, "--sync-interval", "20ms"];
    let options = [&options[..], &["--procfs", procfs.to_str().unwrap()]].concat();
    let script = "echo begun; read -r line; echo \"$line\"";
    let mut cmd = if plan.wraps {
        world.run_sh(&options, script)
    } else {
        let duration = if plan.phase == Phase::End { "100ms" } else { "60s" };
        world.record(&[&options[..], &["--duration", duration]].concat())
    };
    let (input, mut to_command) = std::io::pipe().unwrap();
    let (mut from_command, output) = std::io::pipe().unwrap();
    let stderr = tempfile::tempfile().unwrap();
    cmd.command.stdin(input).stdout(output).stderr(stderr.try_clone().unwrap());
    let live = cmd.spawn(tempfile::tempfile().unwrap(), stderr);

    let mut watcher = Watcher::new(&world);
    watch(plan, &mut watcher, &mut to_command);
    live.kill();

    // Nothing changes any more, whatever the command does.
    let (records, begun) = in_rings(&world);
    let written = entries(&world.results());
    let has_file = written.iter().any(|name| name.ends_with("_timeseries.json"));
    let ids: BTreeSet<String> =
        [world.rings(), world.mirrors()].iter().flat_map(|dir| entries(dir)).collect();
    for id in &ids {
        world.looking(&["recover", id]).succeeds();
    }
    world.assert_no_rings();

    let mut lived_on = 0;
    if plan.wraps {
        // It had its standard input all the time, and hears only now what it waits for.
        let _ = to_command.write_all(b"lived on\n");
        drop(to_command);
        let mut said = String::new();
        from_command.read_to_string(&mut said).unwrap();
        match plan.phase {
            // Perhaps there was no command yet.
            Phase::Start | Phase::Recording | Phase::Roll => {
                assert!(["", "begun\nlived on\n"].contains(&&*said), "{said}");
            }
            Phase::End => assert_eq!(said, "begun\nend\n"),
        }
        lived_on = u64::from(said.ends_with("lived on\n"));
    }
    let mut outcome = Tally { lived_on, ..Tally::default() };
    outcome.phases.insert(plan.phase, 1);
    outcome.files_were_there = u64::from(has_file);
    outcome.segments = u64::from(watcher.ring.is_some()) + watcher.segment;
    outcome.seen = watcher.seen.len() as u64;
    if watcher.seen.is_empty() && records.is_empty() && !has_file {
        assert_eq!(entries(&world.results()), [""; 0]);
        outcome.without_samples = 1;
    } else {
        let records = (!has_file).then_some(&records);
        check_recovered(&world, &watcher.seen, records, &begun, &mut outcome);
    }
    tally.lock().unwrap().add(outcome);
}

/// Holds the recovered file against what was seen, and against the rings as they were found, unless
/// their file had been written before the kill and they may have been half removed.
fn check_recovered(
    world: &World,
    seen: &BTreeMap<u64, Seen>,
    records: Option<&BTreeMap<u64, Seen>>,
    begun: &BTreeSet<u64>,
    outcome: &mut Tally,
) {
    let files = world.files();
    let samples = files.samples();
    let summary = files.summary();
    let taken = summary["samples_taken"].int();
    let kept = samples.len() as u64;
    assert_eq!((summary["samples_lost"].int(), kept), (0, taken.min(MAX_SAMPLES)));
    let first = taken - kept;
    let sample_of = |seq: u64| &samples[usize::try_from(seq - first).unwrap()];
    for (seq, seen) in seen.range(first..) {
        seen.check(sample_of(*seq));
        outcome.compared += 1;
    }
    if let Some(records) = records {
        // Of those before `first` it is not known any more in which segment they were whole.
        let in_flight: Vec<_> = begun.range(first..).collect();
        assert!(in_flight.iter().all(|seq| **seq == taken), "{begun:?} of {taken} are not whole");
        outcome.in_flight = in_flight.len() as u64;
        assert_eq!(records.keys().next_back(), Some(&(taken - 1)));
        for seq in first..taken {
            records[&seq].check(sample_of(seq));
        }
        for (seq, seen) in seen.range(first..) {
            assert!(records[seq].words == seen.words, "record {seq} has changed");
        }
    }
    outcome.recovered = kept;
    check_ticks(samples, first == 0);
}

/// Each tick has a sample or is counted as missed.
fn check_ticks(samples: &[Value], from_the_start: bool) {
    let collections = || samples.iter().map(|sample| &sample["collection"]);
    if from_the_start {
        let first = &samples[0]["collection"];
        assert_eq!(first["tick"].int(), first["missed_ticks"].int());
    }
    for (before, after) in collections().zip(collections().skip(1)) {
        let step = |key| after[key].int() - before[key].int();
        let is_extra = after.get("extra").is_some_and(Value::bool);
        assert_eq!(
            step("tick"),
            u64::from(!is_extra) + step("missed_ticks"),
            "{before:?} {after:?}"
        );
    }
}

/// Watches, changes what the recorder reads, and returns at the instant of the kill.
fn watch(plan: Plan, watcher: &mut Watcher<'_>, to_command: &mut impl Write) {
    let procfs = watcher.world.path("proc");
    let loads = File::options().write(true).open(procfs.join("loadavg")).unwrap();
    let mut vmstat = File::options().append(true).open(procfs.join("vmstat")).unwrap();
    // The digit of "3/1871".
    let at = fs::read_to_string(procfs.join("loadavg")).unwrap().find('/').unwrap() as u64 - 1;
    let begun = Instant::now();
    let mut since = (plan.phase == Phase::Start).then_some(begun);
    let (mut changed, mut rolled) = (begun, begun);
    let (mut changes, mut rolls, mut was_told) = (0_u8, 0, false);
    loop {
        watcher.poll();
        let is_there = match plan.phase {
            Phase::Start => true,
            Phase::Recording => !watcher.seen.is_empty(),
            Phase::Roll => watcher.segment >= 2,
            Phase::End => watcher.at_stop,
        };
        if is_there && since.get_or_insert_with(Instant::now).elapsed() >= plan.delay {
            return;
        }
        assert!(begun.elapsed() < common::DEADLINE, "{plan:?}: it does not come so far");
        if changed.elapsed() >= CHANGE {
            changed = Instant::now();
            changes += 1;
            loads.write_all_at(&[b'0' + changes % 10], at).unwrap();
            changes %= 100;
        }
        if plan.phase == Phase::Roll && !watcher.seen.is_empty() && rolled.elapsed() >= ROLL {
            rolled = Instant::now();
            rolls += 1;
            writeln!(vmstat, "new_{rolls} 1").unwrap();
        }
        if plan.phase == Phase::End && watcher.seen.len() >= 50 && !was_told {
            was_told = true;
            to_command.write_all(b"end\n").unwrap();
        }
    }
}

#[test]
fn nothing_that_was_seen_is_lost_whenever_the_recorder_is_killed() {
    let (seed, count) = (seed(), rounds(50, 500));
    let since = Instant::now();
    let tally = Mutex::new(Tally::default());
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            // Only a number to be had once.
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let plan = Plan::of(seed, number);
            println!("round {number}: {plan:?}");
            round(plan, &tally);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    let Tally {
        phases,
        without_samples,
        files_were_there,
        seen,
        compared,
        recovered,
        in_flight,
        segments,
        lived_on,
    } = tally.into_inner().unwrap();
    println!(
        "{count} kills {phases:?}: {without_samples} before the first sample, {files_were_there} \
         with the file written; {seen} samples seen in {segments} segments, {compared} of them \
         compared, 0 lost; {recovered} recovered, 0 wrong; {in_flight} in flight; {lived_on} \
         commands lived on; {:.1} s",
        since.elapsed().as_secs_f64()
    );
    assert!(compared > 0 && lived_on > 0 && phases.len() == 4);
}
