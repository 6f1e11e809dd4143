//! A host whose devices come, go, are renamed and take each other's numbers and names between any
//! two samples, whose texts repeat and leave out lines as those do that are read in pieces: every
//! sample is exactly what the text said.

use super::*;
use std::collections::HashSet;

#[path = "../../../tests/common/random.rs"]
mod random;
use random::Random;

/// Changes of devices in one run.
const CHANGES: u64 = 12_000;
const MOST_DEVICES: usize = 300;

/// A device; its counters say which one it is.
#[derive(Clone)]
struct Device {
    major: u32,
    minor: u32,
    name: String,
    counts: u64,
}

/// What a host has, and how many times that has changed.
struct Devices {
    random: Random,
    made: u64,
    changes: u64,
    alive: Vec<Device>,
    gone: Vec<Device>,
}

impl Devices {
    fn add(&mut self) {
        self.made += 1;
        let made = self.made;
        let mut device = Device {
            major: 259,
            minor: made as u32,
            name: format!("nvme{made}n1"),
            counts: made * 1_000_000,
        };
        // Number, name or both of one that is gone.
        if !self.gone.is_empty() && self.random.once_in(3) {
            let place = self.random.below(self.gone.len() as u64) as usize;
            let old = self.gone.swap_remove(place);
            let what = self.random.below(3);
            if what != 0 {
                device.name = old.name;
            }
            if what != 1 {
                (device.major, device.minor) = (old.major, old.minor);
            }
        }
        let is_taken = self.alive.iter().any(|other| {
            other.name == device.name || (other.major, other.minor) == (device.major, device.minor)
        });
        if !is_taken {
            let place = self.random.below(self.alive.len() as u64 + 1) as usize;
            self.alive.insert(place, device);
            self.changes += 1;
        }
    }

    fn remove(&mut self) {
        if !self.alive.is_empty() {
            let place = self.random.below(self.alive.len() as u64) as usize;
            self.gone.push(self.alive.remove(place));
            self.changes += 1;
        }
    }

    fn rename(&mut self) {
        if !self.alive.is_empty() {
            let place = self.random.below(self.alive.len() as u64) as usize;
            self.made += 1;
            self.alive[place].name = format!("renamed{}", self.made);
            self.changes += 1;
        }
    }

    /// Lets the host change, a little or a lot, and its counters count.
    fn step(&mut self) {
        let many = if self.random.once_in(40) { MOST_DEVICES as u64 } else { 12 };
        for _ in 0..self.random.below(many) {
            match self.random.below(9) {
                0..4 if self.alive.len() < MOST_DEVICES => self.add(),
                8 => self.rename(),
                _ => self.remove(),
            }
        }
        for device in &mut self.alive {
            device.counts += 1;
        }
    }

    /// The lines of a text that was read in pieces: some repeated, with later counts.
    fn lines(&mut self) -> Vec<Device> {
        let mut lines = self.alive.clone();
        if self.random.once_in(4) && !lines.is_empty() {
            let place = self.random.below(lines.len() as u64) as usize;
            let mut again = lines[place].clone();
            again.counts += 500;
            lines.insert(place + 1, again);
        }
        if self.random.once_in(4) && !lines.is_empty() {
            let place = self.random.below(lines.len() as u64) as usize;
            lines.remove(place);
        }
        lines
    }
}

/// Name and count of each line, the first of those that are repeated.
fn expected(lines: &[Device], is_disk: bool) -> Vec<(String, i128)> {
    let mut met = HashSet::new();
    let firsts = lines.iter().filter(|line| {
        let numbers = if is_disk { (line.major, line.minor) } else { (0, 0) };
        met.insert((numbers, &line.name))
    });
    firsts.map(|line| (line.name.clone(), line.counts.into())).collect()
}

#[test]
fn twelve_thousand_changes_leave_every_value_with_its_device() {
    let seeds = if std::env::var_os("RINGSTAT_LONG").is_some() { 1..=10 } else { 1..=1 };
    for seed in seeds {
        let host = Host::new();
        host.disks(&[]);
        host.interfaces(&[]);
        let new = |seed| Devices {
            random: Random(seed),
            made: 0,
            changes: 0,
            alive: Vec::new(),
            gone: Vec::new(),
        };
        let (mut disks, mut links) = (new(seed), new(seed + 100));
        let none = (Vec::new(), Vec::new());
        let mut samples_expected = vec![none];
        let segments = host.record(20_000, |_| {
            let is_over = disks.changes + links.changes >= CHANGES;
            if !is_over {
                disks.step();
                links.step();
                let (disks, links) = (disks.lines(), links.lines());
                let listed: Vec<_> = disks
                    .iter()
                    .map(|of| (of.major, of.minor, of.name.as_str(), of.counts))
                    .collect();
                host.disks(&listed);
                let listed: Vec<_> = links.iter().map(|of| (of.name.as_str(), of.counts)).collect();
                host.interfaces(&listed);
                samples_expected.push((expected(&disks, true), expected(&links, false)));
            }
            (!is_over).then_some(0)
        });
        samples_expected.push(samples_expected[samples_expected.len() - 1].clone());
        let samples = samples(&segments);
        assert_eq!(samples.len(), samples_expected.len());
        for (tick, (sample, (disks, links))) in samples.iter().zip(&samples_expected).enumerate() {
            assert_eq!(sample.errors, None, "sample {tick}");
            let found = sample.diskstats.as_ref().unwrap().iter().map(|disk| {
                // The first column and the last: a row is whole.
                assert_eq!(Some(disk.reads_completed), disk.time_flushing_ms);
                (disk.device_name.clone(), disk.reads_completed)
            });
            assert_eq!(&found.collect::<Vec<_>>(), disks, "sample {tick}");
            let found = sample.netdev.as_ref().unwrap().iter().map(|of| {
                assert_eq!(of.rx_bytes, of.tx_compressed);
                (of.interface_name.clone(), of.rx_bytes)
            });
            assert_eq!(&found.collect::<Vec<_>>(), links, "sample {tick}");
        }
        println!("seed {seed}: {} samples, {} segments", samples.len(), segments.len());
        assert!((3..12).contains(&segments.len()), "{} segments", segments.len());
    }
}
