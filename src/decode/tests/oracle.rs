//! A sample as serde writes it, name by name, from the schema: slow, and plain to see.

use super::super::json_text::timestamp;
use super::super::names::Names;
use super::super::rings::Record;
use super::super::sample::SampleView;
use super::super::survey::{microseconds, text};
use super::super::timeseries::Collection;
use crate::record::{BlockView, Common, FLAG_AT_STOP, FLAG_EXTRA, RecordView, RowHead};
use crate::schema::{Field, Kind, Shape};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A record that serialises as a sample.
pub struct Oracle<'a>(SampleView<'a>);

impl<'a> Oracle<'a> {
    pub fn new(record: Record<'a>) -> Self {
        Oracle(SampleView::new(record))
    }
}

fn collection(view: &RecordView<'_>) -> Collection {
    let common = |which| view.common(which);
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

impl Serialize for Oracle<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Oracle(sample) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &timestamp(sample.view.common(Common::WallNs)))?;
        map.serialize_entry("hostname", sample.hostname)?;
        let values = |block, extra| Values { block, names: &sample.names, extra };
        for block in sample.published() {
            map.serialize_entry(&block.source.name, &values(block, false))?;
        }
        if !sample.errors.is_empty() {
            map.serialize_entry("errors", &Errors(&sample.errors))?;
        }
        map.serialize_entry("collection", &collection(&sample.view))?;
        for block in sample.unpublished() {
            map.serialize_entry(&block.source.name, &values(block, false))?;
        }
        for block in sample.all() {
            let mut fields = block.source.shape.iter().flat_map(|shape| shape.fields());
            if fields.any(|field| field.extra) {
                let key = format!("{}_extra", block.source.name);
                map.serialize_entry(&key, &values(block, true))?;
            }
        }
        map.end()
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
