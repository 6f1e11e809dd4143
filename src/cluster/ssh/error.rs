//! Why a host could not be connected to: who, at which step, what was expected and found, and what
//! to do about it.

use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Where on the way to a host something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Configuration,
    Resolve,
    Connect,
    Handshake,
    HostKey,
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

/// Why a host could not be connected to. `host` is the host as the user named it, or the one that
/// is jumped through.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Its name or its part of the SSH configuration.
    #[error("{host}: SSH configuration: {found}; {remedy}")]
    Configuration { host: String, found: String, remedy: String },
    /// Its name has no address.
    #[error(
        "{host}: resolve: {name:?} has no address: {found}; check the name, or give its HostName \
         in the SSH configuration"
    )]
    Resolve { host: String, name: String, found: String },
    /// No connection to its server.
    #[error("{host}: connect: {to}: {found}; {remedy}")]
    Connect { host: String, to: String, found: String, remedy: &'static str },
    /// Both do not agree how to speak, or the server ended it.
    #[error("{host}: handshake with {to} ({banner}): {found}; {remedy}")]
    Handshake { host: String, to: String, banner: String, found: String, remedy: &'static str },
    /// Its key is on no file.
    #[error(
        "{host}: host key: no key of {name} is known, and its server has the {kind} key \
         {fingerprint}; compare that with the server's and add it with `ssh-keyscan`, or give \
         --accept-new-host-keys (looked into {files:?})"
    )]
    UnknownKey {
        host: String,
        name: String,
        kind: String,
        fingerprint: String,
        files: Vec<PathBuf>,
    },
    /// It has another key than the one that is on file. Nothing makes that pass.
    #[error(
        "{host}: host key: that of {name} has CHANGED: {file}:{line} has another than the {kind} key \
         {fingerprint} of its server; somebody may be in between; if the server was really set up \
         anew, remove that line"
    )]
    ChangedKey {
        host: String,
        name: String,
        kind: String,
        fingerprint: String,
        file: PathBuf,
        line: usize,
    },
    /// Its key is on file as revoked.
    #[error(
        "{host}: host key: the {kind} key {fingerprint} of {name} is marked @revoked in the known \
         hosts; give the server a new key"
    )]
    RevokedKey { host: String, name: String, kind: String, fingerprint: String },
    /// The files of known keys cannot be read or written.
    #[error("{host}: host key: {}: {source}; make it readable (and writable for new keys)", file.display())]
    KnownHosts { host: String, file: PathBuf, source: std::io::Error },
    /// The server lets none of the keys in.
    #[error(
        "{host}: authentication: {user} at {to} is not let in ({}); the server takes {methods}; \
         {remedy}",
        tried.join("; ")
    )]
    Refused {
        host: String,
        user: String,
        to: String,
        tried: Vec<String>,
        methods: String,
        remedy: &'static str,
    },
    /// It takes too long.
    #[error("{host}: {step}: no end after {after:?}; {remedy}")]
    TimedOut { host: String, step: Step, after: Duration, remedy: &'static str },
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
