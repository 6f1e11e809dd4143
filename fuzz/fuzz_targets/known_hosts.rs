//! Any text as a file of known hosts, for a name that stands before it, parted by a zero byte.
//!
//! Beyond "no panic": a key that is trusted or revoked stands in the file as it is encoded; a line
//! that is named as another key is there; a file read twice says the same, and what follows a file
//! that trusts cannot make its key another, only a revoked one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use memchr::memmem;
use ringstat::reaching::{Entries, Verdict};
use std::path::Path;

/// `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f`.
fn key() -> Vec<u8> {
    let head: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0 ";
    head.iter().copied().chain(0..32).collect()
}

/// The last part of it, encoded: white space may stand in between, but not many kinds of it.
const TAIL: &[u8] = b"HR4f";

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (Some(name), Some(text)) = (parts.next(), parts.next()) else { return };
    let Ok(name) = std::str::from_utf8(name) else { return };
    let name = name.to_ascii_lowercase();
    let read = |text: &[u8]| {
        let mut entries = Entries::default();
        entries.add(text, Path::new("f"), &name);
        entries
    };
    let verdict = read(text).verdict(&key());
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    match &verdict {
        Verdict::Known | Verdict::Revoked => {
            let dense: Vec<u8> =
                text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            assert!(memmem::find(&dense, TAIL).is_some(), "the key does not stand there");
        }
        Verdict::Changed { line, .. } => {
            let at = lines[*line - 1];
            assert!(!at.trim_ascii().starts_with(b"#") && at.len() > 20, "line {line}");
        }
        Verdict::Unknown => {}
    }
    let twice = [text, b"\n", text].concat();
    match read(&twice).verdict(&key()) {
        Verdict::Changed { .. } => assert!(matches!(verdict, Verdict::Changed { .. })),
        again => assert_eq!(again, verdict),
    }
});
