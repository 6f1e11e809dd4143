//! What the program does when it measures and needs itself as another process: the floor, and load.
//! Such a process ends when the one that started it does, however that ends.

use super::{Floor, PROCFS, Scratch};
use crate::run::Recorder;
use crate::source::SOURCES;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::convert::Infallible;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

// First arguments; the second is the number of the process that waits for it.

/// The floor, at an interval in us.
const FLOOR: &str = "--measure-floor";
/// Keeps a CPU busy.
const SPIN: &str = "--measure-spin";
/// A recorder: interval in us, directories for results, ring, and mirror if there is to be one.
const RECORD: &str = "--measure-record";

/// To be called first by every program that measures: does what a child process is there for, if
/// this is one. `None` for any other process, after a look at its first argument alone.
pub fn child_main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next()?;
    let work = match role.to_str()? {
        FLOOR => floor_main,
        SPIN => spin_main,
        RECORD => record_main,
        _ => return None,
    };
    let parent = arguments.next()?.to_str()?.parse().ok().and_then(Pid::from_raw);
    // Without it, it would outlive a parent that is killed; which may just have happened.
    let dies_with_parent = set_parent_process_death_signal(Some(Signal::KILL));
    if dies_with_parent.is_err() || getppid() != parent {
        return Some(ExitCode::FAILURE);
    }
    let arguments: Vec<OsString> = arguments.collect();
    let Err(error) = work(&arguments);
    // Whoever started it shows that.
    eprintln!("{error}");
    Some(ExitCode::FAILURE)
}

type Never = Result<Infallible, Box<dyn Error>>;

fn interval_of(arguments: &[OsString]) -> Result<Duration, Box<dyn Error>> {
    let us = arguments.first().and_then(|us| us.to_str()).ok_or("no interval")?;
    Ok(Duration::from_micros(us.parse()?))
}

fn floor_main(arguments: &[OsString]) -> Never {
    Ok(Floor::new(&SOURCES, Path::new(PROCFS))?.keep_reading(interval_of(arguments)?)?)
}

fn spin_main(_: &[OsString]) -> Never {
    let mut word = 1_u64;
    loop {
        word = std::hint::black_box(word.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    }
}

fn record_main(arguments: &[OsString]) -> Never {
    let builder = Recorder::builder().interval(interval_of(arguments)?).lock_process(true);
    let builder = match arguments {
        [_, results, ring] => builder.results_dir(results).ring_dir(ring).no_mirror(),
        [_, results, ring, mirror] => {
            builder.results_dir(results).ring_dir(ring).mirror_dir(mirror)
        }
        _ => return Err("no directories".into()),
    };
    let mut recorder = builder.build()?;
    recorder.start()?;
    loop {
        std::thread::park();
    }
}

/// This program as the floor.
///
/// # Errors
/// This program cannot be found.
pub fn floor(interval: Duration) -> io::Result<Command> {
    own(FLOOR, &[us(interval).as_ref()])
}

/// This program, spinning.
pub(super) fn busy() -> io::Result<Command> {
    own(SPIN, &[])
}

/// This program as a recorder, for programs that are no recorder by themselves.
///
/// # Errors
/// This program cannot be found.
pub fn record(interval: Duration, scratch: &Scratch) -> io::Result<Command> {
    let mut command = own(RECORD, &[us(interval).as_ref(), scratch.results_dir().as_ref()])?;
    command.arg(scratch.ring_dir()).args(scratch.mirror_dir());
    Ok(command)
}

fn us(interval: Duration) -> String {
    interval.as_micros().to_string()
}

fn own(role: &str, arguments: &[&OsStr]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).arg(std::process::id().to_string()).args(arguments);
    Ok(command)
}
