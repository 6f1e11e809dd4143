//! How fast rings become the time-series file: MB of JSON per second on one core, and memory at its
//! highest, for one long recording and for as many samples of many hosts. Beside it Python's
//! `json.dump(indent=2)` of the same data, which is how the reference writes it.
//!
//! `cargo bench --bench decode -- [--hosts N] [--samples N] [--rounds N] [--no-python]`

mod host;

use ringstat::measure::machine;
use ringstat::ring::Ring;
use ringstat::{ClusterDecoder, ClusterRun, CollectionMethod, Decoder, HostData, HostRings, JSON};
use ringstat_bench::percentile;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use uuid::Uuid;

/// Says in a program's arguments that it is to decode, and nothing else: its peak of memory is then
/// the decoder's.
const DECODE: &str = "decode-rings";

/// Loads the file and dumps it; prints how long the dump alone took, and the memory of all.
const PYTHON: &str = "\
import json, resource, sys, time
with open(sys.argv[1]) as file:
    data = json.load(file)
begin = time.perf_counter()
with open(sys.argv[2], 'w') as file:
    json.dump(data, file, indent=2)
seconds = time.perf_counter() - begin
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
";

struct Options {
    hosts: u64,
    samples: u64,
    rounds: usize,
    python: bool,
}

/// What one decoding took.
struct Took {
    seconds: f64,
    peak_kb: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, output, rings @ ..] = &arguments[..]
        && first == DECODE
    {
        return decode(output, rings);
    }
    let options = options(arguments)?;
    println!("{}", machine());
    let shm = Path::new("/dev/shm");
    let rings = if shm.is_dir() { tempfile::tempdir_in(shm)? } else { tempfile::tempdir()? };
    let results = tempfile::tempdir()?;
    let Options { hosts, samples, .. } = options;
    for (hosts, samples) in [(1, hosts * samples), (hosts, samples)] {
        let paths = record(rings.path(), hosts, samples)?;
        let what = format!("{hosts} hosts of {samples} samples");
        measure(&what, &options, results.path(), &paths)?;
        paths.iter().try_for_each(fs::remove_file)?;
    }
    Ok(())
}

/// Makes the rings, one for each host.
fn record(dir: &Path, hosts: u64, samples: u64) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let paths: Vec<PathBuf> =
        (0..hosts).map(|number| dir.join(format!("{hosts}-{number:05}.ring"))).collect();
    for (path, number) in paths.iter().zip(0..) {
        host::record(path, number, samples)?;
    }
    Ok(paths)
}

fn measure(
    what: &str,
    options: &Options,
    results: &Path,
    rings: &[PathBuf],
) -> Result<(), Box<dyn Error>> {
    let file = results.join("timeseries.json");
    let runs = |output: &str| -> Result<Vec<Took>, Box<dyn Error>> {
        (0..options.rounds).map(|_| in_a_process(output, rings)).collect()
    };
    let (to_nothing, to_a_file) = (runs("-")?, runs(&file.display().to_string())?);
    let megabytes = fs::metadata(&file)?.len() as f64 / 1e6;
    println!("\n{what}, {megabytes:.1} MB of JSON; medians of {}", options.rounds);
    row("decoded, thrown away", megabytes, &to_nothing);
    row("decoded to a file", megabytes, &to_a_file);
    if options.python && rings.len() as u64 == options.hosts {
        let dumped = results.join("dumped.json");
        let output =
            Command::new("python3").arg("-c").arg(PYTHON).args([&file, &dumped]).output()?;
        let text = String::from_utf8(output.stdout)?;
        let (seconds, peak_kb) = text.trim().split_once(' ').ok_or("python3 said nothing")?;
        let took = Took { seconds: seconds.parse()?, peak_kb: peak_kb.parse()? };
        row("Python, json.dump alone", megabytes, &[took]);
        println!("the same bytes: {}", if same(&file, &dumped)? { "yes" } else { "no" });
    }
    Ok(())
}

fn row(what: &str, megabytes: f64, took: &[Took]) {
    let mut seconds: Vec<f64> = took.iter().map(|took| took.seconds).collect();
    let peak_kb = took.iter().map(|took| took.peak_kb).max().unwrap_or_default();
    let median = percentile(&mut seconds, 50);
    println!(
        "{what:<26} {median:>8.3} s [{:.3} .. {:.3}] {:>8.0} MB/s, peak {:>7.1} MiB",
        percentile(&mut seconds, 0),
        percentile(&mut seconds, 100),
        megabytes / median,
        peak_kb as f64 / 1024.0
    );
}

fn in_a_process(output: &str, rings: &[PathBuf]) -> Result<Took, Box<dyn Error>> {
    let child =
        Command::new(std::env::current_exe()?).arg(DECODE).arg(output).args(rings).output()?;
    let text = String::from_utf8(child.stdout)?;
    let (seconds, peak_kb) = text
        .trim()
        .split_once(' ')
        .ok_or_else(|| format!("it failed: {}", String::from_utf8_lossy(&child.stderr)))?;
    Ok(Took { seconds: seconds.parse()?, peak_kb: peak_kb.parse()? })
}

/// Decodes rings, and says how many seconds it took and how many kB of memory there were at most.
fn decode(output: &str, rings: &[String]) -> Result<(), Box<dyn Error>> {
    let mut out: Box<dyn Write> =
        if output == "-" { Box::new(io::sink()) } else { Box::new(File::create(output)?) };
    let begin = Instant::now();
    if let [ring] = rings {
        let mut decoder = Decoder::new(vec![Ring::open(Path::new(ring))?])?;
        decoder.write(&JSON, &mut out, &mut |_, _| {})?;
    } else {
        let hosts = rings.iter().map(PathBuf::from).map(host);
        ClusterDecoder::new(run(), hosts.collect())?.write(&JSON, &mut out, &mut |_, _| {})?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kb = peak.and_then(|peak| peak.trim().strip_suffix(" kB")).ok_or("no VmHWM")?;
    println!("{seconds} {peak_kb}");
    Ok(())
}

fn run() -> ClusterRun {
    ClusterRun {
        run_id: Uuid::from_u128(0),
        interval_ns: host::INTERVAL_NS,
        start_wall_ns: 0,
        end_wall_ns: 0,
        collection_method: CollectionMethod::Ssh,
    }
}

fn host(ring: PathBuf) -> HostRings {
    let name = ring.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    HostRings::new(name, HostData::Rings(Box::new(move || Ok(vec![Ring::open(&ring)?]))))
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let status = Command::new("cmp").arg("-s").args([one, other]).status()?;
    Ok(status.success())
}

fn options(arguments: Vec<String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options { hosts: 51, samples: 540, rounds: 5, python: true };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64, Box<dyn Error>> {
            Ok(arguments.next().ok_or("a number is missing")?.parse()?)
        };
        match &argument[..] {
            // From `cargo bench`.
            "--bench" => {}
            "--hosts" => options.hosts = number()?.max(1),
            "--samples" => options.samples = number()?.max(1),
            "--rounds" => options.rounds = number()?.max(1) as usize,
            "--no-python" => options.python = false,
            other => {
                return Err(format!("{other}? --hosts, --samples, --rounds, --no-python").into());
            }
        }
    }
    Ok(options)
}
