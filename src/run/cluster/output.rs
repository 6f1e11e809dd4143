//! What came of the hosts of a run, for people and for the output: every host as it was asked for, with
//! its rings as they lie in the run's directory, what went wrong with it, and its clock.

use super::manifest::ClusterManifest;
use super::room::{HOSTS_DIR, host_dir_name, text_bytes};
use crate::cluster::clock::now;
use crate::cluster::record::{Failure, FailureKind, HostRecord, HostState};
use crate::decode::{
    ClusterRun, CollectionMethod, HostClock, HostData, HostError, HostErrorKind, HostRings,
    OpenRings,
};
use crate::ring;
use crate::run::copies::{Copies, any_of};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What is said of hosts that have samples which are not in the files, or a recorder that waits in vain.
pub(in crate::run) fn still_owed(manifest: &ClusterManifest, run_id: Uuid) -> String {
    let names = |is: &dyn Fn(&HostState) -> bool| {
        let hosts = manifest.hosts.iter().filter(|host| is(&host.state));
        hosts.map(|host| &*host.spec.name).collect::<Vec<&str>>()
    };
    let mut said = Vec::new();
    let owing = names(&HostState::owes);
    if !owing.is_empty() {
        let have = if owing.len() == 1 { "has" } else { "have" };
        said.push(format!("{} still {have} samples of this run; fetch them", owing.join(", ")));
    }
    let waiting = names(&|state| *state == HostState::GivenUp);
    if !waiting.is_empty() {
        let what = "may have a recorder of this run that waits for its start; end it";
        said.push(format!("{} {what}", waiting.join(", ")));
    }
    format!("{} with: ringstat recover {run_id}", said.join(", and "))
}

/// What is said of hosts whose rings cannot all be read.
pub(in crate::run) fn not_all_read(unread: &[String], dirs: &[PathBuf], run_id: Uuid) -> String {
    let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    format!(
        "not all rings of {} can be read; they stay in {}, and where they were recorded. To try again: \
         ringstat recover {run_id}",
        unread.join(", "),
        dirs.join(" and ")
    )
}

/// A sentence for each host that is not recorded, or not under its own name, or may be recorded twice.
pub(in crate::run) fn notes(manifest: &ClusterManifest) -> Vec<String> {
    let first_name = first_names(manifest);
    let note = |host: &HostRecord| {
        let name = &host.spec.name;
        let first = first_name.get(owner(host)).copied().unwrap_or(name);
        if first != name {
            return Some(format!("{name} is the same machine as {first}, and recorded once"));
        }
        match &host.state {
            HostState::Failed | HostState::GivenUp | HostState::SettingUp => {
                let why = host.errors.first().or(host.trouble.as_ref());
                let why = why.map_or("it was not ready in time", |failure| &failure.message);
                Some(format!("{name} is not recorded: {why}"))
            }
            _ => host.unseen_twin.as_ref().map(|twin| {
                format!(
                    "{name} says that it is the same machine as {twin}, and does not see that one's \
                     recorder: both are recorded"
                )
            }),
        }
    };
    manifest.hosts.iter().filter_map(note).collect()
}

/// The rings of this machine, and a sentence for each that cannot be read.
pub(in crate::run) struct Here {
    pub open: OpenRings,
    pub missing: Vec<String>,
}

/// What the output is made from.
pub(in crate::run) struct Output {
    pub run: ClusterRun,
    /// Every host as it was asked for.
    pub hosts: Vec<HostRings>,
    /// Hosts of which samples may be missing, since some of their rings cannot be read.
    pub unread: Vec<String>,
}

/// What the output is made from, which goes to `results_dir`. Without `here`, this machine has no rings,
/// though it may be one of the hosts.
pub(in crate::run) fn output(
    manifest: &ClusterManifest,
    run_id: Uuid,
    dir: Option<&Path>,
    results_dir: &Path,
    mut here: Option<Here>,
) -> Output {
    let most_text_bytes = text_bytes(results_dir, manifest.hosts.len());
    let first_name = first_names(manifest);
    let by_name: HashMap<&str, usize> =
        manifest.hosts.iter().enumerate().map(|(at, host)| (&*host.spec.name, at)).collect();
    let (mut hosts, mut unread) = (Vec::with_capacity(manifest.hosts.len()), Vec::new());
    for host in &manifest.hosts {
        let name = &host.spec.name;
        let owner = owner(host);
        let first = first_name.get(owner).copied().unwrap_or(owner);
        if first != name {
            hosts.push(HostRings::new(name, HostData::SameAs(first.to_owned())));
            continue;
        }
        let Some((index, owner)) = by_name.get(owner).map(|at| (*at, &manifest.hosts[*at])) else {
            hosts.push(HostRings::new(name, HostData::Nothing));
            continue;
        };
        let (data, missing) = match (&owner.state, here.take()) {
            (HostState::Here, Some(here)) => (HostData::Rings(here.open), here.missing),
            (HostState::Here, None) => (HostData::Nothing, Vec::new()),
            (_, kept) => {
                here = kept;
                let dir = dir.map(|dir| dir.join(HOSTS_DIR).join(host_dir_name(index)));
                rings_in(dir.as_deref(), owner.run_id)
            }
        };
        let mut rings = HostRings::new(name, data);
        if owner.state != HostState::Here {
            rings.most_text_bytes = Some(most_text_bytes);
        }
        rings.errors = errors(owner, run_id);
        if !missing.is_empty() {
            unread.push(name.clone());
        }
        rings.errors.extend(missing.into_iter().map(|message| HostError {
            kind: HostErrorKind::Collection,
            time_unix_ns: now().wall_ns,
            message,
        }));
        rings.clock = clock(owner);
        hosts.push(rings);
    }
    Output { run: run_of(manifest, run_id), hosts, unread }
}

fn run_of(manifest: &ClusterManifest, run_id: Uuid) -> ClusterRun {
    // Whether or not anything was had of it. One that goes by another's name is there once.
    let is_remote =
        |host: &HostRecord| !matches!(host.state, HostState::Here | HostState::SameAs(_));
    ClusterRun {
        run_id,
        interval_ns: manifest.interval_ns,
        start_wall_ns: manifest.start_wall_ns,
        end_wall_ns: now().wall_ns,
        collection_method: if manifest.hosts.iter().any(is_remote) {
            CollectionMethod::Ssh
        } else {
            CollectionMethod::Local
        },
    }
}

/// One machine under several names goes by the first of them, whichever answered first: that name, by
/// the one that did.
fn first_names(manifest: &ClusterManifest) -> HashMap<&str, &str> {
    let mut first_name: HashMap<&str, &str> = HashMap::new();
    for host in &manifest.hosts {
        first_name.entry(owner(host)).or_insert(&host.spec.name);
    }
    first_name
}

/// The name of the host that has the samples of this one.
fn owner(host: &HostRecord) -> &str {
    match &host.state {
        HostState::SameAs(name) => name,
        _ => &host.spec.name,
    }
}

/// These names of the output, and those that the hosts answered by which have their samples.
pub(super) fn with_owners(manifest: &ClusterManifest, names: &[String]) -> Vec<String> {
    let named = manifest.hosts.iter().filter(|host| names.contains(&host.spec.name));
    names.iter().cloned().chain(named.map(|host| owner(host).to_owned())).collect()
}

fn errors(host: &HostRecord, run_id: Uuid) -> Vec<HostError> {
    let kind = |kind| match kind {
        FailureKind::Ssh => HostErrorKind::Ssh,
        FailureKind::Collection => HostErrorKind::Collection,
    };
    let mut errors: Vec<HostError> = Vec::new();
    for Failure { kind: of, time_unix_ns, message } in &host.errors {
        errors.push(HostError {
            kind: kind(*of),
            time_unix_ns: *time_unix_ns,
            message: message.clone(),
        });
    }
    if host.state.owes() {
        let why = host.trouble.as_ref().map_or(String::new(), |it| format!(" ({})", it.message));
        errors.push(HostError {
            kind: HostErrorKind::Collection,
            time_unix_ns: now().wall_ns,
            message: format!(
                "its samples were not all fetched in time{why}; fetch them with: ringstat recover {run_id}"
            ),
        });
    } else if host.state == HostState::SettingUp {
        errors.push(HostError {
            kind: HostErrorKind::Ssh,
            time_unix_ns: now().wall_ns,
            message: "it was not ready in time".to_owned(),
        });
    }
    errors
}

fn clock(host: &HostRecord) -> Option<HostClock> {
    let ms = |ns: f64| ns / 1e6;
    if host.state == HostState::Here {
        return Some(HostClock { synchronised: host.clock_synchronised, ..HostClock::default() });
    }
    let first = host.clocks.first()?;
    Some(HostClock {
        offset_ms: ms(first.wall_ns as f64),
        uncertainty_ms: ms(first.uncertainty_ns as f64),
        drift_ppm: host.drift_ppm(),
        synchronised: host.clock_synchronised,
    })
}

/// The rings of a host that were fetched, and a sentence for each that cannot be read.
fn rings_in(dir: Option<&Path>, run_id: Uuid) -> (HostData, Vec<String>) {
    let files = dir.map(ring_files).unwrap_or_default();
    if files.is_empty() {
        return (HostData::Nothing, Vec::new());
    }
    let copies = Copies { paths: &files, run_id, open: ring::open };
    let (rings, refused) = copies.open_each();
    if rings.is_empty() && refused.iter().all(|(path, error)| copies.is_unbegun(path, error)) {
        return (HostData::Nothing, Vec::new());
    }
    // Without any, it is an error of the host as a whole.
    let is_any = !rings.is_empty();
    let missing = if is_any { copies.missing(&rings, &refused) } else { Vec::new() };
    let open: OpenRings = Box::new(move || {
        let copies = Copies { paths: &files, run_id, open: ring::open };
        let (rings, refused) = copies.open_each();
        any_of(rings, refused)
    });
    (HostData::Rings(open), missing)
}

fn ring_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ring"))
        .collect();
    files.sort();
    files
}
