//! Instructions of one sample in user space, by source, as callgrind counts them: the same on a
//! noisy machine as on a quiet one, so that a change of a few percent is a change of the code.
//!
//! `cargo run --release -p ringstat-bench --bin instructions [-- --check | --update]`
//!
//! Prints the counts next to those of `bench/instructions.json`. `--check` fails if one has grown by
//! more than 5 %; `--update` writes the file, for the commit that makes it grow. Counts hold for one
//! compiler and one kind of CPU: made by another compiler they may grow by 20 %, on another kind of
//! CPU there is nothing to compare with.
//!
//! The trees are made up (see `ringstat_bench::trees`), and every counter in them changes from
//! sample to sample, or none: on a real host it is something in between. Their files are no `seq_file`s, so that each is read until nothing comes.

use ringstat::Probe;
use ringstat::source::{SOURCES, find};
use ringstat_bench::trees::Tree;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

/// Disks and interfaces of a virtual machine and of a large host, and whether all counters change.
const TREES: [(&str, usize, usize, bool); 4] = [
    ("10 disks, 4 interfaces", 10, 4, true),
    ("10 disks, 4 interfaces, still", 10, 4, false),
    ("500 disks, 200 interfaces", 500, 200, true),
    ("500 disks, 200 interfaces, still", 500, 200, false),
];
const SAMPLES: u64 = 100;
/// Percent that a count may grow.
const MARGIN: u64 = 5;
const MARGIN_OF_OTHER_COMPILER: u64 = 20;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");
const UPDATE: &str = "cargo run --release -p ringstat-bench --bin instructions -- --update";
/// First argument of the process that is counted.
const MEASURE: &str = "--measure";

/// The checked-in file, and what it is held against.
#[derive(Serialize, Deserialize)]
struct Counts {
    how_to_update: String,
    rustc: String,
    arch: String,
    valgrind: String,
    /// By tree and source.
    instructions_per_sample: BTreeMap<String, BTreeMap<String, u64>>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [MEASURE, source, disks, interfaces, changes] => {
            let tree = Tree::new(disks.parse()?, interfaces.parse()?)?;
            measure(source, &tree, changes.parse()?)?;
            Ok(ExitCode::SUCCESS)
        }
        [] => {
            compare(&read_baseline()?, &count()?);
            Ok(ExitCode::SUCCESS)
        }
        ["--check"] => check(),
        ["--update"] => {
            let counts = serde_json::to_string_pretty(&count()?)?;
            fs::write(BASELINE, counts + "\n")?;
            println!("written: {BASELINE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => Err("one of --check, --update, or nothing".into()),
    }
}

fn read_baseline() -> Result<Counts, Box<dyn Error>> {
    let text = fs::read(BASELINE).map_err(|error| format!("{BASELINE}: {error}; run: {UPDATE}"))?;
    Ok(serde_json::from_slice(&text).map_err(|error| format!("{BASELINE}: {error}"))?)
}

fn check() -> Result<ExitCode, Box<dyn Error>> {
    let baseline = read_baseline()?;
    if baseline.arch != std::env::consts::ARCH {
        eprintln!("SKIPPED: instruction counts are of {}; run: {UPDATE}", baseline.arch);
        // As the tests do it.
        let may_skip = std::env::var_os("CI").is_none();
        return Ok(if may_skip { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let problems = compare(&baseline, &count()?);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("if that is as it should be, run and commit with the change: {UPDATE}");
    Ok(ExitCode::FAILURE)
}

/// Prints both; what must not be, in sentences.
fn compare(baseline: &Counts, now: &Counts) -> Vec<String> {
    let mut margin = MARGIN;
    if baseline.rustc != now.rustc || baseline.valgrind != now.valgrind {
        margin = MARGIN_OF_OTHER_COMPILER;
        println!(
            "counted with {} and {}, the baseline with {} and {}: {margin} % are let pass",
            now.rustc, now.valgrind, baseline.rustc, baseline.valgrind
        );
    }
    println!(
        "{:<28} {:<10} {:>10} {:>10} {:>8}",
        "instructions per sample", "source", "baseline", "now", "change"
    );
    let mut problems = Vec::new();
    for (tree, counts) in &now.instructions_per_sample {
        for (source, now) in counts {
            let before = baseline.instructions_per_sample.get(tree).and_then(|it| it.get(source));
            let Some(before) = before else {
                println!("{tree:<28} {source:<10} {:>10} {now:>10}", "-");
                problems.push(format!("{source}, {tree}: not in {BASELINE}"));
                continue;
            };
            let percent = (*now as f64 / *before as f64 - 1.0) * 100.0;
            println!("{tree:<28} {source:<10} {before:>10} {now:>10} {percent:>+7.2}%");
            if now * 100 > before * (100 + margin) {
                problems.push(format!(
                    "{source}, {tree}: {before} instructions per sample have become {now} \
                     ({percent:+.1} %; {margin} % are let pass)"
                ));
            }
        }
    }
    for (tree, counts) in &baseline.instructions_per_sample {
        let gone = |source: &&String| {
            now.instructions_per_sample.get(tree).is_none_or(|counts| !counts.contains_key(*source))
        };
        let gone = counts.keys().filter(gone);
        problems.extend(gone.map(|source| format!("{source}, {tree}: only in {BASELINE}")));
    }
    problems
}

fn count() -> Result<Counts, Box<dyn Error>> {
    let version = Command::new("valgrind").arg("--version").output().map_err(|error| {
        format!("cannot start valgrind: {error}; install it (Debian's package valgrind)")
    })?;
    let sources = || std::iter::once("all").chain(SOURCES.iter().map(|def| def.name));
    let mut instructions_per_sample = BTreeMap::new();
    for (tree, disks, interfaces, changes) in TREES {
        let counts: Result<BTreeMap<String, u64>, Box<dyn Error>> = sources()
            .map(|source| {
                let arguments =
                    [source, &disks.to_string(), &interfaces.to_string(), &changes.to_string()];
                Ok((source.to_owned(), count_one(arguments)?))
            })
            .collect();
        instructions_per_sample.insert(tree.to_owned(), counts?);
    }
    Ok(Counts {
        how_to_update: UPDATE.to_owned(),
        rustc: env!("RUSTC_VERSION").to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        valgrind: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
        instructions_per_sample,
    })
}

/// Instructions of one sample, by a process of its own.
fn count_one(arguments: [&str; 4]) -> Result<u64, Box<dyn Error>> {
    let source = arguments[0];
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind.out");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .arg(MEASURE)
        .args(arguments)
        // Where the stack begins depends on it.
        .env_clear()
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{source}: {}: {said}", output.status).into());
    }
    let text = fs::read_to_string(out)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    let total: u64 = total.ok_or_else(|| format!("{source}: no totals in callgrind's file"))?;
    if total < SAMPLES {
        return Err(format!("{source}: {total} instructions were counted: {said}").into());
    }
    Ok(total / SAMPLES)
}

/// What is counted; callgrind knows it by its name.
#[inline(never)]
fn measured(probe: &mut Probe) {
    probe.sample();
}

fn measure(source: &str, tree: &Tree, changes: bool) -> Result<(), Box<dyn Error>> {
    let sources = match source {
        "all" => SOURCES.to_vec(),
        name => vec![find(name).ok_or("no such source")?],
    };
    let mut probe = Probe::new(&sources, tree.path(), SAMPLES)?;
    for round in 0..4 {
        tree.change(round)?;
        probe.sample();
    }
    for round in 0..SAMPLES {
        if changes {
            tree.change((round % 10) as u8)?;
        }
        measured(&mut probe);
    }
    if probe.segments() > 1 {
        return Err("the tree did not stay the same".into());
    }
    Ok(())
}
