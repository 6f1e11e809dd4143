//! Takes samples of one source, for callgrind to count the instructions of.
use ringstat::Probe;
use ringstat::source::{SOURCES, find};
use std::path::Path;

#[inline(never)]
fn measured(probe: &mut Probe, samples: u64) {
    for _ in 0..samples {
        probe.sample();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().ok_or("a source")?;
    let procfs = args.next().ok_or("a /proc")?;
    let sources = if name == "all" { SOURCES.to_vec() } else { vec![find(&name).ok_or("?")?] };
    let mut probe = Probe::new(&sources, Path::new(&procfs), 100)?;
    for _ in 0..4 {
        probe.sample();
    }
    measured(&mut probe, 100);
    Ok(())
}
