//! `ringstat info`: what rings hold, for people or as JSON.

use super::FAILED;
use super::args::InfoArgs;
use super::decode::gather;
use super::term;
use ringstat::{CounterDecreases, Decoder, Description, HostSummary, Shape};
use serde::Serialize;
use std::io::{self, Write};

/// All that is known of one run's rings.
#[derive(Serialize)]
struct Info<'a> {
    run_id: String,
    rings: Vec<String>,
    format_version: u64,
    slots: u64,
    slot_bytes: u64,
    max_samples: u64,
    interval_seconds: f64,
    health: Health,
    summary: &'a HostSummary,
    description: &'a Description,
}

/// Whether anything is wrong, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    /// Everything that was taken and not overwritten is there, and the run was stopped.
    Complete,
    /// Everything is there up to where the recording ended without having been stopped; or it
    /// still goes on.
    EndsWithoutStop,
    /// Samples are missing that should be there.
    Damaged,
}

pub fn main(args: &InfoArgs) -> u8 {
    let groups = match gather(&args.rings, &args.places, None) {
        Ok(groups) => groups,
        Err(error) => {
            term::error(error);
            return FAILED;
        }
    };
    let mut status = 0;
    for group in groups {
        let rings = group.rings.iter().map(|ring| ring.path().display().to_string()).collect();
        let result = match Decoder::new(group.rings) {
            Ok(decoder) => show(&decoder, rings, args.json),
            Err(error) => {
                term::error(error);
                status = FAILED;
                continue;
            }
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                term::error(format_args!("cannot write to standard output: {error}"));
                status = FAILED;
            }
            _ => {}
        }
    }
    status
}

fn show(decoder: &Decoder, rings: Vec<String>, json: bool) -> io::Result<()> {
    let header = decoder.header();
    let summary = decoder.summary();
    let info = Info {
        run_id: header.run_id.to_string(),
        rings,
        format_version: ringstat::ring::FORMAT_VERSION,
        slots: header.layout.slots,
        slot_bytes: header.layout.slot.bytes().0,
        max_samples: header.max_samples,
        interval_seconds: header.interval_ns as f64 / 1e9,
        health: health(summary),
        summary,
        description: decoder.description(),
    };
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &info)?;
        return writeln!(out);
    }
    text(&mut out, &info)
}

fn health(summary: &HostSummary) -> Health {
    if summary.samples_lost > 0 || summary.slots_torn > 0 || summary.ticks_inconsistent > 0 {
        Health::Damaged
    } else if summary.ended_cleanly {
        Health::Complete
    } else {
        Health::EndsWithoutStop
    }
}

fn text(out: &mut impl Write, info: &Info<'_>) -> io::Result<()> {
    let Info { summary, description, .. } = info;
    let health = match info.health {
        Health::Complete => "complete: stopped cleanly, nothing is missing",
        Health::EndsWithoutStop => "whole up to its end, but not stopped: dead, or still recording",
        Health::Damaged => "damaged: samples are missing that should be there",
    };
    writeln!(out, "run       {} ({})", info.run_id, description.run.benchmark_type)?;
    writeln!(out, "host      {}, {}", summary.hostname, summary.kernel)?;
    writeln!(out, "health    {health}")?;
    writeln!(
        out,
        "samples   {} kept of {} taken, {} overwritten, {} lost, {} torn slots",
        summary.samples_kept,
        summary.samples_taken,
        summary.samples_overwritten,
        summary.samples_lost,
        summary.slots_torn
    )?;
    writeln!(
        out,
        "ticks     {} elapsed at {} s, {} missed, {} gaps",
        summary.ticks_elapsed, info.interval_seconds, summary.ticks_missed, summary.gaps_total
    )?;
    for gap in summary.gaps.iter().take(10) {
        writeln!(out, "gap       {} ticks from tick {}", gap.ticks, gap.first_tick)?;
    }
    if summary.ticks_inconsistent > 0 {
        let count = summary.ticks_inconsistent;
        writeln!(out, "ticks     do not add up in {count} samples; please report this")?;
    }
    for step in summary.clock_steps.iter().take(10) {
        let (seconds, tick) = (step.seconds, step.tick);
        writeln!(out, "clock     moved by {seconds:+} s at tick {tick}: set, or host suspended")?;
    }
    for (source, decreases) in &summary.counter_decreases {
        writeln!(out, "counters  {}", decreased(source, decreases))?;
    }
    let cost = &summary.cost;
    writeln!(
        out,
        "lateness  p50 {} us, p99 {} us, max {} us",
        cost.lateness_us.p50, cost.lateness_us.p99, cost.lateness_us.max
    )?;
    writeln!(
        out,
        "cost      {:.1} us of CPU per sample, {:.4} % of one CPU",
        cost.cpu_us_per_sample, cost.cpu_percent
    )?;
    let sampler = &summary.sampler;
    writeln!(
        out,
        "sampler   policy {}, nice {}, CPU {}, ring in {}, memory {}",
        sampler.policy,
        sampler.nice,
        sampler.cpu.map_or("any".to_owned(), |cpu| cpu.to_string()),
        sampler.storage,
        match (sampler.memory_locked, sampler.process_locked) {
            (true, true) => "locked",
            (true, false) => "of the ring locked",
            _ => "not locked",
        }
    )?;
    for source in &description.schema.sources {
        let shape = match &source.shape {
            None => "never readable".to_owned(),
            Some(Shape::Scalars { fields }) => format!("{} values", fields.len()),
            Some(Shape::Table { columns, .. }) => {
                let rows = summary.instances.get(&source.name).map_or(0, Vec::len);
                format!("{rows} instances x {} columns", columns.len())
            }
        };
        let errors = summary.errors.get(&source.name).copied().unwrap_or(0);
        writeln!(
            out,
            "source    {:<10} {} ({shape}, {errors} samples with errors)",
            source.name, source.path
        )?;
    }
    let kib = info.slot_bytes as f64 / 1024.0;
    writeln!(out, "slots     {} of {kib} KiB, {} segments", info.slots, summary.segments)?;
    info.rings.iter().try_for_each(|ring| writeln!(out, "ring      {ring}"))?;
    summary.notes.iter().try_for_each(|note| writeln!(out, "note      {note}"))
}

/// How counters of one source became smaller, and the first that did.
fn decreased(source: &str, decreases: &CounterDecreases) -> String {
    let ways = [
        (decreases.wrapped_at_32_bits, "wrapped at 32 bits"),
        (decreases.wrapped_at_64_bits, "wrapped at 64 bits"),
        (decreases.went_backwards, "went backwards"),
    ];
    let ways: Vec<String> = ways
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, how)| format!("{count} {how}"))
        .collect();
    let first = decreases.first.first().map_or_else(String::new, |first| {
        let instance = first.instance.as_ref().map_or(String::new(), |name| format!("{name} "));
        let (field, from, to, tick) = (&first.field, first.from, first.to, first.tick);
        format!("; first {instance}{field}, {from} to {to}, at tick {tick}")
    });
    format!("of {source}: {}{first}", ways.join(", "))
}
