//! Many hosts: the same binary as an agent on each, started over SSH, recording by itself into its
//! own ring, its rings fetched afterwards. Uses `ring` and `decode`, is used by `run`; nothing
//! here is on the way of a sample.

pub mod check;
pub mod clock;
pub mod collect;
pub mod deploy;
pub mod frames;
pub mod hosts;
pub mod launch;
pub mod leftovers;
pub mod local;
pub mod machine;
pub mod protocol;
pub mod record;
pub mod scripted;
pub mod session;
pub mod shared;
pub mod shell;
pub mod ssh;
#[cfg(all(test, not(loom)))]
mod test_link;
pub mod transport;
pub mod ways;
mod worker;
