//! A made-up host of ordinary size whose values move, and the ring files that a recorder would have
//! left of it.

use ringstat::fuzzing::{Common, RecordWriter, RowHead};
use ringstat::ring::{
    Blocks, Draft, Header, Layout, RingWriter, Segment, WordMap, allocate, description_check,
};
use ringstat::source::find;
use ringstat::{
    Bytes, Description, RunFacts, SamplerFacts, Schema, Seq, Shape, SourceSchema, SystemFacts,
    Words,
};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

const DISKS: [&str; 10] = [
    "nvme0n1",
    "nvme0n1p1",
    "nvme0n1p2",
    "nvme1n1",
    "nvme2n1",
    "sda",
    "sda1",
    "dm-0",
    "loop0",
    "md127",
];
const INTERFACES: [&str; 4] = ["lo", "eno1np0", "ib0", "docker0"];
/// `CLOCK_REALTIME` at the start: 2026-01-02T03:04:05Z.
const START_WALL_NS: u64 = 1_767_323_045_000_000_000;
const START_NS: u64 = 5_000_000_000;
/// 10 s.
pub const INTERVAL_NS: u64 = 10_000_000_000;
const AT_STOP: u64 = 1;

/// `/proc/vmstat` of 192 lines, with names as long as the kernel's.
fn vmstat() -> String {
    const STEMS: [&str; 8] =
        ["nr_", "pgalloc_", "pgsteal_", "thp_", "workingset_", "numa_", "compact_", "zswp_"];
    const NOUNS: [&str; 24] = [
        "free_pages",
        "inactive_anon",
        "active_anon",
        "inactive_file",
        "active_file",
        "dma32",
        "unevictable",
        "mlock",
        "bounce",
        "zspages",
        "hit",
        "miss",
        "foreign",
        "interleave",
        "local",
        "other",
        "mapped",
        "dirty",
        "writeback",
        "shmem",
        "written",
        "kswapd",
        "direct",
        "throttled",
    ];
    let mut text = String::new();
    for (stem, noun) in STEMS.iter().flat_map(|stem| NOUNS.map(|noun| (stem, noun))) {
        let _ = writeln!(text, "{stem}{noun} 0");
    }
    text
}

/// `/proc/meminfo` of 54 lines.
fn meminfo() -> String {
    const STEMS: [&str; 6] = ["Mem", "Swap", "Active", "Vmalloc", "Shmem", "Anon"];
    const NOUNS: [&str; 9] = [
        "Total",
        "Free",
        "Available",
        "Cached",
        "(file)",
        "PageTables",
        "HugePages",
        "Used",
        "Chunk",
    ];
    let mut text = String::new();
    for (stem, noun) in STEMS.iter().flat_map(|stem| NOUNS.map(|noun| (stem, noun))) {
        let _ = writeln!(text, "{stem}{noun}: 0 kB");
    }
    text
}

fn diskstats() -> String {
    let lines = DISKS
        .iter()
        .zip(0..)
        .map(|(name, minor)| format!(" 259 {minor:7} {name}{}\n", " 0".repeat(17)));
    lines.collect()
}

fn netdev() -> String {
    let mut text = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs \
         drop fifo colls carrier compressed\n",
    );
    for name in INTERFACES {
        let _ = writeln!(text, "{name}:{}", " 0".repeat(16));
    }
    text
}

/// Numbers from a seed (SplitMix64, Steele et al. 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

/// The values of one host: counters from zero to some 2^40 that grow at different rates.
struct Values {
    words: Vec<u64>,
    steps: Vec<u64>,
}

impl Values {
    fn new(count: usize, dice: &mut Dice) -> Values {
        let mut of_some_size = || {
            let bits = dice.next() % 40;
            dice.next() & ((1 << bits) - 1)
        };
        let words = (0..count).map(|_| of_some_size()).collect();
        // A third of a host's counters stand still.
        let steps =
            (0..count).map(|at| if at % 3 == 0 { 0 } else { of_some_size() >> 12 }).collect();
        Values { words, steps }
    }

    fn advance(&mut self, dice: &mut Dice) {
        for (word, step) in self.words.iter_mut().zip(&self.steps) {
            *word += if *step == 0 { 0 } else { dice.next() % (2 * step) };
        }
    }
}

/// Writes the ring file of host number `number` to `path`: so many samples at 10 s, the last one at
/// the stop.
pub fn record(path: &Path, number: u64, samples: u64) -> Result<(), Box<dyn Error>> {
    let texts = [
        ("diskstats", diskstats()),
        ("vmstat", vmstat()),
        ("meminfo", meminfo()),
        ("loadavg", "0.52 1.00 10.05 2/345 678\n".to_owned()),
        ("netdev", netdev()),
    ];
    let mut schema = Schema::default();
    let mut rows = Vec::new();
    for (name, text) in &texts {
        let def = find(name).ok_or("an unknown source")?;
        let probed = (def.probe)(text.as_bytes()).map_err(|fault| fault.describe(name))?;
        let path = format!("/proc/{}", def.file);
        rows.push(probed.rows);
        schema.sources.push(SourceSchema {
            name: (*name).to_owned(),
            path,
            shape: Some(probed.shape),
        });
    }
    let names: [&[&str]; 5] = [&DISKS, &[], &[], &[], &INTERFACES];
    let shapes: Vec<(Shape, usize)> =
        schema.sources.iter().filter_map(|source| source.shape.clone()).zip(rows).collect();
    let values: usize = shapes.iter().map(|(shape, rows)| shape.fields().len() * rows).sum();
    let description = serde_json::to_vec(&Description {
        ringstat: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: format!("node{number:03}"),
        run: RunFacts { benchmark_type: "training".to_owned(), ..RunFacts::default() },
        system: SystemFacts { kernel: "Linux 6.1.0-13-amd64".to_owned(), ..SystemFacts::default() },
        sampler: SamplerFacts { policy: "other".to_owned(), ..SamplerFacts::default() },
        schema,
    })?;
    let record = Words(values as u64 + 64);
    let length = Bytes(description.len() as u64);
    let layout = Layout::new(length, 64, record, samples + 1)?;
    let header = Header {
        layout,
        description_check: description_check(&description),
        max_samples: samples,
        run_id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)),
        segment: 0,
        first_seq: Seq(0),
        start_wall_ns: START_WALL_NS,
        start_monotonic_ns: START_NS,
        interval_ns: INTERVAL_NS,
        boot_id: Uuid::from_u128(5),
    };
    let file = allocate(path, layout.file_bytes(), Blocks::Reserved)?;
    let map = WordMap::of_file(&file, layout.file_bytes())?;
    let ring = RingWriter::new(Arc::new(Segment::create(Arc::new(map), header, &description)?));
    let mut dice = Dice(number);
    let mut all = Values::new(values, &mut dice);
    let draft = Draft::new(layout.record());
    for seq in 0..samples {
        if seq == 0 {
            for (source, name) in (0..)
                .zip(names)
                .flat_map(|(source, names)| names.iter().map(move |name| (source, name.as_bytes())))
            {
                let identity = if source == 0 { 259 << 32 } else { 0 };
                ring.add_entry(source, identity, Seq(0), name).ok_or("a full dictionary")?;
            }
        }
        let mut record =
            RecordWriter::new(draft.record(), shapes.len()).map_err(|_| "a small record")?;
        let since_ns = seq * INTERVAL_NS;
        let late_ns = 20_000 + dice.next() % 60_000;
        let begin_ns = START_NS + since_ns + late_ns;
        let flags = if seq + 1 == samples { AT_STOP } else { 0 };
        for (which, value) in [
            (Common::Tick, seq),
            (Common::WallNs, START_WALL_NS + since_ns + late_ns),
            (Common::BeginNs, begin_ns),
            (Common::EndNs, begin_ns + 110_000 + dice.next() % 90_000),
            (Common::LatenessNs, late_ns),
            (Common::MissedTicks, 0),
            (Common::CpuNs, seq * 137_000 + dice.next() % 9_000),
            (Common::Flags, flags),
        ] {
            record.set(which, value);
        }
        let mut rest = &all.words[..];
        let mut entry = 0;
        for (shape, rows) in &shapes {
            let columns = shape.fields().len();
            let mut block = record.block().map_err(|_| "a block too many")?;
            for _ in 0..*rows {
                let mut cells = block.take(shape.row_words()).map_err(|_| "a small record")?.iter();
                if matches!(shape, Shape::Table { .. }) {
                    let head = RowHead { entry, columns: columns as u32 };
                    cells
                        .next()
                        .ok_or("a row without a head")?
                        .store(head.to_word(), Ordering::Relaxed);
                    entry += 1;
                }
                let (row, others) = rest.split_at(columns);
                cells.zip(row).for_each(|(cell, word)| cell.store(*word, Ordering::Relaxed));
                rest = others;
            }
            let count = if matches!(shape, Shape::Table { .. }) { *rows } else { columns };
            block.finish(count, None);
        }
        let used = record.used_words();
        let slot = ring.begin(Seq(seq)).ok_or("a record before the first")?;
        slot.commit_draft(&draft, used);
        all.advance(&mut dice);
    }
    Ok(())
}
