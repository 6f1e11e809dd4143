//! How a host is reached, as the SSH configuration says: asked of `ssh -G` where there is that
//! program, else read by [`plain`](super::plain). Knows no connection and no key.

use super::SshOptions;
use super::ask::{Directives, adds_new, ask_ssh, check_names, is_host_name, is_user_name, jump};
use super::error::ConnectError;
use super::plain;
use super::throttle::Turn;
use crate::cluster::hosts::HostSpec;
use std::path::PathBuf;
use std::time::Instant;

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

/// Says how `spec` is reached.
///
/// # Errors
/// [`ConnectError::Configuration`], and [`ConnectError::TimedOut`] if `ssh -G` takes too long.
pub fn resolve(
    spec: &HostSpec,
    options: &SshOptions,
    turn: &Turn,
    deadline: Instant,
) -> Result<Target, ConnectError> {
    check_names(spec)?;
    let wrong = |found: String| ConnectError::Configuration {
        host: spec.name.clone(),
        found,
        remedy: USE_THE_PROGRAM.into(),
    };
    let directives = match ask_ssh(spec, options, turn, deadline)? {
        Some(directives) => directives,
        None => plain::read(spec, options).map_err(wrong)?,
    };
    target(spec, options, &directives).map_err(wrong)
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
    // `ssh -G` writes out what these stand for, but that of old versions.
    if let Some(names) = one("hostkeyalgorithms")
        && (names.starts_with(['+', '-', '^']) || names.contains(['*', '?']))
    {
        return Err(format!("hostkeyalgorithms {names} is not understood"));
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
        Route::Jump(jump(jumps)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"# what a user may have
Host jumped
    ProxyJump me@[fe80::7%eth0]:33,ssh://b:44,c
Host alone jump*
    ProxyJump none
    ProxyCommand nc -X 5 "%h" %p # a comment for the shell
Host *.example !bad.example
  HostName=%h.org
  User "some body"
  Port   2022
  IdentityFile ~/.ssh/k_%n
  IdentityFile "/a b/c_%r_%p_%%"
  CertificateFile /c/d-cert.pub
  IdentitiesOnly yes
  UserKnownHostsFile ~/known "/k h/%h"
  HostKeyAlias %n.alias
  StrictHostKeyChecking accept-new
host careless
	stricthostkeychecking off
	HashKnownHosts yes
	AddressFamily inet6
	IdentityAgent none
	UserKnownHostsFile none
	GlobalKnownHostsFile /g1 /g2
Host agent
    IdentityAgent ~/agent.%r
Host numbers ??
    HostName 192.0.2.1
    ForwardAgent yes
    ServerAliveInterval 5
Host *
    User late
    Port 23
    HostKeyAlgorithms ssh-ed25519,rsa-sha2-512
    IdentityFile /last
"#;

    fn with_config(text: &str) -> (tempfile::TempDir, SshOptions) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, text).unwrap();
        let mut options = SshOptions::new(1);
        options.config = Some(file);
        (dir, options)
    }

    fn spec(host: &str) -> HostSpec {
        HostSpec { name: host.into(), user: None, host: host.into(), port: None }
    }

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(60)
    }

    #[test]
    fn plain_directives_are_read_as_openssh_reads_them() {
        let (_dir, options) = with_config(CONFIG);
        let names = ["jumped", "alone", "a.example", "bad.example", "careless", "agent", "xy", "z"];
        for name in names {
            for (user, port) in [(None, None), (Some("me".to_owned()), Some(7))] {
                let spec = HostSpec { user, port, ..spec(name) };
                let turn = options.throttle().turn(soon()).unwrap();
                let Some(asked) = ask_ssh(&spec, &options, &turn, soon()).unwrap() else {
                    eprintln!("SKIPPED: there is no ssh to compare with");
                    assert!(std::env::var_os("CI").is_none(), "in CI nothing skips");
                    return;
                };
                let expected = target(&spec, &options, &asked);
                let read = plain::read(&spec, &options).unwrap();
                assert_eq!(target(&spec, &options, &read), expected, "{name}");
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, why) in [
            ("Match host x\n User y\n", ":1: Match host x is not understood"),
            ("Host *\n\nFrobnicate yes\n", ":3: frobnicate is not understood"),
            ("Port\n", ":1: port without a value"),
            ("User \"x\n", ":1: a quote that does not end"),
            ("IdentityFile ~other/x\n", "home of another"),
            ("IdentityFile /x%C\n", "%C"),
            ("IdentityFile /${HOME}/x\n", "${...}"),
            ("BindAddress 10.0.0.1\n", "bindaddress"),
            ("RevokedHostKeys /x\n", "revokedhostkeys"),
            ("HostKeyAlgorithms +ssh-rsa\n", "hostkeyalgorithms +ssh-rsa is not understood"),
            ("HostKeyAlgorithms -ssh-rsa\n", "hostkeyalgorithms -ssh-rsa is not understood"),
            ("HostKeyAlgorithms ^ssh-rsa\n", "hostkeyalgorithms ^ssh-rsa is not understood"),
            ("HostKeyAlgorithms ssh-*\n", "hostkeyalgorithms ssh-* is not understood"),
            ("HostKeyAlgorithms ssh-rs?\n", "hostkeyalgorithms ssh-rs? is not understood"),
            ("HostName a;b\n", "cannot be the name of a host"),
            ("ProxyJump a b\n", "more than one value"),
            ("ProxyJump $(x)\n", "ProxyJump"),
            ("Port 70000\n", "70000"),
        ] {
            let (_dir, options) = with_config(text);
            let spec = spec("x");
            let read = plain::read(&spec, &options);
            let error = read.and_then(|read| target(&spec, &options, &read)).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        // What is for other hosts does not matter, but `Match` may be for any.
        let (_dir, options) = with_config("Host y\nFrobnicate yes\n");
        plain::read(&spec("x"), &options).unwrap();
    }

    #[test]
    fn nothing_but_names_reaches_a_shell() {
        for user in ["x;y", "$(x)", "-x", "a b", "`x`", ""] {
            let (_dir, options) = with_config("ProxyCommand nc %r\n");
            let directives = vec![
                ("user".to_owned(), user.to_owned()),
                ("proxycommand".to_owned(), "nc %r".to_owned()),
            ];
            assert!(target(&spec("h"), &options, &directives).is_err(), "{user:?}");
        }
    }

    #[test]
    fn includes_are_read_in_place() {
        let (dir, options) = with_config("");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("1.conf"), "User first\nHost other\nPort 1\n").unwrap();
        std::fs::write(path("2.conf"), "User second\nPort 2\n").unwrap();
        let text = format!("Host x\nInclude {}\nUser last\n", path("*.conf"));
        std::fs::write(path("config"), text).unwrap();
        let found = |host: &str| {
            let spec = spec(host);
            let target = target(&spec, &options, &plain::read(&spec, &options).unwrap()).unwrap();
            (target.user, target.port)
        };
        assert_eq!(found("x"), ("first".into(), 2));
        assert_eq!(found("other").1, 22, "within `Host x` only");
    }
}
