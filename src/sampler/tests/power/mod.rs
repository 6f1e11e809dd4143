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

/// All that the sampler wrote, taken from its segments while it was there.
#[derive(Default)]
struct Truth {
    segments: Vec<Arc<Segment>>,
    /// By number, the segment and the words.
    records: BTreeMap<u64, (u64, Vec<u64>)>,
}

impl Truth {
    /// Takes what is new.
    fn look(&mut self) {
        let mut words = Vec::new();
        for segment in self.segments.iter().rev().take(2).rev() {
            let header = segment.header();
            loop {
                let next = Seq(self.records.len() as u64);
                let Some(slot) = header.layout.slot_of(header.first_seq, next) else { break };
                assert!(segment.copy_slot(slot, &mut words));
                let slots = header.layout.slots;
                match judge(&words, slot.0, slots, header.first_seq, header.seed()) {
                    SlotState::Valid(seq, _) if seq == next => {
                        let record = words[crate::ring::SLOT_HEAD_WORDS..].to_vec();
                        self.records.insert(seq.0, (header.segment, record));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// The copier, and what its thread would have in hand; the test says when it does what.
struct Hand {
    copier: Copier<Medium>,
    inbox: Receiver<Message>,
    told: VecDeque<Queued>,
    medium: Medium,
    truth: Arc<Mutex<Truth>>,
}

impl Hand {
    /// The sampler is about to take a sample at `now_ns`.
    fn look(&mut self, now_ns: u64) {
        let mut truth = self.truth.lock().unwrap();
        for message in self.inbox.try_iter() {
            let Message::Segment(queued, _) = message else { panic!("only segments are told of") };
            truth.segments.push(queued.upgrade().unwrap().segment);
            self.told.push_back(queued);
        }
        truth.look();
        self.medium.log(Event::Time(now_ns));
    }

    fn hear(&mut self) {
        if !self.told.is_empty() {
            self.told.drain(..).for_each(|queued| self.copier.add(queued));
            self.copier.mend();
            self.copier.copy();
        }
    }
}

/// Runs the sampler with a copier over the model; `wake` is asked at each deadline and returns
/// whether to go on.
fn cut_off(
    mut settings: SamplerSettings,
    mut wake: impl FnMut(u64, u64, &mut Hand) -> bool + Send,
) -> (Vec<Event>, Truth) {
    let (medium, truth) = (Medium::default(), Arc::new(Mutex::new(Truth::default())));
    let (sender, inbox) = unbounded();
    settings.plan.mirror_dir = Some(PathBuf::from("/the/model"));
    let max_samples = settings.plan.max_samples;
    let (its_medium, its_truth) = (medium.clone(), Arc::clone(&truth));
    // The file of the first segment is made while the sampler waits for it.
    let begun = std::thread::spawn(move || {
        let mut copier = Copier::new(its_medium.clone(), max_samples);
        let Ok(Message::Prepare(number, bytes, reply)) = inbox.recv() else { panic!("no file") };
        reply.send(copier.prepare(number, bytes)).unwrap();
        Hand { copier, inbox, told: VecDeque::new(), medium: its_medium, truth: its_truth }
    });
    let now_ns = Arc::new(AtomicU64::new(START_NS));
    let interval_ns = settings.plan.interval_ns;
    let (mut begun, mut hand) = (Some(begun), None);
    let script = move |number: u64| {
        let hand = hand.get_or_insert_with(|| begun.take().unwrap().join().unwrap());
        let now_ns = START_NS + number * interval_ns;
        hand.look(now_ns);
        wake(number, now_ns, hand).then_some(0)
    };
    let clock = FakeClock { now_ns, wakes: 0, script };
    let feed = Some(MirrorFeed::over(sender));
    let (sleeper, _) = Sleeper::begin(settings, clock, Control::default(), feed, None).unwrap();
    assert_eq!(sleeper.run().notes, Vec::<String>::new());
    let mut truth = std::mem::take(&mut *truth.lock().unwrap());
    truth.look();
    (medium.take_log(), truth)
}

/// Disks that `wake` finds, with their values: a new name now and then, an old one gone.
fn disks_at(wake: u64) -> Vec<(u32, u32, String, u64)> {
    let oldest = (wake / 4).saturating_sub(3);
    (oldest..=wake / 4).map(|dm| (253, dm as u32, format!("dm-{dm}"), wake)).collect()
}

/// Somebody else cuts off, overwrites or deletes a file, mostly the newest: on the edges of its parts, or
/// anywhere.
fn spoil(rng: &mut Rng, hand: &Hand) {
    let truth = hand.truth.lock().unwrap();
    let back = if rng.one_in(3) { rng.below(truth.segments.len() as u64) as usize } else { 0 };
    let segment = &truth.segments[truth.segments.len() - 1 - back];
    let (name, head) = (file_name(segment.header().segment), size_of_val(segment.head()) as u64);
    let layout = segment.header().layout;
    let Some(len) = hand.medium.len(&name) else { return };
    let sectors = |bytes: u64| bytes.div_ceil(SECTOR as u64);
    let how = rng.below(5);
    let mut at_sector = |from: u64| {
        let edges = [from, sectors(head), sectors(len) - 1];
        let edge = rng.below(6) as usize;
        let anywhere = from + rng.below(sectors(len) - from);
        edges.get(edge).copied().unwrap_or(anywhere) * SECTOR as u64
    };
    match how {
        0 => hand.medium.delete(name),
        1 | 2 => hand.medium.cut_off(name, at_sector(0)),
        3 => hand.medium.overwrite(name, 0..at_sector(1), layout),
        _ => {
            let end = at_sector(1);
            let [text, names] = [ring::HEADER_BYTES, layout.dictionary_offset];
            let edges = [text, text, names, names, layout.slots_offset];
            let edge = edges.get(rng.below(6) as usize).map(|edge| edge.0 / SECTOR as u64);
            let from = edge.unwrap_or_else(|| rng.below(sectors(len))) * SECTOR as u64;
            let few = (from + (1 + rng.below(4)) * SECTOR as u64).min(len);
            let end = if end > from && rng.one_in(2) { end } else { few };
            hand.medium.overwrite(name, from..end, layout);
        }
    }
}

/// What goes wrong in a scenario beside what others do.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Faults {
    None,
    /// Syncs fail, and files cannot be made.
    Syncs,
    /// Writes are refused as well: what was refused is not written again.
    Writes,
}

/// A run whose copier comes when it pleases: in time, late, or not for laps.
fn scenario(rng: &mut Rng, faults: Faults) -> (Vec<Event>, Truth) {
    let host = Host::new();
    let max_samples = 1 + rng.below(12);
    let mut settings = host.settings(max_samples);
    settings.plan.spare_slots = 3 + rng.below(9);
    let ticks = 40 + rng.below(80);
    let (hears, copies, syncs) = (1 + rng.below(4), 1 + rng.below(6), 1 + rng.below(8));
    let new_layouts: BTreeSet<u64> = (0..rng.below(6)).map(|_| 1 + rng.below(ticks)).collect();
    let mut away_until = 0;
    let rng = &mut *rng;
    cut_off(settings, move |wake, _, hand| {
        let disks = disks_at(wake);
        let disks: Vec<_> = disks.iter().map(|(a, b, name, v)| (*a, *b, &name[..], *v)).collect();
        host.disks(&disks);
        if new_layouts.contains(&wake) {
            host.write("vmstat", &format!("counter_{wake} {wake}\n"));
        }
        if rng.one_in(40) {
            away_until = wake + rng.below(40);
        }
        if wake >= away_until {
            if rng.one_in(hears) {
                hand.hear();
            }
            if faults >= Faults::Syncs && rng.one_in(6) {
                hand.medium.fail_next_sync();
            }
            if faults >= Faults::Syncs && rng.one_in(12) {
                hand.medium.fail_next_create();
            }
            if faults >= Faults::Writes && rng.one_in(12) {
                hand.medium.refuse_writes(rng.below(8));
            }
            if rng.one_in(60) {
                spoil(rng, hand);
                if faults >= Faults::Syncs && rng.one_in(2) {
                    hand.medium.fail_next_sync();
                }
            }
            if hand.told.is_empty() && rng.one_in(copies) {
                hand.copier.mend();
                hand.copier.copy();
                if rng.one_in(syncs) {
                    hand.copier.sync();
                }
            }
        }
        if wake == ticks {
            hand.medium.fail_no_more();
            hand.hear();
            hand.copier.mend_wholly();
            hand.copier.copy();
            hand.copier.sync();
            let end = hand.truth.lock().unwrap().records.len() as u64;
            if faults < Faults::Writes {
                hand.medium.log(Event::Settled(end));
            }
        }
        wake < ticks
    })
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
    let found = [(9, 874), (9, 6664)].into_iter();
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
