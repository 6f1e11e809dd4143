//! What a run owes, in a file beside its rings: enough for `recover` to write the final files when
//! the recorder cannot. Its text and how it is kept; what is done with it is for others.

use super::cluster::ClusterManifest;
use super::patience::{PATIENCE, within};
use crate::place::Place;
use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Its name in a run's directories.
pub const MANIFEST: &str = "run.json";
/// Largest manifest that is read; a command line can have megabytes.
const MAX_BYTES: u64 = 512 << 20;

/// Form of `{datetime}` in file names, local time.
pub const DATETIME: &str = "%Y%m%d_%H%M%S";

/// Whether it is of that form, and nothing that `chrono` takes beyond it: signs, spaces, years of
/// six digits.
pub fn is_datetime(text: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| if at == 8 { byte == b'_' } else { byte.is_ascii_digit() };
    text.len() == 15
        && text.bytes().enumerate().all(fits)
        && NaiveDateTime::parse_from_str(text, DATETIME).is_ok()
}

/// Whether final files can be named after it: `[A-Za-z0-9._-]+`, at most 100 of them.
pub fn is_benchmark_type(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=100).contains(&name.len()) && name.chars().all(fits)
}

/// One run: what it is, where its rings are, and where its files are to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format; 1.
    pub version: u32,
    /// The run.
    pub run_id: Uuid,
    /// First part of the final files' names.
    pub benchmark_type: String,
    /// `run` or `record`.
    pub mode: String,
    /// The wrapped command.
    #[serde(default)]
    pub command: Vec<String>,
    /// Where the final files go; absolute.
    pub results_dir: PathBuf,
    /// Name of the output format.
    pub format: String,
    /// The benchmark's own metadata file, if ours is to be merged into it.
    #[serde(default)]
    pub merge_metadata: Option<PathBuf>,
    /// When it began: `YYYYMMDD_HHMMSS`, local time.
    pub datetime: String,
    /// The host.
    pub hostname: String,
    /// Its `/etc/machine-id`; nil if that is not known.
    #[serde(default)]
    pub machine_id: Uuid,
    /// Its boot; nil if that is not known.
    #[serde(default)]
    pub boot_id: Uuid,
    /// The recorder.
    pub pid: u32,
    /// The run's directory in the ring storage.
    #[serde(default)]
    pub ring_dir: Option<PathBuf>,
    /// The run's directory for the mirror.
    #[serde(default)]
    pub mirror_dir: Option<PathBuf>,
    /// How it ended, once that is known.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// Date and time in the names of the final files, from just before they get them.
    #[serde(default)]
    pub final_datetime: Option<String>,
    /// The host that fetches the rings and writes the files, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// The hosts, if they were named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<ClusterManifest>>,
    /// The final files are there: the rings are only kept because the user asked for it.
    #[serde(default)]
    pub done: bool,
    /// What could not be had.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// From start to end, s.
    pub runtime_seconds: f64,
    /// Of the wrapped command.
    #[serde(default)]
    pub exit_status: Option<i32>,
}

impl Manifest {
    /// Writes it to both of the run's directories, so that a reader sees the old one or the new.
    /// A disk that does not answer is not waited for long.
    ///
    /// # Errors
    /// The last one, if it could be written to none.
    pub fn save(&self) -> io::Result<()> {
        // For people, unless it is of thousands of hosts.
        let is_long = self.cluster.as_ref().is_some_and(|cluster| cluster.host_count() > 256);
        let text =
            if is_long { serde_json::to_vec(self)? } else { serde_json::to_vec_pretty(self)? };
        let dirs: Vec<&PathBuf> = self.ring_dir.iter().chain(&self.mirror_dir).collect();
        let mut result = Ok(());
        let mut saved = dirs.is_empty();
        for dir in dirs {
            let (dir, text) = (dir.clone(), text.clone());
            match within(PATIENCE, move || replace(&dir, &text)) {
                Some(Ok(())) => saved = true,
                Some(Err(error)) => result = Err(error),
                None => result = Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
            }
        }
        if saved { Ok(()) } else { result }
    }

    /// Reads the one in a run's directory. It is whatever somebody has put there: bounded, and of
    /// use for file names; whether its paths are to be believed depends on whose the directory is.
    ///
    /// # Errors
    /// The kernel's, and `InvalidData` for anything that is not a manifest, or that of another run
    /// than the directory is named after.
    pub fn load(dir: &Path) -> io::Result<Manifest> {
        Manifest::load_in(&Place::open(dir)?, dir)
    }

    /// As [`load`](Self::load), of a directory that is open.
    pub(super) fn load_in(place: &Place, dir: &Path) -> io::Result<Manifest> {
        let mut text = Vec::new();
        place.read(MANIFEST)?.take(MAX_BYTES).read_to_end(&mut text)?;
        let manifest: Manifest = serde_json::from_slice(&text)?;
        let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if manifest.version != 1 {
            return refused(format!("manifest of version {}, expected 1", manifest.version));
        }
        // These become file names.
        if !is_benchmark_type(&manifest.benchmark_type) {
            return refused(format!("bad benchmark type {:?}", manifest.benchmark_type));
        }
        for datetime in manifest.final_datetime.iter().chain([&manifest.datetime]) {
            if !is_datetime(datetime) {
                return refused(format!("bad date and time {datetime:?}"));
            }
        }
        let named = dir.file_name().and_then(|name| Uuid::parse_str(name.to_str()?).ok());
        if let Some(named) = named.filter(|named| *named != manifest.run_id) {
            return refused(format!("manifest of run {}, expected {named}", manifest.run_id));
        }
        Ok(manifest)
    }
}

/// Gives the manifest in `dir` a new text, at once.
fn replace(dir: &Path, text: &[u8]) -> io::Result<()> {
    Place::open(dir)?.replace(MANIFEST, MANIFEST, |file| file.write_all(text)).map(drop)
}

#[cfg(all(test, not(loom)))]
pub(super) mod tests {
    use super::*;

    pub(crate) fn manifest(dir: &Path) -> Manifest {
        Manifest {
            version: 1,
            run_id: Uuid::from_u128(1),
            benchmark_type: "training".into(),
            mode: "run".into(),
            command: vec!["fio".into(), "a b".into()],
            results_dir: dir.into(),
            format: "json".into(),
            merge_metadata: None,
            datetime: "20260102_030405".into(),
            hostname: "h".into(),
            machine_id: Uuid::nil(),
            boot_id: Uuid::nil(),
            pid: 1,
            ring_dir: Some(dir.into()),
            mirror_dir: None,
            ended: None,
            final_datetime: None,
            launcher: None,
            cluster: None,
            done: false,
            warnings: vec![],
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let mut saved = manifest(dir.path());
        saved.save().unwrap();
        saved.ended = Some(Ended { runtime_seconds: 1.5, exit_status: Some(3) });
        saved.save().unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), saved);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn anything_else_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "{}", "[1]", "{\"version\":1}", "\u{0}\u{0}"] {
            std::fs::write(dir.path().join(MANIFEST), bad).unwrap();
            assert!(Manifest::load(dir.path()).is_err(), "{bad:?}");
        }
        let datetimes =
            ["../20260102", "+262142 12 31_23 59 59", " 20260102_030405", "2026010203040_5"];
        let datetimes = datetimes.map(|bad| ("20260102_030405", bad));
        for (field, bad) in [("training", "../x"), ("training", "")].into_iter().chain(datetimes) {
            let text = serde_json::to_string(&manifest(dir.path())).unwrap();
            std::fs::write(dir.path().join(MANIFEST), text.replace(field, bad)).unwrap();
            assert!(Manifest::load(dir.path()).is_err(), "{bad}");
        }
        let newer =
            serde_json::to_string(&Manifest { version: 2, ..manifest(dir.path()) }).unwrap();
        std::fs::write(dir.path().join(MANIFEST), newer).unwrap();
        let error = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
    }

    #[test]
    fn the_manifest_of_another_run_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&manifest(base.path())).unwrap();
        for (run_id, is_read) in [(1, true), (2, false)] {
            let dir = base.path().join(Uuid::from_u128(run_id).to_string());
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join(MANIFEST), &text).unwrap();
            assert_eq!(Manifest::load(&dir).is_ok(), is_read, "{run_id}");
        }
    }
}
