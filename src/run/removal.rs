//! Removing a run's directory when nothing in it is needed any more: what ringstat has put there goes, what
//! others have put there stays, under whatever name. It is done in the directory that was opened, wherever
//! it is by now, and what goes by more than its name is removed as the file that was looked at. Whether
//! anything is needed is for others to know.

use super::cluster::HOSTS_DIR;
use crate::place::{Identity, Place, remove_dir_if};
use crate::ring;
use std::fs::{self, File};
use std::io::{
    self,
    ErrorKind::{DirectoryNotEmpty, NotADirectory},
};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Begins the names of what an agent has in a run's directory: its socket, its log.
const AGENT_PREFIX: &str = "agent.";

/// A ring that this process has made, and holds open.
#[derive(Debug, Clone)]
pub struct Made {
    /// Where.
    pub path: PathBuf,
    /// Which file it is.
    pub identity: Identity,
}

/// Removes all that is ours, the manifest last, and then the directory, if nothing else is in it. `made` are
/// those of its rings of which it is known which files they are, if any are.
///
/// # Errors
/// The kernel's, the first of them: something that is ours is still there.
pub fn remove(place: &Place, dir: &Path, manifest: &str, made: &[Made]) -> io::Result<()> {
    let names = match place.names() {
        Ok(names) => names,
        Err(error) => return gone(Err(error)),
    };
    let own = |name: &str| {
        let is_manifest = name.starts_with(manifest) && name != manifest;
        is_manifest || name.starts_with(AGENT_PREFIX)
    };
    let mut result = Ok(());
    for name in &names {
        let removed = if is_named_as_ring(name) {
            let made = made.iter().find(|made| made.path == dir.join(name));
            let looked = Looked::at(place, name, made.map(|made| made.identity));
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
    result = result.and(gone(place.remove(manifest)));
    match remove_dir_if(dir, place) {
        // What is not ours stays, or the name leads elsewhere by now.
        Err(error) if matches!(error.kind(), DirectoryNotEmpty | NotADirectory) => result,
        removed => result.and(gone(removed.map(|_| ()))),
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether what has a ring's name cannot be one.
pub(crate) fn is_of_others(place: &Place, name: &str) -> bool {
    is_named_as_ring(name) && Looked::at(place, name, None).is_ok_and(|looked| !looked.is_ours)
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
    /// Looks at what has a ring's name: at which file it is, if it is known which was `made` under it. It is
    /// no ring of ours if it is no plain file, or neither begins as a ring nor has the mode of one; one that
    /// others have overwritten in its place still has that.
    ///
    /// # Errors
    /// The kernel's.
    fn at(place: &Place, name: &str, made: Option<Identity>) -> io::Result<Looked> {
        let file = place.hold(name)?;
        let (meta, identity) = (file.metadata()?, Identity::of(&file)?);
        let begins_as_ring = || match place.read(name) {
            // Or it was exchanged just now.
            Ok(read) => {
                Identity::of(&read).is_ok_and(|it| it == identity) && ring::may_be_ring(&read)
            }
            // What cannot be read may have been ours, if nothing else is known to be.
            Err(_) => made.is_none(),
        };
        let is_known = match made {
            Some(made) => made == identity,
            None => meta.mode() & 0o7777 == 0o600,
        };
        Ok(Looked { is_ours: meta.is_file() && (is_known || begins_as_ring()), file })
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
    use std::os::unix::fs::{PermissionsExt, symlink};
    use uuid::Uuid;

    /// A run's directory below `base`, and what puts files into it.
    fn run(base: &Path) -> (RunDir, impl Fn(&str, &[u8], u32) -> Identity) {
        let run = RunDir::create(base, Uuid::from_u128(7)).unwrap();
        let dir = run.path().to_owned();
        let write = move |name: &str, bytes: &[u8], mode| {
            fs::write(dir.join(name), bytes).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
            Identity::of(&File::open(dir.join(name)).unwrap()).unwrap()
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
            let looked = Looked::at(place, "00000.ring", None).unwrap();
            assert!(looked.is_ours);
            write("theirs", theirs, 0o600);
            fs::rename(path("theirs"), path("00000.ring")).unwrap();
            looked.remove(place, "00000.ring").unwrap();
            assert_eq!(fs::read(path("00000.ring")).unwrap(), theirs);
            fs::remove_file(path("00000.ring")).unwrap();
        }
        write("00000.ring", b"RINGSTAT", 0o600);
        Looked::at(place, "00000.ring", None).unwrap().remove(place, "00000.ring").unwrap();
        assert_eq!(left(&run), [""; 0]);
    }

    #[test]
    fn a_ring_that_was_made_here_is_known_by_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (run, write) = run(dir.path());
        let made = |name: &str, identity| Made { path: run.path().join(name), identity };
        let known = [
            // Whatever was made of it.
            made("00000.ring", write("00000.ring", b"overwritten", 0o644)),
            // Another file has its name, with the mode of a ring; or with what a ring begins with.
            made("00001.ring", write("moved", b"RINGSTAT", 0o600)),
            made("00002.ring", write("moved too", b"RINGSTAT", 0o600)),
        ];
        write("00001.ring", b"precious", 0o600);
        write("00002.ring", b"RINGSTAT, a copy", 0o600);
        run.remove_soon("run.json", &known).unwrap();
        assert_eq!(left(&run), ["00001.ring", "moved", "moved too"]);
        // Who has made none of them goes by the mode.
        run.remove("run.json").unwrap();
        assert_eq!(left(&run), ["moved", "moved too"]);
    }
}
