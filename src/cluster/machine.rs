//! Which machine this is: the same for two ways to one, and another for every other.

use crate::cluster::protocol::Hello;
use std::fs;

/// Tells apart what shares a kernel, a network and a machine id, and is yet to be recorded as several
/// hosts. For tests.
const VARIABLE: &str = "RINGSTAT_MACHINE";
/// Longest part of it.
const MAX_PART_CHARS: usize = 100;

/// A machine id alone is not enough (images are cloned), nor is a boot id (containers share one, and yet
/// have interfaces of their own).
pub fn identity() -> String {
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let network = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let given = std::env::var(VARIABLE).unwrap_or_default();
    let parts = [machine_id, boot_id, network.to_string_lossy().into_owned(), given];
    parts.map(|part| part.trim().chars().take(MAX_PART_CHARS).collect::<String>()).join(" ")
}

/// An agent's first words: `hostname` is what the host calls itself.
pub fn hello(hostname: String, clock_synchronised: Option<bool>) -> Hello {
    Hello {
        version: super::protocol::VERSION,
        ringstat: env!("CARGO_PKG_VERSION").to_owned(),
        hostname,
        machine: identity(),
        clock_synchronised,
    }
}
