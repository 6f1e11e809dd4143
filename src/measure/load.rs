//! Load: processes at the nice value that we have, as a benchmark's are, that keep CPUs busy.

use super::child;
use super::process::Process;
use super::{Attendant, MeasureError};
use std::time::Duration;

/// Until the scheduler has spread new processes over the CPUs.
const SPREADING: Duration = Duration::from_millis(500);

/// So many busy processes, until this is dropped.
pub struct Busy {
    _processes: Vec<Process>,
}

impl Busy {
    /// Starts them, and waits until they are spread.
    ///
    /// # Errors
    /// [`MeasureError::NotStarted`], [`MeasureError::Interrupted`].
    pub fn new(processes: usize, attendant: &Attendant) -> Result<Busy, MeasureError> {
        let start = |_| Process::start(child::busy()?, "a process that makes load");
        let processes: Result<Vec<_>, _> = (0..processes).map(start).collect();
        let busy = Busy { _processes: processes? };
        attendant.interrupt.wait(SPREADING)?;
        Ok(busy)
    }
}
