//! All sources beside each other: what becomes of one never shows in another. All records of a segment
//! are made in the same words, and a source that has nothing new leaves its own as they are; another one
//! that grew, shrank, met a bad line or changed its layout may have stored to them meanwhile.

use super::power::{Rng, rounds, seed};
use super::*;
use std::collections::BTreeMap;

/// What `/proc` is to say.
struct Model {
    /// Major, minor, name, and what its counters say.
    disks: Vec<(u32, u32, String, u64)>,
    interfaces: Vec<(String, u64)>,
    vmstat: BTreeMap<String, u64>,
    meminfo: BTreeMap<String, u64>,
    load: u64,
    made: u64,
    /// By source, whether there is a line that is none.
    broken: [bool; 5],
    /// Whether the last disk and the last interface are listed twice.
    repeated: [bool; 2],
}

/// What a sample has of it.
#[derive(Debug, PartialEq)]
struct Shown {
    disks: Vec<(String, i128)>,
    interfaces: Vec<(String, i128)>,
    vmstat: Option<BTreeMap<String, i128>>,
    meminfo: Option<BTreeMap<String, i128>>,
    load: Option<f64>,
}

impl Model {
    fn new() -> Model {
        let scalars = |count: u64, name: &str| {
            (0..count).map(|nth| (format!("{name}{nth:02}"), nth)).collect()
        };
        let mut model = Model {
            disks: Vec::new(),
            interfaces: Vec::new(),
            vmstat: scalars(30, "pg"),
            meminfo: scalars(20, "Mem"),
            load: 1,
            made: 0,
            broken: [false; 5],
            repeated: [false; 2],
        };
        (0..4).for_each(|_| model.add());
        model
    }

    fn add(&mut self) {
        self.made += 1;
        let made = self.made;
        self.disks.push((253, made as u32, format!("dm-{made}"), 1000 * made));
        self.interfaces.push((format!("veth{made}"), 7000 * made));
    }

    /// Something happens, mostly to one source alone.
    fn step(&mut self, rng: &mut Rng) {
        self.broken = [(); 5].map(|()| rng.one_in(12));
        self.repeated = [(); 2].map(|()| rng.one_in(8));
        match rng.below(10) {
            0 => self.add(),
            1 if self.disks.len() > 1 => drop(self.disks.pop()),
            2 if self.interfaces.len() > 1 => drop(self.interfaces.pop()),
            // One for another: the count stays.
            3 | 4 => {
                let at = rng.below(self.disks.len() as u64) as usize;
                self.made += 1;
                self.disks[at] = (253, self.made as u32, format!("dm-{}", self.made), self.made);
            }
            5 => {
                let at = rng.below(self.interfaces.len() as u64) as usize;
                self.made += 1;
                self.interfaces[at] = (format!("veth{}", self.made), self.made);
            }
            6 => drop(self.vmstat.insert(format!("new{:02}", rng.below(4)), rng.below(100))),
            7 => *self.meminfo.values_mut().next().unwrap() += 1,
            8 => self.load += 1,
            _ => self.disks[0].3 += 1,
        }
    }

    fn write(&self, host: &Host) {
        let bad = |source: usize, line: &str| {
            if self.broken[source] { line.to_owned() } else { String::new() }
        };
        let rows = |values: &BTreeMap<String, u64>, end: &str| -> String {
            values
                .iter()
                .map(|(name, value)| format!("{name}{end}\n").replace("=", &value.to_string()))
                .collect()
        };
        host.write("vmstat", &(rows(&self.vmstat, " =") + &bad(0, "odd\n")));
        host.write("meminfo", &(rows(&self.meminfo, ":   = kB") + &bad(1, "odd\n")));
        let load = format!("{}.25 1.00 10.05 2/345 678\n", self.load);
        host.write("loadavg", if self.broken[2] { "odd\n" } else { &load });
        let again = |is_repeated: bool| usize::from(is_repeated);
        let disks = self.disks.iter().chain(self.disks.iter().rev().take(again(self.repeated[0])));
        host.disks(&disks.map(|(a, b, name, v)| (*a, *b, &name[..], *v)).collect::<Vec<_>>());
        let last = self.interfaces.iter().rev().take(again(self.repeated[1]));
        let interfaces = self.interfaces.iter().chain(last);
        host.interfaces(&interfaces.map(|(name, v)| (&name[..], *v)).collect::<Vec<_>>());
        for (source, file, line) in
            [(3, "diskstats", " 253 9999 odd 1 x\n"), (4, "net/dev", "  odd: 1 x\n")]
        {
            let text = fs::read_to_string(host.path().join(file)).unwrap();
            host.write(file, &(text + &bad(source, line)));
        }
    }

    fn shown(&self) -> Shown {
        let scalars = |source: usize, values: &BTreeMap<String, u64>| {
            let values = values.iter().map(|(name, value)| (name.clone(), i128::from(*value)));
            (!self.broken[source]).then(|| values.collect())
        };
        Shown {
            disks: self.disks.iter().map(|(.., name, v)| (name.clone(), i128::from(*v))).collect(),
            interfaces: self
                .interfaces
                .iter()
                .map(|(name, v)| (name.clone(), i128::from(*v)))
                .collect(),
            vmstat: scalars(0, &self.vmstat),
            meminfo: scalars(1, &self.meminfo),
            load: (!self.broken[2]).then_some(self.load as f64 + 0.25),
        }
    }
}

impl Shown {
    fn of(sample: &TimeSeriesSample) -> Shown {
        let disks = disks(sample).into_iter().map(|(name, value)| (name.to_owned(), value));
        let interfaces = sample.netdev.as_ref().unwrap().iter();
        let scalars = |values: &indexmap::IndexMap<String, i128>| {
            values.iter().map(|(name, value)| (name.clone(), *value)).collect()
        };
        Shown {
            disks: disks.collect(),
            interfaces: interfaces
                .map(|it| (it.interface_name.clone(), it.tx_compressed))
                .collect(),
            vmstat: sample.vmstat.as_ref().map(scalars),
            meminfo: sample.meminfo.as_ref().map(scalars),
            load: sample.loadavg.as_ref().map(|load| load.load_1min),
        }
    }
}

#[test]
fn what_becomes_of_one_source_never_shows_in_another() {
    let (seed, runs) = (seed(), rounds(20, 2000));
    let mut compared = 0;
    for run in 0..runs {
        let mut rng = Rng(seed.wrapping_add(run));
        let (host, mut model, mut expected) = (Host::new(), Model::new(), Vec::new());
        model.write(&host);
        expected.push(model.shown());
        let segments = host.record(100, |wake| {
            model.step(&mut rng);
            model.write(&host);
            expected.push(model.shown());
            (wake < 60).then_some(0)
        });
        for (tick, (sample, expected)) in samples(&segments).iter().zip(&expected).enumerate() {
            assert_eq!(Shown::of(sample), *expected, "seed {seed} run {run} sample {tick}");
            compared += 1;
        }
    }
    println!("{compared} samples of {runs} runs have what each source said");
    assert_eq!(compared, runs * 61);
}
