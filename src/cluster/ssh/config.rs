//! How a host is reached, as the SSH configuration says: asked of `ssh -G` where there is that
//! program, else read by [`plain`](super::plain). Knows no connection and no key.

use super::SshOptions;
use super::error::{ConnectError, Step};
use super::plain;
use crate::cluster::hosts::HostSpec;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

/// Most that `ssh -G` may say.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
const USE_THE_PROGRAM: &str = "give --ssh-program ssh, which understands it";

/// How a host is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As the user named it.
    pub name: String,
    pub host: String,
    pub port: u16,
    pub user: String,
    /// What files of known hosts call it, if not by host and port.
    pub alias: Option<String>,
    /// Private keys, of which some may not be there.
    pub identities: Vec<PathBuf>,
    pub certificates: Vec<PathBuf>,
    /// Only those identities, not all that the agent has.
    pub identities_only: bool,
    /// The socket of the agent.
    pub agent: Option<PathBuf>,
    pub route: Route,
    /// First those of the user.
    pub known_hosts: Vec<PathBuf>,
    /// Where new keys are added, if they may be.
    pub add_new_to: Option<PathBuf>,
    pub hash_known_hosts: bool,
    /// Names as `ssh-ed25519`, the preferred first; none if the configuration does not say.
    pub host_key_algorithms: Vec<String>,
    pub family: Family,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Direct,
    /// Through these, in order.
    Jump(Vec<HostSpec>),
    /// Through the standard input and output of this shell command.
    Command(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Any,
    V4,
    V6,
}

/// Directives in small letters with their values, each that counts once, `identityfile` and
/// `certificatefile` as often as they are given.
pub type Directives = Vec<(String, String)>;

/// Says how `spec` is reached.
///
/// # Errors
/// [`ConnectError::Configuration`], and [`ConnectError::TimedOut`] if `ssh -G` takes too long.
pub fn resolve(
    spec: &HostSpec,
    options: &SshOptions,
    deadline: Instant,
) -> Result<Target, ConnectError> {
    check_names(spec)?;
    let wrong = |found: String| ConnectError::Configuration {
        host: spec.name.clone(),
        found,
        remedy: USE_THE_PROGRAM.into(),
    };
    let directives = match ask_ssh(spec, options, deadline)? {
        Some(directives) => directives,
        None => plain::read(spec, options).map_err(wrong)?,
    };
    target(spec, options, &directives).map_err(wrong)
}

/// Whether keys of `spec` that are on no file are to be added to one.
///
/// # Errors
/// As [`resolve`], where OpenSSH's program is not there as well.
pub fn adds_new_keys(
    spec: &HostSpec,
    options: &SshOptions,
    deadline: Instant,
) -> Result<bool, ConnectError> {
    match ask_ssh(spec, options, deadline)? {
        Some(directives) => Ok(adds_new(&directives, options)),
        None => Err(ConnectError::Configuration {
            host: spec.name.clone(),
            found: "there is no OpenSSH program".into(),
            remedy: "install openssh-client, or name the program with --ssh-program".into(),
        }),
    }
}

fn adds_new(directives: &Directives, options: &SshOptions) -> bool {
    let configured = directives.iter().find(|each| each.0 == "stricthostkeychecking");
    options.accept_new
        || configured.is_some_and(|each| matches!(&*each.1, "accept-new" | "no" | "off" | "false"))
}

fn check_names(spec: &HostSpec) -> Result<(), ConnectError> {
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

fn is_user_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+@\\".contains(&byte);
    (1..=255).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(is_plain)
}

/// `None` where there is no such program.
fn ask_ssh(
    spec: &HostSpec,
    options: &SshOptions,
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
    let answer = receiver.recv_timeout(deadline.saturating_duration_since(since));
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

fn target(
    spec: &HostSpec,
    options: &SshOptions,
    directives: &Directives,
) -> Result<Target, String> {
    let all = |name: &'static str| {
        directives.iter().filter(move |each| each.0 == name).map(|each| each.1.as_str())
    };
    let some = |name| all(name).filter(|value| !value.eq_ignore_ascii_case("none"));
    let one = |name| some(name).next();
    let is_yes = |name| one(name).is_some_and(|value| matches!(value, "yes" | "true"));

    for name in ["bindaddress", "bindinterface", "knownhostscommand", "revokedhostkeys"] {
        if let Some(value) = one(name) {
            return Err(format!("{name} {value} is not understood"));
        }
    }
    if is_yes("proxyusefdpass") {
        return Err("ProxyUseFdpass is not understood".into());
    }
    let host = one("hostname").unwrap_or(&spec.host).to_owned();
    if !is_host_name(&host) {
        return Err(format!("HostName {host:?} cannot be the name of a host"));
    }
    let port = match (spec.port, one("port")) {
        (Some(port), _) => port,
        (None, Some(port)) => port.parse().map_err(|_| format!("Port {port} is no port"))?,
        (None, None) => 22,
    };
    let user = spec.user.clone().or(one("user").map(str::to_owned)).or_else(local_user);
    let user = user.ok_or("nobody says who is to log in; give user@host")?;
    let mut tokens = Tokens { name: &spec.host, host: &host, port, user: &user, alias: None };
    let alias = one("hostkeyalias").map(str::to_ascii_lowercase);
    tokens.alias = alias.as_deref();
    let paths = |name| some(name).map(|value| tokens.path(value)).collect::<Result<Vec<_>, _>>();

    let route = if let Some(jumps) = one("proxyjump") {
        Route::Jump(jumps.split(',').map(jump).collect::<Result<_, _>>()?)
    } else if let Some(command) = one("proxycommand") {
        Route::Command(tokens.command(command)?)
    } else {
        Route::Direct
    };
    let user_files = match &options.known_hosts {
        Some(file) => vec![file.clone()],
        None => files(all("userknownhostsfile").next().unwrap_or(""), &tokens)?,
    };
    let add_new_to = if adds_new(directives, options) { user_files.first().cloned() } else { None };
    let global = files(all("globalknownhostsfile").next().unwrap_or(""), &tokens)?;
    let agent = match (all("identityagent").next(), std::env::var_os("SSH_AUTH_SOCK")) {
        (Some("none"), _) => None,
        (None | Some("SSH_AUTH_SOCK"), socket) => socket.map(PathBuf::from),
        (Some(path), _) => match path.strip_prefix('$') {
            Some(name) => std::env::var_os(name).map(PathBuf::from),
            None => Some(tokens.path(path)?),
        },
    };
    Ok(Target {
        name: spec.name.clone(),
        port,
        alias: alias.clone(),
        identities: paths("identityfile")?,
        certificates: paths("certificatefile")?,
        identities_only: is_yes("identitiesonly"),
        agent,
        route,
        known_hosts: [user_files, global].concat(),
        add_new_to,
        hash_known_hosts: is_yes("hashknownhosts"),
        host_key_algorithms: one("hostkeyalgorithms")
            .map(|names| names.split(',').map(str::to_owned).collect())
            .unwrap_or_default(),
        family: match one("addressfamily") {
            Some("inet") => Family::V4,
            Some("inet6") => Family::V6,
            _ => Family::Any,
        },
        user: user.clone(),
        host: host.clone(),
    })
}

fn local_user() -> Option<String> {
    let names = ["LOGNAME", "USER"].into_iter().filter_map(|name| std::env::var(name).ok());
    names
        .into_iter()
        .find(|name| !name.is_empty())
        .or_else(|| rustix::process::getuid().is_root().then(|| "root".to_owned()))
}

/// One of a `ProxyJump`: `[ssh://][user@]host[:port]`.
fn jump(text: &str) -> Result<HostSpec, String> {
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

/// A list of files. `ssh -G` does not quote blanks in names: a file begins where `/` or `~` does.
fn files(value: &str, tokens: &Tokens) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<String> = Vec::new();
    for part in value.split(' ').filter(|part| !part.is_empty()) {
        match files.last_mut() {
            Some(last) if !part.starts_with(['/', '~']) => {
                last.push(' ');
                last.push_str(part);
            }
            _ => files.push(part.to_owned()),
        }
    }
    files.retain(|file| file != "none");
    files.iter().map(|file| tokens.home(file)).collect()
}

/// What `%` stands for in values (`ssh_config(5)`, TOKENS).
pub(super) struct Tokens<'t> {
    pub name: &'t str,
    pub host: &'t str,
    pub port: u16,
    pub user: &'t str,
    pub alias: Option<&'t str>,
}

impl Tokens<'_> {
    /// Replaces them.
    pub fn expand(&self, value: &str) -> Result<String, String> {
        let mut expanded = String::new();
        let mut chars = value.chars();
        while let Some(char) = chars.next() {
            if char != '%' {
                expanded.push(char);
                continue;
            }
            match chars.next() {
                Some('%') => expanded.push('%'),
                Some('h') => expanded.push_str(self.host),
                Some('n') => expanded.push_str(self.name),
                Some('p') => expanded.push_str(&self.port.to_string()),
                Some('r') => expanded.push_str(self.user),
                Some('k') => expanded.push_str(self.alias.unwrap_or(self.name)),
                Some('d') => expanded.push_str(&home()?.to_string_lossy()),
                Some('i') => {
                    expanded.push_str(&rustix::process::getuid().as_raw().to_string());
                }
                other => {
                    let token: String = other.into_iter().collect();
                    return Err(format!("%{token} in {value:?} is not understood"));
                }
            }
        }
        Ok(expanded)
    }

    /// As [`expand`](Self::expand), for a shell: nothing in it is more than a name.
    fn command(&self, value: &str) -> Result<String, String> {
        if !is_user_name(self.user) || self.user.contains('\\') {
            return Err(format!("{:?} is no name to give to a ProxyCommand", self.user));
        }
        if let Some(alias) = self.alias.filter(|alias| !is_host_name(alias)) {
            return Err(format!("{alias:?} is no name to give to a ProxyCommand"));
        }
        self.expand(value)
    }

    fn path(&self, value: &str) -> Result<PathBuf, String> {
        if value.contains("${") {
            return Err(format!("${{...}} in {value:?} is not understood"));
        }
        self.home(&self.expand(value)?)
    }

    fn home(&self, value: &str) -> Result<PathBuf, String> {
        match value.strip_prefix('~') {
            None => Ok(value.into()),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                Ok(home()?.join(rest.trim_start_matches('/')))
            }
            Some(_) => Err(format!("{value:?}: the home of another is not understood")),
        }
    }
}

/// The user's home directory.
pub(super) fn home() -> Result<PathBuf, String> {
    std::env::home_dir().filter(|home| home.is_absolute()).ok_or_else(|| "HOME is not set".into())
}
