//! Whether hosts can be recorded, before anything is: each is reached, asked and looked at, many at
//! once. Nothing is changed there unless cleaning is asked for.

use super::clock::after;
use super::deploy::{self, Deployed, HostFacts, Program, RemotePath};
use super::hosts::HostSpec;
use super::leftovers::{self, Leftovers};
use super::local::{self, Because, Locality};
use super::machine::{MachineIdentity, same_machines};
use super::ssh::error::ConnectError;
use super::ssh::{self, SshOptions};
use super::ways::HostOptions;
use crossbeam::channel;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Most hosts that are looked at at a time; how many connections are being set up is the options'
/// business.
const MAX_THREADS: usize = 64;

/// How hosts are checked.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// How they are reached.
    pub ssh: SshOptions,
    /// Which program is to run there.
    pub program: Program,
    /// Where else runs may have been left than where they are by default.
    pub dirs: Vec<RemotePath>,
    /// How long one host may take, from when its turn comes.
    pub timeout: Duration,
    /// Remove what was left there.
    pub clean: bool,
}

impl CheckOptions {
    /// As hosts are to be recorded; nothing is removed.
    ///
    /// # Errors
    /// Why there is no program to run there.
    pub fn new(options: &HostOptions) -> Result<CheckOptions, String> {
        let timeout = options.ssh_timeout;
        let (ssh, program) = (options.ssh(), options.program()?);
        Ok(CheckOptions { ssh, program, dirs: Vec::new(), timeout, clean: false })
    }
}

/// What is known of one host.
#[derive(Debug)]
pub struct HostReport {
    /// The host.
    pub host: HostSpec,
    /// What was found.
    pub found: Found,
    /// An earlier host of the list that is the same machine, by its place in the list.
    pub same_as: Option<usize>,
}

/// What was found of one host.
#[derive(Debug)]
pub enum Found {
    /// It is this machine, which needs no agent.
    Here(Because),
    /// It cannot be reached.
    Unreachable(ConnectError),
    /// It was reached.
    Reached(Box<Reached>),
}

/// A host that was reached.
#[derive(Debug)]
pub struct Reached {
    /// How long it took to connect and log in.
    pub connected_after: Duration,
    /// What it says of itself, or why it says nothing.
    pub facts: Result<HostFacts, String>,
    /// The program, if it is there; or why it cannot be.
    pub program: Result<Option<Deployed>, String>,
    /// What ringstat has there, or why that is not known.
    pub left: Result<Leftovers, String>,
}

impl HostReport {
    /// Why it cannot be recorded, if it cannot.
    pub fn trouble(&self) -> Option<String> {
        let name = &self.host.name;
        match &self.found {
            Found::Here(_) => None,
            Found::Unreachable(error) => Some(error.to_string()),
            Found::Reached(reached) => match (&reached.facts, &reached.program, &reached.left) {
                (Err(why), ..) | (_, Err(why), _) => Some(why.clone()),
                (_, _, Err(why)) => Some(format!("{name}: {why}")),
                _ => None,
            },
        }
    }
}

/// Checks all hosts, in their order; `progress` hears how many are done.
pub fn check(
    hosts: &[HostSpec],
    options: &CheckOptions,
    progress: &mut dyn FnMut(usize),
) -> Vec<HostReport> {
    let places = local::locate(hosts, local::PATIENCE);
    let next = AtomicUsize::new(0);
    let (outbox, inbox) = channel::unbounded();
    let mut found: Vec<Option<Found>> = hosts.iter().map(|_| None).collect();
    thread::scope(|scope| {
        for _ in 0..hosts.len().min(MAX_THREADS) {
            let outbox = outbox.clone();
            let (next, places) = (&next, &places);
            let work = move || {
                loop {
                    // Each host once.
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(host), Some(place)) = (hosts.get(number), places.get(number)) else {
                        return;
                    };
                    let found = match place {
                        Locality::Here(because) => Found::Here(because.clone()),
                        Locality::Elsewhere | Locality::Unknown => reach(host, options),
                    };
                    if outbox.send((number, found)).is_err() {
                        return;
                    }
                }
            };
            // With fewer threads it takes longer.
            let _ = thread::Builder::new().name("rs-check".to_owned()).spawn_scoped(scope, work);
        }
        drop(outbox);
        for (done, (number, one)) in inbox.iter().enumerate() {
            found[number] = Some(one);
            progress(done + 1);
        }
    });
    // Without any thread it is done here.
    let found = hosts.iter().zip(found);
    let found: Vec<Found> =
        found.map(|(host, found)| found.unwrap_or_else(|| reach(host, options))).collect();
    let identities: Vec<Option<MachineIdentity>> = found.iter().map(identity).collect();
    let same = same_machines(&identities);
    let reports = hosts.iter().cloned().zip(found).zip(same);
    reports.map(|((host, found), same_as)| HostReport { host, found, same_as }).collect()
}

fn identity(found: &Found) -> Option<MachineIdentity> {
    match found {
        Found::Here(_) => Some(MachineIdentity::own()),
        Found::Unreachable(_) => None,
        Found::Reached(reached) => reached.facts.as_ref().ok()?.identity,
    }
}

fn reach(host: &HostSpec, options: &CheckOptions) -> Found {
    let since = Instant::now();
    let deadline = after(options.timeout);
    let mut link = match ssh::connect(host, &options.ssh, deadline) {
        Ok(link) => link,
        Err(error) => return Found::Unreachable(error),
    };
    let connected_after = since.elapsed();
    let facts = deploy::probe(link.as_mut(), &host.name, &options.program, deadline);
    let facts = facts.map_err(|error| error.to_string());
    let (program, left) = match &facts {
        Err(why) => (Err(why.clone()), Err(why.clone())),
        Ok(facts) => {
            let program = deploy::find(facts, &host.name, &options.program);
            let left = match options.clean {
                true => leftovers::clean_up(link.as_mut(), &options.dirs, deadline),
                false => leftovers::look(link.as_mut(), &options.dirs, deadline),
            };
            (program.map_err(|error| error.to_string()), left.map_err(|error| error.to_string()))
        }
    };
    Found::Reached(Box::new(Reached { connected_after, facts, program, left }))
}
