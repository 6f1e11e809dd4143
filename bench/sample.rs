//! Time per sample, by criterion, next to the time of merely reading the same files to their end
//! with `pread` and throwing the text away; at the end a table of the medians of this run.

use criterion::{Criterion, Throughput};
use ringstat::measure::cost::Pair;
use ringstat::measure::machine;
use ringstat::measure::stats::Median;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut criterion = Criterion::default()
        .sample_size(40)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut table = Vec::new();
    for mut pair in Pair::all()? {
        let text_bytes = pair.floor.read()?;
        let mut group = criterion.benchmark_group(pair.name);
        group.throughput(Throughput::Bytes(text_bytes));
        let (mut floor_us, mut sample_us) = (Vec::new(), Vec::new());
        group.bench_function("floor", |bencher| {
            let floor = &mut pair.floor;
            bencher.iter_custom(|count| timed(count, &mut floor_us, || floor.read().is_ok()));
        });
        group.bench_function("sample", |bencher| {
            let probe = &mut pair.probe;
            bencher.iter_custom(|count| timed(count, &mut sample_us, || probe.sample()));
        });
        group.finish();
        let medians = [&floor_us, &sample_us].map(|us| Median::of(us).median);
        table.push((pair.name, text_bytes, medians));
    }
    criterion.final_summary();
    println!("us per round, medians; {}", machine());
    println!("{:<10} {:>7} {:>8} {:>8} {:>7}", "source", "bytes", "floor", "sample", "ratio");
    for (name, text_bytes, [floor, sample]) in table {
        println!("{name:<10} {text_bytes:>7} {floor:>8.2} {sample:>8.2} {:>7.3}", sample / floor);
    }
    Ok(())
}

/// Times `count` rounds and notes how long one took.
fn timed<T>(count: u64, us: &mut Vec<f64>, mut round: impl FnMut() -> T) -> Duration {
    let begin = Instant::now();
    for _ in 0..count {
        std::hint::black_box(round());
    }
    let time = begin.elapsed();
    us.push(time.as_secs_f64() * 1e6 / count as f64);
    time
}
