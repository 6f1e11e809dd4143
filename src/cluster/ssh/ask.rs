//! What OpenSSH's program is asked, and told, of a host: `ssh -G`, and the names that may be given
//! to programs at all.

use super::SshOptions;
use super::error::{ConnectError, Step};
use super::throttle::Turn;
use crate::cluster::hosts::HostSpec;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

/// Most that `ssh -G` may say.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// Directives in small letters with their values, each that counts once, `identityfile` and
/// `certificatefile` as often as they are given.
pub type Directives = Vec<(String, String)>;

/// Whether they say that new keys are taken, as the options may.
pub fn adds_new(directives: &Directives, options: &SshOptions) -> bool {
    let configured = directives.iter().find(|each| each.0 == "stricthostkeychecking");
    options.accept_new
        || configured.is_some_and(|each| matches!(&*each.1, "accept-new" | "no" | "off" | "false"))
}

/// Fails unless its names are such.
///
/// # Errors
/// [`ConnectError::Configuration`].
pub fn check_names(spec: &HostSpec) -> Result<(), ConnectError> {
    let wrong = |found: String, remedy: &str| ConnectError::Configuration {
        host: spec.name.clone(),
        found,
        remedy: remedy.into(),
    };
    if !is_host_name(&spec.host) {
        let found = format!("{:?} cannot be the name of a host", spec.host);
        return Err(wrong(found, "letters, digits and any of .-_:% make one"));
    }
    match spec.user.as_deref().filter(|user| !is_user_name(user)) {
        Some(user) => Err(wrong(format!("{user:?} cannot be the name of a user"), "check it")),
        None => Ok(()),
    }
}

/// Whether it may be given to programs: with nothing in it that a shell, or `ssh` itself, takes for
/// more than a name.
pub fn is_host_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    (1..=255).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(is_plain)
}

/// As [`is_host_name`], of who logs in.
pub fn is_user_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+@\\".contains(&byte);
    (1..=255).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(is_plain)
}

/// The hosts of a `ProxyJump`, each `[ssh://][user@]host[:port]`.
///
/// # Errors
/// A sentence.
pub fn jump(text: &str) -> Result<Vec<HostSpec>, String> {
    text.split(',').map(one_jump).collect()
}

fn one_jump(text: &str) -> Result<HostSpec, String> {
    let wrong = || format!("ProxyJump {text:?} is not understood");
    let rest = text.trim().strip_prefix("ssh://").unwrap_or(text.trim());
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, rest),
    };
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None if rest.matches(':').count() > 1 => (rest, None),
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map(|port| port.parse().map_err(|_| wrong())).transpose()?;
    if !is_host_name(host) {
        return Err(wrong());
    }
    Ok(HostSpec { name: host.to_owned(), user, host: host.to_owned(), port })
}

/// What `ssh -G` says of `spec`; `None` where there is no such program.
///
/// # Errors
/// [`ConnectError::Configuration`], [`ConnectError::TimedOut`].
pub fn ask_ssh(
    spec: &HostSpec,
    options: &SshOptions,
    turn: &Turn,
    deadline: Instant,
) -> Result<Option<Directives>, ConnectError> {
    check_names(spec)?;
    let wrong = |found: String| ConnectError::Configuration {
        host: spec.name.clone(),
        found,
        remedy: "check the configuration with `ssh -G`".into(),
    };
    let mut stderr = tempfile::tempfile().map_err(|error| wrong(error.to_string()))?;
    let mut command = Command::new(options.program.as_deref().unwrap_or(Path::new("ssh")));
    command.arg("-G").args(program_arguments(spec, options)).arg("--").arg(&spec.host);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(stderr.try_clone().map_err(|error| wrong(error.to_string()))?);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(format!("ssh -G: {error}"))),
    };
    let _running = options.programs().add(&child, None);
    // `Match exec` in the configuration may take any time: the answer is waited for elsewhere.
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut text);
            let _ = sender.send(read.map(|_| text));
        });
    }
    let since = Instant::now();
    let answer = turn.receive(&receiver, deadline);
    if answer.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| wrong(error.to_string()))?;
    let Ok(answer) = answer else {
        return Err(ConnectError::TimedOut {
            host: spec.name.clone(),
            step: Step::Configuration,
            after: since.elapsed(),
            remedy: "look at what `ssh -G` waits for",
        });
    };
    let answer = answer.map_err(|error| wrong(error.to_string()))?;
    if !status.success() {
        let mut said = String::new();
        let _ = stderr.rewind().and_then(|()| stderr.take(4096).read_to_string(&mut said));
        return Err(wrong(format!("ssh -G: {}", said.trim())));
    }
    let text = String::from_utf8_lossy(&answer);
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
}

/// What OpenSSH's program is to be told of `spec`, but for its host.
pub fn program_arguments(spec: &HostSpec, options: &SshOptions) -> Vec<std::ffi::OsString> {
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: std::ffi::OsString| arguments.extend([name.into(), value]);
    if let Some(file) = &options.config {
        add("-F", file.into());
    }
    if let Some(user) = &spec.user {
        add("-l", user.into());
    }
    if let Some(port) = spec.port {
        add("-p", port.to_string().into());
    }
    arguments
}
