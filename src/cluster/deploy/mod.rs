//! The program on a host: whether it is there, and if not, how it gets there. Over any link; who is
//! asked when, and how many at once, is the caller's.
//!
//! It goes to `~/.cache/ringstat/SHA256/ringstat`: under another name first, which it gets when it
//! has said its own hash there, unless another launcher was sooner. So what has that name is whole, and
//! runs; two launchers do not disturb each other, and a program that is running is not overwritten.

mod binary;
mod error;
mod probe;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use binary::SELF_CHECK;
pub use binary::{Binary, BinaryError, self_check};
pub use error::{DeployError, DeployFailure};
pub use probe::HostFacts;

use super::shell::{self, clean};
use super::transport::Link;
use probe::Check;
use std::io;
use std::time::Instant;
use uuid::Uuid;

/// Room that must be left beside the program.
const SPARE_KB: u64 = 1024;

/// Which program is to run on hosts.
#[derive(Debug, Clone)]
pub enum Program {
    /// The one of these that is for the host's architecture, brought there if need be.
    Upload(Vec<Binary>),
    /// One that is there.
    Installed(RemotePath),
}

impl Program {
    /// This program, and those of a list as of `--agent-binary`, which come first.
    ///
    /// # Errors
    /// [`BinaryError`].
    pub fn upload(list: Option<&str>) -> Result<Program, BinaryError> {
        let mut binaries = list.map_or(Ok(Vec::new()), Binary::list)?;
        binaries.push(Binary::own()?);
        Ok(Program::Upload(binaries))
    }
}

/// A path on a host: absolute, below `~/`, or, of a program, a name that is looked for in `PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePath(String);

impl RemotePath {
    /// Takes a path that every shell takes as it is: letters, digits, blanks and `._/+@%=:,~-`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(path: &str) -> Result<RemotePath, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || " ._/+@%=:,~-".contains(c);
        match path.chars().find(|c| !is_plain(*c)) {
            Some(c) => Err(format!("{c:?} cannot stand in a path on another host")),
            None if path.is_empty() || path.starts_with('-') || path.len() > 1024 => {
                Err("this is no path on another host".to_owned())
            }
            None => Ok(RemotePath(path.to_owned())),
        }
    }

    /// As a word of `sh`.
    pub(super) fn word(&self) -> String {
        match self.0.strip_prefix("~/") {
            Some(rest) => format!(r#""$HOME/{rest}""#),
            None => format!(r#""{}""#, self.0),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The host is being asked.
    Probing,
    /// The program goes there.
    Uploading {
        /// What has gone.
        sent_bytes: u64,
        /// All of it.
        total_bytes: u64,
    },
}

/// A program that is there and runs.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// What the host said.
    pub facts: HostFacts,
    /// Version of the program.
    pub version: String,
    /// Bytes that were sent; 0 if it was there.
    pub uploaded_bytes: u64,
    word: String,
}

impl Deployed {
    /// The line for the login shell that runs the program with these arguments.
    ///
    /// # Errors
    /// `InvalidInput` for arguments that not every shell takes as they are.
    pub fn line(&self, arguments: &str) -> io::Result<String> {
        shell::line(&format!("exec {} {arguments}", self.word))
    }
}

/// Asks a host what it is and what it has; changes nothing there.
///
/// # Errors
/// [`DeployFailure::Script`].
pub fn probe(
    link: &mut dyn Link,
    host: &str,
    program: &Program,
    deadline: Instant,
) -> Result<HostFacts, DeployError> {
    HostFacts::ask(link, program, deadline)
        .map_err(|error| DeployError { host: host.to_owned(), reason: error.into() })
}

/// Whether the program is on a host that said this of itself, and can be used: `None` if it is not
/// and would have to be brought there.
///
/// # Errors
/// Why it cannot be brought there either.
pub fn find(
    facts: &HostFacts,
    host: &str,
    program: &Program,
) -> Result<Option<Deployed>, DeployError> {
    found(facts, program).map_err(|reason| DeployError { host: host.to_owned(), reason })
}

/// Brings the program to a host, unless it is there.
///
/// # Errors
/// [`DeployError`]; then nothing is left there but perhaps empty directories.
pub fn deploy(
    link: &mut dyn Link,
    host: &str,
    program: &Program,
    deadline: Instant,
    progress: &mut dyn FnMut(Step),
) -> Result<Deployed, DeployError> {
    progress(Step::Probing);
    let facts = probe(link, host, program, deadline)?;
    if let Some(deployed) = find(&facts, host, program)? {
        return Ok(deployed);
    }
    bring(link, facts, program, deadline, progress)
        .map_err(|reason| DeployError { host: host.to_owned(), reason })
}

fn found(facts: &HostFacts, program: &Program) -> Result<Option<Deployed>, DeployFailure> {
    if facts.system != "Linux" {
        return Err(DeployFailure::System(facts.system.clone()));
    }
    let there = facts.check.answer();
    let deployed = |version: &str, word: String| Deployed {
        facts: facts.clone(),
        version: clean(version),
        uploaded_bytes: 0,
        word,
    };
    let binaries = match program {
        Program::Upload(binaries) => binaries,
        Program::Installed(path) => match there {
            Some((version, _)) => return Ok(Some(deployed(version, path.word()))),
            None => {
                let Check { status, said } = facts.check.clone();
                return Err(DeployFailure::Installed { path: path.0.clone(), status, said });
            }
        },
    };
    let binary = for_machine(binaries, &facts.machine)?;
    if let Some((version, hash)) = there
        && hash == binary.sha256
    {
        return Ok(Some(deployed(version, word(binary))));
    }
    let dir = || facts.cache_dir.clone();
    let need_kb = binary.bytes.div_ceil(1024) + SPARE_KB;
    if !facts.home.starts_with('/') {
        Err(DeployFailure::NoHome(facts.home.clone()))
    } else if facts.cache_is_noexec == Some(true) {
        Err(DeployFailure::NoExec(dir()))
    } else if !facts.cache_is_writable {
        let said = "the user may not write there".to_owned();
        Err(DeployFailure::Directory { dir: dir(), said })
    } else if facts.cache_free_kb.is_some_and(|free_kb| free_kb < need_kb) {
        Err(DeployFailure::NoSpace { dir: dir(), free_kb: facts.cache_free_kb, need_kb })
    } else {
        Ok(None)
    }
}

fn for_machine<'b>(binaries: &'b [Binary], machine: &str) -> Result<&'b Binary, DeployFailure> {
    let binary = binaries.iter().find(|binary| binary.architecture == machine);
    binary.ok_or_else(|| DeployFailure::Architecture {
        machine: machine.to_owned(),
        known: binaries.iter().map(|binary| binary.architecture.clone()).collect(),
    })
}

/// Where it lies, as a word of `sh`.
fn word(binary: &Binary) -> String {
    format!(r#""$HOME/.cache/ringstat/{}/ringstat""#, binary.sha256)
}

fn bring(
    link: &mut dyn Link,
    facts: HostFacts,
    program: &Program,
    deadline: Instant,
    progress: &mut dyn FnMut(Step),
) -> Result<Deployed, DeployFailure> {
    let Program::Upload(binaries) = program else {
        return Err(DeployFailure::Write(String::new()));
    };
    let binary = for_machine(binaries, &facts.machine)?;
    let total_bytes = binary.bytes;
    let mut sent = |sent_bytes| progress(Step::Uploading { sent_bytes, total_bytes });
    let answers =
        shell::run(link, &upload_script(binary), &mut binary.reader(), deadline, &mut sent)?;
    let said = clean(answers.get("said"));
    let check = Check::of(&answers);
    match answers.get("failed") {
        "" => {}
        "directory" => return Err(DeployFailure::Directory { dir: facts.home, said }),
        "write" if said.contains("No space") || said.contains("quota") => {
            let need_kb = binary.bytes.div_ceil(1024);
            return Err(DeployFailure::NoSpace { dir: facts.cache_dir, free_kb: None, need_kb });
        }
        "hash" => return Err(DeployFailure::Damaged(said)),
        "run" => return Err(does_not_run(check, &facts)),
        _ => return Err(DeployFailure::Write(said)),
    }
    match check.answer() {
        Some((version, hash)) if hash == binary.sha256 && answers.get("done") == "yes" => {
            let version = clean(version);
            Ok(Deployed { facts, version, uploaded_bytes: total_bytes, word: word(binary) })
        }
        _ => Err(does_not_run(check, &facts)),
    }
}

/// Why a program that is there does not say what it should.
fn does_not_run(check: Check, facts: &HostFacts) -> DeployFailure {
    if check.status == "0" {
        return DeployFailure::Damaged(check.said);
    }
    // "... version `GLIBC_2.34' not found (required by ...)", once for each.
    let numbers = |version: &str| -> Vec<u32> {
        version.split('.').map_while(|part| part.parse().ok()).collect()
    };
    let missing = check.said.split("GLIBC_").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        &rest[..end]
    });
    if let Some(needed) = missing.max_by_key(|version| numbers(version)) {
        let has = if facts.libc.is_empty() { "an older one" } else { &facts.libc };
        return DeployFailure::OldLibc { needed: needed.to_owned(), has: has.to_owned() };
    }
    if check.status == "126" && check.said.contains("Permission denied") {
        return DeployFailure::NoExec(facts.cache_dir.clone());
    }
    DeployFailure::NoRun { status: check.status, said: check.said }
}

/// Takes the program from standard input; see [`shell`] for what may stand in it.
fn upload_script(binary: &Binary) -> String {
    let (hash, bytes) = (&binary.sha256, binary.bytes);
    let nonce = Uuid::now_v7().simple();
    [
        r#"umask 077; LC_ALL=C; export LC_ALL; r=$HOME/.cache/ringstat; "#,
        &format!(r#"h={hash}; d=$r/$h; t=$d/.new.{nonce}; "#),
        r#"s() { p failed $1; p said "$(echo "$e" | tr "\n" " ")"; exit 1; }; "#,
        r#"u() { rm -f "$t"; }; trap u 0; trap "exit 1" 1 2 13 15; "#,
        r#"e=$( { mkdir -p "$d" && chmod 700 "$r" "$d"; } 2>&1) || s directory; "#,
        // Of launchers that were killed.
        r#"find "$d" -name ".new.*" -mtime +0 -exec rm -f {} + 2>/dev/null; "#,
        r#"e=$( { cat >"$t"; } 2>&1) || s write; "#,
        &format!(r#"e=$(wc -c <"$t" | tr -d " "); [ "$e" = {bytes} ] || s short; "#),
        r#"chmod 700 "$t"; "#,
        // Before it is run, where that can be done without it.
        r#"e=$(sha256sum <"$t" 2>/dev/null | cut -c 1-64); case "$e" in ""|$h) ;; *) s hash;; esac; "#,
        r#"e=$("$t" self-check 2>&1 </dev/null); x=$?; p status $x; p check "$(echo "$e" | tr "\n" " ")"; "#,
        // Its path, in the shell's complaints, has the hash as well, but no blank before it.
        r#"case "$x $e" in "0 "*ringstat-self-check*" $h"*) ;; *) s run;; esac; "#,
        // Another launcher may have been sooner, by way of another host that sees the same home: what is
        // whole stays, since it may run there. A link takes the name only as long as nobody has it.
        r#"ln "$t" "$d/ringstat" 2>/dev/null && { p done yes; exit 0; }; "#,
        r#"e=$("$d/ringstat" self-check 2>/dev/null </dev/null); "#,
        r#"case "$? $e" in "0 "*ringstat-self-check*" $h"*) p done yes; exit 0;; esac; "#,
        r#"e=$(mv -f "$t" "$d/ringstat" 2>&1) || s write; p done yes"#,
    ]
    .concat()
}
