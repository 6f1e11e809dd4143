//! What a power cut must leave, and a scenario that is held against it step by step.

use super::*;

/// What no power cut may cost.
#[derive(Default)]
pub struct Promise {
    /// Those of the newest `max_samples` that are durable, in files that recover can open.
    pub records: BTreeSet<u64>,
    /// The first of the newest `max_samples`. It does not go back: what newer durable records have
    /// let go of may be overwritten at once, and is not promised again when others take those.
    pub from: u64,
    /// By file that is surely there, how many of its names are durable.
    pub names: BTreeMap<String, usize>,
    /// Where records are that are durable, also in files whose head others have spoiled: it is made
    /// again. By number, the file and the bytes.
    pub places: BTreeMap<u64, (String, Range<usize>)>,
    /// Files whose names others have overwritten: until they are made whole again, their records may be
    /// shown without rows.
    pub without_rows: BTreeSet<String>,
}

/// Where record `seq` is in the file of its segment, with so many words.
fn place_of(header: &Header, seq: u64, words: usize) -> Range<usize> {
    let Header { layout, first_seq, .. } = header;
    let begin = layout.slot_offset(layout.slot_of(*first_seq, Seq(seq)).unwrap()).0 as usize;
    begin..begin + (ring::SLOT_HEAD_WORDS + words) * size_of::<u64>()
}

impl Promise {
    /// Of files of which nothing was promised before.
    pub fn of(files: &BTreeMap<String, Content>, truth: &Truth, max_samples: u64) -> Promise {
        let (mut promise, mut end) = (Promise::default(), 0);
        for (name, content) in files.iter().filter(|(_, content)| content.is_there()) {
            let is_its = |it: &&Arc<Segment>| file_name(it.header().segment) == *name;
            let segment = truth.segments.iter().find(is_its).unwrap();
            let head: Vec<u64> =
                segment.head().iter().map(|word| word.load(Ordering::Relaxed)).collect();
            let mut bytes = content.durable.clone();
            bytes[..size_of_val(&head[..])].copy_from_slice(bytemuck::cast_slice(&head));
            let ring = bytes_of(name, bytes).unwrap();
            let mut records = records_of(&ring, truth);
            for seq in &records {
                let bytes = place_of(ring.header(), *seq, truth.records[seq].1.len());
                promise.places.insert(*seq, (name.clone(), bytes));
            }
            end = end.max(content.taken_end);
            if content.lacks_names {
                promise.without_rows.insert(name.clone());
            }
            if content.is_begun() {
                promise.records.append(&mut records);
                promise.names.insert(name.clone(), names_of(&ring, truth));
            }
        }
        let end = promise.places.keys().last().map_or(end, |newest| end.max(newest + 1));
        promise.keep_from(end.saturating_sub(max_samples));
        promise
    }

    pub fn keep_from(&mut self, from: u64) {
        self.from = self.from.max(from);
        self.records = self.records.split_off(&self.from);
        self.places = self.places.split_off(&self.from);
    }

    /// After `event`. What was ever durable and is to be kept is still so: a sync, and nothing else,
    /// moves the window on; and what others take from a file is all that is gone with it.
    ///
    /// # Errors
    /// What is lost.
    pub fn step(&mut self, event: &Event, replay: &Replay, truth: &Truth) -> Result<(), String> {
        if event.changes_what_is_durable() {
            let max_samples = truth.segments[0].header().max_samples;
            let mut now = Promise::of(&replay.files, truth, max_samples);
            now.keep_from(self.from);
            let is_taken = |name: &String| event.spoils() == Some(name);
            let mut earlier = self.places.iter().filter(|(seq, (name, _))| {
                **seq >= now.from && !is_taken(name) && !now.places.contains_key(seq)
            });
            if let Some((seq, (name, _))) = earlier.next() {
                return Err(format!("record {seq} of {name} was durable"));
            }
            *self = now;
        }
        if let Event::Settled(end) = event {
            let max_samples = truth.segments[0].header().max_samples;
            let mut wanted = end.saturating_sub(max_samples)..*end;
            // But for slots that others have overwritten, and nothing else: the ring has those.
            let is_untold = |seq: &u64| {
                let (segment, words) = &truth.records[seq];
                let place = place_of(truth.segments[*segment as usize].header(), *seq, words.len());
                replay.files.get(&file_name(*segment)).is_some_and(|file| file.is_untold(&place))
            };
            if let Some(seq) = wanted.find(|seq| !self.records.contains(seq) && !is_untold(seq)) {
                return Err(format!("record {seq} is not durable at the end"));
            }
            for (name, found) in &self.names {
                let is_its = |it: &&Arc<Segment>| file_name(it.header().segment) == *name;
                let segment = truth.segments.iter().find(is_its).unwrap();
                let entries = (0..segment.entries_used()).map(|entry| segment.copy_entry(entry));
                let written = entries.filter(|entry| entry[3] < *end).count();
                if *found < written {
                    return Err(format!("{found} names of {written} in {name} at the end"));
                }
            }
        }
        let mut places = self.places.iter();
        match places.find(|(_, (name, bytes))| replay.files[name].is_at_risk(bytes)) {
            Some((seq, (name, _))) => Err(format!("record {seq} of {name} is being overwritten")),
            None => Ok(()),
        }
    }
}

/// A scenario, step by step.
pub struct Walk {
    pub name: String,
    pub faults: Faults,
    pub log: Vec<Event>,
    pub truth: Truth,
    pub replay: Replay,
    pub promise: Promise,
    pub at: usize,
}

impl Walk {
    /// Scenario `number` of `seed`, before its first step, and the numbers to go on with.
    pub fn begin(seed: u64, number: u64) -> (Walk, Rng) {
        let mut rng = Rng(seed.wrapping_add(number));
        let faults = [Faults::None, Faults::Syncs, Faults::None, Faults::Syncs, Faults::Writes];
        let faults = faults[number as usize % faults.len()];
        let (log, truth) = scenario(&mut rng, faults);
        let (replay, promise) = (Replay::default(), Promise::default());
        let name = format!("seed {seed} scenario {number}");
        (Walk { name, faults, log, truth, replay, promise, at: 0 }, rng)
    }

    /// Goes on to step `end`; none on the way may leave anything unsynced where a promised record is.
    pub fn to(&mut self, end: usize) {
        while self.at < end {
            let event = &self.log[self.at];
            self.replay.step(event);
            self.at += 1;
            if let Err(lost) = self.promise.step(event, &self.replay, &self.truth) {
                let steps = self.log[..self.at].iter().enumerate();
                steps.for_each(|(number, step)| println!("{number:4} {step}"));
                panic!("{}: a cut after the last step: {lost}", self.name);
            }
        }
    }

    /// How often somebody has spoiled a file, and how often it was made whole again only after a sync
    /// that failed.
    pub fn spoiled(&self) -> (u64, u64) {
        let (mut spoiled, mut in_vain) = (0, 0);
        let mut broken: BTreeMap<&String, bool> = BTreeMap::new();
        for event in &self.log[..self.at] {
            match event {
                Event::FailedSync(name) => {
                    broken.entry(name).and_modify(|failed| *failed = true);
                }
                Event::SyncAll(name) => in_vain += u64::from(broken.remove(name) == Some(true)),
                event => {
                    if let Some(name) = event.spoils() {
                        spoiled += 1;
                        broken.insert(name, false);
                    }
                }
            }
        }
        (spoiled, in_vain)
    }
}
