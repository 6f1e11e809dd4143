//! The recorded side of a run on many hosts. Two processes: the front speaks with the launcher over
//! the connection and ends with it; the recorder has a session of its own, records like any other
//! run, and hears of the launcher through a socket in the run's directory. Uses `run` for recording
//! and `cluster` for the words; knows nothing of other hosts.

mod front;
mod machine;
mod others;
mod recorder;
mod rings;
pub mod scripted;
mod socket;

pub use front::serve;
pub use recorder::record;
