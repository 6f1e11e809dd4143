//! Facts about this host: read once when a run starts. What cannot be read is left empty; no run
//! fails for it.

use crate::description::SystemFacts;
use crate::sampler::thread::allowed_cpus;
use std::fs;
use uuid::Uuid;

/// What the host calls itself.
pub(crate) fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// The kernel's boot id; nil if it cannot be read.
pub(super) fn boot_id() -> Uuid {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Uuid::parse_str(text.trim()).unwrap_or_default()
}

/// Everything else.
pub(super) fn facts() -> SystemFacts {
    let uname = rustix::system::uname();
    let shown = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    SystemFacts {
        kernel: format!("{} {}", shown(uname.sysname()), shown(uname.release())),
        architecture: shown(uname.machine()),
        distribution: value(&release, "PRETTY_NAME", '=').trim_matches('"').to_owned(),
        cpu_model: value(&cpuinfo, "model name", ':').to_owned(),
        cpus: std::fs::read_to_string("/sys/devices/system/cpu/online")
            .map_or(0, |list| count(list.trim())),
        cpus_allowed: allowed_cpus().len() as u64,
        memory_total_kb: value(&meminfo, "MemTotal", ':')
            .trim_end_matches("kB")
            .trim()
            .parse()
            .unwrap_or(0),
    }
}

/// What stands behind `key` and `separator` on the first line that begins so.
fn value<'t>(text: &'t str, key: &str, separator: char) -> &'t str {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(name, _)| name.trim() == key)
        .map_or("", |(_, value)| value.trim())
}

/// The length of a list like `0-3,8`.
fn count(list: &str) -> u64 {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        Some(last.saturating_sub(first).saturating_add(1))
    });
    ranges.fold(0, u64::saturating_add)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!([count("0-3,8"), count("5"), count(""), count("x-1,2")], [5, 1, 0, 1]);
    }

    #[test]
    fn values_are_found_by_their_whole_key() {
        assert_eq!(value("model : 1\nmodel name : A B\n", "model name", ':'), "A B");
        assert_eq!(value("PRETTY_NAME=\"x\"\n", "NAME", '='), "");
    }

    #[test]
    fn this_host_has_a_name_a_boot_and_memory() {
        assert!(!hostname().is_empty() && !boot_id().is_nil());
        let facts = facts();
        assert!(facts.memory_total_kb > 0 && facts.cpus_allowed > 0, "{facts:?}");
    }
}
