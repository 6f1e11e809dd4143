//! Who waits for the figures: is told what is being done, and may want it to end. Nothing is
//! measured here.

use super::MeasureError;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Ends a measurement early, in order: what was made is removed. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    is_set: bool,
    /// The command that is being waited for.
    command: Option<Pid>,
}

impl Interrupt {
    /// Wakes whoever waits; ends the command that runs, and the second time without asking it.
    pub fn set(&self) {
        let (_, condvar) = &*self.shared;
        let mut state = self.state();
        let signal = if state.is_set { Signal::KILL } else { Signal::TERM };
        state.is_set = true;
        if let Some(command) = state.command {
            // It may just have ended.
            let _ = kill_process(command, signal);
        }
        condvar.notify_all();
    }

    /// # Errors
    /// [`MeasureError::Interrupted`], if it is set.
    pub fn check(&self) -> Result<(), MeasureError> {
        if self.state().is_set { Err(MeasureError::Interrupted) } else { Ok(()) }
    }

    /// Waits, without waking in between.
    ///
    /// # Errors
    /// [`MeasureError::Interrupted`], as soon as it is set.
    pub fn wait(&self, time: Duration) -> Result<(), MeasureError> {
        let (_, condvar) = &*self.shared;
        let waited = condvar.wait_timeout_while(self.state(), time, |state| !state.is_set);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_set { Err(MeasureError::Interrupted) } else { Ok(()) }
    }

    /// What [`set`](Self::set) is to end as well. Called with `None` before the process is reaped.
    pub(super) fn set_command(&self, command: Option<Pid>) {
        self.state().command = command;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells somebody what is being done, and hears whether it is still wanted.
pub struct Attendant {
    /// Ends it.
    pub interrupt: Interrupt,
    tell: Box<dyn Fn(&str)>,
}

impl Attendant {
    /// `tell` gets one line before each part: what is done and how long it takes.
    pub fn new(tell: impl Fn(&str) + 'static) -> Attendant {
        Attendant { interrupt: Interrupt::default(), tell: Box::new(tell) }
    }

    pub(super) fn tell(&self, line: impl fmt::Display) {
        (self.tell)(&line.to_string());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_ends_a_wait_and_stays() {
        let interrupt = Interrupt::default();
        interrupt.check().unwrap();
        interrupt.wait(Duration::ZERO).unwrap();
        let other = interrupt.clone();
        let waiting = std::thread::spawn(move || other.wait(Duration::from_secs(3600)).is_err());
        interrupt.set();
        assert!(waiting.join().unwrap());
        assert!(interrupt.check().is_err());
    }
}
