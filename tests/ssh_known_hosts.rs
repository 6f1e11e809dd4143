//! What we decide on a server's key is what OpenSSH's own program decides, on the same files, of the
//! same server.
#![cfg(feature = "ssh")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::random::Random;
use common::sshd::{Site, Sshd};
use ringstat::reaching::{ConnectError, HostSpec, SshOptions, connect};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const KINDS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

/// What came of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Trusted,
    Unknown,
    Changed(usize),
    Revoked,
}

fn ours(host: &Sshd, options: &SshOptions) -> Outcome {
    let spec: HostSpec = host.name.parse().unwrap();
    match connect(&spec, options, Instant::now() + Duration::from_secs(60)) {
        Ok(_) => Outcome::Trusted,
        Err(ConnectError::UnknownKey { .. }) => Outcome::Unknown,
        Err(ConnectError::ChangedKey { line, .. }) => Outcome::Changed(line),
        Err(ConnectError::RevokedKey { .. }) => Outcome::Revoked,
        Err(error) => panic!("{error}"),
    }
}

fn openssh(site: &Site, host: &Sshd, file: &Path) -> Outcome {
    let config = fs::read_to_string(site.path("config")).unwrap();
    assert!(config.contains("StrictHostKeyChecking yes"));
    let known = format!("UserKnownHostsFile={}", file.display());
    let mut options = vec!["-o", &known];
    // Host certificates are never offered by us; what the user says counts.
    if !config.contains("HostKeyAlgorithms") {
        options.extend(["-o", "HostKeyAlgorithms=-*-cert-*"]);
    }
    let ran = site.ssh(&[&options[..], &[&host.name, "true"]].concat());
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    if ran.status.success() {
        return Outcome::Trusted;
    }
    if said.contains("REVOKED HOST KEY") {
        return Outcome::Revoked;
    }
    if said.contains("IDENTIFICATION HAS CHANGED") {
        let at = said.find("Offending").expect("the line");
        let place = said[at..].lines().next().unwrap().rsplit(':').next().unwrap();
        return Outcome::Changed(place.trim().parse().unwrap());
    }
    assert!(said.contains("host key is known for"), "{said}");
    Outcome::Unknown
}

/// What lines of the files are made of: the host's keys and others, its names and others.
struct Parts {
    keys: [String; 3],
    others: [String; 3],
    names: Vec<String>,
}

impl Parts {
    fn of(site: &Site, host: &Sshd) -> Parts {
        let read = |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            text.split(' ').take(2).collect::<Vec<_>>().join(" ")
        };
        let made = |whose: &str, kind: &str| {
            let name = format!("{whose}_{kind}_{}", host.name);
            read(&site.keygen(&name, kind, &[]).with_extension("pub"))
        };
        // One that the host has not may still be on file for it.
        let keys = KINDS.map(|kind| match host.path(&format!("host_{kind}.pub")) {
            path if path.exists() => read(&path),
            _ => made("lost", kind),
        });
        let others = KINDS.map(|kind| made("other", kind));
        let [ip, port] = [host.address.to_string(), host.port.to_string()];
        let named = format!("[{ip}]:{port}");
        let names = [
            named.clone(),
            hashed(site, &named, &keys[0]),
            hashed(site, &ip, &keys[0]),
            ip.clone(),
            "[127.*]:*".into(),
            "*".into(),
            format!("!{named},*"),
            format!("*,!{named}"),
            format!("a,{named},b"),
            format!("[{ip}]:?????"),
            format!("[{ip}]:{port}0"),
            "other".into(),
            "!other".into(),
            ",".into(),
            format!(",{named}"),
            "|1|AAAA|BBBB".into(),
            "|1|".into(),
            host.name.clone(),
        ];
        Parts { keys, others, names: names.into() }
    }
}

/// The name as `ssh-keygen -H` writes it.
fn hashed(site: &Site, name: &str, key: &str) -> String {
    let path = site.path("to-hash");
    fs::write(&path, format!("{name} {key}\n")).unwrap();
    let mut command = std::process::Command::new("ssh-keygen");
    assert!(command.arg("-H").arg("-f").arg(&path).output().unwrap().status.success());
    let text = fs::read_to_string(&path).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

#[test]
fn the_decision_is_that_of_openssh() {
    let Some(site) = Site::new("known hosts against OpenSSH") else { return };
    let host = site.host("node1").host_keys(&KINDS).unknown().start();
    let Parts { keys: [ed, ec, rsa], others: [other_ed, other_ec, other_rsa], names } =
        Parts::of(&site, &host);
    let name = &names[0];
    let [hashed, hashed_ip, ip] = [&names[1], &names[2], &names[3]];
    let blob = ed.split(' ').nth(1).unwrap();
    let file = site.path("tried");
    let mut options = SshOptions::new(32);
    options.config = Some(site.path("config"));
    options.known_hosts = Some(file.clone());

    let trusted = Outcome::Trusted;
    let unknown = Outcome::Unknown;
    for (content, expected) in [
        (String::new(), &unknown),
        (format!("{name} {ed}\n"), &trusted),
        (format!("{name} {ed}"), &trusted),
        (format!("{name} {ec}\n"), &trusted),
        (format!("{name} {rsa}\n"), &trusted),
        (format!("{hashed} {rsa} a comment\n"), &trusted),
        // One that is known for any port, if the server happens to show that.
        (format!("{hashed_ip} {ed}\n"), &trusted),
        (format!("{ip} {ed}\n"), &trusted),
        (format!("{ip} {rsa}\n"), &unknown),
        (format!("@revoked {ip} {ed}\n"), &Outcome::Revoked),
        (format!("{ip} {other_ed}\n"), &unknown),
        (format!("{name} {other_ed}\n"), &Outcome::Changed(1)),
        (format!("\n# x\n{name} {other_rsa}\n"), &Outcome::Changed(3)),
        (format!("{hashed} {other_ec}\n"), &Outcome::Changed(1)),
        (format!("{name} {other_ed}\n{name} {ed}\n"), &trusted),
        (format!("{name} {other_ed}\n{name} {rsa}\n"), &Outcome::Changed(2)),
        (format!("* {ed}\n"), &trusted),
        (format!("[127.*]:* {ed}\n"), &trusted),
        (format!("*,!{name} {ed}\n"), &trusted),
        (format!("*,!{name},!{ip} {ed}\n"), &unknown),
        (format!("!{name} {ed}\n"), &unknown),
        (format!("!other {ed}\n"), &unknown),
        (format!("!other,* {ed}\n"), &trusted),
        (format!("@revoked * {ed}\n{name} {ed}\n"), &Outcome::Revoked),
        (format!("@revoked {name} {ed}\n"), &Outcome::Revoked),
        (format!("@revoked * {other_ed}\n{name} {ed}\n"), &trusted),
        (format!("@revoked * {ed}\n{name} {rsa}\n"), &trusted),
        // A type whose first key is revoked is not asked for.
        (format!("@revoked * {ed}\n{name} {ed}\n{name} {rsa}\n"), &trusted),
        (format!("@revoked * {ed}\n{name} {ed}\n{name} {other_rsa}\n"), &Outcome::Changed(3)),
        (format!("@revoked * {ed}\n{name} {other_ed}\n{name} {ed}\n"), &Outcome::Revoked),
        (format!("@cert-authority {name} {ed}\n"), &unknown),
        (format!("@nonsense {name} {ed}\n"), &unknown),
        (format!("@revoked @revoked {name} {ed}\n{name} {ed}\n"), &trusted),
        (format!("\x00\u{fffd} garbage\n{name}\n{name} ssh-ed25519\n{name} {ed}\n"), &trusted),
        (format!("{name} {ed}\r\n"), &trusted),
        (format!("{name} {other_ed}\r\n"), &Outcome::Changed(1)),
        (format!(" \t{name}\t {ed}\n"), &trusted),
        (format!("#{name} {ed}\n"), &unknown),
        (format!("{name} ED25519 {blob}\n"), &unknown),
        (format!("{name} ssh-rsa {blob}\n"), &unknown),
        (format!("{name} ssh-ed25519 {}\n", &blob[..40]), &unknown),
        (format!("{name} ssh-ed25519 {blob}AAAA\n"), &unknown),
        (format!("{name} 1024 35 1234567\n"), &unknown),
        (format!("{} {ed}\n", name.to_uppercase()), &trusted),
        (format!("{name},{} {ed}\n", "x".repeat(2000)), &unknown),
        (format!("{},{name} {ed}\n", "x".repeat(2000)), &unknown),
    ] {
        fs::write(&file, &content).unwrap();
        assert_eq!(openssh(&site, &host, &file), *expected, "ssh on {content:?}");
        assert_eq!(ours(&host, &options), *expected, "we on {content:?}");
    }

    let config = fs::read_to_string(site.path("config")).unwrap();
    fs::write(site.path("config"), format!("HostKeyAlias Some.Name\n{config}")).unwrap();
    for (content, expected) in [
        (format!("some.name {ed}\n"), &trusted),
        (format!("{name} {ed}\n"), &unknown),
        (format!("[some.name]:{} {ed}\n", host.port), &unknown),
    ] {
        fs::write(&file, &content).unwrap();
        assert_eq!(openssh(&site, &host, &file), *expected, "ssh on {content:?}");
        assert_eq!(ours(&host, &options), *expected, "we on {content:?}");
    }
}

#[test]
fn an_order_of_the_users_own_is_that_of_openssh() {
    let Some(site) = Site::new("an order of the user's own against OpenSSH") else { return };
    let host = site.host("node1").host_keys(&KINDS).unknown().start();
    let Parts { keys: [ed, ec, rsa], others: [_, _, other_rsa], names } = Parts::of(&site, &host);
    let name = &names[0];
    let file = site.path("tried");
    let mut options = SshOptions::new(32);
    options.config = Some(site.path("config"));
    options.known_hosts = Some(file.clone());
    let config = fs::read_to_string(site.path("config")).unwrap();
    let [ed, ec, rsa, wrong] = [ed, ec, rsa, other_rsa].map(|key| format!("{name} {key}\n"));
    let decided = |algorithms: &str, content: &str| {
        let config = format!("HostKeyAlgorithms {algorithms}\n{config}");
        fs::write(site.path("config"), config).unwrap();
        fs::write(&file, content).unwrap();
        [openssh(&site, &host, &file), ours(&host, &options)]
    };
    let [trusted, changed] = [Outcome::Trusted, Outcome::Changed(1)];
    // By which of its keys is on file: the server shows another one, or that.
    for (algorithms, [with_ed, with_ec, with_rsa]) in [
        ("rsa-sha2-512,ssh-ed25519", [changed, changed, trusted]),
        ("^rsa-sha2-512", [changed, changed, trusted]),
        ("^ecdsa-*", [changed, trusted, changed]),
        ("ecdsa-sha2-nistp256", [changed, trusted, changed]),
        // Not an order of the user's own: what is on file comes first.
        ("+ssh-rsa", [trusted, trusted, trusted]),
        ("-ssh-ed25519", [changed, trusted, trusted]),
        ("-ssh-ed25519,ecdsa-*", [changed, changed, trusted]),
    ] {
        for (content, expected) in [(&ed, with_ed), (&ec, with_ec), (&rsa, with_rsa)] {
            let both = decided(algorithms, content);
            assert_eq!(both, [expected; 2], "ssh and we, with {algorithms} on {content:?}");
        }
    }
    let both = format!("{ed}{wrong}");
    for (algorithms, expected) in [
        ("rsa-sha2-512,ssh-ed25519", Outcome::Changed(2)),
        ("^rsa-sha2-512", Outcome::Changed(2)),
        ("+ssh-rsa", trusted),
    ] {
        assert_eq!(decided(algorithms, &both), [expected; 2], "ssh and we, with {algorithms}");
    }
    // All that the user wants, in the usual order: `ssh -G` says no more of it than of one by `-`.
    assert_eq!(decided("ssh-ed25519,rsa-sha2-512", &rsa), [changed, trusted]);
    assert_eq!(decided("ssh-ed25519,rsa-sha2-512", &ed), [trusted; 2]);
}

#[test]
fn files_at_random_are_decided_on_alike() {
    let Some(site) = Site::new("known hosts at random against OpenSSH") else { return };
    let all = site.host("node1").host_keys(&KINDS).unknown().start();
    // Without the type that everybody would have first.
    let some = site.host("node2").host_keys(&KINDS[1..]).unknown().start();
    let hosts = [&all, &some].map(|host| (host, Parts::of(&site, host)));
    let file = site.path("tried");
    let mut options = SshOptions::new(32);
    options.config = Some(site.path("config"));
    options.known_hosts = Some(file.clone());
    let mut random = Random(common::seed());
    for round in 0..common::rounds(60, 2000) {
        let (host, parts) = &hosts[round as usize % 2];
        let mut content = String::new();
        for _ in 0..random.below(6) {
            let mut pick = |from: &[String]| from[random.below(from.len() as u64) as usize].clone();
            let name = pick(&parts.names);
            let [own, other] = [pick(&parts.keys), pick(&parts.others)];
            let key = if random.once_in(2) { own } else { other };
            let marker = ["", "", "", "", "@revoked ", "@cert-authority ", "@x "];
            content += marker[random.below(marker.len() as u64) as usize];
            content += &format!("{name} {key}");
            if random.once_in(12) {
                let at = random.below(content.len() as u64) as usize;
                content.truncate(at);
            }
            content += ["\n", "\r\n", " comment\n"][random.below(3) as usize];
        }
        fs::write(&file, &content).unwrap();
        let theirs = openssh(&site, host, &file);
        assert_eq!(ours(host, &options), theirs, "{}: {content}", host.name);
    }
}
