//! `ringstat record`: record until the time is up or a signal comes.

use super::args::RecordArgs;
use super::run::{announce, start, write};
use super::term::{self, Progress, Volume, count};
use super::{FAILED, USAGE, open_files, signals};
use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use ringstat::{Ended, Recorder};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the progress line changes at most.
const REFRESH: Duration = Duration::from_secs(1);

pub fn main(args: &RecordArgs) -> u8 {
    let volume = Volume::of(args.options.verbose, args.options.quiet);
    let mut recorder = match args.options.builder(args.duration).build() {
        Ok(recorder) => recorder,
        Err(error) => {
            term::error(error);
            return USAGE;
        }
    };
    open_files::suffice_for(recorder.hosts().len());
    // The first signal stops the recording. While files are written one more is forgiven, which
    // may have come with the first; the next one ends ringstat.
    let (heard, stop) = unbounded();
    let writing = Arc::new(AtomicBool::new(false));
    let is_writing = writing.clone();
    let mut forgiven = false;
    let listening = signals::listen(&signals::ENDING, move |signal| {
        // Nothing is handed over by the flag.
        if is_writing.load(Ordering::Relaxed) && std::mem::replace(&mut forgiven, true) {
            signals::leave(u8::try_from(128 + signal.number).unwrap_or(u8::MAX));
        }
        let _ = heard.send(());
    });
    if let Err(error) = listening {
        term::error(format_args!("cannot listen for the signal that stops the recording: {error}"));
        return FAILED;
    }
    let since = Instant::now();
    if args.options.skip_timeseries {
        wait(&stop, args.duration, None, |_| {});
        let ended = Ended { runtime_seconds: since.elapsed().as_secs_f64(), exit_status: None };
        return match recorder.write_metadata_only(ended, &[]) {
            Ok(files) => {
                volume.files(&files);
                0
            }
            Err(error) => {
                term::error(error);
                FAILED
            }
        };
    }
    let notes = match start(&mut recorder, volume) {
        Ok(info) => announce(info, volume),
        Err(error) => {
            term::error(&error);
            return if error.is_too_large() { USAGE } else { FAILED };
        }
    };
    let mut progress = Progress::new("recording", volume);
    // Nobody is woken for a line that nobody sees, or that has nothing new in it.
    let refresh = progress.is_wanted().then_some(REFRESH.max(args.options.interval));
    wait(&stop, args.duration, refresh, |elapsed| progress.line(line(&recorder, elapsed)));
    drop(progress);
    writing.store(true, Ordering::Relaxed);
    match recorder.stop() {
        Ok(recording) => write(&recording, &notes, volume),
        Err(error) => {
            term::error(error);
            FAILED
        }
    }
}

/// Waits for the signal or the end of the time; tells `every` so often, if at all, how long it has
/// been.
fn wait(
    stop: &Receiver<()>,
    duration: Option<Duration>,
    refresh: Option<Duration>,
    mut every: impl FnMut(Duration),
) {
    let since = Instant::now();
    loop {
        let left = match duration {
            Some(duration) => duration.saturating_sub(since.elapsed()),
            None => Duration::MAX,
        };
        if left.is_zero() {
            return;
        }
        match stop.recv_timeout(left.min(refresh.unwrap_or(Duration::MAX))) {
            Err(RecvTimeoutError::Timeout) => every(since.elapsed()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn line(recorder: &Recorder, elapsed: Duration) -> String {
    let (taken, missed) = recorder.progress();
    format!(
        "recording for {} s: {}, {} missed; Ctrl-C to stop",
        elapsed.as_secs(),
        count(taken, "sample", "samples"),
        count(missed, "tick", "ticks")
    )
}
