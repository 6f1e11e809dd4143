//! The time-series file, written as a stream: a head, the samples host by host, and what is known
//! beyond the format. Key order and number forms are those of the published format.

use super::cluster::{ClusterDecoder, Sample};
use super::format::Format;
use super::hosts::HostError;
use super::rings::DecodeError;
use super::sample::{SampleView, timestamp};
use super::timeseries::TimeSeriesSample;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io::{self, BufWriter, Write};

/// Indented by two spaces, as the reference writes it.
pub static JSON: Format = Format {
    name: "json",
    help: "Indented by two spaces",
    extension: "json",
    write: |all, out, progress| {
        let out = BufWriter::with_capacity(BUFFER_BYTES, out);
        Writer { out, formatter: PrettyFormatter::with_indent(b"  ") }.file(all, progress)
    },
};

/// Without any white space.
pub static JSON_COMPACT: Format = Format {
    name: "json-compact",
    help: "Without white space",
    extension: "json",
    write: |all, out, progress| {
        let out = BufWriter::with_capacity(BUFFER_BYTES, out);
        Writer { out, formatter: CompactFormatter }.file(all, progress)
    },
};

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes the outer objects by hand and everything in them through serde: a stream of samples has
/// no place in a serde value, since reading the next one may fail.
struct Writer<W, F> {
    out: W,
    formatter: F,
}

impl<W: Write, F: Formatter + Clone> Writer<W, F> {
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
        let mut is_first = true;
        self.formatter.begin_array(&mut self.out)?;
        all.each_sample(host, |sample| {
            self.formatter.begin_array_value(&mut self.out, is_first)?;
            match sample {
                Sample::Record(record) => self.value(&SampleView::new(record))?,
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
