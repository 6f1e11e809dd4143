//! Power cuts: the sampler and the mirror's copier as they are, over a model of the disk, cut off
//! anywhere. Every image is opened as `recover` opens a mirror whose ring is gone. No record is
//! accepted that the sampler did not write, and none is missing that was synced and is to be kept.
//! Beside the images, which are drawn, each step of the copier is held against all images that there
//! can be: nothing but what is durable may be where a promised record is. Now and then somebody else
//! cuts a file off, overwrites some of it or deletes it, and it is mended; but not if nothing but slots
//! was overwritten, which is then what a cut costs.

mod loss;
mod medium;
mod promise;
mod scenario;

use super::*;
use crate::ring::{self, Header, RingError, Segment, SlotState, judge};
use crate::sampler::copier::Copier;
use crate::sampler::copy::Queued;
use crate::sampler::mirror::{Message, MirrorFeed};
use crate::units::{Seq, Slot};
use crossbeam::channel::{Receiver, unbounded};
use medium::{Content, SECTOR};
pub use medium::{Event, Medium, Replay};
use promise::{Promise, Walk};
use scenario::{Faults, Truth, cut_off, disks_at, scenario};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Mutex;

/// Numbers that look random (SplitMix64, Steele et al. 2014).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A seed that is printed; RINGSTAT_SEED sets it.
pub fn seed() -> u64 {
    let given = std::env::var("RINGSTAT_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = given.unwrap_or(now.as_nanos() as u64);
    println!("RINGSTAT_SEED={seed}");
    seed
}

pub fn rounds(ci: u64, long: u64) -> u64 {
    if std::env::var_os("RINGSTAT_LONG").is_some() { long } else { ci }
}

fn bytes_of(name: &str, bytes: Vec<u8>) -> Result<Ring, RingError> {
    Ring::new(Box::new(bytes), Path::new(name))
}

/// The records of a ring, each of which must be one that the sampler wrote.
fn records_of(ring: &Ring, truth: &Truth) -> BTreeSet<u64> {
    let (mut found, mut words) = (BTreeSet::new(), Vec::new());
    let header = ring.header();
    for slot in 0..header.layout.slots {
        if let SlotState::Valid(seq, _) = ring.read_slot(Slot(slot), &mut words).unwrap() {
            let (segment, record) = truth.records.get(&seq.0).expect("a record nobody wrote");
            assert_eq!((*segment, record), (header.segment, &words), "record {}", seq.0);
            found.insert(seq.0);
        }
    }
    found
}

/// The names in a ring, each of which must be the sampler's.
fn names_of(ring: &Ring, truth: &Truth) -> usize {
    let segment = &truth.segments[ring.header().segment as usize];
    let written = |entry: &u32| segment.copy_entry(*entry)[0] != 0;
    let count = (0..).take_while(written).count() as u32;
    // Beyond those that were written nothing may verify.
    let names = (0..count + 8).filter(|index| {
        let entry = ring.entry(*index).unwrap();
        assert!(entry.is_none() || *index < count, "a name that nobody wrote");
        entry.is_some_and(|entry| {
            let words = segment.copy_entry(*index);
            let name: Vec<u8> = words[4..].iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(entry.name, name[..entry.name.len()]);
            assert_eq!((entry.identity, entry.first_seq.0), (words[2], words[3]));
            true
        })
    });
    names.count()
}

/// Opens what a cut has left, as `recover` does, and holds it against what was written.
/// The values are looked at if `values` says so, and then whether names that were refused may be missing.
fn check(
    image: BTreeMap<String, Vec<u8>>,
    truth: &Truth,
    promise: &Promise,
    values: Option<Faults>,
) -> u64 {
    let max_samples = truth.segments[0].header().max_samples;
    let (mut rings, mut found, mut torn, mut begun) = (Vec::new(), BTreeSet::new(), 0, 0);
    for (name, bytes) in image {
        match bytes_of(&name, bytes) {
            Ok(ring) => {
                let segment = &truth.segments[ring.header().segment as usize];
                assert_eq!(ring.header(), segment.header());
                let names = names_of(&ring, truth);
                assert!(names >= promise.names.get(&name).copied().unwrap_or(0), "{name}: names");
                found.append(&mut records_of(&ring, truth));
                let scan = ring.scan().unwrap();
                let slots = ring.header().layout.slots;
                assert_eq!(scan.valid + scan.empty + scan.busy + scan.torn, slots);
                torn += scan.torn;
                begun = begun.max(ring.header().first_seq.0);
                rings.push(ring);
            }
            Err(error) => assert!(!promise.names.contains_key(&name), "{name}: {error}"),
        }
    }
    let lost: Vec<_> = promise.records.difference(&found).collect();
    assert!(lost.is_empty(), "records {lost:?} were synced, and are not there");
    if rings.is_empty() {
        return 0;
    }
    let mut decoder = Decoder::new(rings).unwrap();
    let summary = decoder.summary().clone();
    // A segment that was begun and has nothing yet says that there were others before.
    let end = found.last().map_or(begun, |newest| begun.max(newest + 1));
    let from = found.last().map_or(end, |newest| newest + 1).saturating_sub(max_samples);
    let kept = found.range(from..).count() as u64;
    assert_eq!((summary.samples_taken, summary.samples_overwritten), (end, from));
    assert_eq!(summary.samples_kept, kept);
    assert_eq!(summary.samples_lost, end - from - kept);
    if summary.samples_kept > 0 {
        // An additional sample at the stop takes no tick.
        let extra =
            u64::from(summary.ended_cleanly && end + summary.ticks_missed > summary.ticks_elapsed);
        assert_eq!(end + summary.ticks_missed, summary.ticks_elapsed + extra, "ticks add up");
    }
    assert_eq!((summary.slots_torn, summary.ticks_inconsistent), (torn, 0));
    if let Some(faults) = values.filter(|_| kept > 0) {
        let data = decoder.data().unwrap();
        for sample in &data.samples_by_host["fake"] {
            let tick = sample.collection.as_ref().unwrap().tick;
            let shown: BTreeSet<_> = disks(sample).into_iter().collect();
            let disks = if tick == 0 { vec![(8, 0, "sda".into(), 1)] } else { disks_at(tick) };
            let there = disks.iter().map(|(.., name, value)| (&name[..], i128::from(*value)));
            let there: BTreeSet<_> = there.collect();
            assert!(shown.is_subset(&there), "tick {tick}: {shown:?} of {there:?}");
            let at_stop = sample.collection.as_ref().unwrap().at_stop;
            let seq = tick + u64::from(at_stop);
            let has_rows = |(name, _): &(String, _)| !promise.without_rows.contains(name);
            let has_rows = promise.places.get(&seq).is_some_and(has_rows);
            let has_names = promise.records.contains(&seq) && has_rows && faults < Faults::Writes;
            assert!(!has_names || shown == there, "tick {tick}: names");
        }
    }
    torn
}

#[test]
fn no_power_cut_costs_what_was_synced_or_makes_up_what_was_not_written() {
    let images = rounds(10_000, 200_000);
    let (seed, next, totals) = (seed(), AtomicU64::new(0), Mutex::new([0_u64; 5]));
    let (images_per_cut, cuts_per_scenario) = (10, 40);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number * images_per_cut * cuts_per_scenario >= images {
                break;
            }
            let (mut walk, mut rng) = Walk::begin(seed, number);
            let end = walk.log.len() as u64 + 1;
            let mut cuts: Vec<_> = (0..cuts_per_scenario).map(|_| rng.below(end)).collect();
            cuts.sort_unstable();
            for cut in cuts {
                walk.to(cut as usize);
                let Walk { replay, promise, truth, .. } = &walk;
                for nth in 0..images_per_cut {
                    let files = replay.files.iter().filter_map(|(name, content)| {
                        Some((name.clone(), content.image(&mut rng)?))
                    });
                    let values = (nth == 0).then_some(walk.faults);
                    let torn = check(files.collect(), truth, promise, values);
                    let pending: usize = replay.files.values().map(Content::pending_sectors).sum();
                    let mut totals = totals.lock().unwrap();
                    totals[0] += 1;
                    totals[1] += torn;
                    totals[2] += u64::from(pending > 0);
                    totals[3] += promise.records.len() as u64;
                }
            }
            totals.lock().unwrap()[4] += walk.spoiled().0;
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let [made, torn, pending, promised, spoiled] = *totals.lock().unwrap();
    println!(
        "{made} images, {pending} of them with unsynced sectors; {torn} torn slots passed over, \
         {promised} records promised and found, 0 wrong; {spoiled} times a mirror had been cut off, \
         overwritten or deleted by somebody else"
    );
    assert!(spoiled > 0);
    assert!(made >= images && pending > images / 3 && torn > images / 10 && promised > images);
}

#[test]
fn no_step_of_the_copier_is_where_a_promised_record_is() {
    let (seed, scenarios) = (seed(), rounds(60, 20_000));
    let (mut steps, mut spoiled, mut in_vain) = (0, 0, 0);
    // Those that a copier has failed come first.
    let found = [(9, 874), (9, 6664), (13, 716), (13, 922)].into_iter();
    for (seed, number) in found.chain((0..scenarios).map(|number| (seed, number))) {
        let (mut walk, _) = Walk::begin(seed, number);
        walk.to(walk.log.len());
        let (more, more_in_vain) = walk.spoiled();
        (steps, spoiled, in_vain) = (steps + walk.at, spoiled + more, in_vain + more_in_vain);
    }
    println!(
        "{scenarios} scenarios, {steps} steps, a mirror spoiled {spoiled} times and made again, \
         {in_vain} times only after a sync that failed: none lost, all durable at the end"
    );
    assert!(spoiled > 0 && in_vain > 0);
}

#[test]
fn whatever_others_overwrite_before_the_slots_is_made_again_at_the_next_copy() {
    // Of the layout, what is overwritten.
    let places: [fn(&ring::Layout) -> u64; 6] = [
        |_| 0,
        |_| ring::HEADER_BYTES.0,
        |layout| ring::HEADER_BYTES.0 + layout.description.0 / 2,
        |layout| ring::HEADER_BYTES.0 + layout.description.0 - 1,
        |layout| layout.entry_offset(0).0,
        |layout| layout.entry_offset(5).0,
    ];
    // A file that is written to, and one before it.
    for (place, number) in places.iter().flat_map(|place| [(place, 0), (place, 1)]) {
        let host = Host::new();
        let (log, truth) = cut_off(host.settings(100), |wake, _, hand| {
            hand.hear();
            let disks = disks_at(4 * wake);
            let disks: Vec<_> =
                disks.iter().map(|(a, b, name, v)| (*a, *b, &name[..], *v)).collect();
            host.disks(&disks);
            if wake == 8 {
                host.write("vmstat", "another 1\n");
            }
            if [7, 15, 17].contains(&wake) {
                hand.copier.mend();
                hand.copier.copy();
                hand.copier.sync();
            }
            if wake == 16 {
                let layout = hand.truth.lock().unwrap().segments[number].header().layout;
                let from = place(&layout) / SECTOR as u64 * SECTOR as u64;
                hand.medium.overwrite(file_name(number as u64), from..from + SECTOR as u64, layout);
            }
            wake < 18
        });
        let mut replay = Replay::default();
        log.iter().for_each(|event| replay.step(event));
        let (mut records, mut names) = (BTreeSet::new(), Vec::new());
        for (name, content) in &replay.files {
            let ring = bytes_of(name, content.durable.clone()).unwrap();
            records.append(&mut records_of(&ring, &truth));
            names.push(names_of(&ring, &truth));
        }
        assert_eq!(records, (0..17).collect());
        // An interface and the first disk, those of the first wake-up, and one for each of the next seven; an
        // interface and four disks, and one for each of eight.
        assert_eq!(names, [11, 13], "{number}");
    }
}

#[test]
fn what_somebody_has_stored_to_a_ring_holds_up_nothing_behind_it() {
    let host = Host::new();
    let (log, truth) = cut_off(host.settings(100), |wake, _, hand| {
        hand.hear();
        let disks = disks_at(4 * wake.min(4));
        let disks: Vec<_> = disks.iter().map(|(a, b, name, v)| (*a, *b, &name[..], *v)).collect();
        host.disks(&disks);
        if wake == 9 {
            let truth = hand.truth.lock().unwrap();
            let segment = truth.segments.last().unwrap();
            assert_eq!(segment.header().segment, 0);
            // One is torn, two are as if they had never been, and so is a name.
            segment.slot(Slot(3))[ring::SLOT_HEAD_WORDS].fetch_xor(1, Ordering::Relaxed);
            let entry = |index| segment.header().layout.entry_offset(index).words().0 as usize;
            let gone = segment.slot(Slot(5)).iter().chain(segment.slot(Slot(6)));
            let gone = gone.chain(&segment.words()[entry(2)..entry(3)]);
            gone.for_each(|word| word.store(0, Ordering::Relaxed));
        }
        if wake == 20 {
            hand.copier.copy();
            hand.copier.sync();
        }
        wake < 20
    });
    let mut replay = Replay::default();
    log.iter().for_each(|event| replay.step(event));
    let ring = bytes_of("00000.ring", replay.files["00000.ring"].durable.clone()).unwrap();
    let expected = (0..20).filter(|seq| ![3, 5, 6].contains(seq));
    assert_eq!(records_of(&ring, &truth), expected.collect());
    let has_name = |entry| ring.entry(entry).unwrap().is_some();
    assert_eq!([1, 2, 3, 4].map(has_name), [true, false, true, true]);
}

#[test]
fn what_was_refused_and_then_dropped_by_a_failed_sync_takes_no_promised_place() {
    let host = Host::new();
    let mut settings = host.settings(7);
    settings.plan.spare_slots = 3;
    let (log, truth) = cut_off(settings, |wake, _, hand| {
        hand.hear();
        // Records 20 to 22 are refused, each with its neighbours and alone; those behind them would
        // lie where the newest synced ones are, up to 30, which is written.
        let is_refused = (21..24).contains(&wake);
        hand.medium.refuse_writes(if is_refused { 2 } else { 0 });
        hand.copier.copy();
        if wake == 31 {
            hand.medium.fail_next_sync();
        }
        if !(21..31).contains(&wake) {
            hand.copier.sync();
        }
        wake < 50
    });
    let (mut replay, mut promise) = (Replay::default(), Promise::default());
    for event in &log {
        replay.step(event);
        assert_eq!(promise.step(event, &replay, &truth), Ok(()), "after {event}");
    }
    assert_eq!(promise.records, (43..50).collect());
}

#[test]
fn what_lies_under_the_name_of_a_segment_holds_up_none_behind_it() {
    let host = Host::new();
    let (log, truth) = cut_off(host.settings(100), |wake, _, hand| {
        if [4, 8, 12].contains(&wake) {
            host.write("vmstat", &format!("counter_{wake} {wake}\n"));
        }
        if wake == 2 {
            hand.medium.take(file_name(1));
            hand.medium.take(file_name(2));
        }
        if wake == 18 {
            hand.medium.take_no_more();
        }
        hand.hear();
        hand.copier.mend();
        hand.copier.copy();
        hand.copier.sync();
        wake < 20
    });
    assert_eq!(truth.segments.len(), 4);
    let (mut replay, mut promise) = (Replay::default(), Promise::default());
    for event in &log {
        replay.step(event);
        assert_eq!(promise.step(event, &replay, &truth), Ok(()), "after {event}");
        if let Event::Time(now_ns) = event {
            let wake = (now_ns - START_NS) / INTERVAL_NS;
            let first = |segment: usize| truth.segments[segment].header().first_seq.0;
            let is_there = |seq: &u64| wake > 18 || !(first(1)..first(3)).contains(seq);
            // What had been taken when it was copied, at the wake-up before.
            let expected: BTreeSet<u64> = (0..wake - 1).filter(is_there).collect();
            assert_eq!(promise.records, expected, "at wake-up {wake}");
        }
    }
}
