//! What a recorder leaves when it has stopped: samples in its rings, to be looked at, written as
//! the final files, or thrown away. What of the run stays until then is `settled`'s.

use super::cluster::{self, Cluster};
use super::dirs::RunDir;
use super::finish::{FinalFiles, FinishError, Order};
use super::last_rings::LastRings;
use super::manifest::{Ended, Manifest};
use super::settled::Settled;
use super::system;
use crate::cluster::clock;
use crate::cluster::launch::HostProgress;
use crate::decode::metadata::SystemInfo;
use crate::decode::{
    ClusterDecoder, DecodeError, Decoder, HostData, HostRings, HostSummary, OpenRings,
    TimeSeriesData,
};
use crate::description::Description;
use crate::sampler::SamplerEnd;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The samples of one run. Clones are the same recording.
///
/// Until [`write_files`](Self::write_files) has succeeded or [`discard`](Self::discard) was
/// called the rings stay, and outlive the process: [`Store::runs`](crate::Store::runs) finds them.
#[derive(Clone)]
pub struct Recording {
    inner: Arc<Inner>,
}

struct Inner {
    rings: LastRings,
    mirror_complete: bool,
    keep_ring: bool,
    run_id: Uuid,
    runtime: Duration,
    state: Mutex<Settled>,
}

/// As long as the files of many hosts may always take to be written at the end of a run.
const LEAST_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the rings are read again because somebody changes them meanwhile.
const ATTEMPTS: usize = 5;

/// From the deadline on the rings of a host are not opened.
fn open_before(deadline: Instant, host: &mut HostRings) {
    let data = std::mem::replace(&mut host.data, HostData::Nothing);
    host.data = match data {
        HostData::Rings(open) => HostData::Rings(Box::new(move || {
            if Instant::now() < deadline { open() } else { Err(DecodeError::Late) }
        })),
        other => other,
    };
}

impl Recording {
    pub(super) fn new(
        mut manifest: Manifest,
        dirs: Vec<RunDir>,
        end: SamplerEnd,
        cluster: Option<Cluster>,
        runtime: Duration,
        keep_ring: bool,
    ) -> Self {
        let SamplerEnd { segments, mirror_complete, mirror_answered, .. } = end;
        let mirror_dir = manifest.mirror_dir.clone().filter(|_| mirror_answered);
        manifest.ended = Some(Ended { runtime_seconds: runtime.as_secs_f64(), exit_status: None });
        // If this cannot be saved, `recover` takes the times from the rings.
        let _ = manifest.save();
        let run_id = manifest.run_id;
        let state = Mutex::new(Settled {
            manifest,
            dirs,
            files: None,
            cluster,
            is_collected: false,
            unread: Vec::new(),
        });
        Recording {
            inner: Arc::new(Inner {
                rings: LastRings::new(segments, mirror_dir),
                mirror_complete,
                keep_ring,
                run_id,
                runtime,
                state,
            }),
        }
    }

    /// The run.
    pub fn run_id(&self) -> Uuid {
        self.inner.run_id
    }

    /// From the first sample to the stop.
    pub fn runtime(&self) -> Duration {
        self.inner.runtime
    }

    /// What could not be had, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        self.settled(|settled| settled.manifest.warnings.clone())
    }

    /// The directories that have rings of this run, until these are removed.
    pub fn ring_dirs(&self) -> Vec<PathBuf> {
        self.settled(|settled| settled.dirs_with_rings())
    }

    /// Sees to it that the samples outlive this process: those that are in private memory alone,
    /// without a whole mirror, are copied to whichever place takes them. Returns the directories
    /// that have them; none if they are lost.
    pub fn save_rings(&self) -> Vec<PathBuf> {
        self.settled(|settled| self.saved(settled))
    }

    fn saved(&self, settled: &mut Settled) -> Vec<PathBuf> {
        let is_private = self.inner.rings.kept.iter().any(|kept| kept.path.is_none());
        let is_damaged = self.inner.rings.is_damaged();
        let is_safe = !is_damaged && (!is_private || self.inner.mirror_complete);
        if is_safe || settled.files.is_some() {
            return settled.dirs_with_rings();
        }
        let Settled { manifest, dirs, .. } = settled;
        let own = manifest.ring_dir.as_deref();
        let Some(saved) = self.inner.rings.save_somewhere(self.inner.run_id, own, dirs) else {
            return Vec::new();
        };
        manifest.ring_dir = Some(saved.clone());
        if is_damaged && self.inner.rings.mirror_dir.is_some() {
            // The mirror may have what the ring has lost.
            let _ = manifest.save();
            return settled.dirs_with_rings();
        }
        settled.keep_rings_in(&saved, &self.inner.rings.made());
        vec![saved]
    }

    /// Waits until what the other hosts have is here, for no longer than was said before the start.
    /// `progress` hears how far it is. Without it, whatever needs the samples waits.
    pub fn collect(&self, progress: &mut dyn FnMut(&HostProgress)) {
        self.settled(|settled| settled.collect(progress));
    }

    /// The hosts of the run that are not this machine.
    pub fn remote_hosts(&self) -> usize {
        self.settled(|settled| settled.cluster.as_ref().map_or(0, Cluster::remote))
    }

    /// Reads the rings of all hosts.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn cluster_decoder(&self) -> Result<ClusterDecoder, DecodeError> {
        self.settled(|settled| {
            settled.collect(&mut |_| {});
            Ok(self.decode_all(settled, None)?.0)
        })
    }

    /// Beside the decoder, the hosts of which samples may be missing: among them those whose rings were
    /// still to be read at the deadline.
    fn decode_all(
        &self,
        settled: &Settled,
        deadline: Option<Instant>,
    ) -> Result<(ClusterDecoder, Vec<String>), DecodeError> {
        let Some(known) = &settled.manifest.cluster else {
            let one = self.decode_one()?;
            let unread = one.unread().iter().map(|(host, _)| host.clone()).collect();
            return Ok((one, unread));
        };
        let inner = self.inner.clone();
        // Of a sampler that has not ended there are none here, and that is an error of this host.
        let open: OpenRings = Box::new(move || Ok(inner.rings.whole_copies()?));
        let here = cluster::Here { open, missing: Vec::new() };
        let dir = settled.hosts_dir();
        let cluster::Output { run, mut hosts, mut unread } = cluster::output(
            known,
            self.inner.run_id,
            dir.as_deref(),
            &settled.manifest.results_dir,
            Some(here),
        );
        if let Some(deadline) = deadline {
            hosts.iter_mut().for_each(|host| open_before(deadline, host));
        }
        let decoder = ClusterDecoder::new(run, hosts)?;
        unread.extend(decoder.unread().iter().map(|(host, _)| host.clone()));
        Ok((decoder, unread))
    }

    fn decode_one(&self) -> Result<ClusterDecoder, DecodeError> {
        Ok(self.decoder()?.into_cluster())
    }

    /// Reads the rings of this host.
    ///
    /// # Errors
    /// [`DecodeError`]; `NoRings` for a run that this host is no part of.
    pub fn decoder(&self) -> Result<Decoder, DecodeError> {
        let rings = &self.inner.rings;
        if let Some(whole) = rings.with_their_names()?
            && let Ok(decoder) = Decoder::new(whole)
            && self.is_whole(decoder.summary())
        {
            return Ok(decoder);
        }
        // Reads everything twice, which a disk full of mirrors need not bear as a rule.
        Decoder::new(rings.all_copies()?)
    }

    fn is_whole(&self, summary: &HostSummary) -> bool {
        let is_lost = self.inner.rings.is_cut_off();
        !is_lost && summary.samples_lost == 0 && summary.slots_torn == 0
    }

    /// The whole time series in memory.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn data(&self) -> Result<TimeSeriesData, DecodeError> {
        self.cluster_decoder()?.data()
    }

    /// Notes how long the command ran and how it ended, for the metadata.
    pub fn set_ended(&self, runtime: Duration, exit_status: Option<i32>) {
        self.settled(|settled| {
            let runtime_seconds = runtime.as_secs_f64();
            settled.manifest.ended = Some(Ended { runtime_seconds, exit_status });
            // Only for `recover`; the files written from here have it anyway.
            let _ = settled.manifest.save();
        });
    }

    /// What was taken, missed and lost on this host, and what it cost.
    ///
    /// # Errors
    /// As [`decoder`](Self::decoder).
    pub fn summary(&self) -> Result<HostSummary, DecodeError> {
        Ok(self.decoder()?.summary().clone())
    }

    /// Writes the time series and its metadata to the results directory, and then removes the
    /// rings unless they are to be kept. A second call gives the same files.
    ///
    /// # Errors
    /// [`FinishError`]: the rings stay where [`ring_dirs`](Self::ring_dirs) says.
    pub fn write_files(
        &self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<FinalFiles, FinishError> {
        self.settled(|settled| {
            if let Some(files) = &settled.files {
                return Ok(files.clone());
            }
            settled.collect(&mut |_| {});
            let mut files = self.written(settled, progress)?;
            let unread = std::mem::take(&mut settled.unread);
            if !unread.is_empty() {
                let dirs = settled.dirs.iter().map(|dir| dir.path().to_owned()).collect::<Vec<_>>();
                files.problems.push(cluster::not_all_read(&unread, &dirs, self.inner.run_id));
            }
            files.problems.extend(settled.end_cluster(&unread));
            let known = settled.manifest.cluster.as_mut();
            let is_owed = known.is_some_and(|known| {
                known.is_incomplete |= !unread.is_empty();
                known.is_incomplete
            });
            if is_owed || !unread.is_empty() {
                // All that is here is needed again, with what is still to come.
                if self.saved(settled).is_empty() && !self.inner.rings.kept.is_empty() {
                    files.problems.push(
                        "no place takes this host's rings: what these files \
                         have of it is all there will be"
                            .to_owned(),
                    );
                }
                let _ = settled.manifest.save();
            } else if self.inner.keep_ring {
                settled.manifest.done = true;
                let _ = settled.manifest.save();
            } else {
                files.problems.extend(settled.remove_dirs(&self.inner.rings.made()));
            }
            settled.files = Some(files.clone());
            Ok(files)
        })
    }

    /// Rings that somebody changes while they are read are read again: what they have lost is then
    /// known.
    fn written(
        &self,
        settled: &mut Settled,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<FinalFiles, FinishError> {
        let warnings = settled.manifest.warnings.clone();
        let deadline = self.write_deadline(settled);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (decoder, unread) = self.decode_all(settled, deadline)?;
            settled.unread = unread;
            settled.manifest.warnings.clone_from(&warnings);
            for (host, error) in decoder.unread() {
                settled
                    .manifest
                    .warnings
                    .push(format!("not all rings of {host} can be read: {error}"));
            }
            let order = Order {
                deadline,
                save: !settled.dirs.is_empty(),
                renew: false,
                decoder: Some(&decoder),
                system: self.system(&settled.manifest),
                manifest: &mut settled.manifest,
                recovered: false,
                progress,
            };
            match order.carry_out() {
                Err(FinishError::Decode(DecodeError::Changed { .. })) if attempt < ATTEMPTS => {}
                result => return result,
            }
        }
    }

    /// When the end of a run has waited enough for its files, which may be as long as other hosts like, and
    /// which `recover` can write. Of what no file has there is no later.
    fn write_deadline(&self, settled: &Settled) -> Option<Instant> {
        let known = settled.manifest.cluster.as_ref()?;
        let is_private = self.inner.rings.kept.iter().any(|kept| kept.path.is_none());
        let may_take = known.options.stop_timeout.max(LEAST_WRITE_TIMEOUT);
        (!is_private && !settled.dirs.is_empty()).then(|| clock::after(may_take))
    }

    /// Facts about this host, as its ring has them.
    fn system(&self, manifest: &Manifest) -> SystemInfo {
        let ring = self
            .inner
            .rings
            .kept
            .first()
            .and_then(|kept| serde_json::from_slice::<Description>(&kept.description).ok());
        let facts = ring.map_or_else(system::facts, |description| description.system);
        SystemInfo { hostname: manifest.hostname.clone(), facts }
    }

    /// Removes the rings, on all hosts: the samples are gone with the last clone.
    pub fn discard(&self) {
        self.settled(|settled| {
            settled.collect(&mut |_| {});
            settled.end_cluster(&[]);
            settled.remove_dirs(&self.inner.rings.made());
        });
    }

    fn settled<T>(&self, with: impl FnOnce(&mut Settled) -> T) -> T {
        // Everything in it is valid at any moment: a panic elsewhere spoils nothing.
        with(&mut self.inner.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("run_id", &self.inner.run_id)
            .field("runtime", &self.inner.runtime)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::*;
    use crate::cluster::hosts::HostSpec;
    use crate::cluster::record::{HostRecord, HostState};
    use crate::run::ClusterManifest;

    #[test]
    fn rings_are_not_opened_when_the_end_has_waited_enough() {
        let opened = |deadline| {
            let open: OpenRings = Box::new(|| Ok(Vec::new()));
            let mut host = HostRings::new("a", HostData::Rings(open));
            open_before(deadline, &mut host);
            let HostData::Rings(open) = host.data else { panic!() };
            open()
        };
        assert!(matches!(opened(clock::after(Duration::MAX)), Ok(rings) if rings.is_empty()));
        assert!(matches!(opened(Instant::now()), Err(DecodeError::Late)));
    }

    #[test]
    fn a_run_of_hosts_whose_own_sampler_has_not_ended_keeps_its_rings() {
        let [results, base] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let dir = RunDir::create(base.path(), Uuid::from_u128(7)).unwrap();
        let path = dir.path().to_owned();
        std::fs::write(path.join("00000.ring"), "what it still writes to").unwrap();
        let spec: HostSpec = "here".parse().unwrap();
        let host = HostRecord::new(spec, Uuid::from_u128(7), HostState::Here);
        let mut manifest = manifest(results.path());
        manifest.run_id = Uuid::from_u128(7);
        manifest.ring_dir = Some(path.clone());
        manifest.cluster = Some(Box::new(ClusterManifest {
            options: Default::default(),
            hosts: vec![host],
            ring_base: None,
            mirror_base: None,
            interval_ns: 1_000_000_000,
            start_wall_ns: 1,
            is_incomplete: false,
        }));
        let cluster = None;
        let end = SamplerEnd {
            segments: Vec::new(),
            mirror_complete: false,
            mirror_answered: true,
            notes: Vec::new(),
        };
        let recording =
            Recording::new(manifest, vec![dir], end, cluster, Duration::from_secs(1), false);
        let files = recording.write_files(&mut |_, _| {}).unwrap();
        let problem = "not all rings of here can be read; they stay in";
        assert!(files.problems.iter().any(|it| it.contains(problem)), "{:?}", files.problems);
        assert!(path.join("00000.ring").exists());
        let kept = Manifest::load(&path).unwrap();
        assert!(!kept.done && kept.cluster.unwrap().is_incomplete, "recover is to write it again");
    }
}
