//! Whether recording disturbs somebody's benchmark: it runs in pairs, without and with a recorder,
//! in an order that is chosen at random, and the differences within the pairs are what counts.

use super::figure::{CPU_TIME, OTHER, WALL_TIME};
use super::metric::Metric;
use super::process::Scratch;
use super::rate::cpu_us;
use super::{Attendant, MeasureError};
use crate::run::{Recorder, RecorderBuilder};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use super::figure::Figure;

/// The end of an output that figures are looked for in.
const MAX_OUTPUT_BYTES: u64 = 64 << 20;
/// The end of it that is shown when something is wrong.
const LAST_WORDS_BYTES: usize = 2000;

/// What is to be compared.
pub struct ComparePlan {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// Pairs of runs.
    pub pairs: u32,
    /// For their order.
    pub seed: u64,
    /// Time between two samples.
    pub interval: Duration,
    /// Whether the recorder keeps a durable copy.
    pub mirrored: bool,
    /// The recorder, but for its directories.
    pub recorder: RecorderBuilder,
    /// What is looked for in the output.
    pub metrics: Vec<Metric>,
}

/// Whether recording makes a difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// As it could be typed.
    pub command: String,
    /// Time between two samples.
    pub interval_seconds: f64,
    /// Pairs of runs.
    pub pairs: u32,
    /// What their order came from.
    pub seed: u64,
    /// For each pair, whether its recorded run was the first.
    pub recorded_first: Vec<bool>,
    /// What was measured of each run.
    pub figures: Vec<Figure>,
    /// Samples of a recorded run, on average.
    pub samples_per_run: f64,
    /// Those of them that were taken while the command ran. With less than one, the figures say
    /// nothing of what a sample costs it.
    pub samples_during_run: f64,
    /// Ticks without a sample, of all runs.
    pub ticks_missed: u64,
    /// CPU time of the sampler's thread per sample.
    pub sampler_cpu_us_per_sample: f64,
}

/// For each pair, whether its recorded run is the first: of two pairs that follow each other one
/// is, so that neither kind has the better place, and which one is left to chance.
fn order(pairs: u32, seed: u64) -> Vec<bool> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut order = Vec::new();
    while order.len() < pairs as usize {
        let first = random.bool();
        order.extend([first, !first]);
    }
    order.truncate(pairs as usize);
    order
}

/// What one run came to.
struct Run {
    wall_s: f64,
    cpu_s: f64,
    figures: Vec<f64>,
}

/// Samples of each recorded run that are taken before and after it.
const BESIDE: u64 = 2;

/// What recording came to, over all runs.
#[derive(Default)]
struct Recorded {
    samples: u64,
    /// But for those of the start and of the stop, outside the run's time.
    during: u64,
    missed: u64,
    cpu_us: f64,
}

/// Runs the command once to warm up and then in pairs. `show` gets what it says.
///
/// # Errors
/// [`MeasureError`].
pub fn compare(
    plan: &ComparePlan,
    show: &dyn Fn(&[u8]),
    attendant: &Attendant,
) -> Result<Comparison, MeasureError> {
    attendant.tell(format_args!(
        "a run to warm up, then {} pairs without and with recording; seed {}",
        plan.pairs, plan.seed
    ));
    let warm_up = plan.run("The run to warm up", show, attendant)?;
    let whole_s = warm_up.wall_s * f64::from(plan.pairs) * 2.0;
    attendant.tell(format_args!(
        "one run takes {:.1} s, all of them about {whole_s:.0} s",
        warm_up.wall_s
    ));
    if warm_up.wall_s < plan.interval.as_secs_f64() {
        attendant.tell(format_args!(
            "that is less than one interval: hardly any sample will fall into a run, and nothing will \
             be said of what one costs; give a shorter --interval or a longer command"
        ));
    }
    let recorded_first = order(plan.pairs, plan.seed);
    let mut runs = Vec::new();
    let mut recorded = Recorded::default();
    for (index, &recorded_first) in recorded_first.iter().enumerate() {
        attendant.tell(format_args!("pair {} of {}", index + 1, plan.pairs));
        let pair = index + 1;
        let without =
            || plan.run(&format!("Pair {pair}: the run without recording"), show, attendant);
        let name = format!("Pair {pair}: the run with recording");
        let mut with = || plan.run_recorded(&name, &mut recorded, show, attendant);
        runs.push(if recorded_first {
            let with = with()?;
            (without()?, with)
        } else {
            (without()?, with()?)
        });
    }
    let column = |of: &dyn Fn(&Run) -> f64| -> Vec<(f64, f64)> {
        runs.iter().map(|(without, with)| (of(without), of(with))).collect()
    };
    let wall = Figure::new(WALL_TIME.0, WALL_TIME.1, column(&|run| run.wall_s));
    let cpu = Figure::new(CPU_TIME.0, CPU_TIME.1, column(&|run| run.cpu_s));
    let others = plan.metrics.iter().enumerate().map(|(index, metric)| {
        Figure::new(metric.name(), OTHER, column(&|run| run.figures[index]))
    });
    let samples = recorded.samples.max(1) as f64;
    Ok(Comparison {
        command: shown(&plan.command),
        interval_seconds: plan.interval.as_secs_f64(),
        pairs: plan.pairs,
        seed: plan.seed,
        recorded_first,
        figures: [wall, cpu].into_iter().chain(others).flatten().collect(),
        samples_during_run: recorded.during as f64 / f64::from(plan.pairs.max(1)),
        samples_per_run: recorded.samples as f64 / f64::from(plan.pairs.max(1)),
        ticks_missed: recorded.missed,
        sampler_cpu_us_per_sample: recorded.cpu_us / samples,
    })
}

fn shown(command: &[OsString]) -> String {
    shell_words::join(command.iter().map(|word| word.to_string_lossy()))
}

impl ComparePlan {
    fn run_recorded(
        &self,
        name: &str,
        recorded: &mut Recorded,
        show: &dyn Fn(&[u8]),
        attendant: &Attendant,
    ) -> Result<Run, MeasureError> {
        let scratch = Scratch::new(self.mirrored)?;
        let builder = self.recorder.clone().interval(self.interval).lock_process(true);
        let builder = builder.ring_dir(scratch.ring_dir()).results_dir(scratch.results_dir());
        let builder = match scratch.mirror_dir() {
            Some(dir) => builder.mirror_dir(dir),
            None => builder.no_mirror(),
        };
        let mut recorder: Recorder = builder.build()?;
        recorder.start()?;
        let run = self.run(name, show, attendant);
        let recording = recorder.stop()?;
        let summary = recording.summary();
        recording.discard();
        let (run, summary) = (run?, summary?);
        recorded.samples += summary.samples_taken;
        recorded.during += summary.samples_taken.saturating_sub(BESIDE);
        recorded.missed += summary.ticks_missed;
        recorded.cpu_us += summary.cost.cpu_us_per_sample * summary.samples_taken as f64;
        Ok(run)
    }

    fn run(
        &self,
        name: &str,
        show: &dyn Fn(&[u8]),
        attendant: &Attendant,
    ) -> Result<Run, MeasureError> {
        attendant.interrupt.check()?;
        let mut output = Output::new()?;
        let empty = OsString::new();
        let (program, arguments) = self.command.split_first().unwrap_or((&empty, &[]));
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(output.end()?).stderr(output.end()?);
        let cpu_before_us = children_cpu_us()?;
        let since = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|source| MeasureError::NotStarted { what: format!("{program:?}"), source })?;
        let status = wait(&mut child, attendant)?;
        let wall_s = since.elapsed().as_secs_f64();
        let cpu_s = (children_cpu_us()? - cpu_before_us) / 1e6;
        attendant.interrupt.check()?;
        let output = output.read()?;
        show(&output);
        let run = name.to_owned();
        if !status.success() {
            return Err(MeasureError::Failed { run, status, said: last_words(&output) });
        }
        let mut figures = Vec::new();
        for metric in &self.metrics {
            figures.push(metric.find(&output).ok_or_else(|| MeasureError::NoFigure {
                run: name.to_owned(),
                metric: metric.name().to_owned(),
                said: last_words(&output),
            })?);
        }
        Ok(Run { wall_s, cpu_s, figures })
    }
}

/// Waits for a command that an interrupt may end.
fn wait(child: &mut Child, attendant: &Attendant) -> Result<ExitStatus, MeasureError> {
    let pid = Pid::from_child(child);
    attendant.interrupt.set_command(Some(pid));
    // Its number stays its own until it is reaped.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(pid), options).err() == Some(rustix::io::Errno::INTR) {}
    attendant.interrupt.set_command(None);
    child.wait().map_err(MeasureError::Usage)
}

/// CPU time of all children that were waited for, and of theirs, us.
fn children_cpu_us() -> Result<f64, MeasureError> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN);
    used.map(cpu_us).map_err(|errno| MeasureError::Usage(errno.into()))
}

/// What a command says: a file in memory, so that nobody has to read along and no disk is written.
struct Output(File);

impl Output {
    fn new() -> Result<Output, MeasureError> {
        let failed = |errno: rustix::io::Errno| MeasureError::Output(errno.into());
        let file = memfd_create("ringstat-bench", MemfdFlags::CLOEXEC).map_err(failed)?;
        Ok(Output(file.into()))
    }

    /// For the command to write to. All ends share one place in the file.
    fn end(&self) -> Result<Stdio, MeasureError> {
        self.0.try_clone().map(Stdio::from).map_err(MeasureError::Output)
    }

    /// All of it, or the end of what is too long.
    fn read(&mut self) -> Result<Vec<u8>, MeasureError> {
        let mut bytes = Vec::new();
        let mut read = || {
            let length = self.0.seek(SeekFrom::End(0))?;
            self.0.seek(SeekFrom::Start(length.saturating_sub(MAX_OUTPUT_BYTES)))?;
            (&self.0).take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes)
        };
        read().map_err(MeasureError::Output)?;
        Ok(bytes)
    }
}

fn last_words(output: &[u8]) -> String {
    let end = &output[output.len().saturating_sub(LAST_WORDS_BYTES)..];
    let text = String::from_utf8_lossy(end).trim().to_owned();
    if text.is_empty() { "nothing".to_owned() } else { text }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{} pairs without and with recording every {}, in random order (seed {}); {:.1} samples \
             a run, {:.1} of them while it ran, {} ticks missed",
            self.command,
            self.pairs,
            super::cold::seconds(Duration::from_secs_f64(self.interval_seconds)),
            self.seed,
            self.samples_per_run,
            self.samples_during_run,
            self.ticks_missed
        )?;
        if self.samples_during_run < 1.0 {
            writeln!(
                f,
                "NOT EVERY RUN HAD A SAMPLE IN IT: what follows says little or nothing of recording; \
                 give a shorter --interval or a longer command"
            )?;
        }
        writeln!(f, "{:<24} {:>12} {:>12} {:>10}  conclusion", "median", "without", "with", "%")?;
        for figure in &self.figures {
            let percent = figure
                .difference_percent
                .map_or("-".to_owned(), |percent| format!("{:+.2}", percent.mean));
            writeln!(
                f,
                "{:<24} {:>12} {:>12} {percent:>10}  {}",
                figure.name,
                figure_text(figure.without.median),
                figure_text(figure.with.median),
                figure.conclusion
            )?;
        }
        Ok(())
    }
}

fn figure_text(value: f64) -> String {
    if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.4}") }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_balanced_and_comes_again_with_its_seed() {
        let orders: Vec<Vec<bool>> = (0..20).map(|seed| order(9, seed)).collect();
        for (seed, order_) in orders.iter().enumerate() {
            assert_eq!(order_.len(), 9);
            assert!(order_[..8].chunks(2).all(|two| two[0] != two[1]), "{order_:?}");
            assert_eq!(*order_, order(9, seed as u64));
        }
        assert!(orders.iter().any(|order| order[0]) && orders.iter().any(|order| !order[0]));
    }
}
