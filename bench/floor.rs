//! CPU time of a sample next to that of merely reading the same files, taken in turns, so that
//! what disturbs the one disturbs the other. First in a hot loop, then with time between the
//! samples, when caches have gone cold, as in a real recording.
//!
//! `cargo bench --bench floor -- [--rounds N] [--apart-ms MS] [--apart-rounds N]`

use ringstat_bench::{Pair, machine, percentile, thread_cpu_ns};
use std::time::Duration;

/// Rounds behind each other of one kind.
const BLOCK: usize = 50;

struct Options {
    rounds: usize,
    apart_ms: u64,
    apart_rounds: usize,
}

/// CPU time of each block's rounds, in us per round.
#[derive(Default)]
struct Times {
    floor: Vec<f64>,
    sample: Vec<f64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    println!("CPU us per round (CLOCK_THREAD_CPUTIME_ID), median [10 % .. 90 %]; {}", machine());
    println!("\nhot, {} rounds of each, {BLOCK} by {BLOCK} in turns", options.rounds);
    let mut pairs = Pair::all()?;
    head();
    for pair in &mut pairs {
        measure(pair, options.rounds / 10, BLOCK, Duration::ZERO)?;
        let times = measure(pair, options.rounds, BLOCK, Duration::ZERO)?;
        row(pair.name, times);
    }
    println!("\n{} ms apart, {} rounds of each in turns", options.apart_ms, options.apart_rounds);
    head();
    let apart = Duration::from_millis(options.apart_ms);
    let times = measure(&mut pairs[0], options.apart_rounds, 1, apart)?;
    row(pairs[0].name, times);
    if let Some(pair) = pairs.iter().find(|pair| pair.probe.segments() > 1) {
        println!("\n{}: the host changed while it was measured", pair.name);
    }
    Ok(())
}

/// Measures blocks of `block` rounds in turns, with a pause before each.
fn measure(
    pair: &mut Pair,
    rounds: usize,
    block: usize,
    pause: Duration,
) -> std::io::Result<Times> {
    let mut times = Times::default();
    for _ in 0..rounds.div_ceil(block) {
        std::thread::sleep(pause);
        let begin_ns = thread_cpu_ns();
        for _ in 0..block {
            std::hint::black_box(pair.floor.read()?);
        }
        let middle_ns = thread_cpu_ns();
        times.floor.push((middle_ns - begin_ns) as f64 / 1e3 / block as f64);
        std::thread::sleep(pause);
        let begin_ns = thread_cpu_ns();
        for _ in 0..block {
            pair.probe.sample();
        }
        times.sample.push((thread_cpu_ns() - begin_ns) as f64 / 1e3 / block as f64);
    }
    Ok(times)
}

fn head() {
    println!("{:<10} {:>26} {:>26} {:>8} {:>7}", "source", "floor", "sample", "more", "ratio");
}

fn row(name: &str, mut times: Times) {
    let mut ratios: Vec<f64> =
        times.floor.iter().zip(&times.sample).map(|(floor, sample)| sample / floor).collect();
    let [floor, sample] = [&mut times.floor, &mut times.sample]
        .map(|times| [percentile(times, 50), percentile(times, 10), percentile(times, 90)]);
    let shown = |[median, low, high]: [f64; 3]| format!("{median:.2} [{low:.2} .. {high:.2}]");
    println!(
        "{name:<10} {:>26} {:>26} {:>8.2} {:>7.3}",
        shown(floor),
        shown(sample),
        sample[0] - floor[0],
        percentile(&mut ratios, 50),
    );
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options { rounds: 20_000, apart_ms: 100, apart_rounds: 50 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64, Box<dyn std::error::Error>> {
            Ok(arguments.next().ok_or("a number is missing")?.parse()?)
        };
        match &argument[..] {
            // From `cargo bench`.
            "--bench" => {}
            "--rounds" => options.rounds = number()? as usize,
            "--apart-ms" => options.apart_ms = number()?,
            "--apart-rounds" => options.apart_rounds = number()? as usize,
            other => return Err(format!("{other}? --rounds, --apart-ms, --apart-rounds").into()),
        }
    }
    Ok(options)
}
