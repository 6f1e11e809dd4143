//! `ringstat bench`: what recording costs on this host, and whether it disturbs a command.

use super::args::{BenchArgs, Part};
use super::term::{self, Volume};
use super::{FAILED, USAGE, signals};
use ringstat::measure::cold::{ColdCost, ColdPlan, cold};
use ringstat::measure::compare::{ComparePlan, Comparison, compare};
use ringstat::measure::cost::{HotCost, hot};
use ringstat::measure::lateness::{LatenessPlan, LatenessTable, lateness};
use ringstat::measure::rate::{HighRate, LongRun, high_rate, long_run};
use ringstat::measure::{Attendant, Machine, MeasureError, Scratch, machine};
use ringstat::{CpuChoice, Policy, Recorder, ThreadSettings};
use serde::Serialize;
use std::fmt::Display;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Samples of the cold part are no further apart, however long the interval: it would take too long.
const MAX_APART: Duration = Duration::from_secs(1);
/// Samples of the lateness part are no further apart: there would be too few.
const MAX_LATENESS_INTERVAL: Duration = Duration::from_millis(10);
const HIGH_RATE_INTERVAL: Duration = Duration::from_millis(1);
const HIGH_RATE_TICKS: u32 = 60_000;
const MAX_SECONDS: Duration = Duration::from_secs(600);
const LONG_RUN: Duration = Duration::from_secs(600);

/// Everything that was measured; what was not is not there.
#[derive(Serialize)]
struct Report {
    ringstat_version: &'static str,
    machine: Machine,
    interval_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hot: Option<HotCost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold: Option<ColdCost>,
    /// At `interval_seconds`, from `cold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lateness: Option<LatenessTable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    high_rate: Option<HighRate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    long_run: Option<LongRun>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Comparison>,
}

pub fn main(args: &BenchArgs) -> u8 {
    let volume = Volume::of(args.verbose, args.quiet);
    // Every value is checked as if it were to be recorded with.
    let checked = Recorder::builder()
        .interval(args.interval)
        .thread(args.thread.settings())
        .results_dir(std::env::temp_dir());
    if let Err(error) = checked.build() {
        term::error(error);
        return USAGE;
    }
    if let Err(sentence) = times_fit(args) {
        term::error(sentence);
        return USAGE;
    }
    let attendant = Attendant::new(move |line| volume.say(line));
    let interrupt = attendant.interrupt.clone();
    if let Err(error) = signals::listen(&signals::ENDING, move |_| interrupt.set()) {
        term::warn(format_args!("a signal will leave temporary directories behind: {error}"));
    }
    let mut report = Report {
        ringstat_version: env!("CARGO_PKG_VERSION"),
        machine: machine(),
        interval_seconds: args.interval.as_secs_f64(),
        hot: None,
        cold: None,
        cpu_percent: None,
        lateness: None,
        high_rate: None,
        long_run: None,
        comparison: None,
    };
    let mut out = Out { json: args.json };
    out.part(&report.machine);
    let measured = if args.command.is_empty() {
        measure(args, &mut report, &mut out, &attendant)
    } else {
        compare_command(args, &mut report, &mut out, &attendant)
    };
    if let Err(error) = measured {
        term::error(error);
        return FAILED;
    }
    out.end(&report)
}

/// Whether there are samples in what is measured, and an end to it.
fn times_fit(args: &BenchArgs) -> Result<(), String> {
    let least = cold_plan(args).interval * 2;
    if let Some(seconds) = args.seconds
        && !(least..=MAX_SECONDS).contains(&seconds)
    {
        return Err(format!("--seconds {seconds:?} is not possible; choose from {least:?} to 10m"));
    }
    let time = long_run_time(args);
    if wanted(args, Part::LongRun) && args.interval > time / 10 {
        return Err(format!(
            "a long run of {time:?} has too few samples at an interval of {:?}; choose one of {:?} at \
             most",
            args.interval,
            time / 10
        ));
    }
    Ok(())
}

fn wanted(args: &BenchArgs, part: Part) -> bool {
    const DEFAULT: [Part; 3] = [Part::Hot, Part::Cold, Part::Lateness];
    args.only.as_deref().unwrap_or(&DEFAULT).contains(&part)
}

fn long_run_time(args: &BenchArgs) -> Duration {
    if args.quick { LONG_RUN / 60 } else { LONG_RUN }
}

/// Standard output: tables as they come, or one JSON object at the end.
struct Out {
    json: bool,
}

impl Out {
    fn part(&mut self, table: impl Display) {
        if !self.json {
            // A reader that has gone is told of at the end.
            let _ = writeln!(std::io::stdout(), "{table}");
        }
    }

    fn end(&mut self, report: &Report) -> u8 {
        let mut stdout = std::io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer_pretty(&mut stdout, report)
                .map_err(std::io::Error::from)
                .and_then(|()| writeln!(stdout))
        } else {
            Ok(())
        };
        match written.and_then(|()| stdout.flush()) {
            Ok(()) => 0,
            Err(error) => {
                term::error(format_args!("cannot write to standard output: {error}"));
                FAILED
            }
        }
    }
}

fn measure(
    args: &BenchArgs,
    report: &mut Report,
    out: &mut Out,
    attendant: &Attendant,
) -> Result<(), MeasureError> {
    let wanted = |part| wanted(args, part);
    let thread = args.thread.settings();
    if wanted(Part::Hot) {
        let cost = hot(if args.quick { 2_000 } else { 20_000 }, attendant)?;
        out.part(&cost);
        report.hot = Some(cost);
    }
    let recorder = |interval: Duration, scratch: &Scratch| record(interval, scratch, thread);
    if wanted(Part::Cold) {
        let cost = cold(&cold_plan(args), &recorder, attendant)?;
        out.part(&cost);
        report.cpu_percent = cost.cpu_percent(args.interval);
        if let Some(percent) = report.cpu_percent {
            out.part(share(&cost, args.interval, percent));
        }
        report.cold = Some(cost);
    }
    if wanted(Part::Lateness) {
        let table = lateness(&lateness_plan(args), attendant)?;
        out.part(&table);
        report.lateness = Some(table);
    }
    if wanted(Part::HighRate) {
        let ticks = if args.quick { HIGH_RATE_TICKS / 60 } else { HIGH_RATE_TICKS };
        let rate = high_rate(HIGH_RATE_INTERVAL, ticks, thread, attendant)?;
        out.part(&rate);
        report.high_rate = Some(rate);
    }
    if wanted(Part::LongRun) {
        let run = long_run(args.interval, long_run_time(args), &recorder, attendant)?;
        out.part(&run);
        report.long_run = Some(run);
    }
    Ok(())
}

fn cold_plan(args: &BenchArgs) -> ColdPlan {
    let seconds = if args.quick { 4 } else { 12 };
    ColdPlan {
        interval: args.interval.min(MAX_APART),
        window: args.seconds.unwrap_or(Duration::from_secs(seconds)),
        rounds: if args.quick { 1 } else { 3 },
        // Its windows last half a minute.
        mirrored: !args.quick,
    }
}

fn lateness_plan(args: &BenchArgs) -> LatenessPlan {
    let seconds = if args.quick { 1 } else { 4 };
    let thread = |policy| ThreadSettings { policy, ..args.thread.settings() };
    LatenessPlan {
        busy_per_cpu: vec![0, 1],
        intervals: vec![args.interval.min(MAX_LATENESS_INTERVAL)],
        threads: Policy::ALL.map(thread).to_vec(),
        time: args.seconds.unwrap_or(Duration::from_secs(seconds)),
    }
}

/// What a share of a CPU is to be read as.
fn share(cost: &ColdCost, interval: Duration, percent: f64) -> String {
    let from =
        if cost.interval_seconds < interval.as_secs_f64() { ", computed from that" } else { "" };
    format!("at an interval of {interval:?}: {percent:.4} % of one CPU{from}\n")
}

/// This program, recording as it would for a user.
fn record(
    interval: Duration,
    scratch: &Scratch,
    thread: ThreadSettings,
) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("record").arg("--quiet");
    command.arg("--interval").arg(format!("{}us", interval.as_micros()));
    command.arg("--results-dir").arg(scratch.results_dir());
    command.arg("--ring-dir").arg(scratch.ring_dir());
    match scratch.mirror_dir() {
        Some(dir) => command.arg("--mirror-dir").arg(dir),
        None => command.arg("--no-mirror"),
    };
    // Should this process be killed, it ends by itself.
    command.args(["--duration", "1h", "--policy", thread.policy.name()]);
    match thread.cpu {
        CpuChoice::Auto => {}
        CpuChoice::Unpinned => {
            command.args(["--cpu", "none"]);
        }
        CpuChoice::Cpu(cpu) => {
            command.arg("--cpu").arg(cpu.to_string());
        }
    }
    if let Some(nice) = thread.nice {
        command.arg("--nice").arg(nice.to_string());
    }
    Ok(command)
}

fn compare_command(
    args: &BenchArgs,
    report: &mut Report,
    out: &mut Out,
    attendant: &Attendant,
) -> Result<(), MeasureError> {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let plan = ComparePlan {
        command: args.command.clone(),
        pairs: args.pairs,
        // Short enough to be typed.
        seed: args.seed.unwrap_or_else(|| clock() as u64 % 1_000_000),
        interval: args.interval,
        mirrored: !args.no_mirror,
        recorder: Recorder::builder().thread(args.thread.settings()),
        metrics: args.metric.clone(),
    };
    let verbose = args.verbose;
    let show = move |output: &[u8]| {
        if verbose {
            // Standard error may be closed: that is no reason to fail.
            let _ = std::io::stderr().write_all(output);
        }
    };
    let comparison = compare(&plan, &show, attendant)?;
    out.part(&comparison);
    report.comparison = Some(comparison);
    Ok(())
}
