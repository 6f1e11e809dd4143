//! Every seed of every fuzz target is put through its target once: what a fuzzer has found stays mended
//! without a fuzzer, on a stable toolchain. The targets are those of `fuzz/`, and what they use of
//! libFuzzer is here.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// A panic is how a test fails.
// A library of other programs, with `no_main`, which get by import what is in scope here.
#![allow(dead_code, missing_docs, unused_attributes, unused_imports)]

extern crate self as libfuzzer_sys;
extern crate self as ringstat_fuzz;

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/json.rs"]
pub mod json;
#[path = "../fuzz/src/reading.rs"]
pub mod reading;
#[path = "../fuzz/src/rings.rs"]
pub mod rings;
#[path = "../fuzz/src/world.rs"]
pub mod world;

/// A target becomes a function of its input.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:expr) => {
        pub fn target($data: &[u8]) {
            $body
        }
    };
}

/// What makes new inputs is only looked at by the compiler.
#[macro_export]
macro_rules! fuzz_mutator {
    (|$data:ident: &mut [u8], $size:ident: usize, $max:ident: usize, $seed:ident: u32| $body:expr) => {
        pub fn mutator($data: &mut [u8], $size: usize, $max: usize, $seed: u32) -> usize {
            $body
        }
    };
}

/// Changes nothing.
pub fn fuzzer_mutate(_data: &mut [u8], size: usize, _max_size: usize) -> usize {
    size
}

macro_rules! replayed {
    ($($name:ident: $file:literal)*) => {
        $(
            #[path = $file]
            pub mod $name;
        )*

        mod seeds_of {
            $(
                #[test]
                fn $name() {
                    super::replay(stringify!($name), super::$name::target);
                }
            )*
        }

        const TARGETS: &[&str] = &[$(stringify!($name)),*];
    };
}

replayed! {
    agent_says: "../fuzz/fuzz_targets/agent_says.rs"
    front: "../fuzz/fuzz_targets/front.rs"
    hosts: "../fuzz/fuzz_targets/hosts.rs"
    known_hosts: "../fuzz/fuzz_targets/known_hosts.rs"
    launcher_says: "../fuzz/fuzz_targets/launcher_says.rs"
    manifest: "../fuzz/fuzz_targets/manifest.rs"
    metadata_merge: "../fuzz/fuzz_targets/metadata_merge.rs"
    proc_text: "../fuzz/fuzz_targets/proc_text.rs"
    ring_bytes: "../fuzz/fuzz_targets/ring_bytes.rs"
    timeseries_json: "../fuzz/fuzz_targets/timeseries_json.rs"
}

/// The paths in a directory of `fuzz/`, sorted.
fn files_in(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(dir);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn replay(target: &str, run: fn(&[u8])) {
    let seeds = files_in(&format!("seeds/{target}"));
    assert!(!seeds.is_empty());
    for seed in &seeds {
        // Said before it may panic.
        println!("{}", seed.display());
        run(&fs::read(seed).unwrap());
    }
    println!("{target}: {} seeds", seeds.len());
}

#[test]
fn no_target_is_left_out() {
    for dir in ["fuzz_targets", "seeds"] {
        let files = files_in(dir);
        let names: Vec<&str> =
            files.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, TARGETS, "{dir}");
    }
}

#[test]
fn what_agents_say_is_of_this_version() {
    // Of another one, nothing behind the first words would be looked at.
    let version = format!("\"version\":{}", ringstat::fuzzing::VERSION);
    for seed in files_in("seeds/agent_says") {
        let bytes = fs::read(&seed).unwrap();
        let is_so = String::from_utf8_lossy(&bytes).contains(&version);
        assert!(is_so, "{}: cargo run --example seeds, in fuzz/", seed.display());
    }
}
