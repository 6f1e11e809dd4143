//! Which hosts were named, by `--hosts` and `--hostfile`: in order, each once, without what is MPI's
//! alone. Text in, names out; no host is looked for here, and the file that is named is all that is
//! read.
//!
//! A name goes on to configuration files in which `%h` may stand in a command for a shell. So it has
//! letters, digits and little else, and never begins as an option does; see `name`.

mod name;
mod ranges;
#[cfg(all(test, not(loom)))]
mod tests;

pub use name::HostSpec;

use indexmap::IndexMap;
use name::Key;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Most hosts of one run.
pub const MAX_HOSTS: usize = 65_536;
/// Most names, repeated ones counted: a machine file of MPI repeats a host for each of its slots.
const MAX_NAMES: usize = 1 << 20;
/// Most bytes of a hostfile.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most characters of what was wrong that are shown.
const SHOWN_CHARS: usize = 80;

/// What a hostfile may say of a host that is the launcher's business (OpenMPI, PRRTE, MPICH).
const NOT_OURS: [&str; 10] = [
    "slots",
    "slot",
    "max_slots",
    "max-slots",
    "cpus",
    "cpu",
    "count",
    "binding",
    "ifhn",
    "sockets",
];

/// Why what was named is not a list of hosts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostsError {
    /// Something cannot be a host.
    #[error("{place}: {}: {wrong}", shown(text))]
    Malformed {
        /// Where it stands.
        place: Place,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        wrong: Wrong,
    },
    /// The hostfile cannot be read.
    #[error("cannot read the hostfile {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The hostfile is no text, or no end of it.
    #[error("{} is not a hostfile: {why}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// In what way.
        why: String,
    },
}

/// Where a host was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a list, such as the value of an option: the n-th entry, from 1.
    List(String, usize),
    /// In a file: the line, from 1.
    Line(PathBuf, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::List(option, entry) => write!(f, "{option}, entry {entry}"),
            Place::Line(path, line) => write!(f, "{}, line {line}", path.display()),
        }
    }
}

/// What is wrong with a host's name, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Wrong {
    /// `node[1-2`.
    #[error("a [ is not closed")]
    Unclosed,
    /// `node1]`.
    #[error("a ] closes nothing")]
    Unopened,
    /// `node[1,,2]`, `node[]`.
    #[error("nothing stands between two marks in the brackets")]
    EmptyElement,
    /// `node[[[[[1]]]]]`.
    #[error("brackets stand in brackets more than {} deep", ranges::MAX_DEPTH)]
    TooDeep,
    /// `node[a-c]`.
    #[error("{} is not a range; one is written 1-16 or 001-016", shown(.0))]
    Range(String),
    /// `node[5-3]`.
    #[error("the range {} goes backwards", shown(.0))]
    Backwards(String),
    /// `node[001-16]`.
    #[error("the range {} has its zeros on one side only; write both as long", shown(.0))]
    Padding(String),
    /// `node[1-99999999]`.
    #[error("more than {MAX_HOSTS} hosts are named")]
    TooMany,
    /// More than a resolver takes.
    #[error(
        "the name of a host has at most {} characters, of a user {}",
        name::MAX_HOST_CHARS,
        name::MAX_USER_CHARS
    )]
    TooLong,
    /// `@`, `user@`, `:4`.
    #[error("there is no host in it")]
    NoHost,
    /// `-oProxyCommand=...`.
    #[error("{} cannot begin the name of a {of}", shown(&character.to_string()))]
    Begin {
        /// The first character.
        character: char,
        /// `host` or `user`.
        of: &'static str,
    },
    /// `a;b`.
    #[error("{} cannot stand in the name of a {of}", shown(&character.to_string()))]
    Character {
        /// The character.
        character: char,
        /// `host` or `user`.
        of: &'static str,
    },
    /// `10.0.0.010`, `4`.
    #[error("{} is a number but no IPv4 address (four parts up to 255, no leading zeros)", shown(.0))]
    Ipv4(String),
    /// `fe80::1::2`, `[node1:4]`.
    #[error(
        "{} is no IPv6 address; with a slot count behind it one is written [fe80::1%eth0]:4",
        shown(.0)
    )]
    Ipv6(String),
    /// `host:many`, `host:`.
    #[error(
        "{} is no number of slots; a port is given as ssh://host:2222 or in ~/.ssh/config",
        shown(.0)
    )]
    Slots(String),
    /// `ssh://host:0`.
    #[error("{} is no port (1 to 65535)", shown(.0))]
    Port(String),
    /// `http://host`.
    #[error("only ssh:// may stand before a host")]
    Scheme,
    /// `ssh://fe80::1`.
    #[error("behind ssh:// an IPv6 address stands in brackets: ssh://[fe80::1]:22")]
    Unbracketed,
    /// `host 4`, `host weight=2`, in a file.
    #[error("{} is not understood here; a line is: HOST[:SLOTS] [slots=N] [user=NAME] [port=N]", shown(.0))]
    Attribute(String),
    /// `a@host user=b`, `ssh://host:22 port=23`.
    #[error("its {0} is given twice")]
    Twice(&'static str),
}

/// Text of others in one line of ours: quoted, without control characters, not longer than helps.
fn shown(text: &str) -> String {
    let cut = text.chars().nth(SHOWN_CHARS).is_some();
    let text: String = text.chars().take(SHOWN_CHARS).collect();
    format!("\"{}{}\"", text.escape_debug(), if cut { "..." } else { "" })
}

/// Hosts in the order in which they were named, each once.
///
/// A host is `[USER@]HOST[:SLOTS]` or, with a port, `ssh://[USER@]HOST[:PORT]`; what stands behind
/// the colon of the first form is MPI's and dropped. An IPv6 address with anything behind it stands in
/// brackets. Other brackets hold lists of names and ranges, as of Slurm, pdsh and clustershell:
/// `node[001-016,020]`, `r[1-4]n[01-32]`, `n[a[1-2],b]`.
#[derive(Debug, Default)]
pub struct HostList {
    hosts: IndexMap<Key, HostSpec>,
    names: usize,
}

impl HostList {
    /// No hosts.
    pub fn new() -> HostList {
        HostList::default()
    }

    /// Adds those of a list that is separated by commas or blanks. `option` is what the user knows
    /// the list as, such as `--hosts`.
    ///
    /// # Errors
    /// [`HostsError::Malformed`]; some hosts may have been added.
    pub fn add(&mut self, text: &str, option: &str) -> Result<(), HostsError> {
        let place = |entry: usize| Place::List(option.to_owned(), entry + 1);
        let is_end = |c: char| c == ',' || c.is_whitespace();
        let entries = ranges::split(text, is_end).map_err(|wrong| HostsError::Malformed {
            place: place(0),
            text: text.to_owned(),
            wrong,
        })?;
        let named = entries.into_iter().filter(|entry| !entry.is_empty());
        for (number, entry) in named.enumerate() {
            self.add_entry(entry, &Attributes::default()).map_err(|wrong| {
                HostsError::Malformed { place: place(number), text: entry.to_owned(), wrong }
            })?;
        }
        Ok(())
    }

    /// Adds those of a hostfile: one a line, with `slots=N` and the like behind it; `#` begins a
    /// comment.
    ///
    /// # Errors
    /// [`HostsError`]; some hosts may have been added.
    pub fn add_file(&mut self, path: &Path) -> Result<(), HostsError> {
        let failed = |source| HostsError::File { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        // May be a pipe, as of a shell's <(...): it is its end that counts, not its size.
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let why = format!("it has more than {MAX_FILE_BYTES} bytes");
            return Err(HostsError::NotText { path: path.to_owned(), why });
        }
        self.add_file_bytes(&bytes, path)
    }

    /// As [`add_file`](Self::add_file), of a file that has been read.
    ///
    /// # Errors
    /// As [`add_file`](Self::add_file).
    pub fn add_file_bytes(&mut self, bytes: &[u8], path: &Path) -> Result<(), HostsError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            HostsError::NotText { path: path.to_owned(), why: format!("line {line} is not UTF-8") }
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // Some editors still end lines by a carriage return alone.
        let lines = text.split('\n').flat_map(|line| line.trim_end_matches('\r').split('\r'));
        for (number, line) in lines.enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            self.add_line(line).map_err(|wrong| HostsError::Malformed {
                place: Place::Line(path.to_owned(), number + 1),
                text: line.to_owned(),
                wrong,
            })?;
        }
        Ok(())
    }

    /// What was named; may be none.
    pub fn into_hosts(self) -> Vec<HostSpec> {
        self.hosts.into_values().collect()
    }

    fn add_line(&mut self, line: &str) -> Result<(), Wrong> {
        // OpenMPI takes blanks around the sign.
        let line: Vec<&str> = line.split('=').map(str::trim).collect();
        let line = line.join("=");
        let words = ranges::split(&line, char::is_whitespace)?;
        let mut words = words.into_iter().filter(|word| !word.is_empty());
        let Some(hosts) = words.next() else { return Ok(()) };
        let attributes = Attributes::of(words)?;
        let entries = ranges::split(hosts, |c| c == ',')?;
        let mut entries = entries.into_iter().filter(|entry| !entry.is_empty());
        entries.try_for_each(|entry| self.add_entry(entry, &attributes))
    }

    fn add_entry(&mut self, entry: &str, attributes: &Attributes) -> Result<(), Wrong> {
        let mut entry = name::Entry::parse(entry)?;
        for (field, given, what) in [
            (&mut entry.user, &attributes.user, "user"),
            (&mut entry.port, &attributes.port, "port"),
        ] {
            if field.is_some() && given.is_some() {
                return Err(Wrong::Twice(what));
            }
            *field = field.or(given.as_deref());
        }
        let hosts = ranges::Pattern::parse(entry.host)?;
        self.names = self.names.saturating_add(hosts.count());
        if hosts.count() > MAX_HOSTS || self.names > MAX_NAMES {
            return Err(Wrong::TooMany);
        }
        if hosts.longest() > name::MAX_HOST_CHARS {
            return Err(Wrong::TooLong);
        }
        for host in hosts.expand() {
            let (key, spec) = name::checked(entry.user, &host, entry.port)?;
            self.hosts.entry(key).or_insert(spec);
            if self.hosts.len() > MAX_HOSTS {
                return Err(Wrong::TooMany);
            }
        }
        Ok(())
    }
}

/// What a line of a hostfile says behind the host.
#[derive(Debug, Default)]
struct Attributes {
    user: Option<String>,
    port: Option<String>,
}

impl Attributes {
    fn of<'t>(words: impl Iterator<Item = &'t str>) -> Result<Attributes, Wrong> {
        let mut attributes = Attributes::default();
        for word in words {
            let strange = || Wrong::Attribute(word.to_owned());
            let (key, value) = word.split_once('=').ok_or_else(strange)?;
            if value.is_empty() {
                return Err(strange());
            }
            let (field, what) = match key {
                "user" | "username" | "user-name" | "user_name" => (&mut attributes.user, "user"),
                "port" => (&mut attributes.port, "port"),
                _ if NOT_OURS.contains(&key) => continue,
                _ => return Err(strange()),
            };
            if field.replace(value.to_owned()).is_some() {
                return Err(Wrong::Twice(what));
            }
        }
        Ok(attributes)
    }
}
