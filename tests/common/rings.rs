//! Ring files that no host in reach could have recorded, written by the recorder's own code: a
//! million samples, the largest dictionary, clocks that were set.

use ringstat::fuzzing::{Common, RecordWriter, RowHead};
use ringstat::ring::{
    Blocks, Draft, Header, Layout, MIN_INTERVAL_NS, RingWriter, Segment, WordMap, allocate,
    description_check,
};
use ringstat::{
    Bytes, Description, Field, Kind, RunFacts, SamplerFacts, Schema, Seq, Shape, SourceSchema,
    SystemFacts, Words,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

pub const START_NS: u64 = 5_000_000_000;
/// 2026-01-02T03:04:05Z.
pub const WALL_NS: u64 = 1_767_323_045_000_000_000;

/// What a ring is to have.
pub struct Plan {
    pub sources: Vec<SourceSchema>,
    pub segment: u64,
    pub first_seq: u64,
    pub slots: u64,
    pub max_samples: u64,
    pub entries: u64,
    pub record_words: u64,
}

/// A source of scalars with these counters.
pub fn scalars(name: &str, fields: &[String]) -> SourceSchema {
    let fields = fields.iter().map(|name| Field::new(name, Kind::Unsigned).counting(64));
    let shape = Some(Shape::Scalars { fields: fields.collect() });
    SourceSchema { name: name.to_owned(), path: format!("/proc/{name}"), shape }
}

/// A source with a row for each device, with these counters.
pub fn table(name: &str, columns: &[&str]) -> SourceSchema {
    let columns = columns.iter().map(|name| Field::new(name, Kind::Unsigned).counting(64));
    let shape = Shape::Table { instance_key: "device_name".to_owned(), columns: columns.collect() };
    SourceSchema { name: name.to_owned(), path: format!("/proc/{name}"), shape: Some(shape) }
}

/// Makes the ring file `path`.
pub fn create(path: &Path, plan: &Plan) -> RingWriter {
    create_on(path, plan, "made", Uuid::from_u128(7))
}

/// Makes the ring file `path` of a run on the host of that name.
pub fn create_on(path: &Path, plan: &Plan, hostname: &str, run_id: Uuid) -> RingWriter {
    create_saying(path, plan, run_id, |description| description.hostname = hostname.to_owned())
}

/// Makes the ring file `path` of a run that describes itself as `change` has it.
pub fn create_saying(
    path: &Path,
    plan: &Plan,
    run_id: Uuid,
    change: impl FnOnce(&mut Description),
) -> RingWriter {
    let mut description = Description {
        ringstat: "0.1.0".to_owned(),
        hostname: String::new(),
        run: RunFacts { benchmark_type: "training".to_owned(), ..RunFacts::default() },
        system: SystemFacts::default(),
        sampler: SamplerFacts::default(),
        schema: Schema { sources: plan.sources.clone() },
    };
    change(&mut description);
    let description = serde_json::to_vec(&description).unwrap();
    let length = Bytes(description.len() as u64);
    let layout = Layout::new(length, plan.entries, Words(plan.record_words), plan.slots).unwrap();
    let header = Header {
        layout,
        description_check: description_check(&description),
        max_samples: plan.max_samples,
        run_id,
        segment: plan.segment,
        first_seq: Seq(plan.first_seq),
        start_wall_ns: WALL_NS,
        start_monotonic_ns: START_NS,
        interval_ns: MIN_INTERVAL_NS,
        boot_id: Uuid::from_u128(5),
    };
    let file = allocate(path, layout.file_bytes(), Blocks::Reserved).unwrap();
    let map = WordMap::of_file(&file, layout.file_bytes()).unwrap();
    RingWriter::new(Arc::new(Segment::create(Arc::new(map), header, &description).unwrap()))
}

/// The common words of sample `seq`, on time, with so many ticks missed before it.
pub fn common(seq: u64, missed: u64) -> [u64; 8] {
    let tick = seq + missed;
    let since_ns = tick * MIN_INTERVAL_NS;
    [tick, WALL_NS + since_ns, START_NS + since_ns, START_NS + since_ns + 1000, 0, missed, seq, 0]
}

/// Writes record `seq`: for each source how many fields or rows it has, and their words.
pub fn write(ring: &RingWriter, seq: u64, common: [u64; 8], blocks: &[(usize, &[u64])]) {
    const WORDS: [Common; 8] = [
        Common::Tick,
        Common::WallNs,
        Common::BeginNs,
        Common::EndNs,
        Common::LatenessNs,
        Common::MissedTicks,
        Common::CpuNs,
        Common::Flags,
    ];
    let draft = Draft::new(ring.segment().header().layout.record());
    let mut record = RecordWriter::new(draft.record(), blocks.len()).unwrap();
    for (which, value) in WORDS.into_iter().zip(common) {
        record.set(which, value);
    }
    for (count, words) in blocks {
        let mut block = record.block().unwrap();
        for (cell, word) in block.take(words.len()).unwrap().iter().zip(*words) {
            cell.store(*word, Ordering::Relaxed);
        }
        block.finish(*count, None);
    }
    let used = record.used_words();
    ring.begin(Seq(seq)).unwrap().commit_draft(&draft, used);
}

/// The word that begins a row.
pub fn row_head(entry: u32, columns: u32) -> u64 {
    RowHead { entry, columns }.to_word()
}
