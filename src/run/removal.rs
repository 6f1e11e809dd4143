//! Removing a run's directory when nothing in it is needed any more: what ringstat has put there goes, what
//! others have put there stays, also under the name of a ring. It is done in the directory that was opened,
//! wherever it is by now, and a ring is removed as the file that was looked at. The manifest, its temporary
//! files, and what an agent and other hosts have go by their names. Whether anything is needed is for
//! others to know.

use super::cluster::HOSTS_DIR;
use crate::place::{Identity, Place, remove_dir_if};
use crate::ring;
use std::fs::{self, File};
use std::io::{
    self,
    ErrorKind::{DirectoryNotEmpty, NotADirectory, NotFound},
};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Begins the names of what an agent has in a run's directory: its socket, its log.
const AGENT_PREFIX: &str = "agent.";

/// A ring that this process has made. As long as it is held open, no other file has its number.
#[derive(Debug, Clone)]
pub struct Made {
    /// Where.
    pub path: PathBuf,
    /// Which file it is.
    pub file: Arc<File>,
}

/// Which files this process has made for a ring that is to be at `path`; none if it has not, or that cannot
/// be known.
pub fn identities(made: &[Made], path: &Path) -> Vec<Identity> {
    let there = made.iter().filter(|made| made.path == path);
    there.filter_map(|made| Identity::of(&made.file).ok()).collect()
}

/// Removes all that is ours, the manifest last, and then the directory, if nothing else is in it. `made` are
/// those of its rings of which it is known which files they are, if any are. The names of what is not ours,
/// and stays.
///
/// # Errors
/// The kernel's, the first of them: something that is ours is still there, and so is the manifest.
pub fn remove(place: &Place, dir: &Path, manifest: &str, made: &[Made]) -> io::Result<Vec<String>> {
    let names = match place.names() {
        Err(error) if error.kind() == NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let own = |name: &str| {
        let is_manifest = name.starts_with(manifest) && name != manifest;
        is_manifest || name.starts_with(AGENT_PREFIX)
    };
    let mut result = Ok(());
    for name in &names {
        let removed = if is_named_as_ring(name) {
            let looked = Looked::at(place, name, &identities(made, &dir.join(name)));
            looked.and_then(|looked| looked.remove(place, name))
        } else if own(name) {
            place.remove(name)
        } else {
            continue;
        };
        result = result.and(gone(removed));
    }
    if names.iter().any(|name| name == HOSTS_DIR) {
        // Neither a link in its place nor one in it is followed.
        result = result.and(gone(fs::remove_dir_all(place.short_path(HOSTS_DIR))));
    }
    result?;
    gone(place.remove(manifest))?;
    match remove_dir_if(dir, place) {
        Err(error) if error.kind() == DirectoryNotEmpty => {
            let mut names = place.names()?;
            // What NFS calls a removed file as long as somebody has it open, who may be us.
            names.retain(|name| !name.starts_with(".nfs"));
            Ok(names)
        }
        // Its name leads elsewhere by now.
        Err(error) if error.kind() == NotADirectory => Ok(Vec::new()),
        removed => gone(removed.map(drop)).map(|()| Vec::new()),
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether what has a ring's name cannot be one.
pub(crate) fn is_of_others(place: &Place, name: &str) -> bool {
    is_named_as_ring(name) && Looked::at(place, name, &[]).is_ok_and(|looked| !looked.is_ours)
}

fn is_named_as_ring(name: &str) -> bool {
    name.ends_with(".ring")
}

/// What had a ring's name, held on to: whatever is done to the name, this is what was looked at.
struct Looked {
    file: File,
    is_ours: bool,
}

impl Looked {
    /// Looks at what has a ring's name. If it is known which files were `made` for it, only those are ours;
    /// else it is no ring of ours if it is no plain file, or neither begins as a ring nor has the mode of
    /// one: one that others have overwritten in its place still has that.
    ///
    /// # Errors
    /// The kernel's.
    fn at(place: &Place, name: &str, made: &[Identity]) -> io::Result<Looked> {
        let file = place.hold(name)?;
        let (meta, identity) = (file.metadata()?, Identity::of(&file)?);
        let begins_as_ring = || match place.read(name) {
            // Or it was exchanged just now.
            Ok(read) => {
                Identity::of(&read).is_ok_and(|it| it == identity) && ring::may_be_ring(&read)
            }
            // What cannot be read may have been ours.
            Err(_) => true,
        };
        let is_ours = if made.is_empty() {
            meta.is_file() && (meta.mode() & 0o7777 == 0o600 || begins_as_ring())
        } else {
            made.contains(&identity)
        };
        Ok(Looked { file, is_ours })
    }

    /// Removes it, if it is ours and the name still leads to it.
    ///
    /// # Errors
    /// The kernel's.
    fn remove(&self, place: &Place, name: &str) -> io::Result<()> {
        if self.is_ours {
            place.remove_if(name, &self.file)?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::dirs::RunDir;
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use uuid::Uuid;

    /// A run's directory below `base`, and what puts files into it.
    fn run(base: &Path) -> (RunDir, impl Fn(&str, &[u8], u32) -> File) {
        let run = RunDir::create(base, Uuid::from_u128(7)).unwrap();
        let dir = run.path().to_owned();
        let write = move |name: &str, bytes: &[u8], mode| {
            fs::write(dir.join(name), bytes).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
            File::open(dir.join(name)).unwrap()
        };
        (run, write)
    }

    fn left(run: &RunDir) -> Vec<String> {
        let mut left = run.place().names().unwrap();
        left.sort();
        left
    }

    #[test]
    fn what_others_have_put_under_the_name_of_a_ring_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (run, write) = run(dir.path());
        let path = |name: &str| run.path().join(name);
        write("00000.ring", b"RINGSTAT and more", 0o644);
        write("00001.ring", b"overwritten", 0o600);
        write("00002.ring", b"\0\0\0\0\0\0\0\0 not begun", 0o400);
        write("00003.ring", b"", 0o644);
        write("00004.ring", b"theirs", 0o644);
        symlink(path("00000.ring"), path("00005.ring")).unwrap();
        fs::create_dir(path("00006.ring")).unwrap();
        run.remove("run.json").unwrap();
        assert_eq!(left(&run), ["00004.ring", "00005.ring", "00006.ring"]);
    }

    #[test]
    fn what_is_exchanged_behind_the_look_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (run, write) = run(dir.path());
        let (place, path) = (run.place(), |name: &str| run.path().join(name));
        // One that would pass for a ring, as nobody has looked at it.
        for theirs in [b"RINGSTAT, of another run".as_slice(), b"precious"] {
            write("00000.ring", b"RINGSTAT", 0o600);
            let looked = Looked::at(place, "00000.ring", &[]).unwrap();
            assert!(looked.is_ours);
            write("theirs", theirs, 0o600);
            fs::rename(path("theirs"), path("00000.ring")).unwrap();
            looked.remove(place, "00000.ring").unwrap();
            assert_eq!(fs::read(path("00000.ring")).unwrap(), theirs);
            fs::remove_file(path("00000.ring")).unwrap();
        }
        write("00000.ring", b"RINGSTAT", 0o600);
        Looked::at(place, "00000.ring", &[]).unwrap().remove(place, "00000.ring").unwrap();
        assert_eq!(left(&run), [""; 0]);
    }

    #[test]
    fn a_ring_that_was_made_here_is_known_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (run, write) = run(dir.path());
        let made = |name: &str, file| Made { path: run.path().join(name), file: Arc::new(file) };
        let known = [
            // Whatever was made of it.
            made("00000.ring", write("00000.ring", b"overwritten", 0o644)),
            // Another file has its name, with the mode of a ring; or with what a ring begins with.
            made("00001.ring", write("moved", b"RINGSTAT", 0o600)),
            made("00002.ring", write("moved too", b"RINGSTAT", 0o600)),
        ];
        write("00001.ring", b"precious", 0o600);
        write("00002.ring", b"RINGSTAT, a copy", 0o600);
        write(".nfs0000000000000001", b"removed, and still open", 0o600);
        let stay = run.remove_soon("run.json", &known).unwrap();
        fs::remove_file(run.path().join(".nfs0000000000000001")).unwrap();
        assert_eq!(left(&run), ["00001.ring", "00002.ring", "moved", "moved too"]);
        assert_eq!(BTreeSet::from_iter(stay), BTreeSet::from_iter(left(&run)));
        // Who has made none of them goes by the mode.
        run.remove("run.json").unwrap();
        assert_eq!(left(&run), ["moved", "moved too"]);
    }
}
