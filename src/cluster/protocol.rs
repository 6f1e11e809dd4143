//! What launcher and agent say to each other, and in which version: words, and no more. How they become
//! bytes is `frames`'.

use super::clock::Moment;
use super::machine::MachineIdentity;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Version of this and of the frames around it. The launcher brings its agent along, so that it differs
/// only where `--remote-binary` names another.
pub const VERSION: u32 = 3;
/// Ring files that one host may have: as many as a run can have at a time, and their mirrors.
pub const MAX_FILES: usize = 512;

/// How long a recorder waits for its start, which the launcher is about to give it; then it ends, and
/// nothing is left.
pub const START_PATIENCE: Duration = Duration::from_secs(600);

/// What a launcher asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What time is it? `beat`: and tell the recorder that somebody still wants it.
    Ping {
        /// Comes back.
        id: u64,
        /// Whether the recorder is to hear of it.
        beat: bool,
    },
    /// All that follows is about this run.
    Attach(Place),
    /// Is there anything of this other run on this machine, which may have another name? All else is still
    /// about the run that was [attached](Self::Attach) to.
    Look {
        /// The other run.
        place: Place,
        /// Who logs in where it is recorded, if that is known: another user's recorder is seen only if it
        /// is that one's.
        user: Option<String>,
    },
    /// Get everything ready, and wait for [`Go`](Self::Go).
    Prepare(Box<Settings>),
    /// Tick 0 is at this instant of the host's `CLOCK_MONOTONIC`. Said again while it records, as its clock
    /// runs away from ours: ticks to come are counted from this one.
    Go {
        /// The instant.
        start_monotonic_ns: u64,
    },
    /// Take the last sample, and end.
    Stop,
    /// Which rings are there?
    List,
    /// Send one of them, from an offset on.
    Fetch {
        /// Its place in the list.
        file: u32,
        /// What is there already.
        from: u64,
    },
    /// The rings are not needed any more.
    Discard,
    /// The conversation is over.
    Bye,
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Its first words.
    Hello(Box<Hello>),
    /// To [`Request::Ping`].
    Pong {
        /// That of the ping.
        id: u64,
        /// The host's clocks.
        now: Moment,
        /// The recorder, if it was to hear of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recorder: Option<RecorderState>,
    },
    /// To [`Request::Attach`].
    Attached(RecorderState),
    /// To [`Request::Look`]: whether there is.
    Seen(bool),
    /// To [`Request::Prepare`]: it waits.
    Prepared,
    /// To [`Request::Go`].
    Going,
    /// To [`Request::Stop`]: no recorder of this run is alive.
    Stopped {
        /// Whether it ended just now, by itself, or was gone already.
        was_running: bool,
    },
    /// To [`Request::List`].
    Files(Vec<FileEntry>),
    /// Behind the last chunk of a file.
    End {
        /// Its place in the list.
        file: u32,
        /// XXH3-64 of all its bytes.
        check: u64,
        /// How many of them cannot be read: zeros stand in their place.
        unreadable: u64,
    },
    /// To [`Request::Discard`].
    Discarded,
    /// To [`Request::Bye`].
    Goodbye,
    /// Instead of any of these.
    Failed {
        /// Why.
        what: String,
    },
}

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program.
    pub ringstat: String,
    /// What the host calls itself.
    pub hostname: String,
    /// The same for two names of one machine, and for no two machines.
    pub machine: MachineIdentity,
    /// Whether the kernel's clock is disciplined by a time service; `None` if it does not say.
    pub clock_synchronised: Option<bool>,
}

impl Hello {
    /// An agent's first words, of this machine: `hostname` is what it calls itself.
    pub fn here(hostname: String, clock_synchronised: Option<bool>) -> Hello {
        Hello {
            version: VERSION,
            ringstat: env!("CARGO_PKG_VERSION").to_owned(),
            hostname,
            machine: MachineIdentity::own(),
            clock_synchronised,
        }
    }
}

/// A run on a host, and where it lies there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The run on this host.
    pub run_id: Uuid,
    /// Another directory below which rings go.
    pub ring_base: Option<String>,
    /// Another directory below which mirrors go.
    pub mirror_base: Option<String>,
}

/// What there is of a run on a host.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecorderState {
    /// Nothing.
    #[default]
    None,
    /// A recorder that waits for its start.
    Prepared,
    /// A recorder that lives.
    Running {
        /// Samples taken.
        samples: u64,
        /// Ticks missed.
        missed: u64,
    },
    /// A recorder that lives, and does not say how it is in time.
    Silent,
    /// Rings, and no recorder.
    Ended,
}

/// How a host is to record. What is not said is as the launcher's own options have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Time between two ticks.
    pub interval: Duration,
    /// Newest samples that are kept.
    pub max_samples: u64,
    /// Time between two syncs of the mirror.
    pub sync_interval: Duration,
    /// Sources by name.
    pub sources: Vec<String>,
    /// For the ring's description.
    pub benchmark_type: String,
    /// For the ring's description.
    pub command: Vec<String>,
    /// Name of the policy of the sampler's thread.
    pub policy: String,
    /// Its nice value.
    pub nice: Option<i32>,
    /// Its CPU: a number, `none` or `auto`.
    pub cpu: String,
    /// Another `/proc`.
    pub procfs: String,
    /// Whether there is to be a mirror.
    pub mirror: bool,
    /// How long to record without hearing of a launcher.
    pub orphan_timeout: Duration,
    /// How long to record at most.
    pub max_duration: Option<Duration>,
    /// Who asks, for people who find the run on the host.
    pub launcher: String,
}

/// One ring file as it can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Number of the segment.
    pub segment: u64,
    /// Whether it is the mirror's copy.
    pub is_mirror: bool,
    /// Bytes up to the last one that was written.
    pub bytes: u64,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::frames::put_control;
    use super::*;

    #[test]
    fn a_heartbeat_is_a_few_bytes() {
        let mut bytes = Vec::new();
        put_control(&Request::Ping { id: 1_000_000, beat: true }, &mut bytes).unwrap();
        assert!(bytes.len() < 64, "{}", bytes.len());
    }
}
