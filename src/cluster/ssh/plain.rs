//! The plain directives of `ssh_config(5)`, for machines without OpenSSH's program. What it does
//! not understand, as `Match`, it refuses: a host reached in another way than its user wrote is
//! worse than one that is not reached.

use super::SshOptions;
use super::ask::Directives;
use super::config::{Tokens, home};
use super::pattern::{Listed, listed, matches};
use crate::cluster::hosts::HostSpec;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const SYSTEM_CONFIG: &str = "/etc/ssh/ssh_config";
const MAX_FILE_BYTES: u64 = 4 << 20;
const MAX_DEPTH: usize = 16;
/// Of a configuration with all that it includes, each as often as it is read.
const MAX_FILES: usize = 1000;
const MAX_BYTES: u64 = 16 << 20;

/// Directives that say how a host is reached, and are understood.
const TAKEN: &[&str] = &[
    "addressfamily",
    "bindaddress",
    "bindinterface",
    "certificatefile",
    "globalknownhostsfile",
    "hashknownhosts",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "knownhostscommand",
    "port",
    "proxycommand",
    "proxyjump",
    "proxyusefdpass",
    "revokedhostkeys",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
];

/// Directives about what is not used here, or not in a way that could make a difference.
const PASSED_OVER: &[&str] = &[
    "addkeystoagent",
    "batchmode",
    "checkhostip",
    "ciphers",
    "compression",
    "connectionattempts",
    "connecttimeout",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dynamicforward",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "hostbasedauthentication",
    "ipqos",
    "kbdinteractiveauthentication",
    "kexalgorithms",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "macs",
    "nohostauthenticationforlocalhost",
    "numberofpasswordprompts",
    "passwordauthentication",
    "permitlocalcommand",
    "preferredauthentications",
    "pubkeyacceptedalgorithms",
    "rekeylimit",
    "remotecommand",
    "remoteforward",
    "requesttty",
    "sendenv",
    "serveralivecountmax",
    "serveraliveinterval",
    "setenv",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tcpkeepalive",
    "tunnel",
    "updatehostkeys",
    "verifyhostkeydns",
    "visualhostkey",
    "xauthlocation",
];

/// What the configuration says of `spec`, as `ssh -G` would.
///
/// # Errors
/// A sentence on what is not understood, and where.
pub fn read(spec: &HostSpec, options: &SshOptions) -> Result<Directives, String> {
    let mut reader = Reader { name: &spec.host, found: Vec::new(), files: 0, bytes: 0 };
    match &options.config {
        // As `ssh -F`: then the system's does not count.
        Some(file) => reader.file(file, true, 0)?,
        None => {
            let own = home()?.join(".ssh/config");
            for file in [own, SYSTEM_CONFIG.into()] {
                if file.exists() {
                    reader.file(&file, true, 0)?;
                }
            }
        }
    }
    complete(reader.found, spec)
}

struct Reader<'r> {
    name: &'r str,
    found: Directives,
    /// That were read, and how much was in them.
    files: usize,
    bytes: u64,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, mut is_active: bool, depth: usize) -> Result<(), String> {
        let shown = path.display();
        if depth > MAX_DEPTH {
            return Err(format!("{shown}: Include within Include, {MAX_DEPTH} deep"));
        }
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(format!("{shown}: it is one more than {MAX_FILES} files by Include"));
        }
        let text = text_of(path).map_err(|error| format!("{shown}: {error}"))?;
        self.bytes += text.len() as u64;
        if self.bytes > MAX_BYTES {
            return Err(format!(
                "{shown}: with it there are more than {MAX_BYTES} bytes by Include"
            ));
        }
        let may_be_active = is_active;
        for (index, line) in text.lines().enumerate() {
            let at = |what: String| format!("{shown}:{}: {what}", index + 1);
            let Some((name, rest)) = split(line) else { continue };
            let values = words(rest).ok_or_else(|| at("a quote that does not end".into()))?;
            let Some(first) = values.first() else {
                return Err(at(format!("{name} without a value")));
            };
            match name.as_str() {
                "host" => {
                    let patterns = values.iter().map(|pattern| pattern.as_bytes());
                    let found = listed(self.name.as_bytes(), patterns);
                    is_active = may_be_active && found == Listed::Yes;
                }
                "match" => return Err(at(format!("Match {rest} is not understood"))),
                "include" => {
                    for value in &values {
                        for file in included(value, path).map_err(at)? {
                            self.file(&file, is_active, depth + 1)?;
                        }
                    }
                }
                _ if !is_active => {}
                _ if TAKEN.contains(&name.as_str()) => {
                    let whole = match name.as_str() {
                        "proxycommand" => rest.to_owned(),
                        "userknownhostsfile" | "globalknownhostsfile" => values.join(" "),
                        _ if values.len() == 1 => first.clone(),
                        _ => return Err(at(format!("{name} {rest}: more than one value"))),
                    };
                    self.take(name, whole);
                }
                _ if PASSED_OVER.contains(&name.as_str()) => {}
                _ => return Err(at(format!("{name} is not understood"))),
            }
        }
        Ok(())
    }

    /// The first value counts; of `ProxyJump` and `ProxyCommand` the first of both.
    fn take(&mut self, name: String, value: String) {
        let is_there = |other: &str| self.found.iter().any(|each| each.0 == other);
        // `ProxyJump none` keeps later jumps away, but no command.
        let jumps = self.found.iter().any(|each| each.0 == "proxyjump" && each.1 != "none");
        let is_late = match name.as_str() {
            "identityfile" | "certificatefile" => false,
            "proxyjump" => is_there("proxyjump") || is_there("proxycommand"),
            "proxycommand" => is_there("proxycommand") || jumps,
            _ => is_there(&name),
        };
        if !is_late {
            self.found.push((name, value));
        }
    }
}

/// What is in a plain file, if that is not more than a configuration can be. Waits for the other end of
/// nothing else.
fn text_of(path: &Path) -> io::Result<String> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = fs::File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(wrong("not a regular file".to_owned()));
    }
    let mut text = String::new();
    // Whatever its length is said to be.
    let bytes = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if bytes as u64 > MAX_FILE_BYTES {
        return Err(wrong(format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

/// The directive of a line in small letters, and the rest after blanks or one `=`.
fn split(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|char: char| char.is_ascii_whitespace() || char == '=');
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    Some((name.to_ascii_lowercase(), rest))
}

/// Words, of which some may be in double quotes; `#` before one begins a comment.
fn words(rest: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = rest.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => {
                let end = rest.find(|char: char| char.is_ascii_whitespace());
                rest.split_at(end.unwrap_or(rest.len()))
            }
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Some(words)
}

/// The files that an `Include` names: relative to the directory of `by`, with `*` and `?` in the
/// last part. One that is not there is none.
fn included(value: &str, by: &Path) -> Result<Vec<PathBuf>, String> {
    let path = match value.strip_prefix("~/") {
        Some(rest) => home()?.join(rest),
        None if by.starts_with("/etc/ssh") => Path::new("/etc/ssh").join(value),
        None => home()?.join(".ssh").join(value),
    };
    let is_pattern = |text: &std::ffi::OsStr| text.to_string_lossy().contains(['*', '?', '[']);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(format!("Include {value}: no file"));
    };
    if is_pattern(dir.as_os_str()) || name.to_string_lossy().contains('[') {
        return Err(format!("Include {value}: this pattern is not understood"));
    }
    if !is_pattern(name) {
        return Ok(if path.exists() { vec![path] } else { Vec::new() });
    }
    let name = name.to_string_lossy().into_owned();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name()).filter(|entry| {
        let entry = entry.to_string_lossy();
        matches(entry.as_bytes(), name.as_bytes()) && !entry.starts_with('.')
    });
    // No more than can be read.
    let mut files: Vec<PathBuf> = names.take(MAX_FILES + 1).map(|entry| dir.join(entry)).collect();
    files.sort();
    Ok(files)
}

/// Adds what counts where nothing is said, and replaces the tokens that `ssh -G` replaces.
fn complete(mut found: Directives, spec: &HostSpec) -> Result<Directives, String> {
    let value = |found: &Directives, name: &str| {
        found.iter().find(|each| each.0 == name).map(|each| each.1.clone())
    };
    let port = spec.port.or_else(|| value(&found, "port")?.parse().ok()).unwrap_or(22);
    let user = spec.user.clone().or_else(|| value(&found, "user")).unwrap_or_default();
    // In `HostName` itself, `%h` is what was asked for.
    let asked = Tokens { name: &spec.host, host: &spec.host, port, user: &user, alias: None };
    let host = match value(&found, "hostname") {
        Some(host) => asked.expand(&host)?,
        None => spec.host.clone(),
    };
    let alias = value(&found, "hostkeyalias");
    let tokens = Tokens { host: &host, alias: alias.as_deref(), ..asked };
    for (_, value) in found.iter_mut().filter(|each| each.0 == "userknownhostsfile") {
        *value = tokens.expand(value)?;
    }
    found.retain(|each| each.0 != "hostname");
    found.push(("hostname".into(), host.clone()));
    for (name, values) in [
        ("identityfile", &["~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519"][..]),
        ("userknownhostsfile", &["~/.ssh/known_hosts ~/.ssh/known_hosts2"]),
        ("globalknownhostsfile", &["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"]),
    ] {
        if !found.iter().any(|each| each.0 == name) {
            found.extend(values.iter().map(|&value| (name.to_owned(), value.to_owned())));
        }
    }
    Ok(found)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn what_is_included_is_bounded_in_all() {
        let dir = tempfile::tempdir().unwrap();
        let parts = dir.path().join("parts");
        fs::create_dir(&parts).unwrap();
        let part = |number: usize| parts.join(format!("{number:05}"));
        let mut options = SshOptions::new(1);
        let config = dir.path().join("config");
        fs::write(&config, format!("Include {}/*\nPort 23\n", parts.display())).unwrap();
        options.config = Some(config.clone());
        let ask = || read(&"node1".parse().unwrap(), &options);
        // With the configuration itself.
        (1..MAX_FILES).for_each(|number| fs::write(part(number), "User u\n").unwrap());
        assert!(ask().unwrap().contains(&("port".to_owned(), "23".to_owned())));
        fs::write(part(MAX_FILES), "User u\n").unwrap();
        let said = ask().unwrap_err();
        assert!(said.contains("01000: it is one more than 1000 files by Include"), "{said}");
        // One that includes all others, itself among them, ends too.
        fs::write(part(1), format!("Include {}/*\n", parts.display())).unwrap();
        assert!(ask().unwrap_err().contains("16 deep"));
        (1..=MAX_FILES).for_each(|number| fs::remove_file(part(number)).unwrap());
        let text = fs::read(&config).unwrap();
        let comment = vec![b'\n'; MAX_FILE_BYTES as usize];
        (0..3).for_each(|number| fs::write(part(number), &comment).unwrap());
        fs::write(part(3), &comment[text.len()..]).unwrap();
        assert!(ask().is_ok());
        fs::write(part(3), &comment[text.len() - 1..]).unwrap();
        let said = ask().unwrap_err();
        assert!(said.contains("00003: with it there are more than 16777216 bytes"), "{said}");
    }

    #[test]
    fn what_is_no_plain_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let long = dir.path().join("long");
        fs::write(&long, vec![b'\n'; MAX_FILE_BYTES as usize]).unwrap();
        let config = dir.path().join("config");
        let ask = |config: &Path| {
            let mut options = SshOptions::new(1);
            options.config = Some(config.to_owned());
            read(&"node1".parse().unwrap(), &options)
        };
        let include = |file: &Path| {
            fs::write(&config, format!("Include {}\nPort 23\n", file.display())).unwrap();
            ask(&config)
        };
        let found = include(&long).unwrap();
        assert!(found.contains(&("port".to_owned(), "23".to_owned())), "{found:?}");
        fs::write(&long, vec![b'\n'; MAX_FILE_BYTES as usize + 1]).unwrap();
        for (file, why) in [
            (&*fifo, "fifo: not a regular file"),
            (Path::new("/dev/zero"), "/dev/zero: not a regular file"),
            (dir.path(), "not a regular file"),
            (&long, "longer than 4194304 bytes"),
            // Of no length, by what it says.
            (Path::new("/proc/self/pagemap"), ""),
        ] {
            let said = include(file).unwrap_err();
            assert!(said.contains(why), "{said}");
            assert_eq!(ask(file).unwrap_err(), said, "as the configuration itself");
        }
    }
}
