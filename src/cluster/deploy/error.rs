//! Why a program is not on a host, and what helps.

use crate::cluster::shell::ScriptError;

/// Host, reason and remedy.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {reason}{}", self.remedy().map_or_else(String::new, |remedy| format!("; {remedy}")))]
pub struct DeployError {
    /// The host as it was named.
    pub host: String,
    /// What is in the way.
    #[source]
    pub reason: DeployFailure,
}

/// What is in the way of a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployFailure {
    /// The host does not do what it is told.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// There is no `/proc` to record.
    #[error("it runs {0:?}, and ringstat records Linux")]
    System(String),
    /// There is no program for it.
    #[error("it is a machine of kind {machine:?}, and there is a program for {} only", known.join(", "))]
    Architecture {
        /// As of `uname -m`.
        machine: String,
        /// For which there are programs.
        known: Vec<String>,
    },
    /// There is no place to put the program.
    #[error("the user has no home directory there ({0:?})")]
    NoHome(String),
    /// The directory cannot be made.
    #[error("cannot make a directory in {dir}: {said}")]
    Directory {
        /// Where.
        dir: String,
        /// What was said.
        said: String,
    },
    /// The file system takes no programs.
    #[error("{0} is mounted noexec")]
    NoExec(String),
    /// The disk is full.
    #[error("there is no room in {dir}: {}", match free_kb {
        Some(free_kb) => format!("{free_kb} kB are free, and the program has {need_kb} kB"),
        None => format!("the program has {need_kb} kB, and writing it failed"),
    })]
    NoSpace {
        /// Where.
        dir: String,
        /// What is free, if that is known.
        free_kb: Option<u64>,
        /// What is needed.
        need_kb: u64,
    },
    /// The program did not get there.
    #[error("writing the program failed: {0}")]
    Write(String),
    /// What is there is not what was sent.
    #[error("what is there is not what was sent (SHA-256 {0:?})")]
    Damaged(String),
    /// The program needs a younger C library.
    #[error("the program needs glibc {needed}, and the host has {has}")]
    OldLibc {
        /// The youngest version of symbols that are missing.
        needed: String,
        /// As it calls itself.
        has: String,
    },
    /// The program does not run.
    #[error("the program does not run there (status {status}): {said}")]
    NoRun {
        /// Its exit status.
        status: String,
        /// What was said.
        said: String,
    },
    /// There is no ringstat where one should be.
    #[error("{path} is not a ringstat that can be used (status {status}): {said}")]
    Installed {
        /// As it was given.
        path: String,
        /// Its exit status.
        status: String,
        /// What was said.
        said: String,
    },
}

impl DeployError {
    /// What the user can do, if there is anything.
    pub fn remedy(&self) -> Option<String> {
        let elsewhere = "install ringstat there and name it with --remote-binary PATH";
        let remedy = match &self.reason {
            DeployFailure::Script(ScriptError::NoAnswer { .. }) => {
                "its login shell must run `exec sh -c ...`, and its profile must not read standard input"
                    .to_owned()
            }
            DeployFailure::Architecture { machine, .. } => {
                format!("give one with --agent-binary {machine}=PATH, or {elsewhere}")
            }
            DeployFailure::NoExec(_) | DeployFailure::NoHome(_) => elsewhere.to_owned(),
            DeployFailure::Directory { .. } => {
                format!("make ~/.cache/ringstat writable there, or {elsewhere}")
            }
            DeployFailure::NoSpace { .. } => format!("make room there, or {elsewhere}"),
            DeployFailure::OldLibc { .. } => {
                "use a portable build (see the README), as this program or with --agent-binary"
                    .to_owned()
            }
            DeployFailure::NoRun { .. } => {
                format!("give one that does with --agent-binary, or {elsewhere}")
            }
            DeployFailure::Installed { .. } => {
                "install the same version of ringstat there, or leave out --remote-binary".to_owned()
            }
            DeployFailure::Damaged(_) | DeployFailure::Write(_) => "try again".to_owned(),
            DeployFailure::Script(_) | DeployFailure::System(_) => return None,
        };
        Some(remedy)
    }
}
