//! The recorder of a host: a process of its own that outlives the connection it was started over.
//! It records as any run does, hears of the launcher through its socket, and ends when it is told to,
//! when it has recorded for as long as it may, or when no launcher has shown itself for too long. It
//! leaves its rings, and nothing else.

use super::others;
use super::rings;
use super::socket::{Ask, Listener, Told, answer};
use crate::cluster::protocol::{Place, RecorderState, START_PATIENCE, Settings};
use crate::run::{Recorder, RecorderBuilder, RecorderError};
use crate::sampler::thread::{CpuChoice, Policy, ThreadSettings};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where it writes what goes wrong, in the run's directory.
const LOG: &str = "agent.log";
/// Largest order.
const MAX_ORDER_BYTES: u64 = 1 << 20;
/// Longest that it waits for anything: past this, deadlines cannot be added up.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What the front tells a recorder that it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecorderOrder {
    /// Which run, and where.
    pub place: Place,
    /// How.
    pub settings: Settings,
}

/// What a recorder tells the front that has started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// It waits for its start.
    Ready,
    /// It has ended.
    Failed(String),
}

/// Records as the order on standard input says; the exit status. Standard output tells how it began.
pub fn record() -> u8 {
    let (waiting, listener) = match begin() {
        Ok(begun) => begun,
        Err(what) => {
            report(&Report::Failed(what));
            return 1;
        }
    };
    report(&Report::Ready);
    detach();
    waiting.run(&listener);
    listener.close();
    0
}

fn report(report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    // A front that is gone is no reason not to wait for the next one.
    let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
}

/// Lets go of the front's pipes: it waits for the end of them.
fn detach() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
    }
}

fn begin() -> Result<(Waiting, Listener), String> {
    // It was started by a name that says nothing, /proc/self/exe.
    let _ = rustix::thread::set_name(others::NAME);
    // Fails only for one that leads a group already, which a child of the front does not.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_ORDER_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| format!("the order cannot be read: {error}"))?;
    let RecorderOrder { place, settings } = serde_json::from_slice(&text)
        .map_err(|error| format!("the order cannot be understood: {error}"))?;
    let mut recorder = builder(&place, &settings)?.build().map_err(|error| error.to_string())?;
    recorder.prepare().map_err(|error| error.to_string())?;
    let Some(dir) = recorder.dirs().into_iter().next() else {
        let _ = recorder.stop();
        return Err("no directory can be had, neither for the ring nor for the mirror".to_owned());
    };
    if !rings::has_room(&place) {
        // Samples in private memory alone would be lost when they are to be handed over.
        let _ = recorder.stop();
        return Err("neither a ring nor a mirror can be written: there is no room in /dev/shm and \
                    /var/tmp, or in the directories that were chosen; make room, or choose others with \
                    --ring-dir and --mirror-dir"
            .to_owned());
    }
    let listener = Listener::bind(&dir).map_err(|error| {
        // Removes what it has made.
        let _ = recorder.stop();
        format!("there can be no socket in {}: {error}", dir.display())
    })?;
    let log = crate::place::Place::open(&dir).and_then(|place| place.create(LOG));
    if let Ok(log) = log {
        let _ = dup2_stderr(&log);
    }
    Ok((Waiting { recorder, settings, log: dir.join(LOG) }, listener))
}

fn builder(place: &Place, settings: &Settings) -> Result<RecorderBuilder, String> {
    let policy = Policy::ALL.into_iter().find(|policy| policy.name() == settings.policy);
    let cpu = match settings.cpu.as_str() {
        "auto" => CpuChoice::Auto,
        "none" => CpuChoice::Unpinned,
        number => CpuChoice::Cpu(number.parse().map_err(|_| format!("no CPU is {number:?}"))?),
    };
    let thread = ThreadSettings {
        policy: policy.ok_or_else(|| format!("no policy is {:?}", settings.policy))?,
        nice: settings.nice,
        cpu,
    };
    let mut builder = Recorder::builder()
        .interval(settings.interval)
        .max_samples(settings.max_samples)
        .sync_interval(settings.sync_interval)
        .sources(&settings.sources)
        .benchmark_type(&settings.benchmark_type)
        .command(&settings.command)
        .thread(thread)
        .procfs(&settings.procfs)
        .lock_process(true)
        .for_agent(place.run_id, &settings.launcher);
    if let Some(base) = &place.ring_base {
        builder = builder.ring_dir(base);
    }
    builder = match &place.mirror_base {
        _ if !settings.mirror => builder.no_mirror(),
        Some(base) => builder.mirror_dir(base),
        None => builder,
    };
    Ok(builder)
}

/// What the next question is asked of.
struct Waiting {
    recorder: Recorder,
    settings: Settings,
    log: PathBuf,
}

impl Waiting {
    fn run(mut self, listener: &Listener) {
        let began = Instant::now();
        let orphan_timeout = self.settings.orphan_timeout.min(LONGEST);
        let longest = self.settings.max_duration.unwrap_or(LONGEST).min(LONGEST);
        let (mut began, mut heard) = (began, began);
        loop {
            let patience = if self.recorder.is_running() {
                orphan_timeout
            } else {
                orphan_timeout.min(START_PATIENCE)
            };
            let longest = if self.recorder.is_running() { longest } else { LONGEST };
            let deadline = (heard + patience).min(began + longest);
            let Some((ask, stream)) = listener.next(deadline) else { break };
            match ask {
                Ask::State => answer(&stream, &Told::State(self.state())),
                Ask::Beat => {
                    heard = Instant::now();
                    answer(&stream, &Told::State(self.state()));
                }
                Ask::Go { start_monotonic_ns } => {
                    heard = Instant::now();
                    if !self.recorder.is_running() {
                        began = heard;
                    }
                    if !self.go(&stream, start_monotonic_ns) {
                        return;
                    }
                }
                Ask::Stop => {
                    self.stop();
                    answer(&stream, &Told::Stopped);
                    return;
                }
            }
        }
        self.stop();
    }

    /// Whether there is still something to wait for.
    fn go(&mut self, stream: &UnixStream, start_ns: u64) -> bool {
        if self.recorder.is_running() {
            self.recorder.follow(start_ns);
            answer(stream, &Told::State(self.state()));
            return true;
        }
        // The answer comes before the start: until then it could not be heard in time.
        answer(stream, &Told::State(RecorderState::Prepared));
        match self.recorder.go(start_ns) {
            Ok(_) => true,
            Err(error) => {
                eprintln!("ringstat: {error}");
                false
            }
        }
    }

    fn state(&self) -> RecorderState {
        if !self.recorder.is_running() {
            return RecorderState::Prepared;
        }
        let (samples, missed) = self.recorder.progress();
        RecorderState::Running { samples, missed }
    }

    /// The last sample, and everything where the front finds it.
    fn stop(&mut self) {
        match self.recorder.stop() {
            Ok(recording) => {
                recording.save_rings();
            }
            // It has removed what it had.
            Err(RecorderError::NotStarted) => {}
            Err(error) => eprintln!("ringstat: {error}"),
        }
        let _ = remove_if_empty(&self.log);
    }
}

/// Nobody needs a log that says nothing.
fn remove_if_empty(log: &Path) -> io::Result<()> {
    let (place, name) = crate::place::Place::of(log)?;
    let log = place.read(name)?;
    if log.metadata()?.len() == 0 {
        place.remove_if(name, &log)?;
    }
    Ok(())
}
