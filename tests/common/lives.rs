//! What a test did to the devices of a host, and when; and samples held against that. A device's
//! life begins and ends at some moment between two that the test has noted, and so does whatever
//! its counters count.

use std::collections::{HashMap, HashSet};

/// Counters of one device that the test knows.
pub type Counts = [u64; 4];

/// `CLOCK_MONOTONIC`, ns.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub begin_ns: u64,
    pub end_ns: u64,
}

impl Span {
    /// When `act` was done.
    pub fn of<T>(act: impl FnOnce() -> T) -> (Span, T) {
        let begin_ns = now_ns();
        let result = act();
        (Span { begin_ns, end_ns: now_ns() }, result)
    }

    fn is_before(&self, other: &Span) -> bool {
        self.end_ns < other.begin_ns
    }
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// One device between its coming and its going.
#[derive(Debug)]
pub struct Life {
    pub name: String,
    pub born: Span,
    pub gone: Option<Span>,
    /// What was done, and the counts since then.
    pub counts: Vec<(Span, Counts)>,
}

impl Life {
    pub fn new(name: impl Into<String>, born: Span) -> Life {
        Life { name: name.into(), born, gone: None, counts: Vec::new() }
    }

    fn may_be_in(&self, window: &Span) -> bool {
        !window.is_before(&self.born) && !self.gone.is_some_and(|gone| gone.is_before(window))
    }

    fn is_throughout(&self, window: &Span) -> bool {
        self.born.is_before(window) && self.gone.is_none_or(|gone| window.is_before(&gone))
    }

    /// Whether it may be about to go in `window`: the kernel clears a disk's counters before it
    /// takes it off its list (`del_gendisk`).
    fn may_be_cleared(&self, window: &Span) -> bool {
        self.gone.is_some_and(|gone| !window.is_before(&gone))
    }

    /// The least and the most that the counters can be in `window`.
    fn bounds(&self, window: &Span) -> (Counts, Counts) {
        let newest = |is_done: &dyn Fn(&Span) -> bool| {
            let done = self.counts.iter().rev().find(|(span, _)| is_done(span));
            done.map_or([0; 4], |(_, counts)| *counts)
        };
        (newest(&|span| span.is_before(window)), newest(&|span| !window.is_before(span)))
    }
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Tally {
    pub samples: u64,
    pub rows: u64,
    /// Rows whose device was still, so that one value alone is right.
    pub exact: u64,
    /// Rows that two devices of one name may have had, one after the other.
    pub shared: u64,
    /// Devices that some sample has.
    pub seen: u64,
}

/// All that was done.
pub struct Lives {
    lives: Vec<Life>,
    by_name: HashMap<String, Vec<usize>>,
    newest: Vec<Option<Counts>>,
    tally: Tally,
}

impl Lives {
    pub fn new(mut lives: Vec<Life>) -> Lives {
        lives.sort_by_key(|life| life.born.begin_ns);
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, life) in lives.iter().enumerate() {
            by_name.entry(life.name.clone()).or_default().push(index);
        }
        let newest = vec![None; lives.len()];
        Lives { lives, by_name, newest, tally: Tally::default() }
    }

    /// How many times a device came or went.
    pub fn changes(&self) -> usize {
        self.lives.iter().map(|life| 1 + usize::from(life.gone.is_some())).sum()
    }

    /// Devices that took a name which another one had had.
    pub fn reused(&self) -> usize {
        self.lives.len() - self.by_name.len()
    }

    /// Holds the rows of one sample against what was done: each is of a device that was there, has
    /// its counts, and no device that was there all the time is left out. Samples come in order.
    pub fn check(&mut self, window: Span, rows: &[(&str, Counts)]) {
        let mut listed = HashSet::new();
        for (name, counts) in rows {
            assert!(listed.insert(*name), "{name} is there twice in {window:?}");
            self.check_row(&window, name, counts);
        }
        for life in self.lives.iter().filter(|life| life.is_throughout(&window)) {
            let is_listed = listed.contains(life.name.as_str());
            assert!(is_listed, "left out of {window:?}, which has {} rows: {life:?}", rows.len());
        }
        self.tally.samples += 1;
        self.tally.rows += rows.len() as u64;
    }

    fn check_row(&mut self, window: &Span, name: &str, counts: &Counts) {
        let of_this_name = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let there: Vec<usize> =
            of_this_name.iter().copied().filter(|at| self.lives[*at].may_be_in(window)).collect();
        let fits = |at: &&usize| {
            let (least, most) = self.lives[**at].bounds(window);
            let is_cleared = *counts == [0; 4] && self.lives[**at].may_be_cleared(window);
            let is_within = |which: usize| (least[which]..=most[which]).contains(&counts[which]);
            is_cleared || (0..4).all(is_within)
        };
        let lives = || there.iter().map(|at| &self.lives[*at]).collect::<Vec<_>>();
        let Some(fitting) = there.iter().find(fits) else {
            panic!("{name} has {counts:?} in {window:?}; there were {:#?}", lives());
        };
        let [only] = there[..] else {
            self.tally.shared += 1;
            return;
        };
        assert_eq!(only, *fitting);
        let before = self.newest[only].replace(*counts);
        self.tally.seen += u64::from(before.is_none());
        let before = before.unwrap_or_default();
        let is_cleared = *counts == [0; 4] && self.lives[only].may_be_cleared(window);
        let has_grown = is_cleared || (0..4).all(|which| before[which] <= counts[which]);
        assert!(has_grown, "{name} went from {before:?} to {counts:?} in {window:?}");
        let (least, most) = self.lives[only].bounds(window);
        self.tally.exact += u64::from(least == most);
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}
