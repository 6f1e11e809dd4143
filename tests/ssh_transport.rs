//! Both ways to a host against a real OpenSSH server: commands with their streams and ends, and
//! every way in which it can refuse, be wrong, or be gone.
#![cfg(feature = "ssh")]

mod common;

use common::sshd::{Site, Sshd};
use ringstat::reaching::{Channel, ConnectError, End, HostSpec, Link, SshOptions, Step, connect};
use std::io;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + LONG
}

fn spec(name: &str) -> HostSpec {
    name.parse().unwrap()
}

fn options(site: &Site) -> SshOptions {
    let mut options = SshOptions::new(32);
    options.config = Some(site.path("config"));
    options.timeout = LONG;
    options
}

/// Both transports.
fn both(site: &Site) -> [SshOptions; 2] {
    let mut program = options(site);
    program.program = Some("ssh".into());
    [options(site), program]
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
            let before = Instant::now();
            channel.wait(!input.is_empty(), before + LONG).unwrap();
            assert!(before.elapsed() < LONG / 2, "nothing came");
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
