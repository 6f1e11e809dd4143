//! What a sample costs on hosts with 10, 100, 500 and 2,000 devices, next to merely reading the same
//! files: made-up trees for every source, where next to nothing is spent in the kernel, then real
//! loop devices, then real veth pairs in a network namespace of their own. Needs root for these.
//!
//! `cargo run --release -p ringstat-bench --bin scale [-- MOST_DEVICES]`
//!
//! CPU us per round, medians of blocks in turns. `user` is what a sample costs beyond the floor: in
//! the main parsing and the ring. Per byte of text it should be the same whatever the host. (Where a
//! sample is certain of the end of a file it saves a read, and `user` is that much less.) `growth` is
//! how many times more floor and `user` cost than with the number of devices before, for one time
//! more devices: 1.00 is linear. For real devices the floor's is more: the kernel gives a list page
//! by page, and for each page counts from the beginning (`fs/seq_file.c`, `disk_seqf_start`).
//!
//! The loop devices are a child process's, which removes them when it hears no more of this one,
//! however that ends.

use ringstat::measure::cost::Pair;
use ringstat::measure::{PROCFS, machine};
use ringstat::source::{SOURCES, SourceDef, find};
use ringstat_bench::trees::Tree;
use ringstat_bench::{percentile, thread_cpu_ns};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

// As the tests make them, who may panic.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../tests/common/links.rs"]
mod links;
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../tests/common/loops.rs"]
mod loops;

const DEVICES: [usize; 4] = [10, 100, 500, 2000];
/// The same ring for all: of 2,000 disks and as many interfaces it takes 0.5 GB.
const MAX_SAMPLES: u64 = 500;
/// CPU time of one block, and of all blocks of one row.
const BLOCK_US: f64 = 2000.0;
const ROW_US: f64 = 800_000.0;
/// First arguments of the child processes.
const KEEP_LOOPS: &str = "--keep-loops";
const INTERFACES: &str = "--interfaces";
/// The kernel takes some 50 ms to remove one.
const REMOVING_THREADS: usize = 16;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let most = match arguments[..] {
        [KEEP_LOOPS, first] => return keep_loops(first.parse()?),
        [INTERFACES, most] => return interfaces(most.parse()?),
        [] => usize::MAX,
        [most] => most.parse()?,
        _ => return Err("at most one argument: the most devices".into()),
    };
    println!("CPU us per round (CLOCK_THREAD_CPUTIME_ID); {}", machine());
    made_up(most)?;
    if !rustix::process::geteuid().is_root() {
        println!("\nSKIPPED: loop devices and veth pairs need root");
        return Ok(());
    }
    disks(most)?;
    let program = std::env::current_exe()?;
    let status = Command::new("unshare")
        .arg("--net")
        .arg(program)
        .args([INTERFACES, &most.to_string()])
        .status()
        .map_err(|error| format!("cannot start unshare (Debian's package util-linux): {error}"))?;
    if status.success() { Ok(()) } else { Err("no figures of veth pairs".into()) }
}

fn made_up(most: usize) -> Result<()> {
    for (what, changes) in [("every counter changes", true), ("none changes", false)] {
        let mut table = Table::new(&format!(
            "made-up trees, so many disks and so many interfaces; between samples {what}"
        ));
        for devices in DEVICES.into_iter().filter(|devices| *devices <= most) {
            let tree = Tree::new(devices, devices)?;
            for (name, sources) in every_source() {
                let changing = changes.then_some(&tree);
                table.row(name, devices, &sources, tree.path(), changing)?;
            }
        }
        table.end();
    }
    Ok(())
}

fn disks(most: usize) -> Result<()> {
    let mut table = Table::new("disks, most of them loop devices");
    let mut keeper = Keeper::new()?;
    for devices in DEVICES.into_iter().filter(|devices| *devices <= most) {
        let others = rows("diskstats")? - keeper.kept;
        keeper.keep(devices.saturating_sub(others))?;
        table.rows("diskstats", rows("diskstats")?)?;
    }
    table.end();
    Ok(())
}

/// In a network namespace of its own.
fn interfaces(most: usize) -> Result<()> {
    let mut table = Table::new("interfaces, most of them of veth pairs");
    let mut links = links::Links::new();
    let mut pairs = 0;
    for devices in DEVICES.into_iter().filter(|devices| *devices <= most) {
        while rows("netdev")? < devices {
            links.add_pair(&format!("veth{pairs}"), &format!("peer{pairs}"), 0);
            pairs += 1;
        }
        table.rows("netdev", rows("netdev")?)?;
    }
    table.end();
    Ok(())
}

/// Devices that a source's file has now.
fn rows(source: &str) -> Result<usize> {
    let def = find(source).ok_or("no such source")?;
    let text = std::fs::read_to_string(Path::new(PROCFS).join(def.file))?;
    // The head of `net/dev` is two lines.
    let head = text.lines().filter(|line| line.contains('|')).count();
    Ok(text.lines().count() - head)
}

fn every_source() -> impl Iterator<Item = (&'static str, Vec<&'static SourceDef>)> {
    std::iter::once(("all", SOURCES.to_vec())).chain(SOURCES.map(|def| (def.name, vec![def])))
}

/// Rows as they are measured, and then what they come to.
struct Table {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    devices: usize,
    bytes: u64,
    floor_us: f64,
    user_us: f64,
}

impl Row {
    fn user_ns_per_byte(&self) -> f64 {
        self.user_us * 1e3 / self.bytes as f64
    }
}

impl Table {
    fn new(what: &str) -> Table {
        println!("\n{what}");
        println!(
            "{:<10} {:>7} {:>8} {:>9} {:>9} {:>6} {:>8} {:>13} {:>7}",
            "source",
            "devices",
            "bytes",
            "floor",
            "sample",
            "ratio",
            "user",
            "user ns/byte",
            "growth"
        );
        Table { rows: Vec::new() }
    }

    /// A source and all of them, below the real `/proc`.
    fn rows(&mut self, source: &str, devices: usize) -> Result<()> {
        for (name, sources) in every_source().filter(|(name, _)| *name == source || *name == "all")
        {
            self.row(name, devices, &sources, Path::new(PROCFS), None)?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        name: &'static str,
        devices: usize,
        sources: &[&'static SourceDef],
        procfs: &Path,
        changing: Option<&Tree>,
    ) -> Result<()> {
        let mut pair = Pair::new(name, sources, procfs, MAX_SAMPLES)?;
        let [floor_us, sample_us, ratio] = in_turns(&mut pair, changing)?;
        let bytes = pair.floor.read()?;
        let row = Row { name, devices, bytes, floor_us, user_us: sample_us - floor_us };
        let before = self.rows.iter().rev().find(|before| before.name == name);
        // Of what does not grow there is nothing to say.
        let before = before.filter(|before| bytes > before.bytes * 2);
        let growth = |of: fn(&Row) -> f64| {
            let times =
                |before: &Row| of(&row) / of(before) / (row.devices as f64 / before.devices as f64);
            before.map_or("-".to_owned(), |before| format!("{:.2}", times(before)))
        };
        let changed = if pair.probe.segments() > 1 { " (the host changed meanwhile)" } else { "" };
        println!(
            "{name:<10} {devices:>7} {bytes:>8} {floor_us:>9.2} {sample_us:>9.2} {ratio:>6.3} \
             {:>8.2} {:>13.3} {:>6} {:>6}{changed}",
            row.user_us,
            row.user_ns_per_byte(),
            growth(|row| row.floor_us),
            growth(|row| row.user_us),
        );
        self.rows.push(row);
        Ok(())
    }

    /// How far apart the costs per byte of each source are.
    fn end(self) {
        for (name, _) in every_source() {
            let rows = || self.rows.iter().filter(|row| row.name == name);
            let per_byte = || rows().map(Row::user_ns_per_byte);
            let [least, most] =
                [per_byte().fold(f64::MAX, f64::min), per_byte().fold(f64::MIN, f64::max)];
            if rows().count() > 1 {
                println!("{name:<10} user time from {least:.3} to {most:.3} ns per byte of text");
            }
        }
    }
}

/// Medians of floor and sample, us, and of their ratio.
fn in_turns(pair: &mut Pair, changing: Option<&Tree>) -> Result<[f64; 3]> {
    let mut round = 0;
    let mut block = |pair: &mut Pair, rounds| match changing {
        Some(tree) => block_of_changes(pair, rounds, tree, &mut round),
        None => block(pair, rounds),
    };
    let mut rounds = 1;
    // Until a block is long enough to be timed; that also warms up.
    while block(pair, rounds)?[1] * (rounds as f64) < BLOCK_US {
        rounds *= 2;
    }
    let [mut floors, mut samples, mut ratios] = [(); 3].map(|()| Vec::new());
    let mut spent_us = 0.0;
    while spent_us < ROW_US {
        let [floor, sample] = block(pair, rounds)?;
        floors.push(floor);
        samples.push(sample);
        ratios.push(sample / floor);
        spent_us += (floor + sample) * rounds as f64;
    }
    Ok([&mut floors, &mut samples, &mut ratios].map(|figures| percentile(figures, 50)))
}

/// CPU us of one floor and of one sample, by so many rounds of each.
fn block(pair: &mut Pair, rounds: usize) -> Result<[f64; 2]> {
    let begin_ns = thread_cpu_ns();
    for _ in 0..rounds {
        std::hint::black_box(pair.floor.read()?);
    }
    let middle_ns = thread_cpu_ns();
    for _ in 0..rounds {
        pair.probe.sample();
    }
    let end_ns = thread_cpu_ns();
    let us = |ns: u64| ns as f64 / 1e3 / rounds as f64;
    Ok([us(middle_ns - begin_ns), us(end_ns - middle_ns)])
}

/// The same of a tree whose every counter changes between two rounds.
fn block_of_changes(
    pair: &mut Pair,
    rounds: usize,
    tree: &Tree,
    round: &mut u8,
) -> Result<[f64; 2]> {
    let mut spent_ns = [0, 0];
    for _ in 0..rounds {
        *round = (*round + 1) % 10;
        tree.change(*round)?;
        let begin_ns = thread_cpu_ns();
        std::hint::black_box(pair.floor.read()?);
        let middle_ns = thread_cpu_ns();
        pair.probe.sample();
        spent_ns[0] += middle_ns - begin_ns;
        spent_ns[1] += thread_cpu_ns() - middle_ns;
    }
    Ok(spent_ns.map(|ns| ns as f64 / 1e3 / rounds as f64))
}

/// A process that has loop devices: as many as it is told, and none when it hears no more.
struct Keeper {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    kept: usize,
}

impl Keeper {
    fn new() -> Result<Keeper> {
        // Numbers that neither the machine nor the tests use; the last possible one is 1,048,575.
        let first = 1_000_000 + std::process::id() % 20 * 2000;
        let mut child = Command::new(std::env::current_exe()?)
            .args([KEEP_LOOPS, &first.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is not for it.
            .process_group(0)
            .spawn()?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Keeper { child, orders, answers, kept: 0 })
    }

    fn keep(&mut self, devices: usize) -> Result<()> {
        writeln!(self.orders.as_ref().ok_or("no pipe")?, "{devices}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(format!("this machine does not bear {devices} loop devices").into());
        }
        self.kept = devices;
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        // It ends by itself, with or without an answer.
        let _ = self.child.wait();
    }
}

/// What the keeper's process does.
fn keep_loops(first: u32) -> Result<()> {
    let mut devices = Devices(Vec::new());
    for line in std::io::stdin().lines() {
        let wanted: usize = line?.parse()?;
        while devices.0.len() < wanted {
            devices.0.push(loops::Loop::add(first + u32::try_from(devices.0.len())?));
        }
        println!("{}", devices.0.len());
    }
    Ok(())
}

struct Devices(Vec<loops::Loop>);

impl Drop for Devices {
    fn drop(&mut self) {
        let each = self.0.len().div_ceil(REMOVING_THREADS).max(1);
        std::thread::scope(|scope| {
            while !self.0.is_empty() {
                let some = self.0.split_off(self.0.len().saturating_sub(each));
                scope.spawn(move || drop(some));
            }
        });
    }
}

/// For what the tests' modules wait for.
fn wait_until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
