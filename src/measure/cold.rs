//! What one sample costs as users run it: apart in time, when caches have gone cold, and the whole
//! process with all its threads. The floor, a recorder without a durable copy and one with it, each
//! as a process of its own, never two at a time: the one would warm the kernel's code for the other.

use super::process::{Process, Scratch};
use super::stats::Median;
use super::usage::UsageSource;
use super::{Attendant, MeasureError, child};
use serde::Serialize;
use std::fmt;
use std::process::Command;
use std::time::Duration;

/// Intervals that a process is left alone when it has started; the half, so that a window begins and
/// ends between two samples.
const SETTLING: f64 = 2.5;
/// What starting takes at most when intervals are shorter than that.
const LEAST_SETTLING: Duration = Duration::from_millis(500);
/// The default time between two syncs of the durable copy: a window has whole ones.
const SYNC_INTERVAL: Duration = Duration::from_secs(30);

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct ColdPlan {
    /// Time between two samples.
    pub interval: Duration,
    /// Time over which the growth of CPU time is taken.
    pub window: Duration,
    /// Windows of each kind.
    pub rounds: u32,
    /// Whether to measure a recorder with its durable copy too; its windows last 30 s at least.
    pub mirrored: bool,
}

/// Starts a recorder at an interval, in these directories.
pub type StartRecorder<'a> = &'a dyn Fn(Duration, &Scratch) -> std::io::Result<Command>;

/// What samples cost apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColdCost {
    /// Time between two samples.
    pub interval_seconds: f64,
    /// Windows of each kind.
    pub rounds: u32,
    /// Where CPU times are from.
    pub usage_from: UsageSource,
    /// Each kind of process.
    pub processes: Vec<ProcessCost>,
}

/// What a sample costs one kind of process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessCost {
    /// Which.
    pub process: Kind,
    /// Length of a window.
    pub window_seconds: f64,
    /// CPU time of the process per sample, window by window.
    pub sample_us: Median,
    /// To the floor's of the same round.
    pub ratio: Median,
}

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Reads, and throws away.
    Floor,
    /// A recorder with `--no-mirror`.
    NoMirror,
    /// A recorder with a durable copy and the default sync interval.
    Mirror,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::NoMirror => "ringstat --no-mirror",
            Kind::Mirror => "ringstat",
        }
    }

    fn window(self, plan: &ColdPlan) -> Duration {
        match self {
            Kind::Mirror => {
                let syncs = plan.window.as_secs_f64() / SYNC_INTERVAL.as_secs_f64();
                SYNC_INTERVAL.mul_f64(syncs.ceil().max(1.0))
            }
            _ => plan.window,
        }
    }
}

impl ColdPlan {
    fn kinds(&self) -> Vec<Kind> {
        let mirror = self.mirrored.then_some(Kind::Mirror);
        [Kind::Floor, Kind::NoMirror].into_iter().chain(mirror).collect()
    }

    fn settling(&self) -> Duration {
        self.interval.mul_f64(SETTLING).max(LEAST_SETTLING)
    }

    /// How long it takes.
    pub fn duration(&self) -> Duration {
        let windows = self.kinds().into_iter().map(|kind| self.settling() + kind.window(self));
        windows.sum::<Duration>() * self.rounds
    }
}

/// Measures.
///
/// # Errors
/// [`MeasureError`].
pub fn cold(
    plan: &ColdPlan,
    recorder: StartRecorder<'_>,
    attendant: &Attendant,
) -> Result<ColdCost, MeasureError> {
    let kinds = plan.kinds();
    let mut times = vec![Vec::new(); kinds.len()];
    let mut usage_from = UsageSource::Cgroup;
    let window_s = plan.duration().as_secs_f64() / f64::from(plan.rounds.max(1));
    for round in 0..plan.rounds {
        attendant.tell(format_args!(
            "cost with samples {} apart: round {} of {}, {window_s:.0} s each",
            seconds(plan.interval),
            round + 1,
            plan.rounds
        ));
        for place in 0..kinds.len() {
            // Each is the first of a round in turn.
            let index = (place + round as usize) % kinds.len();
            let kind = kinds[index];
            let (us, source) = window(kind, plan, recorder, attendant)?;
            times[index].push(us);
            if source == UsageSource::Schedstat {
                usage_from = source;
            }
        }
    }
    let floor = times.first().cloned().unwrap_or_default();
    let cost = |(kind, times): (&Kind, &Vec<f64>)| {
        let ratios: Vec<f64> = times.iter().zip(&floor).map(|(time, floor)| time / floor).collect();
        ProcessCost {
            process: *kind,
            window_seconds: kind.window(plan).as_secs_f64(),
            sample_us: Median::of(times),
            ratio: Median::of(&ratios),
        }
    };
    Ok(ColdCost {
        interval_seconds: plan.interval.as_secs_f64(),
        rounds: plan.rounds,
        usage_from,
        processes: kinds.iter().zip(&times).map(cost).collect(),
    })
}

/// CPU time per sample over one window, us.
fn window(
    kind: Kind,
    plan: &ColdPlan,
    recorder: StartRecorder<'_>,
    attendant: &Attendant,
) -> Result<(f64, UsageSource), MeasureError> {
    let scratch = Scratch::new(kind == Kind::Mirror)?;
    let command = match kind {
        Kind::Floor => child::floor(plan.interval),
        Kind::NoMirror | Kind::Mirror => recorder(plan.interval, &scratch),
    };
    let mut process = Process::start(command?, kind.name())?;
    attendant.interrupt.wait(plan.settling())?;
    let window = kind.window(plan);
    let before_us = process.cpu_us()?;
    attendant.interrupt.wait(window)?;
    let used_us = process.cpu_us()? - before_us;
    let samples = window.as_secs_f64() / plan.interval.as_secs_f64();
    Ok((used_us / samples, process.usage().source()))
}

impl ColdCost {
    /// Share of one CPU, %, that a recorder takes at `interval`: measured if that is the interval
    /// here. At a longer one, a sample is taken to cost what it costs here, and the durable copy to
    /// cost as much per second.
    pub fn cpu_percent(&self, interval: Duration) -> Option<f64> {
        let us = |kind| {
            let cost = self.processes.iter().find(|cost| cost.process == kind);
            cost.map(|cost| cost.sample_us.median)
        };
        let bare_us = us(Kind::NoMirror)?;
        let copy_us = us(Kind::Mirror).map_or(0.0, |mirrored_us| (mirrored_us - bare_us).max(0.0));
        let per_second = bare_us / interval.as_secs_f64() + copy_us / self.interval_seconds;
        // 1 % of a CPU is 10,000 us of each second.
        Some(per_second / 1e4)
    }
}

/// "1 s", "250 ms".
pub(super) fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{} ms", seconds * 1e3),
        seconds => format!("{seconds} s"),
    }
}

impl fmt::Display for ColdCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interval = seconds(Duration::from_secs_f64(self.interval_seconds));
        writeln!(
            f,
            "one sample, {interval} apart, the whole process: us of CPU time ({}), median \
             [10 % .. 90 %] of {} windows of each, one process at a time",
            self.usage_from.name(),
            self.rounds
        )?;
        writeln!(f, "{:<22} {:>8} {:>26} {:>24}", "process", "window", "us", "ratio")?;
        for cost in &self.processes {
            let (us, ratio) = (cost.sample_us, cost.ratio);
            writeln!(
                f,
                "{:<22} {:>6} s {:>26} {:>24}",
                cost.process.name(),
                cost.window_seconds,
                format!("{:.1} [{:.1} .. {:.1}]", us.median, us.p10, us.p90),
                format!("{:.3} [{:.3} .. {:.3}]", ratio.median, ratio.p10, ratio.p90)
            )?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn cost(process: Kind, us: f64) -> ProcessCost {
        let sample_us = Median { median: us, p10: us, p90: us };
        ProcessCost { process, window_seconds: 12.0, sample_us, ratio: sample_us }
    }

    #[test]
    fn the_share_of_a_cpu_is_what_was_measured_or_less_at_longer_intervals() {
        let mut measured = ColdCost {
            interval_seconds: 1.0,
            rounds: 1,
            usage_from: UsageSource::Cgroup,
            processes: vec![cost(Kind::Floor, 200.0), cost(Kind::NoMirror, 220.0)],
        };
        let percent = |cost: &ColdCost, seconds| cost.cpu_percent(Duration::from_secs(seconds));
        assert_eq!(percent(&measured, 1), Some(0.022));
        measured.processes.push(cost(Kind::Mirror, 250.0));
        assert_eq!(percent(&measured, 1), Some(0.025));
        assert_eq!(percent(&measured, 10), Some(0.0052), "22 us for the sample, 30 for the copy");
        measured.processes[2] = cost(Kind::Mirror, 210.0);
        assert_eq!(percent(&measured, 10), Some(0.0022), "noise is no gain");
        measured.processes.truncate(1);
        assert_eq!(percent(&measured, 10), None);
    }

    #[test]
    fn windows_of_a_mirror_hold_whole_syncs() {
        let plan = |seconds| ColdPlan {
            interval: Duration::from_secs(1),
            window: Duration::from_secs(seconds),
            rounds: 3,
            mirrored: true,
        };
        let window = |seconds| Kind::Mirror.window(&plan(seconds)).as_secs();
        assert_eq!([1, 12, 30, 31, 60].map(window), [30, 30, 30, 60, 60]);
        assert_eq!(plan(12).duration(), Duration::from_millis(3 * (2 * 14_500 + 32_500)));
    }
}
