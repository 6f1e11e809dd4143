//! What a time series of several hosts is made from: each host as it was asked for, with its rings,
//! what went wrong with it, and what is known of its clock. Types alone; `cluster` reads the rings.

use super::error::DecodeError;
use crate::ring::Ring;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A run of several hosts, as its launcher knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRun {
    /// The run. The rings of each host have a run id of their own.
    pub run_id: Uuid,
    /// Time between two ticks, ns.
    pub interval_ns: u64,
    /// `CLOCK_REALTIME` of the launcher when the run began, ns: the start of a file in which no host
    /// has a sample.
    pub start_wall_ns: u64,
    /// The same when it ended, ns: the end of such a file, and when it was found that the rings of
    /// a host cannot be read.
    pub end_wall_ns: u64,
    /// How the samples were had.
    pub collection_method: CollectionMethod,
}

/// How the samples of a run were had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CollectionMethod {
    /// All from this machine.
    #[default]
    Local,
    /// Some from others.
    Ssh,
}

impl CollectionMethod {
    /// As the output has it.
    pub fn name(self) -> &'static str {
        match self {
            CollectionMethod::Local => "local",
            CollectionMethod::Ssh => "ssh",
        }
    }
}

/// One host of a run.
#[derive(Debug)]
pub struct HostRings {
    /// As it was asked for, which is its key in the output. No two hosts have the same one.
    pub name: String,
    /// What was collected.
    pub data: HostData,
    /// What went wrong, in any order. Each is a sample of its own. Who collects them bounds their
    /// number and length.
    pub errors: Vec<HostError>,
    /// Its clock against the launcher's, if it was measured.
    pub clock: Option<HostClock>,
    /// Bytes of text that its samples may be, if it is not trusted to say no more than it has to. If they
    /// are more, that becomes an error of the host.
    pub most_text_bytes: Option<u64>,
}

impl HostRings {
    /// A host with nothing wrong so far, a clock that was not measured, and as much text as it has.
    pub fn new(name: impl Into<String>, data: HostData) -> HostRings {
        HostRings {
            name: name.into(),
            data,
            errors: Vec::new(),
            clock: None,
            most_text_bytes: None,
        }
    }
}

/// Opens the rings of a host, all of one run: each time the same ones. That happens twice, when
/// samples are counted and when they are written, and they are closed in between.
pub type OpenRings = Box<dyn Fn() -> Result<Vec<Ring>, DecodeError> + Send + Sync>;

/// What was collected of a host.
pub enum HostData {
    /// Rings. If they cannot be read, that becomes an error of the host.
    Rings(OpenRings),
    /// Nothing: the errors say why.
    Nothing,
    /// It is the same machine as this host before it, which has the samples.
    SameAs(String),
}

impl fmt::Debug for HostData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostData::Rings(_) => f.write_str("Rings"),
            HostData::Nothing => f.write_str("Nothing"),
            HostData::SameAs(name) => f.debug_tuple("SameAs").field(name).finish(),
        }
    }
}

/// Where a host failed; the name is that of the published format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostErrorKind {
    /// It could not be reached.
    Ssh,
    /// It was reached, and could not record or hand over its samples.
    Collection,
    /// What it said could not be understood.
    Json,
}

impl HostErrorKind {
    /// As the output has it.
    pub fn name(self) -> &'static str {
        match self {
            HostErrorKind::Ssh => "ssh",
            HostErrorKind::Collection => "collection",
            HostErrorKind::Json => "json",
        }
    }
}

/// A failure of a whole host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostError {
    /// Where it failed.
    pub kind: HostErrorKind,
    /// `CLOCK_REALTIME` when that was noticed, ns.
    pub time_unix_ns: u64,
    /// What happened and what to do, in a sentence.
    pub message: String,
}

/// The clock of a host against that of the launcher.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HostClock {
    /// The host's clock minus the launcher's, ms.
    pub offset_ms: f64,
    /// How far off that may be, ms.
    pub uncertainty_ms: f64,
    /// How much faster it runs, parts per million; needs two measurements.
    pub drift_ppm: Option<f64>,
    /// Whether the host's own time service says that its clock is synchronised.
    pub synchronised: Option<bool>,
}
