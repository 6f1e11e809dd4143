//! Recorders of this machine by their processes, and whose these are: all that can be seen of those of
//! other users, whose directories are their own, and of ours where directories cannot be locked.

use crate::run::within;
use nix::unistd::User;
use rustix::process::geteuid;
use std::ffi::CStr;
use std::fs::{self, DirEntry, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use uuid::Uuid;

/// What a recorder is started with, before the run's id: who looks for it finds it by that.
pub const RECORDER: [&str; 3] = ["agent", "--recorder", "--run-id"];
/// What it calls itself (proc_pid_comm(5)). Of processes of another name no command line is read: that cannot
/// be had while a process is stuck in the kernel with its memory locked, as a benchmark may be on a disk that
/// hangs; its status can, which takes no such lock (`fs/proc/array.c`).
pub const NAME: &CStr = c"ringstat";
/// How long the look takes at most: a directory of users may be slow, and so may a recorder's memory.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of a command line that is looked at: more than the words of ours.
const MAX_WORDS_BYTES: usize = 256;

/// Whether that user, who is another one, has a recorder of the run here. A process of anybody else that
/// looks like one is not believed, or any user of this machine could keep it from being recorded. In doubt
/// there is none: where users see none but their own processes (`hidepid`), where the name is nobody's, or
/// where it cannot be known in time.
pub fn is_recorded_by(user: &str, run_id: Uuid) -> bool {
    let user = user.to_owned();
    let look = move || {
        let user = User::from_name(&user).ok().flatten()?;
        (user.uid.as_raw() != geteuid().as_raw()).then(|| has_recorder(user.uid.as_raw(), run_id))
    };
    within(PATIENCE, look).flatten().unwrap_or(false)
}

/// Whether this user has a recorder of the run here; `None` if that cannot be known, or not in time.
pub fn is_recorded_here(run_id: Uuid) -> Option<bool> {
    let look = move || {
        fs::read_dir("/proc").ok()?;
        Some(has_recorder(geteuid().as_raw(), run_id))
    };
    within(PATIENCE, look).flatten()
}

fn has_recorder(uid: u32, run_id: Uuid) -> bool {
    let wanted: Vec<u8> = RECORDER
        .into_iter()
        .chain([&*run_id.to_string()])
        .flat_map(|word| [b"\0", word.as_bytes()].concat())
        .chain([0])
        .collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|process| {
        let is_number = process.file_name().as_encoded_bytes()[0].is_ascii_digit();
        is_number && may_be_recorder(&process, uid) && has_words(&process, &wanted)
    })
}

/// Whether a process has the name of a recorder, and is that user's in every respect: one that anybody may
/// start as another user (set-user-ID) has still its real one, and takes whatever words it is given
/// (proc_pid_status(5)).
fn may_be_recorder(process: &DirEntry, uid: u32) -> bool {
    // Of most of them that is enough.
    if process.metadata().map_or(true, |it| it.uid() != uid) {
        return false;
    }
    let status = fs::read(process.path().join("status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let mut uids = of("Uid:").split_whitespace().peekable();
    let is_theirs = uids.peek().is_some() && uids.all(|each| each.parse() == Ok(uid));
    is_theirs && of("Name:").trim().as_bytes() == NAME.to_bytes()
}

/// Whether it was started with these words (proc_pid_cmdline(5)).
fn has_words(process: &DirEntry, wanted: &[u8]) -> bool {
    let mut words = [0; MAX_WORDS_BYTES];
    let mut read = || File::open(process.path().join("cmdline"))?.read(&mut words);
    let count = read().unwrap_or(0);
    words[..count].ends_with(wanted)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::{Child, Command, Stdio};

    /// A user that no machine has.
    const GUEST: u32 = 54321;

    /// A process with that name and the words of a recorder of that run, which ends with its standard input;
    /// started by that user, and run as the other.
    fn lookalike(name: &str, run_id: Uuid, real: u32, effective: u32) -> Child {
        // A process is called as the file was by which it was started.
        let dir =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let program = dir.path().join(name);
        symlink("/bin/sh", &program).unwrap();
        let mut command = Command::new("setpriv");
        if real != geteuid().as_raw() {
            command.args(["--ruid", &real.to_string(), "--euid", &effective.to_string()]);
        }
        // Or the shell lets go of what it was not started by.
        command.arg(program).args(["-p", "-c", "echo; read end"]);
        command.args(RECORDER).arg(run_id.to_string());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("setpriv");
        let mut byte = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        child
    }

    fn end(mut child: Child) {
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_recorder_is_believed_to_be_one_if_it_is_of_who_logs_in() {
        let own = geteuid().as_raw();
        let run = Uuid::from_u128(0x5eed);
        let child = lookalike("other", run, own, own);
        assert!(!has_recorder(own, run), "of another name");
        end(child);
        let child = lookalike("ringstat", run, own, own);
        assert!(has_recorder(own, run));
        assert!(!has_recorder(own, Uuid::from_u128(0x5eee)), "another run");
        assert!(!has_recorder(own + 1, run), "another user");
        assert!(!is_recorded_by("nobody-has-this-name", run));
        end(child);
        assert!(!has_recorder(own, run), "it is gone");
        if own != 0 {
            assert!(std::env::var_os("CI").is_none(), "in CI nothing skips");
            return eprintln!("SKIPPED: what another user sees needs root");
        }
        let child = lookalike("ringstat", run, GUEST, GUEST);
        assert!(has_recorder(GUEST, run));
        assert!(!is_recorded_by("root", run), "anybody can start what looks like a recorder");
        assert!(!has_recorder(0, run));
        end(child);
        let child = lookalike("ringstat", run, GUEST, 0);
        assert!(!has_recorder(0, run), "also with what is set-user-ID");
        end(child);
    }
}
