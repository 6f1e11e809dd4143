//! Every file of the captured trees, compared with the [naive](super::naive) reading. Those in `tests/proc`
//! are this project's: its fixed texts, and what a 6.18 kernel said of a virtual machine and of 120 interfaces.
//! Other projects' trees stay where they are; where they are not, this says so.

use super::*;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Compares the files of one tree; of how many sources there are any.
fn compared(proc: &Path) -> Vec<&'static str> {
    let mut compared = Vec::new();
    for source in super::super::SOURCES {
        let Ok(text) = fs::read(proc.join(source.file)) else { continue };
        let expected = naive::read(source.name, &text);
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        let readable = match source.name {
            "diskstats" => lines,
            "netdev" => lines - 2,
            _ => 1,
        };
        assert_eq!(expected.len(), readable, "{}: the naive reading fails", proc.display());
        let mut lab = Lab::with_room(source.name, &text, 1 << 16, 1024).unwrap();
        for _ in 0..2 {
            assert_eq!(lab.values(&text), expected, "{}/{}", proc.display(), source.file);
        }
        compared.push(source.name);
    }
    compared
}

fn trees(roots: &Path) -> Vec<PathBuf> {
    let trees = fs::read_dir(roots).unwrap_or_else(|error| panic!("{}: {error}", roots.display()));
    trees.map(|tree| tree.unwrap().path()).filter(|tree| tree.is_dir()).collect()
}

fn assert_all_sources(compared: &[&str], roots: &Path) {
    for source in super::super::SOURCES {
        assert!(compared.contains(&source.name), "no {} in {}", source.name, roots.display());
    }
}

#[test]
fn captured_files_are_read_as_the_naive_reading_does() {
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proc");
    let of_host = compared(&roots.join("captured-6.18"));
    assert_all_sources(&of_host, &roots.join("captured-6.18"));
    for tree in trees(&roots) {
        assert!(!compared(&tree).is_empty(), "nothing in {}", tree.display());
    }
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/proc-roots");
    if !roots.is_dir() {
        // Not `eprintln`, which the test harness keeps to itself while a test passes.
        let mut stderr = std::io::stderr();
        let roots = roots.display();
        let _ = writeln!(stderr, "SKIPPED: {roots} is missing, only tests/proc is compared");
        return;
    }
    let all: Vec<&str> =
        trees(&roots).iter().flat_map(|tree| compared(&tree.join("proc"))).collect();
    assert_all_sources(&all, &roots);
}
