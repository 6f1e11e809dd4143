//! Rings of every version of the format, kept for ever, and what they decode to.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use ringstat::ring::Ring;
use ringstat::{Decoder, JSON};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn version_1_decodes_to_what_it_always_has() {
    let ring = Ring::open(&golden("v1.ring")).unwrap();
    let mut decoder = Decoder::new(vec![ring]).unwrap();
    let mut json = Vec::new();
    decoder.write(&JSON, &mut json, &mut |_, _| {}).unwrap();
    let json = String::from_utf8(json).unwrap();
    // The one thing that is allowed to change: who decoded it.
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let json = json.replace(&version, "\"version\": \"VERSION\"");
    let path = golden("v1.json");
    if std::env::var_os("RINGSTAT_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &json).unwrap();
    }
    assert_eq!(json, std::fs::read_to_string(path).unwrap());
}
