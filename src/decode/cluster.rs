//! The time series of the hosts of a run: each host's rings are opened when its turn comes, once to
//! count and once to write, so that neither samples nor open files add up. One host whose rings are
//! open already is the same thing with one host.

use super::JSON_COMPACT;
use super::error::DecodeError;
use super::facts::{HostSummary, RunSummary};
use super::format::Format;
use super::hosts::{
    ClusterRun, CollectionMethod, HostData, HostError, HostErrorKind, HostRings, OpenRings,
};
use super::outline::Written;
use super::rings::{Record, Rings};
use super::survey::{Limits, Survey};
use super::timeseries::TimeSeriesData;
use crate::ring::FORMAT_VERSION;
use indexmap::IndexMap;
use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

/// The recording of one run on its hosts.
pub struct ClusterDecoder {
    run: ClusterRun,
    hosts: Vec<Host>,
    written: Written,
    /// `CLOCK_REALTIME` of the first start and of the last sample, ns; none if no host has any.
    start_wall_ns: Option<u64>,
    end_wall_ns: Option<u64>,
    duration_ns: u64,
    unread: Vec<(String, DecodeError)>,
}

/// Where the rings of one host are.
enum Source {
    Opened(Arc<Rings>),
    ToOpen(OpenRings),
    Nothing,
}

/// One host, between the passes over its rings. All else that is known of it is in its summary.
struct Host {
    source: Source,
}

/// One sample of a host.
pub(super) enum Sample<'a> {
    /// From a ring.
    Record(Record<'a>),
    /// In the place of one: hostname and what went wrong.
    Error(&'a str, &'a HostError),
}

/// What the pass over one host's rings has found, beside its summary.
#[derive(Default)]
struct Found {
    has_data: bool,
    start_wall_ns: Option<u64>,
    end_wall_ns: Option<u64>,
    duration_ns: u64,
}

impl ClusterDecoder {
    /// Reads all records of all hosts once, to know what there is. Rings of a host that cannot be
    /// read are an error of that host, and of nothing else: see [`unread`](Self::unread).
    ///
    /// # Errors
    /// [`DecodeError::Hosts`] if the hosts do not make one file.
    pub fn new(run: ClusterRun, hosts: Vec<HostRings>) -> Result<ClusterDecoder, DecodeError> {
        check_names(&hosts)?;
        let limits = Limits::of_hosts(hosts.len());
        let mut all = Self::empty(run);
        for HostRings { name, data, errors, clock, most_text_bytes } in hosts {
            let mut summary = HostSummary { host_errors: errors, ..HostSummary::default() };
            let mut found = Found::default();
            let source = match data {
                HostData::Nothing => Source::Nothing,
                HostData::SameAs(earlier) => {
                    summary.same_as = Some(earlier);
                    Source::Nothing
                }
                HostData::Rings(open) => match survey(&open, &limits, most_text_bytes) {
                    Ok((mut rings, survey)) => {
                        found = Found::of(&rings, &survey);
                        all.leave_out(&name, &mut rings);
                        let run_id = rings.header().run_id;
                        let host_errors = std::mem::take(&mut summary.host_errors);
                        summary = HostSummary { host_errors, ..survey.summary };
                        summary.run_id = (run_id != all.run.run_id).then(|| run_id.to_string());
                        Source::ToOpen(open)
                    }
                    Err(error) => {
                        summary.host_errors.push(HostError {
                            kind: HostErrorKind::Collection,
                            time_unix_ns: all.run.end_wall_ns,
                            message: error.to_string(),
                        });
                        all.unread.push((name.clone(), error));
                        Source::Nothing
                    }
                },
            };
            if summary.hostname.is_empty() {
                summary.hostname.clone_from(&name);
            }
            summary.set_clock(clock);
            all.add(name, source, summary, found);
        }
        Ok(all)
    }

    /// One host under its own name; and its rings.
    pub(super) fn of_one(mut rings: Rings) -> Result<(ClusterDecoder, Arc<Rings>), DecodeError> {
        let survey = Survey::of(&rings, &Limits::of_hosts(1))?;
        let header = rings.header();
        let mut all = Self::empty(ClusterRun {
            run_id: header.run_id,
            interval_ns: header.interval_ns,
            start_wall_ns: header.start_wall_ns,
            end_wall_ns: survey.end_wall_ns,
            collection_method: CollectionMethod::Local,
        });
        let found = Found::of(&rings, &survey);
        let host = rings.description().hostname.clone();
        all.leave_out(&host, &mut rings);
        let rings = Arc::new(rings);
        all.add(host, Source::Opened(rings.clone()), survey.summary, found);
        Ok((all, rings))
    }

    fn empty(run: ClusterRun) -> ClusterDecoder {
        let summary = RunSummary {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ring_format: FORMAT_VERSION,
            run_id: run.run_id.to_string(),
            hosts: IndexMap::new(),
        };
        let written = Written {
            num_samples: 0,
            interval_seconds: run.interval_ns as f64 / 1e9,
            hosts_collected: Vec::new(),
            summary: Arc::new(summary),
        };
        ClusterDecoder {
            run,
            hosts: Vec::new(),
            written,
            start_wall_ns: None,
            end_wall_ns: None,
            duration_ns: 0,
            unread: Vec::new(),
        }
    }

    fn add(&mut self, name: String, source: Source, mut summary: HostSummary, found: Found) {
        summary.host_errors.sort_by_key(|error| error.time_unix_ns);
        summary.error_samples = summary.host_errors.len() as u64;
        for error in &summary.host_errors {
            *summary.errors.entry(error.kind.name().to_owned()).or_default() += 1;
        }
        let first_error = summary.host_errors.first().map(|error| error.time_unix_ns);
        let last_error = summary.host_errors.last().map(|error| error.time_unix_ns);
        let starts = [self.start_wall_ns, found.start_wall_ns, first_error];
        self.start_wall_ns = starts.into_iter().flatten().min();
        let ends = [self.end_wall_ns, found.end_wall_ns, last_error];
        self.end_wall_ns = ends.into_iter().flatten().max();
        self.duration_ns = self.duration_ns.max(found.duration_ns);
        self.written.num_samples += summary.samples_kept + summary.error_samples;
        if found.has_data {
            self.written.hosts_collected.push(name.clone());
        }
        // Nobody else has it as long as hosts are added.
        if let Some(all) = Arc::get_mut(&mut self.written.summary) {
            all.hosts.insert(name, summary);
        }
        self.hosts.push(Host { source });
    }

    /// What of the rings of this host is not understood or not read, while the rest is.
    fn leave_out(&mut self, name: &str, rings: &mut Rings) {
        let unread = std::mem::take(&mut rings.unread).into_iter();
        self.unread.extend(unread.map(|why| (name.to_owned(), why)));
    }

    /// The hosts whose rings could not be read, all of them or the one that the reason names, and why.
    /// They may have samples that the output does not: nobody should remove them.
    pub fn unread(&self) -> &[(String, DecodeError)] {
        &self.unread
    }

    /// What was taken, missed and lost of a host, by the name that it was asked for by.
    pub fn summary(&self, host: &str) -> Option<&HostSummary> {
        self.written.summary.hosts.get(host)
    }

    /// From the start to the last sample of any host, by its monotonic clock, ns.
    pub fn duration_ns(&self) -> u64 {
        self.duration_ns
    }

    /// What [`write`](Self::write) will say that it has written.
    pub fn outline(&self) -> Written {
        self.written.clone()
    }

    /// Writes the time series. `progress` hears how many samples are done, and of how many.
    ///
    /// # Errors
    /// [`DecodeError`]; what was written until then is not a whole file.
    pub fn write(
        &self,
        format: &Format,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Written, DecodeError> {
        (format.write)(self, out, progress)?;
        Ok(self.outline())
    }

    /// The whole time series in memory: convenient, and as large as it is long.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn data(&self) -> Result<TimeSeriesData, DecodeError> {
        let mut json = Vec::new();
        self.write(&JSON_COMPACT, &mut json, &mut |_, _| {})?;
        serde_json::from_slice(&json).map_err(|error| DecodeError::Write(error.into()))
    }

    /// `CLOCK_REALTIME` of the first start of any host and of the last sample, ns.
    pub(super) fn wall_ns(&self) -> (u64, u64) {
        (
            self.start_wall_ns.unwrap_or(self.run.start_wall_ns),
            self.end_wall_ns.unwrap_or(self.run.end_wall_ns),
        )
    }

    /// What the run is.
    pub(super) fn run(&self) -> &ClusterRun {
        &self.run
    }

    /// What the file says of itself, hosts in the order of [`each_sample`](Self::each_sample).
    pub(super) fn written(&self) -> &Written {
        &self.written
    }

    /// Hands every sample of host number `host` to `visit`, in order: records as they were taken,
    /// and what went wrong before the first record that is later.
    ///
    /// # Errors
    /// [`DecodeError`], `Changed` if there are not so many samples as there were.
    pub(super) fn each_sample(
        &self,
        host: usize,
        mut visit: impl FnMut(Sample<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let hosts = &self.written.summary.hosts;
        let (Some(host), Some((_, summary))) = (self.hosts.get(host), hosts.get_index(host)) else {
            return Ok(());
        };
        let opened;
        let rings = match &host.source {
            Source::Opened(rings) => Some(&**rings),
            Source::ToOpen(open) => {
                opened = Rings::new(open()?)?;
                Some(&opened)
            }
            Source::Nothing => None,
        };
        let mut errors = summary.host_errors.iter().peekable();
        let mut records = 0;
        if let Some(rings) = rings {
            rings.each(|record| {
                let wall_ns = record.wall_ns();
                while let Some(error) = errors.next_if(|error| error.time_unix_ns < wall_ns) {
                    visit(Sample::Error(&summary.hostname, error))?;
                }
                records += 1;
                visit(Sample::Record(record))
            })?;
        }
        for error in errors {
            visit(Sample::Error(&summary.hostname, error))?;
        }
        if records != summary.samples_kept {
            let run = self.written.summary.run_id.clone();
            return Err(DecodeError::Changed { run });
        }
        Ok(())
    }
}

impl Found {
    fn of(rings: &Rings, survey: &Survey) -> Found {
        Found {
            has_data: survey.has_data,
            start_wall_ns: Some(rings.header().start_wall_ns),
            end_wall_ns: Some(survey.end_wall_ns),
            duration_ns: survey.duration_ns,
        }
    }
}

/// The first pass over the rings of one host.
fn survey(
    open: &OpenRings,
    limits: &Limits,
    most_text_bytes: Option<u64>,
) -> Result<(Rings, Survey), DecodeError> {
    let rings = Rings::new(open()?)?;
    let survey = Survey::of(&rings, limits)?;
    rings.check_text(survey.text_bytes, most_text_bytes.unwrap_or(u64::MAX))?;
    Ok((rings, survey))
}

/// Every host is a key of its own, and refers to none but those before it.
fn check_names(hosts: &[HostRings]) -> Result<(), DecodeError> {
    let mut before = HashSet::new();
    for HostRings { name, data, .. } in hosts {
        if let HostData::SameAs(earlier) = data
            && !before.contains(&**earlier)
        {
            let what = format!("{name} is to be the same as {earlier}, which is not before it");
            return Err(DecodeError::Hosts { what });
        }
        if !before.insert(&**name) {
            return Err(DecodeError::Hosts { what: format!("{name} is there twice") });
        }
    }
    Ok(())
}
