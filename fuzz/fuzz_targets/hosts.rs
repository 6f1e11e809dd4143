//! Any text as the value of `--hosts` and as a hostfile.
//!
//! Beyond "no panic": what is taken is a bounded list of clean names, each once, that nothing could
//! take for an option or for more than one word of a shell; each is read back from its name as the
//! same host; and what is refused is refused in one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringstat::hosts::{HostList, HostSpec, HostsError, MAX_HOSTS};
use std::collections::HashSet;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        check(|hosts| hosts.add(text, "--hosts"));
    }
    check(|hosts| hosts.add_file_bytes(data, Path::new("hostfile")));
});

fn check(add: impl FnOnce(&mut HostList) -> Result<(), HostsError>) {
    let mut hosts = HostList::new();
    if let Err(wrong) = add(&mut hosts) {
        let said = wrong.to_string();
        assert!(said.len() < 4096 && !said.chars().any(char::is_control), "{said:?}");
        return;
    }
    let hosts = hosts.into_hosts();
    assert!(hosts.len() <= MAX_HOSTS);
    let mut names = HashSet::new();
    for host in &hosts {
        assert!(names.insert(&host.name), "{} twice", host.name);
    }
    // All are made in the same way.
    for host in hosts.iter().take(64) {
        let is_clean =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '@');
        assert!(host.host.chars().all(|c| is_clean(c) || matches!(c, ':' | '%')), "{host:?}");
        for part in host.user.iter().chain([&host.host, &host.name]) {
            assert!(!part.is_empty() && !part.starts_with('-'), "{host:?}");
        }
        assert!(host.user.iter().all(|user| user.chars().all(is_clean)), "{host:?}");
        assert_eq!(host.name.parse::<HostSpec>().as_ref(), Ok(host));
    }
}
