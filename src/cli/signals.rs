//! Signals that reach ringstat, told apart by who sent them: the terminal, which the command hears
//! as well, or a process that meant ringstat alone.

use super::term;
use signal_hook::consts::SIGCHLD;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;
use signal_hook::low_level::siginfo::Cause;
use std::io;
use std::sync::Arc;

/// What ends a recording without a command.
pub const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
/// What a command is to hear.
pub const FORWARDED: [i32; 6] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];

/// One signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    pub number: i32,
    /// The command has not heard it: it was sent to ringstat alone, as far as can be told.
    pub for_us_alone: bool,
}

/// Calls `heard` for each of `signals`, on a thread of its own, until the process ends. Those that
/// were ignored when ringstat was started (`nohup`, a shell's background job) stay ignored, by
/// ringstat and by its command.
pub fn listen(signals: &[i32], mut heard: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let wanted: Vec<i32> =
        signals.iter().copied().filter(|number| ignored & (1 << (number - 1)) == 0).collect();
    let mut queue = SignalsInfo::<WithOrigin>::new(wanted)?;
    std::thread::Builder::new().name("rs-signals".to_owned()).spawn(move || {
        for origin in &mut queue {
            heard(Signal { number: origin.signal, for_us_alone: is_for_us_alone(&origin) });
        }
    })?;
    Ok(())
}

/// Ends ringstat while it writes files, because it was told so more than once.
pub fn leave(status: u8) -> ! {
    term::warn(
        "interrupted; the rings stay, and `ringstat recover` will write the files (with the same \
         --ring-dir and --mirror-dir, if these were given)",
    );
    std::process::exit(status.into());
}

/// A file that may not grow further (`RLIMIT_FSIZE`) is an error to be told, not a signal that
/// kills. A handler and not "ignore", which the command would inherit.
pub fn survive_inheritance() {
    // Without it such a write ends ringstat, as it would have without this call.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    // A parent that ignores SIGCHLD hands that down, and the kernel would keep no exit status.
    let _ = signal_hook::flag::register(SIGCHLD, Arc::default());
}

/// The terminal's signals come from the kernel, and go to the whole foreground process group, the
/// command included. What a process sends is meant for ringstat, as far as can be told: a
/// supervisor of our own group must be able to stop the command. (One that signals the whole group
/// reaches the command twice.)
fn is_for_us_alone(origin: &Origin) -> bool {
    matches!(origin.cause, Cause::Sent(_))
}

/// The set of ignored signals, from `/proc/self/status` (proc(5), `SigIgn`).
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
