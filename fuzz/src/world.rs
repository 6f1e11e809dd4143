//! A small world of files for one run that died, others beside it, and what may become of them.
//! Everything that a manifest names is moved into it: whatever it says, nothing outside is touched.

use crate::rings::{TEXTS, ring};
use ringstat::{MANIFEST, Manifest};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

/// The run that died, whose manifests are fuzzed: that of the seeds' rings.
pub const RUN: &str = "01900000-0000-7000-8000-000000000001";
/// Another run of the same user, which must not suffer.
pub const OTHER: &str = "01900000-0000-7000-8000-000000000002";

static RING: LazyLock<Vec<u8>> = LazyLock::new(|| ring(&TEXTS[3..4], 3));

/// Files by their path below the world.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

pub struct World {
    dir: TempDir,
}

impl World {
    /// # Panics
    /// If the machine has no room for a few small files.
    pub fn new() -> World {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let world = World { dir: dir.expect("a directory") };
        for (path, bytes) in [
            (format!("rings/{RUN}/00000.ring"), &RING[..]),
            (format!("mirrors/{RUN}/00000.ring"), &RING[..]),
            (format!("mirrors/{RUN}/notes"), b"somebody's"),
            (format!("rings/{OTHER}/00000.ring"), &RING[..]),
            (format!("rings/{OTHER}/run.json"), b"{\"version\": 1}"),
            (format!("elsewhere/{RUN}.ring"), b"not in a run's directory"),
            ("results/training_20260102_030405_timeseries.json".to_owned(), b"{\"other\": 1}"),
            (
                "results/training_20260102_030406_timeseries.json".to_owned(),
                format!("{{\"ringstat\": {{\"run_id\": \"{RUN}\"}}}}").as_bytes(),
            ),
            (format!("results/.ringstat-{RUN}-left.tmp"), b"half"),
            (format!("results/.ringstat-{OTHER}-left.tmp"), b"half"),
            ("results/own.json".to_owned(), b"{\"a\": 1, \"runtime\": 1.5}\n"),
        ] {
            world.write(Path::new(&path), bytes);
        }
        world
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directories of the run, the ring's first.
    pub fn run_dirs(&self) -> [PathBuf; 2] {
        ["rings", "mirrors"].map(|base| self.path().join(base).join(RUN))
    }

    /// # Panics
    /// If it cannot.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    /// Puts the text in a directory of the run as its manifest, and what it says if it is one; its
    /// paths then lie in this world.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put_manifest(&self, dir: &Path, text: &[u8]) -> Option<Manifest> {
        fs::write(dir.join(MANIFEST), text).expect("written");
        let mut manifest = Manifest::load(dir).ok()?;
        manifest.results_dir = self.confined(&manifest.results_dir);
        let paths =
            [&mut manifest.merge_metadata, &mut manifest.ring_dir, &mut manifest.mirror_dir];
        for path in paths {
            *path = path.take().map(|path| self.confined(&path));
        }
        let text = serde_json::to_vec(&manifest).expect("JSON");
        fs::write(dir.join(MANIFEST), text).expect("written");
        let read = Manifest::load(dir).expect("what was written");
        assert_eq!(read, manifest, "written and read");
        Some(manifest)
    }

    fn confined(&self, path: &Path) -> PathBuf {
        let names = path.components().filter_map(|part| match part {
            Component::Normal(name) if name.len() < 100 => Some(name),
            _ => None,
        });
        self.path().join(names.take(6).collect::<PathBuf>())
    }

    /// All files there are.
    ///
    /// # Panics
    /// If one cannot be read.
    pub fn files(&self) -> Files {
        let mut files = Files::new();
        let mut dirs = vec![self.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let bytes = fs::read(&path).expect("a file");
                    files.insert(path, bytes);
                }
            }
        }
        files
    }
}

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}
