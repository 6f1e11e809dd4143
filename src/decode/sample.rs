//! One record as a sample of the time-series file: a view that serialises itself, name by name,
//! from the schema. A source needs no code here, only its shape.

use super::names::Names;
use super::rings::Record;
use super::survey::{microseconds, text};
use super::timeseries::Collection;
use crate::fault::Fault;
use crate::record::{BlockView, Common, FLAG_AT_STOP, FLAG_EXTRA, RecordView, RowHead};
use crate::schema::{Field, Kind, Shape};
use chrono::DateTime;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// Sources of the published format, in its order; all others come behind `errors`.
const PUBLISHED: [&str; 5] = ["diskstats", "vmstat", "meminfo", "loadavg", "netdev"];

/// A record that serialises as a sample.
pub(super) struct SampleView<'a> {
    view: RecordView<'a>,
    hostname: &'a str,
    names: Names<'a>,
    errors: Vec<(&'a str, String)>,
    blocks: Vec<BlockView<'a>>,
}

impl<'a> SampleView<'a> {
    /// Reads the names that the record speaks of, and words its errors.
    pub fn new(record: Record<'a>) -> Self {
        let Record { view, description, names, .. } = record;
        let mut blocks: Vec<_> = view.blocks().collect();
        let place = |block: &BlockView<'_>| {
            PUBLISHED.iter().position(|name| *name == block.source.name).unwrap_or(usize::MAX)
        };
        // Stable: what is not published keeps the order of the schema.
        blocks.sort_by_key(place);
        let mut errors = Vec::new();
        for block in &blocks {
            let mut sentences = Vec::new();
            if block.fault_word != 0 {
                sentences.push(match Fault::from_word(block.fault_word) {
                    Some(fault) => fault.describe(&block.source.path),
                    None => format!("unknown error {:#x}", block.fault_word),
                });
            }
            if let Some(shape @ Shape::Table { .. }) = &block.source.shape {
                let mut nameless = 0;
                for row in block.data.chunks_exact(shape.row_words()) {
                    let entry = RowHead::from_word(row[0]).entry;
                    nameless += u64::from(names.get(block.index, entry).is_none());
                }
                if nameless > 0 {
                    sentences.push(format!(
                        "{nameless} rows are left out: their names are not in the ring"
                    ));
                }
            }
            if !sentences.is_empty() {
                errors.push((block.source.name.as_str(), sentences.join("; ")));
            }
        }
        SampleView { view, hostname: &description.hostname, names, errors, blocks }
    }

    fn collection(&self) -> Collection {
        let common = |which| self.view.common(which);
        let begin_ns = common(Common::BeginNs);
        let flags = common(Common::Flags);
        Collection {
            tick: common(Common::Tick),
            time_unix_ns: common(Common::WallNs),
            monotonic_ns: begin_ns,
            window_us: microseconds(common(Common::EndNs).saturating_sub(begin_ns)),
            lateness_us: microseconds(common(Common::LatenessNs)),
            missed_ticks: common(Common::MissedTicks),
            cpu_us: microseconds(common(Common::CpuNs)),
            at_stop: flags & FLAG_AT_STOP != 0,
            extra: flags & FLAG_EXTRA != 0,
        }
    }
}

impl Serialize for SampleView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &timestamp(self.view.common(Common::WallNs)))?;
        map.serialize_entry("hostname", self.hostname)?;
        let is_published = |block: &&BlockView<'_>| PUBLISHED.contains(&block.source.name.as_str());
        let blocks = || self.blocks.iter().filter(|block| has_values(block));
        let values = |block, extra| Values { block, names: &self.names, extra };
        for block in blocks().filter(is_published) {
            map.serialize_entry(&block.source.name, &values(block, false))?;
        }
        if !self.errors.is_empty() {
            map.serialize_entry("errors", &Errors(&self.errors))?;
        }
        map.serialize_entry("collection", &self.collection())?;
        for block in blocks().filter(|block| !is_published(block)) {
            map.serialize_entry(&block.source.name, &values(block, false))?;
        }
        for block in blocks() {
            let fields = block.source.shape.iter().flat_map(|shape| shape.fields());
            if fields.into_iter().any(|field| field.extra) {
                let key = format!("{}_extra", block.source.name);
                map.serialize_entry(&key, &values(block, true))?;
            }
        }
        map.end()
    }
}

/// An empty table that was read without an error is data: there were no devices.
fn has_values(block: &BlockView<'_>) -> bool {
    match &block.source.shape {
        None => false,
        Some(Shape::Scalars { .. }) => block.rows > 0,
        Some(Shape::Table { .. }) => block.rows > 0 || block.fault_word == 0,
    }
}

struct Errors<'a>(&'a [(&'a str, String)]);

impl Serialize for Errors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(source, sentence)| (source, sentence)))
    }
}

/// The values of one source: those of the published format, or those beyond it.
struct Values<'a> {
    block: &'a BlockView<'a>,
    names: &'a Names<'a>,
    extra: bool,
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.block.source.shape {
            None => serializer.serialize_unit(),
            Some(Shape::Scalars { fields }) => {
                let mut map = serializer.serialize_map(None)?;
                entries(&mut map, fields, self.block.data, self.extra)?;
                map.end()
            }
            Some(shape @ Shape::Table { instance_key, columns }) => {
                let mut list = serializer.serialize_seq(None)?;
                for row in self.block.data.chunks_exact(shape.row_words()) {
                    let head = RowHead::from_word(row[0]);
                    let Some(entry) = self.names.get(self.block.index, head.entry) else {
                        continue;
                    };
                    let present = columns.len().min(head.columns as usize);
                    if self.extra && !columns[..present].iter().any(|column| column.extra) {
                        continue;
                    }
                    list.serialize_element(&Row {
                        key: instance_key,
                        name: &text(&entry.name),
                        columns: &columns[..present],
                        words: &row[1..],
                        extra: self.extra,
                    })?;
                }
                list.end()
            }
        }
    }
}

struct Row<'a> {
    key: &'a str,
    name: &'a str,
    columns: &'a [Field],
    words: &'a [u64],
    extra: bool,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.key, self.name)?;
        entries(&mut map, self.columns, self.words, self.extra)?;
        map.end()
    }
}

fn entries<M: SerializeMap>(
    map: &mut M,
    fields: &[Field],
    words: &[u64],
    extra: bool,
) -> Result<(), M::Error> {
    for (field, word) in fields.iter().zip(words).filter(|(field, _)| field.extra == extra) {
        match field.kind {
            Kind::Unsigned => map.serialize_entry(&field.name, word)?,
            Kind::Signed => map.serialize_entry(&field.name, &word.cast_signed())?,
            Kind::Hundredths => map.serialize_entry(&field.name, &(*word as f64 / 100.0))?,
        }
    }
    Ok(())
}

/// `YYYY-MM-DDTHH:MM:SSZ`, UTC.
pub(super) fn timestamp(wall_ns: u64) -> String {
    let seconds = i64::try_from(wall_ns / 1_000_000_000).unwrap_or(i64::MAX);
    // Every u64 of ns is before the year 2555.
    DateTime::from_timestamp(seconds, 0)
        .map(|time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}
