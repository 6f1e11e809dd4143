//! The time-series file, written as a stream: a head, the samples one by one, and what is known
//! beyond the format. Key order and number forms are those of the published format.

use super::facts::{ClockStep, HostSummary, RunSummary};
use super::format::Format;
use super::rings::{DecodeError, Rings};
use super::sample::{SampleView, timestamp};
use super::survey::Survey;
use crate::ring::FORMAT_VERSION;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io::{self, BufWriter, Write};

/// Indented by two spaces, as the reference writes it.
pub static JSON: Format = Format {
    name: "json",
    help: "Indented by two spaces",
    extension: "json",
    write: |rings, survey, out, progress| {
        write(PrettyFormatter::with_indent(b"  "), rings, survey, out, progress)
    },
};

/// Without any white space.
pub static JSON_COMPACT: Format = Format {
    name: "json-compact",
    help: "Without white space",
    extension: "json",
    write: |rings, survey, out, progress| write(CompactFormatter, rings, survey, out, progress),
};

/// What a written file says of itself, for metadata and messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Samples of all hosts.
    pub num_samples: u64,
    /// Time between two ticks, s.
    pub interval_seconds: f64,
    /// Hosts with data.
    pub hosts_collected: Vec<String>,
    /// The key `ringstat`.
    pub summary: RunSummary,
}

impl Written {
    /// What a reader of the file should know before relying on it, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.summary.hosts.values().flat_map(host_warnings).collect()
    }

    /// Samples taken but overwritten by newer ones, and ticks without a sample, of all hosts.
    pub fn overwritten_and_missed(&self) -> (u64, u64) {
        self.summary.hosts.values().fold((0, 0), |(overwritten, missed), host| {
            (overwritten + host.samples_overwritten, missed + host.ticks_missed)
        })
    }
}

fn host_warnings(host: &HostSummary) -> Vec<String> {
    let HostSummary { hostname, samples_kept: kept, ticks_inconsistent, .. } = host;
    let mut warnings = Vec::new();
    if *ticks_inconsistent > 0 {
        warnings.push(format!(
            "in {ticks_inconsistent} of {kept} samples of {hostname}, samples taken and ticks \
             missed are not the ticks that went by; please report this"
        ));
    }
    if let Some(ClockStep { tick, seconds }) = host.clock_steps.first() {
        let times = host.clock_steps_total;
        warnings.push(format!(
            "the wall clock of {hostname} was set or the host suspended, {times} times, first by \
             {seconds:+} s at tick {tick}; timestamps show it, ticks do not"
        ));
    }
    warnings.extend(host.errors.iter().map(|(source, count)| {
        format!("{source} has errors in {count} of {kept} samples of {hostname}; each says which")
    }));
    warnings
}

/// What a file of these rings says of itself.
pub(super) fn outline(rings: &Rings, survey: &Survey) -> Written {
    let header = rings.header();
    let host = rings.description().hostname.clone();
    let summary = RunSummary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ring_format: FORMAT_VERSION,
        run_id: header.run_id.to_string(),
        hosts: [(host.clone(), survey.summary.clone())].into_iter().collect(),
    };
    Written {
        num_samples: survey.summary.samples_kept,
        interval_seconds: header.interval_ns as f64 / 1e9,
        hosts_collected: survey.has_data.then_some(host).into_iter().collect(),
        summary,
    }
}

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 1 << 20;

fn write(
    formatter: impl Formatter + Clone,
    rings: &Rings,
    survey: &Survey,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Written, DecodeError> {
    let out = BufWriter::with_capacity(BUFFER_BYTES, out);
    Writer { out, formatter }.file(rings, survey, progress)
}

/// Writes the outer objects by hand and everything in them through serde: a stream of samples has
/// no place in a serde value, since reading the next one may fail.
struct Writer<W, F> {
    out: W,
    formatter: F,
}

impl<W: Write, F: Formatter + Clone> Writer<W, F> {
    fn file(
        mut self,
        rings: &Rings,
        survey: &Survey,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Written, DecodeError> {
        let start_wall_ns = rings.header().start_wall_ns;
        let host = rings.description().hostname.clone();
        let written = outline(rings, survey);
        self.formatter.begin_object(&mut self.out)?;
        self.entry(true, "collection_interval_seconds", &written.interval_seconds)?;
        self.entry(false, "start_time", &timestamp(start_wall_ns))?;
        self.entry(false, "end_time", &timestamp(survey.end_wall_ns))?;
        self.entry(false, "num_samples", &written.num_samples)?;
        self.key(false, "samples_by_host")?;
        self.formatter.begin_object(&mut self.out)?;
        self.key(true, &host)?;
        let count = self.samples(rings, written.num_samples, progress)?;
        self.formatter.end_object_value(&mut self.out)?;
        self.formatter.end_object(&mut self.out)?;
        self.formatter.end_object_value(&mut self.out)?;
        if count != written.num_samples {
            return Err(DecodeError::Changed { run: written.summary.run_id });
        }
        self.entry(false, "collection_method", "local")?;
        self.entry(false, "hosts_requested", &[&host])?;
        self.entry(false, "hosts_collected", &written.hosts_collected)?;
        self.entry(false, "ringstat", &written.summary)?;
        self.formatter.end_object(&mut self.out)?;
        self.out.flush()?;
        Ok(written)
    }

    fn samples(
        &mut self,
        rings: &Rings,
        total: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, DecodeError> {
        self.formatter.begin_array(&mut self.out)?;
        let mut count = 0;
        rings.each(|record| {
            self.formatter.begin_array_value(&mut self.out, count == 0)?;
            self.value(&SampleView::new(record))?;
            self.formatter.end_array_value(&mut self.out)?;
            count += 1;
            progress(count, total);
            Ok::<_, DecodeError>(())
        })?;
        self.formatter.end_array(&mut self.out)?;
        Ok(count)
    }

    fn key(&mut self, first: bool, key: &str) -> io::Result<()> {
        self.formatter.begin_object_key(&mut self.out, first)?;
        serde_json::to_writer(&mut self.out, key)?;
        self.formatter.end_object_key(&mut self.out)?;
        self.formatter.begin_object_value(&mut self.out)
    }

    fn entry(
        &mut self,
        first: bool,
        key: &str,
        value: &(impl Serialize + ?Sized),
    ) -> io::Result<()> {
        self.key(first, key)?;
        self.value(value)?;
        self.formatter.end_object_value(&mut self.out)
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
        let formatter = self.formatter.clone();
        let mut serializer = serde_json::Serializer::with_formatter(&mut self.out, formatter);
        value.serialize(&mut serializer).map_err(io::Error::from)
    }
}
