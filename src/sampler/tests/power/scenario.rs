//! What happens to a copier in the model: the sampler runs, the copier comes when it pleases, the disk
//! refuses, and somebody else has a hand in the files. What must be left of it is `promise`'s.

use super::*;

/// All that the sampler wrote, taken from its segments while it was there.
#[derive(Default)]
pub struct Truth {
    pub segments: Vec<Arc<Segment>>,
    /// By number, the segment and the words.
    pub records: BTreeMap<u64, (u64, Vec<u64>)>,
}

impl Truth {
    /// Takes what is new.
    pub fn look(&mut self) {
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
pub struct Hand {
    pub copier: Copier<Medium>,
    pub inbox: Receiver<Message>,
    pub told: VecDeque<Queued>,
    pub medium: Medium,
    pub truth: Arc<Mutex<Truth>>,
}

impl Hand {
    /// The sampler is about to take a sample at `now_ns`.
    pub fn look(&mut self, now_ns: u64) {
        let mut truth = self.truth.lock().unwrap();
        for message in self.inbox.try_iter() {
            let Message::Segment(queued, _) = message else { panic!("only segments are told of") };
            truth.segments.push(queued.upgrade().unwrap().segment);
            self.told.push_back(queued);
        }
        truth.look();
        self.medium.log(Event::Time(now_ns));
    }

    pub fn hear(&mut self) {
        if !self.told.is_empty() {
            self.told.drain(..).for_each(|queued| self.copier.add(queued));
            self.copier.mend();
            self.copier.copy();
        }
    }
}

/// Runs the sampler with a copier over the model; `wake` is asked at each deadline and returns
/// whether to go on.
pub fn cut_off(
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
pub fn disks_at(wake: u64) -> Vec<(u32, u32, String, u64)> {
    let oldest = (wake / 4).saturating_sub(3);
    (oldest..=wake / 4).map(|dm| (253, dm as u32, format!("dm-{dm}"), wake)).collect()
}

/// Somebody else cuts off, overwrites or deletes a file, mostly the newest: on the edges of its parts, or
/// anywhere.
pub fn spoil(rng: &mut Rng, hand: &Hand) {
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
pub enum Faults {
    None,
    /// Syncs fail, and files cannot be made.
    Syncs,
    /// Writes are refused as well: what was refused is not written again.
    Writes,
}

/// A run whose copier comes when it pleases: in time, late, or not for laps.
pub fn scenario(rng: &mut Rng, faults: Faults) -> (Vec<Event>, Truth) {
    let host = Host::new();
    let max_samples = 1 + rng.below(12);
    let mut settings = host.settings(max_samples);
    settings.plan.spare_slots = 3 + rng.below(9);
    let ticks = 40 + rng.below(80);
    let (hears, copies, syncs) = (1 + rng.below(4), 1 + rng.below(6), 1 + rng.below(8));
    let new_layouts: BTreeSet<u64> = (0..rng.below(6)).map(|_| 1 + rng.below(ticks)).collect();
    let mut away_until = 0;
    let rng = &mut *rng;
    // In every third, something of others lies under the names of segments. Drawn apart from all else.
    let mut taking = Rng(!rng.0);
    let takes = taking.one_in(3);
    cut_off(settings, move |wake, _, hand| {
        let disks = disks_at(wake);
        let disks: Vec<_> = disks.iter().map(|(a, b, name, v)| (*a, *b, &name[..], *v)).collect();
        host.disks(&disks);
        if new_layouts.contains(&wake) {
            host.write("vmstat", &format!("counter_{wake} {wake}\n"));
        }
        if takes && taking.one_in(10) {
            let next = hand.truth.lock().unwrap().segments.len() as u64;
            hand.medium.take(file_name(next + taking.below(2)));
        }
        if takes && taking.one_in(20) {
            hand.medium.take_no_more();
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
