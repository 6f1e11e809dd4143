//! Which of the named hosts is this machine, and which two are one. Names and addresses are looked
//! up once, before anything is recorded, on threads of their own and for a bounded time: a resolver
//! that does not answer holds up nobody. What another host is is never decided here: that is told by
//! `machine`, once it is reached.

use super::hosts::HostSpec;
use indexmap::{IndexMap, IndexSet};
use nix::ifaddrs::getifaddrs;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long all look-ups together may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Most look-ups at a time.
const MAX_THREADS: usize = 32;

/// Where a named host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locality {
    /// It is this machine.
    Here(Because),
    /// It is another, or this one by a way that only shows when it is reached; or its name is known
    /// to SSH alone, or to nobody.
    Elsewhere,
    /// The resolver did not answer in time.
    Unknown,
}

/// Why a host is this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// It is called so.
    Name,
    /// It has this address.
    Address,
    /// The name is that of an address that it has.
    ResolvesTo(IpAddr),
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Name => write!(f, "it is called so"),
            Because::Address => write!(f, "it has this address"),
            Because::ResolvesTo(address) => write!(f, "the name resolves to its {address}"),
        }
    }
}

/// Where each of `hosts` is, in their order. Takes no longer than `patience`. A host with a port is
/// elsewhere: it is that server that is meant, and a port of this machine may lead to another.
pub fn locate(hosts: &[HostSpec], patience: Duration) -> Vec<Locality> {
    let deadline = Instant::now() + patience;
    locate_with(hosts, &ThisMachine::look(), resolve, deadline)
}

/// A name's addresses and, if it is asked for, the name that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolved {
    addresses: Vec<IpAddr>,
    canonical: Option<String>,
}

type Answer = io::Result<Resolved>;

/// What this machine is called, and the addresses of its interfaces.
#[derive(Debug)]
struct ThisMachine {
    nodename: String,
    names: Vec<String>,
    addresses: Vec<(IpAddr, String)>,
}

impl ThisMachine {
    fn look() -> ThisMachine {
        let nodename = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut addresses = Vec::new();
        // Without them, loopback and names are still known.
        for interface in getifaddrs().into_iter().flatten() {
            let Some(address) = interface.address else { continue };
            let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::from(v4.ip()),
                (_, Some(v6)) => IpAddr::from(v6.ip()),
                _ => continue,
            };
            addresses.push((ip, interface.interface_name));
        }
        ThisMachine::called(nodename, addresses)
    }

    fn called(nodename: String, addresses: Vec<(IpAddr, String)>) -> ThisMachine {
        let short = nodename.split('.').next().unwrap_or_default().to_owned();
        let names = ["localhost", &nodename, &short].map(folded).into();
        ThisMachine { nodename, names, addresses }
    }

    fn has_name(&self, name: &str) -> bool {
        let name = folded(name);
        !name.is_empty() && self.names.contains(&name)
    }

    /// Whether it has an address; with a zone, on that interface.
    fn has_address(&self, address: IpAddr, zone: Option<&str>) -> bool {
        let address = address.to_canonical();
        // All of 127/8 is the loopback interface's, though it has but one address (RFC 1122,
        // 3.2.1.3); a connection to 0.0.0.0 or :: is one to this host.
        address.is_loopback()
            || address.is_unspecified()
            || self.addresses.iter().any(|(own, interface)| {
                own.to_canonical() == address && zone.is_none_or(|zone| zone == interface)
            })
    }
}

/// Names are the same whatever their letters' case, and with the root's dot (RFC 4343).
fn folded(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn locate_with(
    hosts: &[HostSpec],
    this: &ThisMachine,
    resolve: impl Fn(&str, bool) -> Answer + Send + Sync + 'static,
    deadline: Instant,
) -> Vec<Locality> {
    let at_once: Vec<Option<Locality>> = hosts
        .iter()
        .map(|host| match (host.port, host.address()) {
            (Some(_), _) => Some(Locality::Elsewhere),
            (None, Some((address, zone))) => Some(match this.has_address(address, zone) {
                true => Locality::Here(Because::Address),
                false => Locality::Elsewhere,
            }),
            (None, None) => this.has_name(&host.host).then_some(Locality::Here(Because::Name)),
        })
        .collect();
    let open = hosts.iter().zip(&at_once).filter(|(_, known)| known.is_none());
    let mut names: Vec<String> = open.map(|(host, _)| host.host.clone()).collect();
    if names.is_empty() {
        return at_once.into_iter().flatten().collect();
    }
    // First, and with its canonical form: the full name.
    names.insert(0, this.nodename.clone());
    let answers = resolve_all(names, resolve, deadline);
    let canonical = |resolved: &Resolved| resolved.canonical.as_deref().map(folded);
    let full_name =
        answers.get(&this.nodename).and_then(|answer| answer.as_ref().ok().and_then(canonical));
    let by_answer = |host: &HostSpec| {
        if full_name.as_ref() == Some(&folded(&host.host)) {
            return Locality::Here(Because::Name);
        }
        let resolved = match answers.get(&host.host) {
            None => return Locality::Unknown,
            Some(Err(_)) => return Locality::Elsewhere,
            Some(Ok(resolved)) => resolved,
        };
        let own = resolved.addresses.iter().find(|address| this.has_address(**address, None));
        own.map_or(Locality::Elsewhere, |own| Locality::Here(Because::ResolvesTo(*own)))
    };
    let known =
        |(host, known): (&HostSpec, Option<Locality>)| known.unwrap_or_else(|| by_answer(host));
    hosts.iter().zip(at_once).map(known).collect()
}

/// The answers that come until `deadline`, by name. Threads whose resolver hangs are left behind; they
/// hold nothing but a name.
fn resolve_all(
    names: Vec<String>,
    resolve: impl Fn(&str, bool) -> Answer + Send + Sync + 'static,
    deadline: Instant,
) -> IndexMap<String, Answer> {
    let names: IndexSet<String> = names.into_iter().collect();
    let count = names.len();
    let work = Arc::new((names, AtomicUsize::new(0), resolve));
    let (outbox, inbox) = crossbeam::channel::bounded(count);
    for _ in 0..count.min(MAX_THREADS) {
        let (work, outbox) = (work.clone(), outbox.clone());
        let resolver = move || {
            let (names, next, resolve) = &*work;
            loop {
                // Each name once; the answers' order is the channel's.
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = names.get_index(number) else { return };
                // Nobody listens any more: the time is up.
                if Instant::now() >= deadline
                    || outbox.send((number, resolve(name, number == 0))).is_err()
                {
                    return;
                }
            }
        };
        // With fewer threads it takes longer; with none, nothing is known.
        let _ = std::thread::Builder::new().name("rs-resolve".to_owned()).spawn(resolver);
    }
    drop(outbox);
    let mut answers = IndexMap::new();
    while let Ok((number, answer)) = inbox.recv_deadline(deadline) {
        answers.insert(work.0[number].clone(), answer);
    }
    answers
}

/// Asks the system's resolver, which may take its time.
fn resolve(name: &str, with_canonical: bool) -> Answer {
    let flags = if with_canonical { libc::AI_CANONNAME } else { 0 };
    // One answer for each address, not one for each kind of socket.
    let hints =
        dns_lookup::AddrInfoHints { flags, socktype: libc::SOCK_STREAM, ..Default::default() };
    let found = dns_lookup::getaddrinfo(Some(name), None, Some(hints)).map_err(io::Error::from)?;
    let found: Vec<_> = found.collect::<Result<_, _>>()?;
    Ok(Resolved {
        addresses: found.iter().map(|info| info.sockaddr.ip()).collect(),
        canonical: found.into_iter().find_map(|info| info.canonname),
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cluster::hosts::HostList;
    use Locality::{Elsewhere, Here, Unknown};

    fn hosts(text: &str) -> Vec<HostSpec> {
        let mut hosts = HostList::new();
        hosts.add(text, "--hosts").unwrap();
        hosts.into_hosts()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn machine() -> ThisMachine {
        let addresses = [
            ("127.0.0.1", "lo"),
            ("::1", "lo"),
            ("10.0.0.7", "eth0"),
            ("fe80::7", "eth0"),
            ("2001:db8::7", "eth0"),
        ];
        let addresses = addresses.map(|(text, interface)| (ip(text), interface.to_owned()));
        ThisMachine::called("Node7.cluster".to_owned(), addresses.into())
    }

    /// A resolver with its answers in a table.
    fn answer(name: &str, with_canonical: bool) -> Answer {
        let addresses = match name {
            "Node7.cluster" => vec![ip("127.0.1.1")],
            "alias" => vec![ip("192.0.2.1"), ip("10.0.0.7")],
            "alias6" => vec![ip("2001:db8::7")],
            "other" | "node8" => vec![ip("10.0.0.8"), ip("2001:db8::8")],
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        let canonical = with_canonical.then(|| "node7.full.example.".to_owned());
        Ok(Resolved { addresses, canonical })
    }

    fn in_time() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn this_machine_is_known_by_all_its_names_and_addresses() {
        for (text, expected) in [
            ("localhost", Here(Because::Name)),
            ("LOCALHOST.", Here(Because::Name)),
            ("root@localhost:4", Here(Because::Name)),
            ("node7.cluster", Here(Because::Name)),
            ("node7", Here(Because::Name)),
            ("NODE7.full.example", Here(Because::Name)),
            ("127.0.0.1", Here(Because::Address)),
            ("127.3.2.1", Here(Because::Address)),
            ("::1", Here(Because::Address)),
            ("::ffff:10.0.0.7", Here(Because::Address)),
            ("0.0.0.0", Here(Because::Address)),
            ("10.0.0.7", Here(Because::Address)),
            ("2001:DB8:0::7", Here(Because::Address)),
            ("fe80::7%eth0", Here(Because::Address)),
            ("fe80::7", Here(Because::Address)),
            ("fe80::7%eth1", Elsewhere),
            ("10.0.0.8", Elsewhere),
            ("2001:db8::8", Elsewhere),
            ("alias", Here(Because::ResolvesTo(ip("10.0.0.7")))),
            ("alias6", Here(Because::ResolvesTo(ip("2001:db8::7")))),
            ("other", Elsewhere),
            ("node7.other", Elsewhere),
            ("unknown", Elsewhere),
            // A port may be forwarded to wherever.
            ("ssh://localhost:2222", Elsewhere),
            ("ssh://127.0.0.1:2222", Elsewhere),
        ] {
            let found = locate_with(&hosts(text), &machine(), answer, in_time());
            assert_eq!(found, [expected], "{text}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_hosts() {
        let hosts = hosts("other,localhost,a@alias,b@alias,unknown,n[1-200],10.0.0.7");
        let found = locate_with(&hosts, &machine(), answer, in_time());
        let mut expected = vec![Elsewhere; 206];
        expected[1] = Here(Because::Name);
        expected[2] = Here(Because::ResolvesTo(ip("10.0.0.7")));
        expected[3] = expected[2].clone();
        expected[205] = Here(Because::Address);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_resolver_that_hangs_is_not_waited_for() {
        let (_keep, never) = crossbeam::channel::bounded::<()>(0);
        let hanging = move |name: &str, with_canonical: bool| {
            if name.starts_with("hang") {
                let _ = never.recv();
            }
            answer(name, with_canonical)
        };
        let hosts = hosts("hang1,alias,localhost,hang2,10.0.0.8,other");
        let deadline = Instant::now() + Duration::from_secs(5);
        let found = locate_with(&hosts, &machine(), hanging, deadline);
        let alias = Here(Because::ResolvesTo(ip("10.0.0.7")));
        let expected = [Unknown, alias, Here(Because::Name), Unknown, Elsewhere, Elsewhere];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_real_resolver_and_the_real_interfaces_know_this_machine() {
        let this = ThisMachine::look();
        let own = this.addresses.iter().filter(|(address, _)| !address.is_loopback());
        let own: Vec<String> = own
            .map(|(address, interface)| match address {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => format!("{v6}%{interface}"),
                other => other.to_string(),
            })
            .collect();
        for name in own.iter().map(String::as_str).chain(["localhost", "::1", &this.nodename]) {
            let found = locate(&hosts(name), Duration::from_secs(60));
            assert!(matches!(found[..], [Here(_)]), "{name}: {found:?}");
        }
        // RFC 5737 and RFC 6761: addresses and names that nobody has.
        let nobody = locate(&hosts("192.0.2.1"), Duration::from_secs(60));
        assert_eq!(nobody, [Elsewhere]);
        let resolved = resolve("localhost", true).unwrap();
        assert!(resolved.addresses.iter().all(IpAddr::is_loopback), "{resolved:?}");
        assert!(resolved.canonical.is_some(), "{resolved:?}");
    }
}
