//! A load that is bound by the CPU alone: the same work on every CPU, and how much of it was done
//! per second.
//!
//! `work MILLION_ROUNDS` (on each CPU)

use std::hint::black_box;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: u64 = std::env::args().nth(1).ok_or("how many million rounds?")?.parse()?;
    let cpus = std::thread::available_parallelism()?.get();
    let since = Instant::now();
    let work = move || {
        let mut word = 1_u64;
        for _ in 0..rounds * 1_000_000 {
            word = black_box(word.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..cpus {
            scope.spawn(work);
        }
    });
    let done = rounds as f64 * cpus as f64;
    println!("million rounds per second: {:.3}", done / since.elapsed().as_secs_f64());
    Ok(())
}
