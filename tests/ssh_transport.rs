//! Both ways to a host against a real OpenSSH server: commands with their streams and ends, and
//! every way in which it can refuse, be wrong, or be gone.
#![cfg(feature = "ssh")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::proxy::Proxy;
use common::sshd::{Site, Sshd};
use ringstat::reaching::{Channel, ConnectError, End, HostSpec, Link, SshOptions, Step, connect};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + LONG
}

fn spec(name: &str) -> HostSpec {
    name.parse().unwrap()
}

fn options(site: &Site) -> SshOptions {
    configured(site, SshOptions::new(32))
}

fn configured(site: &Site, mut options: SshOptions) -> SshOptions {
    options.config = Some(site.path("config"));
    options.timeout = LONG;
    options
}

/// Both transports.
fn both(site: &Site) -> [SshOptions; 2] {
    [options(site), by_program(options(site))]
}

fn by_program(mut options: SshOptions) -> SshOptions {
    options.program = Some("ssh".into());
    options
}

/// What a command said, and how it ended.
#[derive(Debug, PartialEq)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: End,
}

/// Sends all of `input`, and reads until both outputs have ended.
fn talk(channel: &mut dyn Channel, mut input: &[u8]) -> Said {
    let [mut stdout, mut stderr] = [Vec::new(), Vec::new()];
    let mut bytes = vec![0; 1 << 16];
    let mut has_ended_input = false;
    loop {
        let mut ended = 0;
        let mut is_idle = true;
        match channel.read(&mut bytes) {
            Ok(0) => ended += 1,
            Ok(count) => {
                stdout.extend_from_slice(&bytes[..count]);
                is_idle = false;
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
        match channel.read_stderr(&mut bytes) {
            Ok(0) => ended += 1,
            Ok(count) => {
                stderr.extend_from_slice(&bytes[..count]);
                is_idle = false;
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
        if ended == 2 {
            return Said { stdout, stderr, end: channel.end(soon()) };
        }
        if !input.is_empty() {
            match channel.write(input) {
                Ok(count) => {
                    input = &input[count..];
                    is_idle = false;
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
            }
        } else if !has_ended_input {
            channel.end_input().unwrap();
            has_ended_input = true;
        }
        if is_idle {
            let far = soon();
            channel.wait(!input.is_empty(), far).unwrap();
            assert!(Instant::now() < far, "nothing came");
        }
    }
}

fn run(link: &mut dyn Link, command: &str, input: &[u8]) -> Said {
    let mut channel = link.exec(command, soon()).unwrap();
    talk(&mut *channel, input)
}

#[test]
fn a_command_has_its_streams_and_its_end() {
    let Some(site) = Site::new("commands over SSH") else { return };
    let host = site.host("node1").start();
    for options in both(&site) {
        let mut link = connect(&spec("node1"), &options, soon()).unwrap();
        let said = run(&mut *link, "cat; echo done >&2; exit 7", b"hello\0\xff");
        let expected =
            Said { stdout: b"hello\0\xff".into(), stderr: b"done\n".into(), end: End::Status(7) };
        assert_eq!(said, expected, "{:?}", options.program);
    }
    assert!(host.log().contains("Accepted publickey for root"));
}

#[test]
fn large_streams_do_not_stop_each_other() {
    let Some(site) = Site::new("large streams over SSH") else { return };
    let _host = site.host("node1").start();
    // More than any window, on all three at once.
    let size = 6 << 20;
    let input: Vec<u8> = (0..size as u32).map(|index| (index % 251) as u8).collect();
    let command = format!("head -c {size} /dev/zero >&2 & cat; wait");
    for options in both(&site) {
        let mut link = connect(&spec("node1"), &options, soon()).unwrap();
        let said = run(&mut *link, &command, &input);
        assert_eq!(said.end, End::Status(0), "{:?}", options.program);
        assert!(said.stdout == input, "{} bytes", said.stdout.len());
        assert!(said.stderr == vec![0; size], "{} bytes", said.stderr.len());
        // One after the other over one link.
        for status in 0..3 {
            assert_eq!(run(&mut *link, &format!("exit {status}"), b"").end, End::Status(status));
        }
    }
}

#[test]
fn a_reader_of_one_stream_sees_the_end_of_the_other() {
    let Some(site) = Site::new("ends of streams over SSH") else { return };
    let _host = site.host("node1").start();
    for options in both(&site) {
        let mut link = connect(&spec("node1"), &options, soon()).unwrap();
        let mut channel = link.exec("echo all; sleep 0.2; echo of it >&2; exit 3", soon()).unwrap();
        // `end` reads what nobody has read.
        assert_eq!(channel.end(soon()), End::Status(3));
        drop(channel);
        let mut channel = link.exec("sleep 1000", soon()).unwrap();
        let end = channel.end(Instant::now());
        assert_eq!(end, End::Lost("it has not ended in time".into()));
    }
}

#[test]
fn a_signal_is_told_from_a_status() {
    let Some(site) = Site::new("signals over SSH") else { return };
    let _host = site.host("node1").start();
    let [built_in, program] = both(&site);
    let mut link = connect(&spec("node1"), &built_in, soon()).unwrap();
    assert_eq!(run(&mut *link, "kill -9 $$", b"").end, End::Signal("KILL".into()));
    let mut link = connect(&spec("node1"), &program, soon()).unwrap();
    let end = run(&mut *link, "kill -9 $$", b"").end;
    assert!(matches!(end, End::Lost(_)), "its 255 says no more: {end:?}");
}

#[test]
fn all_login_shells_understand_the_same_line() {
    let Some(site) = Site::new("login shells over SSH") else { return };
    let shells = ["/bin/bash", "/bin/dash", "/usr/bin/fish", "/usr/bin/tcsh", "/bin/csh"];
    for (index, shell) in shells.into_iter().enumerate() {
        if !std::path::Path::new(shell).exists() {
            common::say_skipped("login shells over SSH", shell);
            continue;
        }
        let name = format!("node{index}");
        let host = site.host(&name).shell(shell).start();
        for options in both(&site) {
            let mut link = connect(&spec(&name), &options, soon()).unwrap();
            let said = run(&mut *link, "exec sh -c 'echo \"$HOME\" \"$0\"; exit 5'", b"");
            assert_eq!(said.end, End::Status(5), "{shell}");
            let stdout = String::from_utf8(said.stdout).unwrap();
            assert_eq!(stdout, format!("{} sh\n", host.home.display()), "{shell}");
        }
    }
}

/// How connecting to `name` fails.
fn fails(name: &str, options: &SshOptions) -> ConnectError {
    let started = connect(&spec(name), options, soon());
    match started {
        Ok(_) => panic!("{name} lets us in"),
        Err(error) => error,
    }
}

/// Fails unless `error` is of `step` and says all of `words`.
fn says(error: &ConnectError, step: Step, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.step(), step, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

/// How a command fails that OpenSSH's program cannot start.
fn program_fails(name: &str, options: &SshOptions) -> String {
    let mut link = connect(&spec(name), options, soon()).unwrap();
    match run(&mut *link, "true", b"").end {
        End::Lost(why) => why,
        end => panic!("{name}: {end:?}"),
    }
}

#[test]
fn only_known_keys_are_trusted() {
    let Some(site) = Site::new("host keys over SSH") else { return };
    let host = site.host("node1").unknown().start();
    let [mut built_in, mut program] = both(&site);

    let error = fails("node1", &built_in);
    let name = format!("[{}]:{}", host.address, host.port);
    says(
        &error,
        Step::HostKey,
        &["node1", &name, "ssh-ed25519", "SHA256:", "accept-new-host-keys"],
    );
    assert!(program_fails("node1", &program).contains("Host key verification failed"));

    // One that is added is known from then on, and to both.
    built_in.accept_new = true;
    connect(&spec("node1"), &built_in, soon()).unwrap();
    built_in.accept_new = false;
    connect(&spec("node1"), &built_in, soon()).unwrap();
    let mut link = connect(&spec("node1"), &program, soon()).unwrap();
    assert_eq!(run(&mut *link, "true", b"").end, End::Status(0));
    let known = std::fs::read_to_string(site.path("known_hosts")).unwrap();
    assert_eq!(known.lines().count(), 1, "{known}");

    // A changed one never passes, whatever is asked for.
    site.keygen("other", "ed25519", &[]);
    let other = std::fs::read_to_string(site.path("other.pub")).unwrap();
    std::fs::write(site.path("known_hosts"), format!("# moved\n{name} {other}")).unwrap();
    for ask in [false, true] {
        [built_in.accept_new, program.accept_new] = [ask; 2];
        let file = format!("{}:2", site.path("known_hosts").display());
        says(&fails("node1", &built_in), Step::HostKey, &["node1", "CHANGED", &name, &file]);
        assert!(program_fails("node1", &program).contains("Host key verification failed"));
    }
    let config = std::fs::read_to_string(site.path("config")).unwrap();
    let careless = config.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking no");
    std::fs::write(site.path("config"), careless).unwrap();
    says(&fails("node1", &built_in), Step::HostKey, &["CHANGED"]);
    assert!(program_fails("node1", &program).contains("Host key verification failed"));

    let own = std::fs::read_to_string(host.path("host_ed25519.pub")).unwrap();
    std::fs::write(site.path("known_hosts"), format!("@revoked * {own}{name} {own}")).unwrap();
    says(&fails("node1", &built_in), Step::HostKey, &["@revoked"]);
    assert!(program_fails("node1", &program).contains("Host key verification failed"));
}

#[test]
fn keys_of_all_kinds_let_in() {
    let Some(site) = Site::new("keys over SSH") else { return };
    for (index, (kind, more)) in [
        ("ed25519", &[][..]),
        ("rsa", &[]),
        ("rsa", &["-m", "PEM"]),
        ("ecdsa", &[]),
        ("ecdsa", &["-b", "521"]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("node{index}");
        let key = site.keygen(&format!("key{index}"), kind, more);
        site.authorize(&key.with_extension("pub"));
        let only = format!("IdentityFile {}", key.display());
        let host = site.host(&name).host_keys(&[kind]).client_config(&only).start();
        for options in both(&site) {
            let mut link = connect(&spec(&name), &options, soon()).unwrap();
            assert_eq!(run(&mut *link, "true", b"").end, End::Status(0));
        }
        let accepted = format!("ssh2: {} ", kind.to_uppercase());
        let log = host.log();
        let count = log.lines().filter(|line| line.contains("Accepted publickey for"));
        assert_eq!(count.filter(|line| line.contains(&accepted)).count(), 2, "{kind}: {log}");
    }
}

#[test]
fn who_is_not_let_in_learns_why() {
    let Some(site) = Site::new("refusals over SSH") else { return };
    let nobody = "AuthorizedKeysFile /dev/null";
    let _refusing = site.host("refusing").server_config(nobody).start();
    let [built_in, program] = both(&site);
    let id = site.path("id").display().to_string();
    let words = ["refusing", "root", &id, "publickey", "authorized_keys"];
    says(&fails("refusing", &built_in), Step::Authentication, &words);
    assert!(program_fails("refusing", &program).contains("Permission denied (publickey)"));

    let locked = site.keygen("locked", "ed25519", &["-N", "secret"]);
    let config = format!("IdentityFile {}", locked.display());
    let _secret = site.host("secret").server_config(nobody).client_config(&config).start();
    let words = [&*format!("{} has a passphrase", locked.display()), "ssh-add"];
    says(&fails("secret", &built_in), Step::Authentication, &words);

    let _closed = site.host("closed").server_config("PubkeyAuthentication no").start();
    let error = fails("closed", &built_in);
    says(&error, Step::Authentication, &["closed", "the server takes"]);
}

#[test]
fn agents_and_certificates_let_in() {
    let Some(site) = Site::new("ssh-agent over SSH") else { return };
    let agent = Agent::start(&site);
    // Several that are of no use come first, one of which is in the middle of the way of a server
    // that lets only six be tried.
    for index in 0..3 {
        agent.add(&site.keygen(&format!("useless{index}"), "ed25519", &[]));
    }
    let of_agent = site.keygen("of-agent", "ed25519", &[]);
    site.authorize(&of_agent.with_extension("pub"));
    agent.add(&of_agent);
    std::fs::rename(&of_agent, site.path("elsewhere")).unwrap();
    let config = format!("IdentityAgent {}\nIdentityFile /nonexistent", agent.socket.display());
    let host = site.host("by-agent").client_config(&config).start();
    for options in both(&site) {
        let mut link = connect(&spec("by-agent"), &options, soon()).unwrap();
        assert_eq!(run(&mut *link, "true", b"").end, End::Status(0));
    }
    let fingerprint = fingerprint(&of_agent.with_extension("pub"));
    assert_eq!(host.log().matches(&format!("{fingerprint}\n")).count() % 2, 0);
    let accepted = |log: String, what: &str| {
        log.lines()
            .filter(|line| line.contains("Accepted publickey") && line.contains(what))
            .count()
    };
    assert_eq!(accepted(host.log(), &fingerprint), 2, "{}", host.log());

    let config = format!("{config}\nIdentitiesOnly yes");
    let nothing = site.host("only").client_config(&config).start();
    connect(&spec("only"), &options(&site), soon()).unwrap();
    let id = self::fingerprint(&site.path("id.pub"));
    assert_eq!(accepted(nothing.log(), &id), 1, "the configured one: {}", nothing.log());

    let ca = site.keygen("ca", "ed25519", &[]);
    let signed = site.keygen("signed", "ed25519", &[]);
    let sign = ["-q", "-s", ca.to_str().unwrap(), "-I", "me", "-n", "root"];
    let output = std::process::Command::new("ssh-keygen")
        .args(sign)
        .arg(signed.with_extension("pub"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let trust = format!(
        "AuthorizedKeysFile /dev/null\nTrustedUserCAKeys {}",
        ca.with_extension("pub").display()
    );
    let config = format!("IdentityFile {}", signed.display());
    let host = site.host("by-ca").server_config(&trust).client_config(&config).start();
    for options in both(&site) {
        let mut link = connect(&spec("by-ca"), &options, soon()).unwrap();
        assert_eq!(run(&mut *link, "true", b"").end, End::Status(0));
    }
    assert_eq!(accepted(host.log(), "ED25519-CERT"), 2, "{}", host.log());
}

fn fingerprint(public_key: &std::path::Path) -> String {
    let output = std::process::Command::new("ssh-keygen").arg("-lf").arg(public_key).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.split(' ').nth(1).unwrap().to_owned()
}

/// An `ssh-agent`, ended with this value.
struct Agent {
    child: std::process::Child,
    socket: std::path::PathBuf,
}

impl Agent {
    fn start(site: &Site) -> Agent {
        let socket = site.path("agent");
        let mut command = std::process::Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null());
        let child = command.spawn().unwrap();
        common::wait_for_file(&socket);
        Agent { child, socket }
    }

    fn add(&self, key: &std::path::Path) {
        let mut command = std::process::Command::new("ssh-add");
        let output = command.arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).output();
        assert!(output.unwrap().status.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn other_servers_are_jumped_through() {
    let Some(site) = Site::new("ProxyJump over SSH") else { return };
    let first = site.host("first").start();
    let second = site.host("second").client_config("ProxyJump first").start();
    let _third = site.host("third").client_config("ProxyJump first,second").start();
    let proxy = format!("ProxyCommand ssh -F {} -W %h:%p first", site.path("config").display());
    let _fourth = site.host("fourth").client_config(&proxy).start();
    let _fifth = site.host("fifth").client_config("ProxyCommand echo no such proxy >&2; false");
    let size = 3 << 20;
    let input = vec![7; size];
    for options in both(&site) {
        for name in ["second", "third", "fourth"] {
            let mut link = connect(&spec(name), &options, soon()).unwrap();
            let said = run(&mut *link, "cat", &input);
            assert_eq!(said.end, End::Status(0), "{name}");
            assert!(said.stdout == input, "{name}: {} bytes", said.stdout.len());
        }
    }
    assert!(first.log().contains("Accepted publickey"));
    assert!(second.log().matches("Accepted publickey").count() >= 3, "on the way to the third");

    let circle = "ProxyJump circle\nHostName 127.0.0.1\nUserKnownHostsFile /dev/null";
    site.append("config", &format!("Host circle\n{circle}\n"));
    says(&fails("circle", &options(&site)), Step::Configuration, &["circle"]);
    site.append("config", "Host broken\nProxyCommand echo no way >&2; exit 1\n");
    let error = fails("broken", &options(&site));
    says(&error, Step::Handshake, &["broken", "ProxyCommand says \"no way\""]);
    drop(first);
    says(&fails("second", &options(&site)), Step::Connect, &["first", "refused"]);
}

#[test]
fn names_are_names_and_nothing_else() {
    let Some(site) = Site::new("names over SSH") else { return };
    let touched = site.path("touched");
    site.append("config", "Host *\nProxyCommand echo %h %r >&2; exit 1\n");
    for name in ["-oProxyCommand=touch${IFS}touched", "a;touch x", "a b", "$(x)", "`x`", "a/b", ""]
    {
        for options in both(&site) {
            // Lists do not take them either; here they come from elsewhere.
            assert!(name.parse::<HostSpec>().is_err(), "{name}");
            let mut wrong = spec("node1");
            wrong.host = name.to_owned();
            let error = connect(&wrong, &options, soon()).err().unwrap();
            says(&error, Step::Configuration, &["name of a host"]);
            let mut spec = spec("node1");
            spec.user = Some(format!("{name};"));
            let error = connect(&spec, &options, soon()).err().unwrap();
            says(&error, Step::Configuration, &["name of a user"]);
        }
    }
    assert!(!touched.exists());
}

#[test]
fn a_host_that_is_not_there_is_named() {
    let Some(site) = Site::new("absent hosts over SSH") else { return };
    let mut host = site.host("node1").start();
    host.stop();
    let [built_in, program] = both(&site);
    let at = format!("{}:{}", host.address, host.port);
    says(&fails("node1", &built_in), Step::Connect, &["node1", &at, "refused", "sshd runs"]);
    assert!(program_fails("node1", &program).contains("Connection refused"));
    says(&fails("no.such.name.invalid", &built_in), Step::Resolve, &["no.such.name.invalid"]);
    // `connect` waits for the deadline at most.
    let mut options = built_in;
    options.timeout = Duration::from_millis(300);
    site.append("config", "Host nowhere\nHostName 192.0.2.1\n");
    let error = fails("nowhere", &options);
    assert_eq!(error.step(), Step::Connect, "{error}");
}

/// Stands before a server, and lets only so many bytes of what it says through, which are counted.
fn stalling(site: &Site, name: &str, host: &Sshd, bytes: u64) -> Arc<AtomicU64> {
    let listener = std::net::TcpListener::bind((host.address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = std::fs::read_to_string(site.path("config")).unwrap();
    let own = config.replace(&format!("Host {}\n", host.name), &format!("Host {name}\n"));
    let own = own.replace(&format!("Port {}\n", host.port), &format!("Port {port}\n"));
    // Keys that are known for any port count.
    let key = std::fs::read_to_string(host.path("host_ed25519.pub")).unwrap();
    site.append("known_hosts", &format!("{} {key}", host.address));
    std::fs::write(site.path("config"), format!("{own}\n{config}")).unwrap();
    let to = (host.address, host.port);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    // Ends with the test's process.
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let Ok(server) = std::net::TcpStream::connect(to) else { return };
            let [mut from, mut other] = [client.try_clone().unwrap(), server.try_clone().unwrap()];
            std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut other);
                let _ = other.shutdown(std::net::Shutdown::Both);
            });
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                let mut allowed = (&server).take(bytes);
                let mut some = [0; 4096];
                while let Ok(count @ 1..) = allowed.read(&mut some) {
                    counted.fetch_add(count as u64, Ordering::SeqCst);
                    let _ = client.write_all(&some[..count]);
                }
                // Goes on to say nothing, until the client has gone.
                let _ = io::copy(&mut &server, &mut io::sink());
            });
        }
    });
    count
}

#[test]
fn a_server_that_stalls_is_given_up() {
    let Some(site) = Site::new("stalls over SSH") else { return };
    let host = site.host("node1").start();
    let mut options = options(&site);
    // What a server says of its keys when we are in may come before we look: the least is without.
    let measured = (0..5).map(|number| {
        let name = format!("all{number}");
        let count = stalling(&site, &name, &host, u64::MAX);
        connect(&spec(&name), &options, soon()).unwrap();
        count.load(Ordering::SeqCst)
    });
    let all = measured.min().unwrap();

    options.timeout = Duration::from_secs(1);
    for (bytes, step) in [
        (0, Step::Handshake),
        (20, Step::Handshake),
        (all / 2, Step::Handshake),
        // The last that is said is that we are let in.
        (all - 10, Step::Authentication),
    ] {
        let name = format!("stalls-after-{bytes}");
        stalling(&site, &name, &host, bytes);
        let far = soon();
        let error = fails(&name, &options);
        assert!(Instant::now() < far, "not before the deadline of all: {error}");
        assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
        says(&error, step, &[&name]);
    }
    // An agent that does not answer.
    let silent = std::os::unix::net::UnixListener::bind(site.path("silent")).unwrap();
    let config = std::fs::read_to_string(site.path("config")).unwrap();
    let agent = format!("IdentityAgent {}\n", site.path("silent").display());
    std::fs::write(site.path("config"), agent + &config).unwrap();
    says(&fails("node1", &options), Step::Authentication, &["node1"]);
    drop(silent);
}

#[test]
fn a_peer_that_falls_silent_is_found_out() {
    let Some(site) = Site::new("silence over SSH") else { return };
    let host = site.host("node1").start();
    for mut options in both(&site) {
        options.silence = Duration::from_secs(3);
        let mut link = connect(&spec("node1"), &options, soon()).unwrap();
        let mut channel = link.exec("echo ready; cat", soon()).unwrap();
        let mut bytes = [0; 100];
        while channel.read(&mut bytes).map_or(true, |count| count == 0) {
            channel.wait(false, soon()).unwrap();
        }
        // A quiet one that is there is not given up.
        let quiet = Instant::now() + Duration::from_secs(5);
        while Instant::now() < quiet {
            channel.wait(false, quiet).unwrap();
            let read = [channel.read(&mut bytes), channel.read_stderr(&mut bytes)];
            for error in read.into_iter().map(Result::unwrap_err) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            }
        }
        let stopped = Stopped::all_of(&host);
        let since = Instant::now();
        let why = loop {
            if let Err(error) = channel.wait(false, soon()) {
                break error.to_string();
            }
            match channel.read(&mut bytes) {
                Ok(0) => match channel.end(soon()) {
                    End::Lost(why) => break why,
                    end => panic!("{end:?}"),
                },
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            assert!(since.elapsed() < LONG);
        };
        assert!(why.contains("silent") || why.contains("not responding"), "{why}");
        // Going does not wait for it either, which says nothing before this is over.
        let far = soon();
        drop(channel);
        drop(link);
        assert!(Instant::now() < far);
        drop(stopped);
    }
}

/// Processes that are stopped as long as this value lives.
struct Stopped(Vec<u32>);

impl Stopped {
    fn all_of(host: &Sshd) -> Stopped {
        let stopped = Stopped(host.processes());
        stopped.signal("-STOP");
        stopped
    }

    fn signal(&self, signal: &str) {
        let pids = self.0.iter().map(u32::to_string);
        let _ = std::process::Command::new("kill").arg(signal).args(pids).status();
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

#[test]
fn a_server_that_drops_connections_is_tried_again() {
    let Some(site) = Site::new("MaxStartups over SSH") else { return };
    let host = site.host("node1").server_config("MaxStartups 2").start();
    let _behind = site.host("behind").client_config("ProxyJump node1").start();
    for (round, options) in (1..).zip(both(&site)) {
        let dropped = host.log().matches("MaxStartups").count();
        std::thread::scope(|scope| {
            let options = &options;
            for number in 0..12 {
                // A bastion may drop, too.
                let name = if number % 2 == 0 { "node1" } else { "behind" };
                scope.spawn(move || {
                    let mut link = connect(&spec(name), options, soon()).unwrap();
                    assert_eq!(run(&mut *link, "true", b"").end, End::Status(0));
                });
            }
        });
        let log = host.log();
        assert!(log.matches("MaxStartups").count() > dropped, "some were dropped: {log}");
        assert_eq!(log.matches("Accepted publickey").count(), 12 * round);
    }
}

/// Most connections that were being set up at a time, by what their server says of each when it comes and
/// when it is let in: at one of its ports, and at all of them.
fn most_being_set_up(log: &str) -> (usize, usize) {
    let port = |line: &str, behind: &str| -> Option<u16> {
        line.split_once(behind)?.1.split_whitespace().next()?.parse().ok()
    };
    let mut waiting: HashMap<u16, u16> = HashMap::new();
    let mut most = (0, 0);
    for line in log.lines() {
        if line.contains("Connection from ") {
            let (client, rest) = line.split_once(" on ").unwrap();
            let server = port(rest, " port ").unwrap();
            waiting.insert(port(client, " port ").unwrap(), server);
            let of_one = waiting.values().filter(|other| **other == server).count();
            most = (most.0.max(of_one), most.1.max(waiting.len()));
        } else if line.contains("Accepted publickey ") {
            waiting.remove(&port(line, " port ").unwrap());
        }
    }
    assert!(waiting.is_empty(), "{log}");
    most
}

#[test]
fn no_server_has_more_connections_to_set_up_than_it_may() {
    const SERVERS: usize = 5;
    const HOSTS: usize = 16;
    let Some(site) = Site::new("counts of connections over SSH") else { return };
    // However long a busy machine lets one be silent that is well, nobody makes room for others: what
    // becomes of those that are silent is tested elsewhere, and by itself.
    let patient = || configured(&site, SshOptions::patient(32, 10 * LONG));
    for mut options in [patient(), by_program(patient())] {
        // As one that listens at several ports, so that it says in one file what comes when.
        let name = format!("many-{}", options.program.is_some());
        let mut host = site.host(&name).server_config("MaxStartups 1000");
        let address = std::net::Ipv4Addr::new(127, 77, 0, 1);
        let listeners: [_; SERVERS] =
            std::array::from_fn(|_| std::net::TcpListener::bind((address, 0)).unwrap());
        let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
        for port in ports {
            host = host.server_config(&format!("ListenAddress {address}:{port}"));
        }
        let host = host.start();
        let key = std::fs::read_to_string(host.path("host_ed25519.pub")).unwrap();
        let proxies = ports.map(|port| {
            let proxy = Proxy::new();
            proxy.lead_to(address, port);
            // What the server says of a connection is older than what follows here from it.
            proxy.delay(Duration::from_millis(150));
            site.append("known_hosts", &format!("[{}]:{} {key}", proxy.address, proxy.port));
            proxy
        });
        let config = std::fs::read_to_string(site.path("config")).unwrap();
        let own = config.split("Host ").find(|part| part.starts_with(&format!("{name}\n")));
        for (number, proxy) in proxies.iter().enumerate() {
            let own = own.unwrap().replacen(&name, &format!("{name}-{number}"), 1);
            let own = own.replace(&host.address.to_string(), &proxy.address.to_string());
            let own = own.replace(&format!("Port {}", host.port), &format!("Port {}", proxy.port));
            site.append("config", &format!("Host {own}"));
        }
        options.timeout = 10 * LONG;
        let before = host.log().len();
        std::thread::scope(|scope| {
            let options = &options;
            for number in 0..SERVERS * HOSTS {
                // More than half of them at one.
                let server = (number % (2 * SERVERS)).saturating_sub(SERVERS);
                let spec = spec(&format!("{name}-{server}"));
                scope.spawn(move || {
                    let far = Instant::now() + 10 * LONG;
                    let mut link = connect(&spec, options, far).unwrap();
                    assert_eq!(run(&mut *link, "true", b"").end, End::Status(0));
                });
            }
        });
        let log = &host.log()[before..];
        assert_eq!(log.matches("Accepted publickey").count(), SERVERS * HOSTS);
        let (of_one, of_all) = most_being_set_up(log);
        println!("{name}: {of_one} at one server, {of_all} at all of them");
        assert!(of_one >= 6 && of_all > 10, "they do not come together");
        assert!(of_one <= 10 && of_all <= 32, "{name}: {of_one} at one server, {of_all} at all");
    }
}

#[test]
fn a_server_that_speaks_otherwise_is_named_with_its_version() {
    let Some(site) = Site::new("odd servers over SSH") else { return };
    let only = "KexAlgorithms sntrup761x25519-sha512@openssh.com";
    let _host = site.host("node1").server_config(only).start();
    let [built_in, program] = both(&site);
    let words = ["node1", "SSH-2.0-OpenSSH", "sntrup761", "--ssh-program ssh"];
    says(&fails("node1", &built_in), Step::Handshake, &words);
    let mut link = connect(&spec("node1"), &program, soon()).unwrap();
    assert_eq!(run(&mut *link, "true", b"").end, End::Status(0));
}
