//! The time-series file, written as a stream: a head, the samples host by host, and what is known
//! beyond the format. Key order and number forms are those of the published format. The many samples
//! are written by `json_sample`; everything that is there once goes through serde.

use super::cluster::{ClusterDecoder, Sample};
use super::error::DecodeError;
use super::format::Format;
use super::hosts::HostError;
use super::json_sample::SampleWriter;
use super::json_text::{Buffer, Style, timestamp};
use super::timeseries::TimeSeriesSample;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io::{self, Write};

/// Indented by two spaces, as the reference writes it.
pub static JSON: Format = Format {
    name: "json",
    help: "Indented by two spaces",
    extension: "json",
    write: |all, out, progress| {
        let formatter = PrettyFormatter::with_indent(b"  ");
        Writer { out: Buffer::new(out), formatter, style: Style::Indented }.file(all, progress)
    },
};

/// Without any white space.
pub static JSON_COMPACT: Format = Format {
    name: "json-compact",
    help: "Without white space",
    extension: "json",
    write: |all, out, progress| {
        let formatter = CompactFormatter;
        Writer { out: Buffer::new(out), formatter, style: Style::Compact }.file(all, progress)
    },
};

/// How deep a sample lies in objects and lists.
pub(super) const SAMPLE_DEPTH: usize = 3;

/// Writes the outer objects by hand and what is small in them through serde: a stream of samples has
/// no place in a serde value, since reading the next one may fail.
struct Writer<'a, F> {
    out: Buffer<'a>,
    formatter: F,
    /// That of the formatter.
    style: Style,
}

impl<F: Formatter + Clone> Writer<'_, F> {
    fn file(
        mut self,
        all: &ClusterDecoder,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), DecodeError> {
        let written = all.written();
        let (start_wall_ns, end_wall_ns) = all.wall_ns();
        let hosts: Vec<&String> = written.summary.hosts.keys().collect();
        self.formatter.begin_object(&mut self.out)?;
        self.entry(true, "collection_interval_seconds", &written.interval_seconds)?;
        self.entry(false, "start_time", &timestamp(start_wall_ns))?;
        self.entry(false, "end_time", &timestamp(end_wall_ns))?;
        self.entry(false, "num_samples", &written.num_samples)?;
        self.key(false, "samples_by_host")?;
        self.formatter.begin_object(&mut self.out)?;
        let mut done = 0;
        for (index, host) in hosts.iter().enumerate() {
            self.key(index == 0, host)?;
            self.samples(all, index, &mut || {
                done += 1;
                progress(done, written.num_samples);
            })?;
            self.formatter.end_object_value(&mut self.out)?;
        }
        self.formatter.end_object(&mut self.out)?;
        self.formatter.end_object_value(&mut self.out)?;
        self.entry(false, "collection_method", all.run().collection_method.name())?;
        self.entry(false, "hosts_requested", &hosts)?;
        self.entry(false, "hosts_collected", &written.hosts_collected)?;
        self.entry(false, "ringstat", &*written.summary)?;
        self.formatter.end_object(&mut self.out)?;
        self.out.flush()?;
        Ok(())
    }

    fn samples(
        &mut self,
        all: &ClusterDecoder,
        host: usize,
        done: &mut dyn FnMut(),
    ) -> Result<(), DecodeError> {
        let mut writer = SampleWriter::new(self.style, SAMPLE_DEPTH);
        let mut is_first = true;
        self.formatter.begin_array(&mut self.out)?;
        all.each_sample(host, |sample| {
            self.formatter.begin_array_value(&mut self.out, is_first)?;
            match sample {
                Sample::Record(record) => writer.write(&mut self.out, record)?,
                Sample::Error(hostname, error) => self.value(&error_sample(hostname, error))?,
            }
            self.formatter.end_array_value(&mut self.out)?;
            is_first = false;
            done();
            Ok(())
        })?;
        self.formatter.end_array(&mut self.out)?;
        Ok(())
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

/// What went wrong with a host, as a sample.
fn error_sample(hostname: &str, error: &HostError) -> TimeSeriesSample {
    let errors = [(error.kind.name().to_owned(), error.message.clone())];
    TimeSeriesSample {
        timestamp: timestamp(error.time_unix_ns),
        hostname: hostname.to_owned(),
        errors: Some(errors.into_iter().collect()),
        ..TimeSeriesSample::default()
    }
}
