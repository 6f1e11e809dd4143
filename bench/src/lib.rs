//! What the benches share: the floor, which reads the sources' files and throws the text away,
//! the sampler's own code to hold against it, and medians.

pub mod trees;

use ringstat::source::{SOURCES, SourceDef};
use ringstat::{Probe, SegmentError};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the kernel's files are.
pub const PROCFS: &str = "/proc";
/// Samples that the ring of a measured sampler keeps: `--max-samples` unless told otherwise.
pub const MAX_SAMPLES: u64 = 3600;
const BUFFER_BYTES: usize = 64 << 10;

/// Files kept open and read to their end, and nothing else: what every recorder must pay.
pub struct Floor {
    files: Vec<File>,
    buffer: Box<[u8]>,
}

impl Floor {
    /// Opens the files of `sources` below `procfs`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(sources: &[&SourceDef], procfs: &Path) -> io::Result<Floor> {
        let open = |def: &&SourceDef| File::open(procfs.join(def.file));
        let files: io::Result<Vec<File>> = sources.iter().map(open).collect();
        Ok(Floor { files: files?, buffer: vec![0; BUFFER_BYTES].into_boxed_slice() })
    }

    /// Reads every file with `pread` until it returns 0; the number of bytes read.
    ///
    /// # Errors
    /// The kernel's.
    #[inline]
    pub fn read(&mut self) -> io::Result<u64> {
        let mut total = 0;
        for file in &self.files {
            let mut offset = 0;
            loop {
                match file.read_at(&mut self.buffer, offset)? {
                    0 => break,
                    count => offset += count as u64,
                }
            }
            total += offset;
        }
        Ok(total)
    }
}

/// The floor and a sample of the same files.
pub struct Pair {
    /// `all` or the source's name.
    pub name: &'static str,
    /// Reads alone.
    pub floor: Floor,
    /// Reads, parses, and commits a record.
    pub probe: Probe,
}

impl Pair {
    /// All sources together, and then each.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn all() -> Result<Vec<Pair>, Box<dyn std::error::Error>> {
        let sets = std::iter::once(("all", SOURCES.to_vec()));
        let sets = sets.chain(SOURCES.iter().map(|def| (def.name, vec![*def])));
        let procfs = Path::new(PROCFS);
        sets.map(|(name, sources)| Ok(Pair::new(name, &sources, procfs, MAX_SAMPLES)?)).collect()
    }

    /// These sources below `procfs`, and a ring for `max_samples`.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new(
        name: &'static str,
        sources: &[&'static SourceDef],
        procfs: &Path,
        max_samples: u64,
    ) -> Result<Pair, Refused> {
        let floor = Floor::new(sources, procfs).map_err(Refused::Floor)?;
        let probe = Probe::new(sources, procfs, max_samples).map_err(Refused::Probe)?;
        Ok(Pair { name, floor, probe })
    }
}

/// Why nothing can be measured.
#[derive(Debug)]
pub enum Refused {
    /// The files cannot be read.
    Floor(io::Error),
    /// There can be no ring.
    Probe(SegmentError),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Floor(error) => write!(f, "cannot read the sources' files: {error}"),
            Refused::Probe(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Refused {}

/// CPU time of the calling thread, ns.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The value below which `percent` of `values` lie; 0 of none. Sorts them.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = values.len().saturating_sub(1) * percent / 100;
    values.get(index).copied().unwrap_or_default()
}

/// What is known of the machine that a figure holds for.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cpus} CPUs ({model}), Linux {}, load {load} at the start", kernel.trim())
}
