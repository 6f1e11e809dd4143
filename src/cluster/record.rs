//! What a launcher knows of each host of a run, kept in the run's manifest: who it is, how far it is,
//! what went wrong, what its clock said. Bounded, whatever happens for however long.

use super::clock::{MOST_DRIFT_PPM, Offset, drift_ppm, now};
use super::hosts::HostSpec;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Failures of one host that are kept.
const MAX_ERRORS: usize = 20;
/// Measurements of one host's clock that are kept: the first, the last, and every so many between.
const MAX_CLOCKS: usize = 64;

/// One host of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRecord {
    /// As it was asked for.
    pub spec: HostSpec,
    /// The run on that host.
    pub run_id: Uuid,
    /// How far it is.
    pub state: HostState,
    /// What it calls itself; empty until it has said so.
    #[serde(default)]
    pub hostname: String,
    /// What went wrong.
    #[serde(default)]
    pub errors: Vec<Failure>,
    /// What is in the way at the moment.
    #[serde(default)]
    pub trouble: Option<Failure>,
    /// Its recorder was gone before it was told to end.
    #[serde(default)]
    pub has_lost_recorder: bool,
    /// Its recorder has ended, by being told to or before.
    #[serde(default)]
    pub is_stopped: bool,
    /// Another name of what may be the same machine, as it says itself, but whose recorder is not seen
    /// there.
    #[serde(default)]
    pub unseen_twin: Option<String>,
    /// Its clock against the launcher's, in the order of time.
    #[serde(default)]
    pub clocks: Vec<Offset>,
    /// Measurements between two that are kept, less one.
    #[serde(default)]
    clock_stride: u32,
    #[serde(default)]
    clocks_since: u32,
    /// Whether a time service keeps it right, as its kernel has it.
    #[serde(default)]
    pub clock_synchronised: Option<bool>,
    /// Of its rings, as they were fetched.
    #[serde(default)]
    pub collected_bytes: u64,
    /// It has nothing of the run any more.
    #[serde(default)]
    pub is_discarded: bool,
}

/// How far a host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It is this machine, and recorded without an agent.
    Here,
    /// It is being reached.
    SettingUp,
    /// It waits for its start.
    Ready,
    /// It records, as far as is known.
    Recording,
    /// It has samples that are not here, as far as is known.
    Owing,
    /// All that it had is here.
    Collected,
    /// It was never ready: it has no samples.
    Failed,
    /// It was not ready in time, and has no samples; a recorder may wait there for its start.
    GivenUp,
    /// It is the same machine as the one of that name.
    SameAs(String),
}

impl HostState {
    /// Whether there may be samples that can be fetched.
    pub fn owes(&self) -> bool {
        matches!(self, HostState::Ready | HostState::Recording | HostState::Owing)
    }

    /// Whether something is to be done with it when it can be reached: samples are to be fetched, or
    /// what waits there to be ended.
    pub fn is_pending(&self) -> bool {
        self.owes() || *self == HostState::GivenUp
    }
}

/// Where a host failed, for the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It could not be reached.
    Ssh,
    /// It could not record, or not hand over what it has.
    Collection,
}

/// Something that went wrong with a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where.
    pub kind: FailureKind,
    /// `CLOCK_REALTIME` of the launcher, ns.
    pub time_unix_ns: u64,
    /// What.
    pub message: String,
}

impl Failure {
    /// One that was noticed just now.
    pub fn now(kind: FailureKind, message: &str) -> Failure {
        Failure { kind, time_unix_ns: now().wall_ns, message: message.to_owned() }
    }
}

impl HostRecord {
    /// A host of which nothing is known yet.
    pub fn new(spec: HostSpec, run_id: Uuid, state: HostState) -> HostRecord {
        HostRecord {
            spec,
            run_id,
            state,
            hostname: String::new(),
            errors: Vec::new(),
            trouble: None,
            has_lost_recorder: false,
            is_stopped: false,
            unseen_twin: None,
            clocks: Vec::new(),
            clock_stride: 1,
            clocks_since: 0,
            clock_synchronised: None,
            collected_bytes: 0,
            is_discarded: false,
        }
    }

    /// Notes what went wrong.
    pub fn add_error(&mut self, failure: Failure) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(failure);
        }
    }

    /// Notes a measurement. When there are too many, every other one between the first and the last
    /// goes, and from then on half as many are kept.
    pub fn add_clock(&mut self, offset: Offset) {
        // The one before was kept because it was the last.
        if self.clocks_since > 0 && self.clocks.len() > 1 {
            self.clocks.pop();
        }
        self.clocks.push(offset);
        self.clocks_since = (self.clocks_since + 1) % self.clock_stride.max(1);
        if self.clocks.len() > MAX_CLOCKS {
            let last = self.clocks.len() - 1;
            let mut index = 0;
            self.clocks.retain(|_| {
                index += 1;
                (index - 1) % 2 == 0 || index - 1 == last
            });
            self.clock_stride = self.clock_stride.max(1).saturating_mul(2);
            self.clocks_since = 1;
        }
    }

    /// How much faster its clock runs than the launcher's, ppm, if that can be told.
    pub fn drift_ppm(&self) -> Option<f64> {
        let drift = drift_ppm(self.clocks.first()?, self.clocks.last()?)?;
        (drift.abs() <= MOST_DRIFT_PPM as f64).then_some(drift)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn record() -> HostRecord {
        HostRecord::new("a".parse().unwrap(), Uuid::nil(), HostState::SettingUp)
    }

    #[test]
    fn the_first_and_the_last_measurement_stay_and_some_between() {
        let mut record = record();
        for at_ns in 0..10_000 {
            record.add_clock(Offset { at_ns, ..Offset::default() });
            assert!(record.clocks.len() <= MAX_CLOCKS + 1);
            assert_eq!(record.clocks[0].at_ns, 0);
            assert_eq!(record.clocks.last().unwrap().at_ns, at_ns);
            assert!(record.clocks.is_sorted_by_key(|clock| clock.at_ns));
        }
        assert!(record.clocks.len() > MAX_CLOCKS / 4, "{}", record.clocks.len());
    }

    #[test]
    fn a_clock_that_was_set_has_no_drift() {
        let at = |at_ns, monotonic_ns| Offset { at_ns, monotonic_ns, ..Offset::default() };
        let mut record = record();
        assert_eq!(record.drift_ppm(), None);
        record.add_clock(at(0, 0));
        record.add_clock(at(1_000_000_000, 20_000));
        assert_eq!(record.drift_ppm(), Some(20.0));
        record.add_clock(at(2_000_000_000, 1 << 40));
        assert_eq!(record.drift_ppm(), None, "another boot");
    }
}
