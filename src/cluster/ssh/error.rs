//! Why a host could not be connected to: who, at which step, what was expected and found, and what
//! to do about it.

use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Where on the way to a host something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading how it is reached.
    Configuration,
    /// Looking its name up.
    Resolve,
    /// Opening the connection.
    Connect,
    /// Agreeing how to speak.
    Handshake,
    /// Making sure that it is the right one.
    HostKey,
    /// Logging in.
    Authentication,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Configuration => "configuration",
            Step::Resolve => "resolve",
            Step::Connect => "connect",
            Step::Handshake => "handshake",
            Step::HostKey => "host key",
            Step::Authentication => "authentication",
        })
    }
}

/// What to do about one whose turn has not come.
pub const OTHERS_FIRST: &str = "others were before it; allow more --ssh-workers, or more time";

/// Why a host could not be connected to. `host` is the host as the user named it, or the one that
/// is jumped through.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Its name or its part of the SSH configuration.
    #[error("{host}: SSH configuration: {found}; {remedy}")]
    Configuration {
        /// The host.
        host: String,
        /// What was found.
        found: String,
        /// What to do about it.
        remedy: String,
    },
    /// Its name has no address.
    #[error(
        "{host}: resolve: {name:?} has no address: {found}; check the name, or give its HostName \
         in the SSH configuration"
    )]
    Resolve {
        /// The host.
        host: String,
        /// What was looked up.
        name: String,
        /// What was found.
        found: String,
    },
    /// No connection to its server.
    #[error("{host}: connect: {to}: {found}; {remedy}")]
    Connect {
        /// The host.
        host: String,
        /// What was connected to.
        to: String,
        /// What was found.
        found: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Both do not agree how to speak, or the server ended it.
    #[error("{host}: handshake with {to} ({banner}): {found}; {remedy}")]
    Handshake {
        /// The host.
        host: String,
        /// What was connected to.
        to: String,
        /// What the server says that it is.
        banner: String,
        /// What was found.
        found: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Its key is on no file.
    #[error(
        "{host}: host key: no key of {name} is known, and its server has the key {key}; compare \
         that with the server's and add it with `ssh-keyscan`, or give --accept-new-host-keys \
         (looked into {files:?})"
    )]
    UnknownKey {
        /// The host.
        host: String,
        /// What was looked up.
        name: String,
        /// The type of its key, and its SHA-256 as `ssh` shows it.
        key: String,
        /// Where its key was looked for.
        files: Vec<PathBuf>,
    },
    /// It has another key than the one that is on file. Nothing makes that pass.
    #[error(
        "{host}: host key: that of {name} has CHANGED: {}:{line} has another than the key {key} of \
         its server; somebody may be in between; if the server was really set up anew, remove that \
         line",
        file.display()
    )]
    ChangedKey {
        /// The host.
        host: String,
        /// What was looked up.
        name: String,
        /// The type of its key, and its SHA-256 as `ssh` shows it.
        key: String,
        /// The file.
        file: PathBuf,
        /// The line in it, from 1.
        line: usize,
    },
    /// Its key is on file as revoked.
    #[error(
        "{host}: host key: the key {key} of {name} is marked @revoked in the known hosts; give the \
         server a new key"
    )]
    RevokedKey {
        /// The host.
        host: String,
        /// What was looked up.
        name: String,
        /// The type of its key, and its SHA-256 as `ssh` shows it.
        key: String,
    },
    /// The files of known keys cannot be read or written.
    #[error("{host}: host key: {}: {source}; make it readable (and writable for new keys)", file.display())]
    KnownHosts {
        /// The host.
        host: String,
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The server lets none of the keys in.
    #[error(
        "{host}: authentication: {who} is not let in ({}); the server takes {methods}; \
         {remedy}",
        tried.join("; ")
    )]
    Refused {
        /// The host.
        host: String,
        /// Who was to log in where.
        who: String,
        /// The keys that were tried, and how each went.
        tried: Vec<String>,
        /// What the server takes.
        methods: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// It takes too long.
    #[error("{host}: {step}: no end after {after:?}; {remedy}")]
    TimedOut {
        /// The host.
        host: String,
        /// What was going on.
        step: Step,
        /// How long it was waited for.
        after: Duration,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl ConnectError {
    /// Where it failed.
    pub fn step(&self) -> Step {
        match self {
            ConnectError::Configuration { .. } => Step::Configuration,
            ConnectError::Resolve { .. } => Step::Resolve,
            ConnectError::Connect { .. } => Step::Connect,
            ConnectError::Handshake { .. } => Step::Handshake,
            ConnectError::UnknownKey { .. }
            | ConnectError::ChangedKey { .. }
            | ConnectError::RevokedKey { .. }
            | ConnectError::KnownHosts { .. } => Step::HostKey,
            ConnectError::Refused { .. } => Step::Authentication,
            ConnectError::TimedOut { step, .. } => *step,
        }
    }
}
