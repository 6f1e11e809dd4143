//! The command line: what may be said and how it is understood. Values are parsed here and
//! checked by the library; nothing is touched.

use super::host_args::{AgentArgs, HostArgs, HostsArgs};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ringstat::measure::Metric;
use ringstat::{CpuChoice, FORMATS, Format, Policy, Recorder, RecorderBuilder, ThreadSettings};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Records what /proc says of this host during a storage benchmark.
///
/// Samples go to a ring in shared memory that survives a crash of the recorder, and to a copy of
/// it on a disk that survives a crash of the host. Afterwards they become
/// {benchmark_type}_{datetime}_timeseries.json and the metadata that refers to it.
#[derive(Debug, Parser)]
#[command(version, name = "ringstat", max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record while COMMAND runs; exit as it exits
    Run(RunArgs),
    /// Record until the time is up, or SIGINT or SIGTERM
    Record(RecordArgs),
    /// Write the time series and metadata of rings, without touching these
    Decode(DecodeArgs),
    /// Show what rings hold: schema, samples, gaps, health
    Info(InfoArgs),
    /// Find rings that dead runs left behind, and write the files that they owed
    Recover(RecoverArgs),
    /// Measure what recording costs on this host; with COMMAND, whether it disturbs that
    Bench(BenchArgs),
    /// Check whether hosts can be recorded, as a table; remove what was left on them
    Hosts(HostsArgs),
    /// What ringstat starts on other hosts; not for people
    #[command(hide = true)]
    Agent(AgentArgs),
    /// Says version and hash, for who has brought it here; not for people
    #[command(hide = true)]
    SelfCheck,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: that of COMMAND, or 128 + n if signal n ended it, whatever became of the recording;
126 or 127 if COMMAND cannot be started; 2 if ringstat was asked for what cannot be.

Signals: what the terminal sends (Ctrl-C) COMMAND hears as if ringstat were not there; what a process
sends to ringstat (INT, QUIT, TERM, HUP, USR1, USR2) is passed on to COMMAND.")]
pub struct RunArgs {
    #[command(flatten)]
    pub options: Options,
    /// The command and its arguments; it gets the terminal and standard input, and its exit
    /// status becomes ringstat's
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 if the files were written, also after SIGINT, SIGTERM or SIGHUP; 1 if not; 2 if ringstat
was asked for what cannot be.")]
pub struct RecordArgs {
    #[command(flatten)]
    pub options: Options,
    /// How long to record: seconds, or with a unit (500ms, 30s, 10m, 2h) [default: until stopped]
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub duration: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Options {
    /// Time between two samples: seconds, or with a unit (250ms, 1m); from 1ms to 24h
    #[arg(
        long, visible_alias = "timeseries-interval", value_name = "TIME", value_parser = time,
        allow_hyphen_values = true, default_value = "10"
    )]
    pub interval: Duration,
    /// Samples to keep: the ring's capacity. When it is full the oldest give way [default: 3600]
    #[arg(
        long,
        visible_alias = "max-timeseries-samples",
        value_name = "N",
        value_parser = samples,
        allow_hyphen_values = true
    )]
    pub max_samples: Option<u64>,
    /// Record nothing: no time series is written and no metadata refers to one
    #[arg(long)]
    pub skip_timeseries: bool,
    /// First part of the files' names: training, checkpointing, vector_database (or vectordb),
    /// kv_cache (or kvcache), or any other name [default: the command's file name, or "record"]
    #[arg(long, value_name = "NAME")]
    pub benchmark_type: Option<String>,
    /// Directory for the time series and its metadata; made if need be. Not on the file system
    /// under test
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub results_dir: PathBuf,
    /// Form of the time series
    #[arg(long, value_name = "FORM", value_parser = formats(), default_value = "json")]
    pub format: &'static Format,
    /// Put timeseries_data into this metadata file, which the benchmark writes itself, instead of
    /// writing one
    #[arg(long, value_name = "FILE")]
    pub merge_metadata: Option<PathBuf>,
    /// Directory below which the ring goes. On a disk, a sample may have to wait whenever that
    /// disk is busy or frozen [default: /dev/shm/ringstat-UID]
    #[arg(long, value_name = "DIR")]
    pub ring_dir: Option<PathBuf>,
    /// Directory below which the ring's durable copy goes; a disk that is not under test
    /// [default: /var/tmp/ringstat-UID]
    #[arg(long, value_name = "DIR", conflicts_with = "no_mirror")]
    pub mirror_dir: Option<PathBuf>,
    /// Keep no durable copy: nothing is written to a disk during the run, and if the host goes
    /// down all samples are lost
    #[arg(long)]
    pub no_mirror: bool,
    /// Time between two syncs of the durable copy: what a power cut may cost; from 10ms to 24h. Also
    /// between two looks at whether somebody else has touched the ring. Less if the ring would be
    /// full sooner
    #[arg(
        long, value_name = "TIME", value_parser = time, allow_hyphen_values = true,
        default_value = "30"
    )]
    pub sync_interval: Duration,
    #[command(flatten)]
    pub thread: ThreadArgs,
    /// Sources to record, separated by commas: diskstats, vmstat, meminfo, loadavg, netdev
    /// [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub sources: Option<Vec<String>>,
    /// Another /proc, such as the host's as it is mounted in a container
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub procfs: PathBuf,
    /// Leave ring and copy where they are when the files are written
    #[arg(long)]
    pub keep_ring: bool,
    #[command(flatten)]
    pub hosts: HostArgs,
    /// Say more: where the ring is, how the sampler runs
    #[arg(short, long, action = ArgAction::SetTrue, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Say nothing but warnings and errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub quiet: bool,
}

/// How the sampler's thread is run.
#[derive(Debug, Args)]
pub struct ThreadArgs {
    /// CPU to pin the sampler to: a number, none, or auto: the last CPU beside those that the
    /// command is confined to; if there is none beside, none
    #[arg(long, value_name = "N|auto|none", value_parser = cpu, allow_hyphen_values = true, default_value = "auto")]
    pub cpu: CpuChoice,
    /// Scheduling policy of the sampler (SCHED_IDLE, SCHED_BATCH, SCHED_OTHER)
    #[arg(long, value_name = "POLICY", default_value = "other")]
    pub policy: PolicyName,
    /// Nice value of the sampler, -20 to 19; below 0 needs CAP_SYS_NICE [default: as started]
    #[arg(long, value_name = "N", value_parser = nice, allow_hyphen_values = true)]
    pub nice: Option<i32>,
}

#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Ring files, run directories, or ids of runs (their first characters do)
    #[arg(required = true, value_name = "RING_OR_RUN")]
    pub rings: Vec<String>,
    /// Directory for the files, or - for the time series alone on standard output
    #[arg(short, long, value_name = "DIR|-", default_value = ".")]
    pub output: String,
    /// Form of the time series
    #[arg(long, value_name = "FORM", value_parser = formats(), default_value = "json")]
    pub format: &'static Format,
    /// Put timeseries_data into this metadata file instead of writing one
    #[arg(long, value_name = "FILE")]
    pub merge_metadata: Option<PathBuf>,
    #[command(flatten)]
    pub places: Places,
}

#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Ring files, run directories, or ids of runs (their first characters do)
    #[arg(required = true, value_name = "RING_OR_RUN")]
    pub rings: Vec<String>,
    /// As JSON, one object per run
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub places: Places,
}

#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Only show which runs there are
    #[arg(long)]
    pub list: bool,
    /// Directory for the files [default: where each run would have written them]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Ids of runs (their first characters do) [default: all that owe files]
    #[arg(value_name = "RUN")]
    pub runs: Vec<String>,
    #[command(flatten)]
    pub places: Places,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without COMMAND it takes about four minutes, and the figures hold for a host that does nothing else
meanwhile. With COMMAND it takes as long as 2 x N + 1 runs of that.

Exit status: 0 if all was measured; 1 if not, also if COMMAND failed; 2 if ringstat was asked for what
cannot be.")]
pub struct BenchArgs {
    /// Time between two samples that shares of a CPU are given for, and at which COMMAND is recorded:
    /// seconds, or with a unit (250ms, 1m); from 1ms to 24h
    #[arg(
        long, value_name = "TIME", value_parser = time, allow_hyphen_values = true,
        default_value = "10"
    )]
    pub interval: Duration,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// What to measure, separated by commas [default: hot,cold,lateness]
    #[arg(long, value_name = "PARTS", value_delimiter = ',', conflicts_with = "command")]
    pub only: Option<Vec<Part>>,
    /// Less of everything, in half a minute: to see that it works, the figures are rough
    #[arg(long, conflicts_with = "command")]
    pub quick: bool,
    /// How long each window of the cold part and each row of the lateness part takes, at most 10m
    /// [default: 12 and 4 seconds]
    #[arg(
        long, value_name = "TIME", value_parser = time, allow_hyphen_values = true,
        conflicts_with = "command"
    )]
    pub seconds: Option<Duration>,
    #[command(flatten)]
    pub thread: ThreadArgs,
    /// Record COMMAND without a durable copy on a disk
    #[arg(long, requires = "command")]
    pub no_mirror: bool,
    /// Pairs of runs of COMMAND, without and with recording, in an order that is chosen at random
    #[arg(
        long, value_name = "N", default_value_t = 10, allow_hyphen_values = true,
        value_parser = clap::value_parser!(u32).range(2..=10_000), requires = "command"
    )]
    pub pairs: u32,
    /// Compare also the number that this regular expression finds in COMMAND's output: in its one
    /// group, where it matches last; 12.5k is 12500. (?<iops>...) gives it a name. May be given
    /// several times
    #[arg(long, value_name = "REGEX", value_parser = metric, requires = "command")]
    pub metric: Vec<Metric>,
    /// For the order of the pairs [default: by the clock; it is printed]
    #[arg(long, value_name = "N", requires = "command")]
    pub seed: Option<u64>,
    /// Show the output of COMMAND
    #[arg(short, long, action = ArgAction::SetTrue, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Say nothing but figures, warnings and errors
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub quiet: bool,
    /// A benchmark of your own and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What `bench` can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// One sample back to back, by source, and where the time goes
    Hot,
    /// The whole process, samples a second apart
    Cold,
    /// How well the sampler keeps time, idle and under full load
    Lateness,
    /// A minute at 1ms: ticks taken, lateness, share of a CPU
    HighRate,
    /// Ten minutes at --interval, and what ten hours would cost
    LongRun,
}

/// Where else to look for runs.
#[derive(Debug, Args)]
pub struct Places {
    /// Also look for runs below this directory, if they were recorded with --ring-dir
    #[arg(long, value_name = "DIR")]
    pub ring_dir: Vec<PathBuf>,
    /// Also look for runs below this directory, if they were recorded with --mirror-dir
    #[arg(long, value_name = "DIR")]
    pub mirror_dir: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyName {
    /// Runs only when nothing else wants the CPU
    Idle,
    /// Like any thread, but never preempts on waking
    Batch,
    /// Like any other thread
    Other,
}

impl From<PolicyName> for Policy {
    fn from(name: PolicyName) -> Policy {
        match name {
            PolicyName::Idle => Policy::Idle,
            PolicyName::Batch => Policy::Batch,
            PolicyName::Other => Policy::Other,
        }
    }
}

impl ThreadArgs {
    pub fn settings(&self) -> ThreadSettings {
        ThreadSettings { policy: self.policy.into(), nice: self.nice, cpu: self.cpu }
    }
}

impl Options {
    /// A recorder as these options say, that records for `duration` if that is known.
    pub fn builder(&self, duration: Option<Duration>) -> RecorderBuilder {
        /// From the end of a recording to the stop of all its hosts, at most.
        const SLACK: Duration = Duration::from_secs(60);
        let mut options = self.hosts.options();
        options.max_duration = duration.map(|duration| duration.saturating_add(SLACK));
        let mut builder = Recorder::builder()
            .interval(self.interval)
            .results_dir(&self.results_dir)
            .format(self.format)
            .sync_interval(self.sync_interval)
            .thread(self.thread.settings())
            .procfs(&self.procfs)
            .keep_ring(self.keep_ring)
            .lock_process(true)
            .hosts(&self.hosts.ways.hosts)
            .host_options(options);
        if let Some(file) = &self.hosts.ways.hostfile {
            builder = builder.hostfile(file);
        }
        if let Some(max_samples) = self.max_samples {
            builder = builder.max_samples(max_samples);
        }
        if let Some(file) = &self.merge_metadata {
            builder = builder.merge_metadata(file);
        }
        if let Some(dir) = &self.ring_dir {
            builder = builder.ring_dir(dir);
        }
        if let Some(dir) = &self.mirror_dir {
            builder = builder.mirror_dir(dir);
        }
        if self.no_mirror {
            builder = builder.no_mirror();
        }
        if let Some(sources) = &self.sources {
            builder = builder.sources(sources);
        }
        if let Some(name) = &self.benchmark_type {
            builder = builder.benchmark_type(name);
        }
        builder
    }
}

/// Seconds, or a number with a unit.
pub fn time(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 6] =
        [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)];
    let wrong = || "give seconds (0.5) or a number with a unit: 250ms, 30s, 1m, 2h".to_owned();
    let end = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
    let (number, unit) = text.split_at(end);
    let seconds_per_unit = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, seconds)| seconds)
        .ok_or_else(wrong)?;
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * seconds_per_unit;
    if !seconds.is_finite() || seconds <= 0.0 {
        return Err("a time must be a number, and more than 0".to_owned());
    }
    // What is too long for its purpose is refused where that is known; no clock counts further.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// The names in the table of formats.
fn formats() -> impl TypedValueParser<Value = &'static Format> {
    let names = FORMATS.map(|format| PossibleValue::new(format.name).help(format.help));
    PossibleValuesParser::new(names).map(|name| Format::find(&name).unwrap_or_default())
}

fn metric(text: &str) -> Result<Metric, String> {
    Metric::new(text).map_err(|error| error.to_string())
}

fn samples(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give a whole number of samples, from 1 to 1000000000".to_owned())
}

fn nice(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| "give a whole number from -20 to 19".to_owned())
}

fn cpu(text: &str) -> Result<CpuChoice, String> {
    match text {
        "auto" => Ok(CpuChoice::Auto),
        "none" => Ok(CpuChoice::Unpinned),
        number => match number.parse() {
            Ok(cpu) => Ok(CpuChoice::Cpu(cpu)),
            Err(_) => Err("give the number of a CPU, auto or none".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn times_with_and_without_units() {
        for (text, milliseconds) in [
            ("10", 10_000),
            ("0.5", 500),
            ("250ms", 250),
            ("1m", 60_000),
            ("2h", 7_200_000),
            ("1s", 1000),
            ("1e3", 1_000_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in
            ["", "0", "-1", "nan", "NaN", "inf", "1e400", "1d", "ms", "1 s", "0x10", "1e999h"]
        {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_option_has_help() {
        let command = Cli::command();
        for sub in command.get_subcommands() {
            for arg in sub.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", sub.get_name(), arg.get_id());
            }
        }
        command.debug_assert();
    }
}
