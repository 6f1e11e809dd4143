//! What an agent says of its host: its name, whether its clock is right, and which machine it is.

use crate::cluster::protocol::{Hello, VERSION};
use crate::run::{boot_id, hostname};
use crate::sampler::thread::is_clock_synchronised;
use std::fs;

/// Tells apart what shares a kernel, a network and a machine id, and is yet to be recorded as several
/// hosts. For tests.
const MACHINE_VARIABLE: &str = "RINGSTAT_MACHINE";
/// Longest part of a machine's identity.
const MAX_PART_BYTES: usize = 100;

/// An agent's first words.
pub fn hello() -> Hello {
    Hello {
        version: VERSION,
        ringstat: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: hostname(),
        machine: machine(),
        clock_synchronised: is_clock_synchronised(),
    }
}

/// The same for two ways to one machine, and another for every other. A machine id alone is not enough
/// (images are cloned), nor is a boot id (containers share one, and yet have interfaces of their own).
pub fn machine() -> String {
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let network = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    let given = std::env::var(MACHINE_VARIABLE).unwrap_or_default();
    let parts = [
        machine_id.trim().to_owned(),
        boot_id().to_string(),
        network.to_string_lossy().into_owned(),
        given,
    ];
    parts.map(|part| part.chars().take(MAX_PART_BYTES).collect::<String>()).join(" ")
}
