//! What ringstat has on a host: programs that were brought there, runs of agents that live or have
//! died. Looks, and removes what is wanted no more; what lives stays, and what is not ours is not
//! touched.

use super::deploy::RemotePath;
use super::shell::{self, Answers, ScriptError, clean};
use super::transport::Link;
use std::io;
use std::time::Instant;

/// What was found on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Runs that agents record there right now.
    pub living: Vec<String>,
    /// Directories of agents' runs that nobody records any more, with their size in kB. If rings are
    /// in them, they have not been fetched.
    pub dead: Vec<(String, u64)>,
    /// Directories of programs that do not run.
    pub programs: Vec<String>,
    /// Directories of programs that run.
    pub running: Vec<String>,
}

impl Leftovers {
    /// Whether there is nothing to remove.
    pub fn is_clean(&self) -> bool {
        self.dead.is_empty() && self.programs.is_empty()
    }

    fn of(answers: &Answers) -> Leftovers {
        let all = |kind| answers.all(kind).map(|(_, value)| clean(value)).collect();
        let dead = answers.all("dead.").map(|(_, value)| {
            let (size_kb, path) = value.split_once(' ').unwrap_or(("", value));
            (clean(path), size_kb.parse().unwrap_or(0))
        });
        Leftovers {
            living: all("live."),
            dead: dead.collect(),
            programs: all("idle."),
            running: all("busy."),
        }
    }
}

/// Looks for what is there, where runs are by default and below `dirs`.
///
/// # Errors
/// [`ScriptError`].
pub fn look(
    link: &mut dyn Link,
    dirs: &[RemotePath],
    deadline: Instant,
) -> Result<Leftovers, ScriptError> {
    ask(link, "", dirs, deadline)
}

/// Removes what is dead, as it is then; what it was.
///
/// # Errors
/// [`ScriptError`].
pub fn clean_up(
    link: &mut dyn Link,
    dirs: &[RemotePath],
    deadline: Instant,
) -> Result<Leftovers, ScriptError> {
    ask(link, "yes", dirs, deadline)
}

fn ask(
    link: &mut dyn Link,
    remove: &str,
    dirs: &[RemotePath],
    deadline: Instant,
) -> Result<Leftovers, ScriptError> {
    let mut words: Vec<String> = dirs.iter().map(RemotePath::word).collect();
    words.sort();
    words.dedup();
    let body = format!("k={remove}; set -- {}; {SCRIPT}", words.join(" "));
    let answers = shell::run(link, &body, &mut io::empty(), deadline, &mut |_| {})?;
    Ok(Leftovers::of(&answers))
}

/// A run lives as long as its directory is locked (flock(2)); a lock on another file with the same
/// inode number errs on the side of leaving it. So does a process that has something of it open, which is
/// what shows where a file system has no locks for directories (NFS), or where /proc/locks does not have
/// those of another PID namespace. Only a run whose manifest names its launcher is an agent's: others owe
/// their files to a user of that host. Its arguments are further directories. See [`shell`] for what may
/// stand here.
const SCRIPT: &str = concat!(
    r#"i=0; o=; w=$(cat /proc/locks 2>/dev/null); "#,
    r#"for b in "/dev/shm/ringstat-$(id -u)" "/var/tmp/ringstat-$(id -u)" "$@"; do "#,
    r#"for x in "$b"/*-*-*-*-*; do "#,
    r#"[ -L "$x" ] && continue; [ -d "$x" ] && [ -O "$x" ] || continue; "#,
    r#"grep -q "\"launcher\"" "$x/run.json" 2>/dev/null || continue; i=$((i+1)); "#,
    r#"set -- $(ls -di "$x"); n=$1; "#,
    r#"if echo "$w" | grep -q "FLOCK.*:$n "; then p live.$i "$x"; continue; fi; "#,
    r#"[ -n "$o" ] || o=$(ls -l /proc/[0-9]*/fd 2>/dev/null); "#,
    r#"case "$o" in *"/${x##*/}"*) p live.$i "$x"; continue;; esac; "#,
    r#"p dead.$i "$(du -sk "$x" | cut -f 1) $x"; "#,
    r#"[ -n "$k" ] && rm -f "$x"/*.ring "$x"/agent.* "$x"/run.json* && rmdir "$x"; "#,
    r#"done; done; "#,
    r#"r=$(cd "$HOME/.cache/ringstat" 2>/dev/null && pwd -P) || exit; "#,
    r#"l=$(ls -l /proc/[0-9]*/exe 2>/dev/null); "#,
    r#"for x in "$r"/*; do [ -L "$x" ] && continue; [ -d "$x" ] || continue; i=$((i+1)); "#,
    r#"case "$l" in *"-> $x/"*) p busy.$i "$x"; continue;; esac; p idle.$i "$x"; "#,
    r#"[ -n "$k" ] && rm -f "$x"/ringstat "$x"/.new.* && rmdir "$x"; done; "#,
    r#"[ -n "$k" ] && rmdir "$r" 2>/dev/null"#
);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::test_link::{TestLink, is_there, say_skipped};
    use std::fs::{self, DirBuilder};
    use std::os::unix::fs::DirBuilderExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::Duration;
    use uuid::Uuid;

    fn in_time() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// A directory of a run among those of the user who runs the test; gone with this value.
    struct Run(PathBuf);

    impl Run {
        fn make(base: &Path, manifest: &str) -> Run {
            // As the program makes it: it would refuse one that others can enter, here and for good.
            DirBuilder::new().recursive(true).mode(0o700).create(base).unwrap();
            let dir = base.join(Uuid::now_v7().to_string());
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("run.json"), manifest).unwrap();
            fs::write(dir.join("00000.ring"), vec![1; 8192]).unwrap();
            fs::write(dir.join("agent.log"), "").unwrap();
            Run(dir)
        }

        fn name(&self) -> String {
            self.0.to_str().unwrap().to_owned()
        }
    }

    impl Drop for Run {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_dead_goes_and_what_lives_or_is_not_ours_stays() {
        // The bases are the user's real ones: tests of others may have runs there, too.
        let uid = rustix::process::geteuid().as_raw();
        let base = PathBuf::from(format!("/dev/shm/ringstat-{uid}"));
        let ours = r#"{"launcher":"host:1"}"#;
        let (dead, live) = (Run::make(&base, ours), Run::make(&base, ours));
        let mirror = Run::make(&PathBuf::from(format!("/var/tmp/ringstat-{uid}")), ours);
        let users = Run::make(&base, r#"{"mode":"run"}"#);
        let lock = fs::File::open(&live.0).unwrap();
        lock.lock().unwrap();
        let unlocked = Run::make(&base, ours);
        let _open = fs::File::open(&unlocked.0).unwrap();
        let noted = Run::make(&base, ours);
        fs::write(noted.0.join("notes.txt"), "").unwrap();

        let home = tempfile::tempdir().unwrap();
        let cache = home.path().join(".cache/ringstat");
        for name in ["aa", "bb"] {
            fs::create_dir_all(cache.join(name)).unwrap();
            fs::copy("/bin/sleep", cache.join(name).join("ringstat")).unwrap();
        }
        fs::write(cache.join("aa/.new.x"), "").unwrap();
        let mut program = Command::new(cache.join("bb/ringstat"))
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();

        for shell in ["sh", "bsd-csh", "fish"] {
            if !is_there(shell) {
                say_skipped(&format!("what was left, through {shell}"), shell);
                continue;
            }
            let mut link = TestLink::new(&[shell], home.path());
            let found = look(&mut link, &[], in_time()).unwrap();
            for run in [&live, &unlocked] {
                assert!(found.living.contains(&run.name()), "{shell}: {found:?}");
            }
            for run in [&dead, &mirror, &noted] {
                let size = found.dead.iter().find(|(path, _)| *path == run.name());
                assert!(size.is_some_and(|(_, kb)| *kb >= 8), "{shell}: {found:?}");
            }
            let all = format!("{found:?}");
            assert!(!all.contains(&users.name()), "{shell}: {all}");
            let real = cache.canonicalize().unwrap();
            assert_eq!(found.programs, [real.join("aa").to_str().unwrap()], "{shell}");
            assert_eq!(found.running, [real.join("bb").to_str().unwrap()], "{shell}");
            assert!(!found.is_clean());
            assert!(dead.0.exists() && cache.join("aa").exists(), "looking removes nothing");
        }

        let mut link = TestLink::new(&["sh"], home.path());
        let removed = clean_up(&mut link, &[], in_time()).unwrap();
        assert!(removed.dead.iter().any(|(path, _)| *path == dead.name()), "{removed:?}");
        assert!(!dead.0.exists() && !mirror.0.exists() && !cache.join("aa").exists());
        for run in [&live, &unlocked, &users] {
            assert!(run.0.join("00000.ring").exists(), "{:?}", run.0);
        }
        assert!(cache.join("bb/ringstat").exists());
        let left: Vec<_> =
            fs::read_dir(&noted.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"], "what is not ours stays, and its directory");

        program.kill().unwrap();
        program.wait().unwrap();
        clean_up(&mut link, &[], in_time()).unwrap();
        assert!(!cache.exists(), "nothing is left");
    }
}
