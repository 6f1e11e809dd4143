//! OpenSSH's own program: for Kerberos, security keys, `Match`, and servers that the SSH which is
//! built in does not understand. Each command is a connection of its own.

mod channel;

use super::{Channel, Link};
use crate::cluster::clock::after;
use crate::cluster::hosts::HostSpec;
use crate::cluster::ssh::SshOptions;
use crate::cluster::ssh::ask::{Directives, adds_new, ask_ssh, jump, program_arguments};
use crate::cluster::ssh::error::{ConnectError, OTHERS_FIRST, Step};
use crate::cluster::ssh::programs::Programs;
use crate::cluster::ssh::throttle::{Place, Throttle, Turn};
use crate::cluster::ssh::tries::Tries;
use channel::{Begun, ProgramChannel};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Servers that one after the other lie on the way, at most.
const MAX_HOPS: usize = 8;

/// How `ssh` is to be called for one host.
pub struct ProgramLink {
    program: PathBuf,
    arguments: Vec<OsString>,
    host: String,
    user: Option<String>,
    timeout: Duration,
    throttle: Arc<Throttle>,
    programs: Arc<Programs>,
    /// The server, and all that are jumped through.
    places: Vec<Place>,
}

impl ProgramLink {
    /// Checks names and asks the configuration what it says of unknown keys, and of the way.
    ///
    /// # Errors
    /// [`ConnectError::Configuration`], [`ConnectError::TimedOut`].
    pub fn new(
        spec: &HostSpec,
        options: &SshOptions,
        deadline: Instant,
    ) -> Result<ProgramLink, ConnectError> {
        let turn = first_turn(spec, options, deadline)?;
        let deadline = deadline.min(after(options.timeout));
        let directives = asked(spec, options, &turn, deadline)?;
        let mut places = Vec::new();
        add_places(spec, &directives, options, &turn, deadline, &mut places)?;
        let adds_new = adds_new(&directives, options);
        let mut arguments: Vec<OsString> =
            ["-T", "-x", "-a", "-e", "none"].into_iter().map(Into::into).collect();
        arguments.extend(program_arguments(spec, options));
        let third = (options.silence.as_secs() / 3).max(1);
        let mut set = vec![
            "BatchMode=yes".to_owned(),
            // With `no`, a changed key would pass.
            format!("StrictHostKeyChecking={}", if adds_new { "accept-new" } else { "yes" }),
            format!("ConnectTimeout={}", options.timeout.as_secs().max(1)),
            format!("ServerAliveInterval={third}"),
            "ServerAliveCountMax=2".into(),
            // A master of the user's would outlive this, or end in the middle.
            "ControlPath=none".into(),
            "RemoteCommand=none".into(),
            "ClearAllForwardings=yes".into(),
            // Its log tells how far it is.
            "LogLevel=DEBUG1".into(),
        ];
        if let Some(file) = &options.known_hosts {
            let file = file.display().to_string().replace('%', "%%");
            set.push(format!("UserKnownHostsFile=\"{file}\""));
        }
        for each in set {
            arguments.extend(["-o".into(), each.into()]);
        }
        Ok(ProgramLink {
            program: options.program.clone().unwrap_or_else(|| "ssh".into()),
            arguments,
            host: spec.host.clone(),
            user: spec.user.clone().or_else(|| one(&directives, "user").map(str::to_owned)),
            timeout: options.timeout,
            throttle: options.throttle().clone(),
            programs: options.programs().clone(),
            places,
        })
    }

    fn spawn(&self, command: &str) -> io::Result<ProgramChannel> {
        let log = tempfile::NamedTempFile::new()?;
        let mut ssh = Command::new(&self.program);
        ssh.args(&self.arguments).arg("-E").arg(log.path());
        ssh.arg("--").arg(&self.host).arg(command);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Of its own group: an interrupt at the terminal is for this program to handle.
        let child = ssh.process_group(0).spawn().map_err(|error| {
            let program = self.program.display();
            io::Error::new(error.kind(), format!("{program}: {error}; install it, or name another"))
        })?;
        let running = self.programs.add(&child, Some(log.path()));
        ProgramChannel::new(child, log, running)
    }
}

/// The turn to set up a connection to `spec`.
fn first_turn(
    spec: &HostSpec,
    options: &SshOptions,
    deadline: Instant,
) -> Result<Turn, ConnectError> {
    let since = Instant::now();
    options.throttle().turn(deadline).ok_or_else(|| ConnectError::TimedOut {
        host: spec.name.clone(),
        step: Step::Connect,
        after: since.elapsed(),
        remedy: OTHERS_FIRST,
    })
}

/// What the program says of `spec`, which there must be.
fn asked(
    spec: &HostSpec,
    options: &SshOptions,
    turn: &Turn,
    deadline: Instant,
) -> Result<Directives, ConnectError> {
    ask_ssh(spec, options, turn, deadline)?.ok_or_else(|| ConnectError::Configuration {
        host: spec.name.clone(),
        found: "there is no OpenSSH program".into(),
        remedy: "install openssh-client, or name the program with --ssh-program".into(),
    })
}

/// What they say of that.
fn one<'d>(directives: &'d Directives, name: &str) -> Option<&'d str> {
    directives.iter().find(|each| each.0 == name).map(|each| &*each.1)
}

/// The server of `spec`, and those that it is reached through.
fn add_places(
    spec: &HostSpec,
    directives: &Directives,
    options: &SshOptions,
    turn: &Turn,
    deadline: Instant,
    places: &mut Vec<Place>,
) -> Result<(), ConnectError> {
    let one = |name| one(directives, name);
    let host = one("hostname").unwrap_or(&spec.host).to_owned();
    let port = one("port").and_then(|port| port.parse().ok()).or(spec.port).unwrap_or(22);
    places.push((host, port));
    // What goes in a circle is for the program to say.
    let jumps = one("proxyjump").filter(|jumps| *jumps != "none" && places.len() <= MAX_HOPS);
    // So is a name that only it understands.
    for spec in jumps.map_or(Ok(Vec::new()), jump).unwrap_or_default() {
        let directives = asked(&spec, options, turn, deadline)?;
        add_places(&spec, &directives, options, turn, deadline, places)?;
    }
    Ok(())
}

impl Link for ProgramLink {
    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Connects and logs in, as `connect` does with the SSH that is built in: by the same rules.
    fn exec<'l>(
        &'l mut self,
        command: &str,
        deadline: Instant,
    ) -> io::Result<Box<dyn Channel + 'l>> {
        let late = |why: &str| io::Error::new(io::ErrorKind::TimedOut, why.to_owned());
        let turn = self.throttle.turn(deadline).ok_or_else(|| late(OTHERS_FIRST))?;
        let permit = self.throttle.at(&self.places, &turn, deadline);
        let permit = permit.ok_or_else(|| late("others wait for the same server"))?;
        let mut permit = Some(permit);
        // Whoever waited for others has all the time of one that did not.
        let deadline = deadline.min(after(self.timeout));
        let mut tries = Tries::default();
        loop {
            let mut channel = self.spawn(command)?;
            match channel.log_in(&turn, &mut permit, deadline)? {
                Some(Begun::LoggedIn) => return Ok(Box::new(channel)),
                Some(Begun::Ended) => {
                    let is_dropped = channel.is_dropped();
                    if !tries.again(is_dropped, &turn, deadline) {
                        // Its end says why.
                        return Ok(Box::new(channel));
                    }
                }
                None => {
                    let words = channel.last_words();
                    return Err(late(&format!("ssh has not logged in within time: {words}")));
                }
            }
        }
    }
}
