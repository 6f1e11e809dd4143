//! `ringstat recover`: what dead runs left behind, and the files that they owed.

use super::args::RecoverArgs;
use super::decode::store;
use super::term::{self, FETCHED, Progress, Volume};
use super::{FAILED, open_files};
use ringstat::{FoundRun, HostProgress, LocateError, Located, RunState, Store};
use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, Instant};

/// How long a killed recorder may take to be gone.
const DYING: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub fn main(args: &RecoverArgs) -> u8 {
    let store = store(&args.places);
    let patience = if args.list { Duration::ZERO } else { DYING };
    let runs = match settled(&store, &args.runs, patience) {
        Ok(runs) => runs,
        Err(error) => {
            term::error(error);
            return FAILED;
        }
    };
    if args.list {
        list(&runs);
        return 0;
    }
    let mut status = 0;
    let mut owing = 0;
    for run in &runs {
        match run.state {
            RunState::Owing => {
                if args.runs.is_empty()
                    && let Some((dir, why)) = run.distrust()
                {
                    let dir = dir.display();
                    term::warn(format_args!("run {} is left alone: {dir} {why}", run.run_id));
                    continue;
                }
                let launcher =
                    run.manifest.as_ref().and_then(|manifest| manifest.launcher.as_ref());
                if args.runs.is_empty()
                    && let Some(launcher) = launcher
                {
                    Volume::Normal.say(format_args!(
                        "run {} is fetched by `ringstat recover` on {launcher}; name it to write its \
                         files here",
                        run.run_id
                    ));
                    continue;
                }
                if args.runs.is_empty()
                    && let Some(host) = run.other_host()
                {
                    term::warn(format_args!(
                        "run {} is left alone: it was begun on {host}, and may be recording there. \
                         Recover it on {host}, or name it if it is dead: ringstat recover {}",
                        run.run_id, run.run_id
                    ));
                    continue;
                }
                owing += 1;
                status = status.max(recover(args, run));
            }
            RunState::Recording if !args.runs.is_empty() => {
                term::error(format_args!("run {} is still recording", run.run_id));
                status = FAILED;
            }
            RunState::Kept if !args.runs.is_empty() => {
                term::error(format_args!(
                    "run {} owes nothing; its rings were kept, see ringstat decode",
                    run.run_id
                ));
            }
            RunState::Recording | RunState::Kept => {}
        }
    }
    if owing == 0 && args.runs.is_empty() {
        Volume::Normal.say("no run owes any files");
    }
    status
}

/// The runs that are wanted. A recorder that was killed just now holds its locks until the kernel has
/// taken its memory apart: a run that seems to live is looked at again for a moment.
fn settled(
    store: &Store,
    names: &[String],
    patience: Duration,
) -> Result<Vec<FoundRun>, LocateError> {
    let since = Instant::now();
    loop {
        let runs = wanted(store, names)?;
        let lives = runs.iter().any(|run| run.state == RunState::Recording);
        if !lives || since.elapsed() >= patience {
            return Ok(runs);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn wanted(store: &Store, names: &[String]) -> Result<Vec<FoundRun>, LocateError> {
    if names.is_empty() {
        return Ok(store.runs());
    }
    names
        .iter()
        .map(|name| match store.locate(name)? {
            Located::Run(run) => Ok(*run),
            Located::File(_) => Err(LocateError::Unknown(name.clone())),
        })
        .collect()
}

fn recover(args: &RecoverArgs, run: &FoundRun) -> u8 {
    let volume = Volume::Normal;
    let mut writing = Progress::new("writing samples", volume);
    let (empty, cut_off) = (run.empty_rings(), run.cut_off_rings());
    let cluster = run.manifest.as_ref().and_then(|manifest| manifest.cluster.as_ref());
    open_files::suffice_for(cluster.map_or(0, |cluster| cluster.host_count()));
    let fetching = RefCell::new(Some(Progress::new("fetching", volume)));
    let mut fetches = |hosts: &HostProgress| {
        if let Some(progress) = &mut *fetching.borrow_mut() {
            progress.line(term::of_hosts(hosts, FETCHED));
        }
    };
    let mut writes = |done, total| {
        // One line at a time.
        fetching.borrow_mut().take();
        writing.set(done, total);
    };
    let result = run.recover_with(args.output.as_deref(), &mut fetches, &mut writes);
    drop((fetching, writing));
    match result {
        Ok(Some(files)) => {
            volume.say(format_args!("recovered run {}", run.run_id));
            volume.files(&files);
            cut_off.iter().for_each(term::warn);
            if files.problems.is_empty() { 0 } else { FAILED }
        }
        Ok(None) => {
            volume.say(format_args!("run {} had nothing left to write", run.run_id));
            for ring in empty {
                term::warn(format_args!(
                    "its ring {} was empty: it was killed before its first sample, or somebody has \
                     emptied the file",
                    ring.display()
                ));
            }
            0
        }
        Err(error) => {
            term::error(format_args!("cannot recover run {}: {error}", run.run_id));
            for dir in &run.dirs {
                term::error(format_args!("its rings stay in {}", dir.display()));
            }
            FAILED
        }
    }
}

fn list(runs: &[FoundRun]) {
    let mut out = std::io::stdout().lock();
    let mut row = |cells: [&str; 5]| {
        let [run, state, samples, kind, place] = cells;
        // A reader that has seen enough is no error.
        let _ = writeln!(out, "{run:<36}  {state:<9}  {samples:>8}  {kind:<16}  {place}");
    };
    row(["RUN", "STATE", "SAMPLES", "TYPE", "RINGS"]);
    for run in runs {
        let state = match run.state {
            RunState::Recording => "recording",
            RunState::Owing if run.other_host().is_some() => "elsewhere",
            RunState::Owing => "owing",
            RunState::Kept => "kept",
        };
        let samples = run.samples_kept().map_or_else(|_| "?".to_owned(), |it| it.to_string());
        let kind = run.manifest.as_ref().map_or("?", |manifest| manifest.benchmark_type.as_str());
        let places: Vec<String> = run.dirs.iter().map(|dir| dir.display().to_string()).collect();
        row([&run.run_id.to_string(), state, &samples, kind, &places.join(" ")]);
    }
}
