//! `ringstat run`: record while a command runs, and exit as it exits.

use super::args::RunArgs;
use super::child::{NotStarted, Waiting};
use super::term::{self, FETCHED, Progress, Volume};
use super::{FAILED, USAGE, open_files};
use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use ringstat::{Ended, FinishError, Recorder, RecorderError, Recording, RunInfo};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long nothing may come of writing before it is said what is waited for.
const ANSWER: Duration = Duration::from_secs(3);

pub fn main(args: &RunArgs) -> u8 {
    let volume = Volume::of(args.options.verbose, args.options.quiet);
    let mut builder = args.options.builder(None).command(&args.command);
    if args.options.benchmark_type.is_none() {
        builder = builder.benchmark_type(&type_of(&args.command));
    }
    let mut recorder = match builder.build() {
        Ok(recorder) => recorder,
        Err(error) => {
            term::error(error);
            return USAGE;
        }
    };
    open_files::suffice_for(recorder.hosts().len());
    let waiting = Waiting::listen();
    let mut warnings = Vec::new();
    if !args.options.skip_timeseries {
        match start(&mut recorder, volume) {
            Ok(info) => warnings = announce(info, volume),
            Err(error) if error.is_too_large() && args.options.max_samples.is_some() => {
                term::error(error);
                return USAGE;
            }
            // The benchmark comes first: it runs, recorded or not.
            Err(error) => {
                term::warn(format_args!("nothing is recorded: {error}"));
                warnings.push(format!("nothing was recorded: {error}"));
            }
        }
    }
    let since = Instant::now();
    let command = match waiting.start(&args.command) {
        Ok(command) => command,
        Err(NotStarted { status, sentence }) => {
            if let Ok(recording) = recorder.stop() {
                recording.discard();
            }
            term::error(sentence);
            return status;
        }
    };
    let status = command.wait();
    let runtime = since.elapsed();
    match recorder.stop() {
        Ok(recording) => {
            recording.set_ended(runtime, Some(status.into()));
            write(&recording, &warnings, volume);
        }
        Err(_) => {
            let ended =
                Ended { runtime_seconds: runtime.as_secs_f64(), exit_status: Some(status.into()) };
            match recorder.write_metadata_only(ended, &warnings) {
                Ok(files) => volume.files(&files),
                Err(error) => term::error(error),
            }
        }
    }
    status
}

/// Says what a run began as; returns what it has warned of.
pub fn announce(info: &RunInfo, volume: Volume) -> Vec<String> {
    info.notes.iter().for_each(term::warn);
    let shown = |dir: &Option<PathBuf>, none: &str| {
        dir.as_ref().map_or(none.to_owned(), |dir| dir.display().to_string())
    };
    volume.detail(format_args!("run {}", info.run_id));
    volume.detail(format_args!("ring {}", shown(&info.ring_dir, "in private memory")));
    volume.detail(format_args!("mirror {}", shown(&info.mirror_dir, "none")));
    volume.detail(format_args!(
        "sampler: policy {}, nice {}, CPU {}, timer slack {} ns",
        info.thread.policy,
        info.thread.nice,
        info.thread.cpu.map_or("any".to_owned(), |cpu| cpu.to_string()),
        info.thread.timer_slack_ns
    ));
    info.notes.clone()
}

/// Writes the files of a recording and says where they are, and what went wrong that was not
/// `said` before; the exit status of doing so.
pub fn write(recording: &Recording, said: &[String], volume: Volume) -> u8 {
    if recording.remote_hosts() > 0 {
        let mut progress = Progress::new("fetching", volume);
        recording.collect(&mut |hosts| progress.line(term::of_hosts(hosts, FETCHED)));
    }
    let before = recording.warnings();
    before.iter().filter(|warning| !said.contains(warning)).for_each(term::warn);
    let mut progress = Progress::new("writing samples", volume);
    let watch = Watch::begin(recording);
    let result = recording.write_files(&mut |done, total| {
        watch.goes_on();
        progress.set(done, total);
    });
    drop((watch, progress));
    match result {
        Ok(files) => {
            let warnings = recording.warnings();
            warnings.iter().filter(|warning| !before.contains(warning)).for_each(term::warn);
            volume.files(&files);
            for dir in recording.ring_dirs() {
                volume.say(format_args!("ring kept in {}", dir.display()));
            }
            0
        }
        Err(error) => {
            failed(recording, &error);
            FAILED
        }
    }
}

/// Starts all hosts; says how far they are, if that takes long.
pub fn start(recorder: &mut Recorder, volume: Volume) -> Result<&RunInfo, RecorderError> {
    let mut progress = Progress::new("starting", volume);
    recorder.start_with(&mut |hosts| progress.line(term::of_hosts(hosts, "ready:")))
}

/// Says once where the samples are meanwhile, if nothing comes of writing the files: the results'
/// disk does not answer, and there is nothing to do but to wait for it.
struct Watch {
    steps: Arc<AtomicU64>,
    _end: Sender<()>,
}

impl Watch {
    fn begin(recording: &Recording) -> Watch {
        let steps = Arc::new(AtomicU64::new(0));
        let (end, is_over) = bounded::<()>(0);
        let watched = steps.clone();
        let dirs = recording.ring_dirs();
        let wait = move || {
            // Nothing is handed over by the count.
            let mut before = u64::MAX;
            while is_over.recv_timeout(ANSWER) == Err(RecvTimeoutError::Timeout) {
                let now = watched.load(Ordering::Relaxed);
                if now == before {
                    let places = if dirs.is_empty() { "memory".into() } else { shown(&dirs) };
                    return term::warn(format_args!(
                        "the results' disk does not answer; the samples are in {places} until it does"
                    ));
                }
                before = now;
            }
        };
        // Without it nothing is said.
        let _ = std::thread::Builder::new().name("rs-watch".to_owned()).spawn(wait);
        Watch { steps, _end: end }
    }

    fn goes_on(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

fn shown(dirs: &[PathBuf]) -> String {
    let places: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    places.join(" and ")
}

/// The files could not be written: says where the samples are.
fn failed(recording: &Recording, error: &FinishError) {
    term::error(error);
    let dirs = recording.save_rings();
    if dirs.is_empty() {
        term::error(
            "the samples were in memory alone, and no other place takes them: they are lost",
        );
        return;
    }
    term::error(format_args!(
        "the samples are safe in {}; make room (or add -o DIR) and run: ringstat recover {}",
        shown(&dirs),
        shell_words::quote(&dirs[0].display().to_string())
    ));
}

/// The command's own file name, as far as it fits.
fn type_of(command: &[OsString]) -> String {
    let name = command.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String =
        name.to_string_lossy().chars().map(|c| if fits(c) { c } else { '_' }).take(100).collect();
    if name.is_empty() { "run".to_owned() } else { name }
}
