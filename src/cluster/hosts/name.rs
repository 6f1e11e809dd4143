//! One host: what its name is made of, and which names are none. The rules are stricter than those
//! of resolvers, since a name may get to a shell by way of `ProxyCommand` in a configuration of SSH
//! (`%h`, `%r`), as in CVE-2023-51385.

use super::{Wrong, ranges};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Most characters of a host's name (RFC 1035, 2.3.4).
pub(super) const MAX_HOST_CHARS: usize = 255;
/// Most characters of a user's name; Linux takes 32, directories of other systems more.
pub(super) const MAX_USER_CHARS: usize = 128;
/// Most characters of an interface's name (`IFNAMSIZ` without its zero byte).
const MAX_ZONE_CHARS: usize = 15;
const SCHEME: &str = "ssh://";

/// A host as it was named, checked. Written and read as its name, by which it is the same host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub struct HostSpec {
    /// As in the output: as it was given, without slots and, unless there is a port, brackets.
    pub name: String,
    /// The user to log in as, if one was named.
    pub user: Option<String>,
    /// Name, IPv4 address or IPv6 address with its zone (`fe80::1%eth0`), never in brackets. May be
    /// an alias of `~/.ssh/config`.
    pub host: String,
    /// The port, if one was named: then it is that server that is meant, whichever machine it
    /// leads to.
    pub port: Option<u16>,
}

impl HostSpec {
    /// The address, if it was named by one; the zone apart.
    pub fn address(&self) -> Option<(IpAddr, Option<&str>)> {
        if let Ok(address) = self.host.parse::<Ipv4Addr>() {
            return Some((address.into(), None));
        }
        ipv6(&self.host).map(|(address, zone)| (address.into(), zone))
    }
}

impl fmt::Display for HostSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl From<HostSpec> for String {
    fn from(spec: HostSpec) -> String {
        spec.name
    }
}

impl FromStr for HostSpec {
    type Err = Wrong;

    /// One host, without lists in brackets.
    fn from_str(text: &str) -> Result<HostSpec, Wrong> {
        let entry = Entry::parse(text)?;
        Ok(checked(entry.user, entry.host, entry.port)?.1)
    }
}

impl TryFrom<String> for HostSpec {
    type Error = Wrong;

    fn try_from(text: String) -> Result<HostSpec, Wrong> {
        text.parse()
    }
}

/// By which two hosts are one: addresses by their value.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

/// An entry taken apart, nothing checked but what parts it.
#[derive(Debug)]
pub(super) struct Entry<'t> {
    pub user: Option<&'t str>,
    /// Perhaps with lists in brackets; an address without its own.
    pub host: &'t str,
    pub port: Option<&'t str>,
}

impl<'t> Entry<'t> {
    pub fn parse(text: &'t str) -> Result<Entry<'t>, Wrong> {
        let bare = text.strip_prefix(SCHEME);
        let is_uri = bare.is_some();
        let bare = bare.unwrap_or(text);
        if bare.contains("://") {
            return Err(Wrong::Scheme);
        }
        // As ssh does: a user may be user@domain.
        let (user, rest) = match bare.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, bare),
        };
        let (host, number) = Entry::host_and_number(rest, is_uri)?;
        if host.is_empty() {
            return Err(Wrong::NoHost);
        }
        let port = match number {
            Some(port) if is_uri => Some(port),
            // How many processes MPI starts there.
            Some(slots) => {
                let is_count =
                    (1..=9).contains(&slots.len()) && slots.bytes().all(|b| b.is_ascii_digit());
                if !is_count && slots != "*" {
                    return Err(Wrong::Slots(slots.to_owned()));
                }
                None
            }
            None => None,
        };
        Ok(Entry { user, host, port })
    }

    /// What stands behind the colon that is not part of an address.
    fn host_and_number(rest: &str, is_uri: bool) -> Result<(&str, Option<&str>), Wrong> {
        if let Some((inner, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
            && inner.contains(':')
        {
            if ipv6(inner).is_none() {
                return Err(Wrong::Ipv6(inner.to_owned()));
            }
            return match behind.strip_prefix(':') {
                Some(number) => Ok((inner, Some(number))),
                None if behind.is_empty() => Ok((inner, None)),
                None => Err(Wrong::Ipv6(rest.to_owned())),
            };
        }
        match ranges::split(rest, |c| c == ':')?[..] {
            [host] => Ok((host, None)),
            [host, number] => Ok((host, Some(number))),
            _ if is_uri => Err(Wrong::Unbracketed),
            _ => Ok((rest, None)),
        }
    }
}

/// A host of these parts, if they are what they should be.
pub(super) fn checked(
    user: Option<&str>,
    host: &str,
    port: Option<&str>,
) -> Result<(Key, HostSpec), Wrong> {
    if let Some(user) = user {
        check_user(user)?;
    }
    let is_ipv6 = host.contains(':');
    let canonical = if is_ipv6 {
        let (address, zone) = ipv6(host).ok_or_else(|| Wrong::Ipv6(host.to_owned()))?;
        zone.map_or_else(|| address.to_string(), |zone| format!("{address}%{zone}"))
    } else {
        check_host(host)?;
        host.to_owned()
    };
    let port = match port {
        None => None,
        Some(text) => {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let port = text.parse::<u16>().ok().filter(|port| is_number && *port > 0);
            Some(port.ok_or_else(|| Wrong::Port(text.to_owned()))?)
        }
    };
    let at_host = match user {
        Some(user) => format!("{user}@"),
        None => String::new(),
    };
    let name = match port {
        None => format!("{at_host}{host}"),
        Some(port) if is_ipv6 => format!("{SCHEME}{at_host}[{host}]:{port}"),
        Some(port) => format!("{SCHEME}{at_host}{host}:{port}"),
    };
    let user = user.map(str::to_owned);
    let key = Key { user: user.clone(), host: canonical, port };
    Ok((key, HostSpec { name, user, host: host.to_owned(), port }))
}

fn check_host(host: &str) -> Result<(), Wrong> {
    check(host, "host", |c| matches!(c, '.' | '_' | '-'))?;
    if host.len() > MAX_HOST_CHARS {
        return Err(Wrong::TooLong);
    }
    // A resolver takes 010 as octal and a single number as 32 bits of an address (inet_aton(3)).
    let is_numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(Wrong::Ipv4(host.to_owned()));
    }
    Ok(())
}

fn check_user(user: &str) -> Result<(), Wrong> {
    check(user, "user", |c| matches!(c, '.' | '_' | '-' | '+' | '@'))?;
    if user.len() > MAX_USER_CHARS { Err(Wrong::TooLong) } else { Ok(()) }
}

fn check(name: &str, of: &'static str, is_mark: impl Fn(char) -> bool) -> Result<(), Wrong> {
    let strange = name.chars().find(|c| !c.is_ascii_alphanumeric() && !is_mark(*c));
    if let Some(character) = strange {
        return Err(Wrong::Character { character, of });
    }
    match name.chars().next() {
        None => Err(Wrong::NoHost),
        Some(c) if c.is_ascii_alphanumeric() || c == '_' => Ok(()),
        Some(character) => Err(Wrong::Begin { character, of }),
    }
}

/// An IPv6 address and its zone (RFC 4007, 11).
fn ipv6(text: &str) -> Option<(Ipv6Addr, Option<&str>)> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let is_zone = |zone: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (1..=MAX_ZONE_CHARS).contains(&zone.len()) && zone.chars().all(known)
    };
    zone.is_none_or(is_zone).then_some((address.parse().ok()?, zone))
}
