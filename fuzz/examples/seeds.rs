//! Writes the seed corpus, `seeds/`: `cargo run --example seeds` in `fuzz/`. The files are
//! committed; this is where they come from.

use ringstat_fuzz::rings::{TEXTS, ring};
use std::fs;
use std::path::Path;

/// Parts the two texts of a `proc_text` seed; no text has it.
const SEPARATOR: u8 = b'~';

const MIXED_DISKSTATS: &str = include_str!("../../tests/proc/mixed/diskstats");

fn main() -> std::io::Result<()> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let dir = seeds.join(target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(name), bytes)
    };
    for (number, def) in ringstat::source::SOURCES.iter().enumerate() {
        let (name, text) = TEXTS.iter().find(|(name, _)| *name == def.name).expect("a text");
        let two = |first: &str, second: &str, names: u8, words: u8| {
            let head = [number as u8, SEPARATOR, names, words];
            [&head[..], first.as_bytes(), &[SEPARATOR], second.as_bytes()].concat()
        };
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        write("proc_text", &format!("{name}-same"), &two(text, text, 64, 64))?;
        write("proc_text", &format!("{name}-tight"), &two(text, text, 3, 4))?;
        if lines.len() > 4 {
            let fewer = [&lines[..2], &lines[3..]].concat().concat();
            write("proc_text", &format!("{name}-fewer"), &two(text, &fewer, 64, 64))?;
            write("proc_text", &format!("{name}-more"), &two(&fewer, text, 64, 64))?;
        }
        if *name == "diskstats" {
            write("proc_text", "diskstats-other", &two(text, MIXED_DISKSTATS, 64, 64))?;
        }
    }
    let small = [TEXTS[3], ("diskstats", MIXED_DISKSTATS)];
    write("ring_bytes", "small", &ring(&small, 7))?;
    write("ring_bytes", "one-record", &ring(&TEXTS[3..4], 1))?;
    write("ring_bytes", "all", &ring(&TEXTS, 6))?;
    for (name, text) in [
        ("own", r#"{"benchmark_type":"training","result_dir":"/r","runtime":1.5}"#),
        ("last", "{\n  \"a\": {\"x\":  [1e3, null, \"\\u00e9\\/\"]},\n  \"b\": 1.50\n}\n"),
        ("there", r#"{"timeseries_data": {"file": "f"}, "runtime": 2, "\u0061": true}"#),
        ("twice", r#"{"timeseries_data": 1, "a": 2, "timeseries_data": 3, "a": 4}"#),
    ] {
        write("metadata_merge", name, text.as_bytes())?;
    }
    Ok(())
}
