//! Whether a server's key is the one that `known_hosts` files have for it, decided as OpenSSH
//! decides (`sshd(8)`, SSH_KNOWN_HOSTS FILE FORMAT): libssh2 accepts revoked keys, knows neither
//! wildcards nor negation, and gives up a file at one line that it does not understand. Reads
//! bytes and adds lines; knows no connection.
//!
//! Lines with `@cert-authority` count for nothing: host certificates are never offered, so that a
//! server must show a plain key. Points of elliptic curves are not checked to be on them: such a
//! line counts as another key, and refuses where OpenSSH would take it for garbage.

use super::pattern::{Listed, listed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most of a file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// OpenSSH's `match_pattern_list` gives up at a longer one.
const MAX_PATTERN_BYTES: usize = 1023;

/// What the files say of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is on file for this host.
    Known,
    /// No key is on file for this host.
    Unknown,
    /// Another key is on file for this host: here.
    Changed {
        /// The file.
        file: PathBuf,
        /// The line in it, from 1.
        line: usize,
    },
    /// It is on file as one that must not be accepted.
    Revoked,
}

/// The lines of all files that are about one host.
#[derive(Debug, Default)]
pub struct Entries(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    is_revoked: bool,
    key: Vec<u8>,
    file: PathBuf,
    line: usize,
}

/// What files call a host: `[host]:port` unless the port is 22.
pub fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

impl Entries {
    /// Reads what `files` have for `name`, as [`lookup_name`] makes it. Files that are not there are
    /// empty.
    ///
    /// # Errors
    /// A file that is there and cannot be read: what it might forbid would be missed.
    pub fn read(files: &[PathBuf], name: &str) -> Result<Entries, (PathBuf, io::Error)> {
        let mut entries = Entries::default();
        for file in files {
            let mut bytes = Vec::new();
            let read = fs::File::open(file)
                .and_then(|open| open.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
            match read {
                Ok(_) => entries.add(&bytes, file, name),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((file.clone(), error)),
            }
        }
        Ok(entries)
    }

    /// Adds what the content of `file` has for `name`.
    pub fn add(&mut self, content: &[u8], file: &Path, name: &str) {
        for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
            if let Some((is_revoked, key)) = parse(line, name) {
                self.0.push(Entry { is_revoked, key, file: file.to_owned(), line: index + 1 });
            }
        }
    }

    /// What they say of `key`, a public key as it goes over the wire (RFC 4253, 6.6).
    pub fn verdict(&self, key: &[u8]) -> Verdict {
        if self.is_revoked(key) {
            return Verdict::Revoked;
        }
        let mut verdict = Verdict::Unknown;
        for entry in self.valid() {
            if entry.key == key {
                return Verdict::Known;
            }
            verdict = Verdict::Changed { file: entry.file.clone(), line: entry.line };
        }
        verdict
    }

    /// Whether a server had better show a key of this type, as `ssh-ed25519`: one is on file, and the
    /// first is not revoked (`check_hostkeys_by_key_or_type` in OpenSSH's `hostfile.c`).
    pub fn prefer(&self, kind: &str) -> bool {
        let first = self.valid().find(|entry| key_type(&entry.key) == Some(kind));
        first.is_some_and(|entry| !self.is_revoked(&entry.key))
    }

    fn is_revoked(&self, key: &[u8]) -> bool {
        self.0.iter().any(|entry| entry.is_revoked && entry.key == key)
    }

    /// Those that accept a key.
    fn valid(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(|entry| !entry.is_revoked)
    }
}

/// The type that a key on the wire says it is of.
pub fn key_type(key: &[u8]) -> Option<&str> {
    let (name, _) = string(key)?;
    std::str::from_utf8(name).ok()
}

/// Adds a line for `name` with `key`, in one write, so that others who add at once do not mix with
/// it. `hash` hides the name, as `HashKnownHosts` wants.
///
/// # Errors
/// The file system's.
pub fn append(file: &Path, name: &str, key: &[u8], hash: bool) -> io::Result<()> {
    if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)?;
    }
    let kind = key_type(key).ok_or(io::ErrorKind::InvalidData)?;
    let name = if hash { hashed(name, &random_salt()?) } else { name.to_owned() };
    let line = format!("{name} {kind} {}\n", STANDARD.encode(key));
    let mut options = fs::OpenOptions::new();
    let mut open = options.read(true).append(true).create(true).mode(0o600).open(file)?;
    let line = if ends_midway(&open)? { format!("\n{line}") } else { line };
    open.write_all(line.as_bytes())
}

/// Whether the last line has no end.
fn ends_midway(file: &fs::File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let len = file.metadata()?.len();
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    Ok(last != [b'\n'])
}

fn random_salt() -> io::Result<[u8; 20]> {
    let mut salt = [0; 20];
    fs::File::open("/dev/urandom")?.read_exact(&mut salt)?;
    Ok(salt)
}

/// `|1|salt|hash`.
fn hashed(name: &str, salt: &[u8]) -> String {
    format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hmac(name, salt)))
}

fn hmac(name: &str, salt: &[u8]) -> Vec<u8> {
    // A key may be of any length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(salt) else { return Vec::new() };
    mac.update(name.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// The key of a line that is about `name`, and whether it is revoked.
fn parse(line: &[u8], name: &str) -> Option<(bool, Vec<u8>)> {
    let mut rest = skip_blanks(line);
    let mut is_revoked = false;
    if rest.first() == Some(&b'@') {
        let (marker, after) = word(rest);
        rest = skip_blanks(after);
        // Only one marker is allowed.
        if marker != b"@revoked" || rest.first() == Some(&b'@') {
            return None;
        }
        is_revoked = true;
    }
    let (hosts, rest) = word(rest);
    if hosts.is_empty() || hosts[0] == b'#' || !names(hosts, name) {
        return None;
    }
    let (kind, rest) = word(skip_blanks(rest));
    let (encoded, _) = word(skip_blanks(rest));
    // The decoder of OpenSSH passes over white space, of which CR is left here.
    let encoded: Vec<u8> =
        encoded.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let key = STANDARD.decode(encoded).ok()?;
    is_key(&key, std::str::from_utf8(kind).ok()?).then_some((is_revoked, key))
}

fn skip_blanks(line: &[u8]) -> &[u8] {
    let blanks = line.iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
    &line[blanks..]
}

fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|&byte| byte == b' ' || byte == b'\t');
    line.split_at(end.unwrap_or(line.len()))
}

/// Whether the first word of a line is about `name`, which is in small letters.
fn names(hosts: &[u8], name: &str) -> bool {
    if hosts[0] == b'|' {
        let Some(parts) = hosts.strip_prefix(b"|1|") else { return false };
        let Some(at) = parts.iter().position(|&byte| byte == b'|') else { return false };
        let Ok(salt) = STANDARD.decode(&parts[..at]) else { return false };
        return salt.len() == 20 && hashed(name, &salt).as_bytes() == hosts;
    }
    let hosts = hosts.to_ascii_lowercase();
    let patterns = hosts.split(|&byte| byte == b',');
    if patterns.clone().any(|pattern| pattern.len() > MAX_PATTERN_BYTES) {
        return false;
    }
    // A comma at the end begins no pattern.
    listed(name.as_bytes(), patterns.filter(|pattern| !pattern.is_empty())) == Listed::Yes
}

/// Whether `key` is a public key of the type that the line names.
fn is_key(key: &[u8], named: &str) -> bool {
    let Some((kind, rest)) = string(key) else { return false };
    let Ok(kind) = std::str::from_utf8(kind) else { return false };
    let is_named = match kind {
        "ssh-rsa" => matches!(named, "ssh-rsa" | "rsa-sha2-256" | "rsa-sha2-512"),
        _ => named == kind,
    };
    let strings = |count: usize| {
        let mut rest = rest;
        let mut parts = Vec::new();
        for _ in 0..count {
            let (part, after) = string(rest)?;
            parts.push(part);
            rest = after;
        }
        rest.is_empty().then_some(parts)
    };
    let is_whole = match kind {
        "ssh-ed25519" => strings(1).is_some_and(|parts| parts[0].len() == 32),
        "ssh-rsa" => strings(2).is_some_and(|parts| is_long_number(parts[1])),
        "ssh-dss" => strings(4).is_some(),
        "sk-ssh-ed25519@openssh.com" => strings(2).is_some_and(|parts| parts[0].len() == 32),
        "sk-ecdsa-sha2-nistp256@openssh.com" => {
            strings(3).is_some_and(|parts| is_point(parts[0], parts[1]))
        }
        "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521" => strings(2)
            .is_some_and(|parts| {
                kind.as_bytes().ends_with(parts[0]) && is_point(parts[0], parts[1])
            }),
        _ => false,
    };
    is_named && is_whole
}

/// An RSA modulus of at least 1024 bits, positive.
fn is_long_number(number: &[u8]) -> bool {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    let digits = &number[zeros..];
    let is_negative = zeros == 0 && number.first().is_some_and(|&byte| byte >= 0x80);
    let bits = digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize);
    !is_negative && (1024..=16384).contains(&bits)
}

/// An uncompressed point of a curve.
fn is_point(curve: &[u8], point: &[u8]) -> bool {
    let bytes = match curve {
        b"nistp256" => 32,
        b"nistp384" => 48,
        b"nistp521" => 66,
        _ => return false,
    };
    point.len() == 1 + 2 * bytes && point[0] == 4
}

/// A string of the wire: four bytes of length, and that many.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn key() -> Vec<u8> {
        STANDARD.decode(KEY).unwrap()
    }

    fn verdict(content: &str, name: &str) -> Verdict {
        let mut entries = Entries::default();
        entries.add(content.as_bytes(), Path::new("f"), name);
        entries.verdict(&key())
    }

    #[test]
    fn hosts_are_called_as_openssh_calls_them() {
        assert_eq!(lookup_name("Node1", 22), "node1");
        assert_eq!(lookup_name("fe80::1%eth0", 2222), "[fe80::1%eth0]:2222");
    }

    #[test]
    fn added_lines_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/known_hosts");
        append(&file, "[h]:2", &key(), false).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("[h]:2 ssh-ed25519 {KEY}\n"));
        // A last line without an end stays by itself.
        fs::write(&file, "# no end").unwrap();
        append(&file, "secret", &key(), true).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# no end\n|1|") && !text.contains("secret"), "{text}");
        let read = Entries::read(&[file], "secret").unwrap();
        assert_eq!(read.verdict(&key()), Verdict::Known);
        assert!(read.prefer("ssh-ed25519") && !read.prefer("ssh-rsa"));
    }

    #[test]
    fn a_type_whose_first_key_is_revoked_is_not_preferred() {
        let [key, other] = [KEY.to_owned(), KEY.replace("4f", "4g")];
        let prefers = |lines: &[String]| {
            let mut entries = Entries::default();
            entries.add(lines.join("\n").as_bytes(), Path::new("f"), "h");
            entries.prefer("ssh-ed25519")
        };
        let line = |hosts: &str, key: &str| format!("{hosts} ssh-ed25519 {key}");
        assert!(!prefers(&[line("@revoked h", &key)]), "none may be accepted");
        assert!(!prefers(&[line("@revoked h", &key), line("h", &key)]));
        assert!(!prefers(&[line("h", &key), line("h", &other), line("@revoked *", &key)]));
        assert!(prefers(&[line("h", &other), line("h", &key), line("@revoked *", &key)]));
    }

    #[test]
    fn lines_are_told_apart() {
        let line = |hosts: &str| format!("{hosts} ssh-ed25519 {KEY}\n");
        assert_eq!(verdict(&line("h"), "h"), Verdict::Known);
        assert_eq!(verdict(&line("h,!h"), "h"), Verdict::Unknown);
        assert_eq!(verdict(&line("@revoked *"), "h"), Verdict::Revoked);
        assert_eq!(verdict(&line("@cert-authority *"), "h"), Verdict::Unknown);
        let other = format!("h ssh-ed25519 {}\n", KEY.replace("Hh8", "Hh9").replace("4f", "4g"));
        let changed = Verdict::Changed { file: "f".into(), line: 2 };
        assert_eq!(verdict(&format!("x\n{other}"), "h"), changed);
        assert_eq!(verdict(&format!("{other}{}", line("h")), "h"), Verdict::Known);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(lines in vec(vec(any::<u8>(), 0..80), 0..8), name in "[a-z:\\[\\]]{0,9}") {
            let mut entries = Entries::default();
            entries.add(&lines.join(&b'\n'), Path::new("f"), &name);
            prop_assert_eq!(entries.verdict(&key()), Verdict::Unknown, "nothing is a key by chance");
        }

        #[test]
        fn a_line_cut_anywhere_is_not_another_key(at in 0..110_usize) {
            let line = format!("h ssh-ed25519 {KEY}");
            let cut = &line[..at.min(line.len())];
            let found = verdict(cut, "h");
            let is_whole = cut.len() == line.len();
            prop_assert_eq!(found == Verdict::Known, is_whole, "{:?}", cut);
        }
    }
}
