//! Recovers a run of several hosts: fetches what they still owe, and writes the files of what there is.

use super::cluster;
use super::dirs::RunDir;
use super::finish::{FinalFiles, FinishError, Order};
use super::found::FoundRun;
use super::manifest::{MANIFEST, Manifest};
use super::settled::not_removed;
use super::system;
use super::temporary::remove_leftovers;
use crate::cluster::launch::HostProgress;
use crate::decode::ClusterDecoder;
use crate::decode::metadata::SystemInfo;
use std::path::Path;

impl FoundRun {
    /// As `recover_locked` does, of a run of several hosts: what they still have is
    /// fetched first. As long as one of them may have more, the run's directories stay.
    pub(super) fn recover_cluster(
        &self,
        mut manifest: Manifest,
        dirs: Vec<RunDir>,
        results_dir: Option<&Path>,
        fetching: &mut dyn FnMut(&HostProgress),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<FinalFiles>, FinishError> {
        if let Some(dir) = results_dir {
            remove_leftovers(&manifest);
            manifest.results_dir = std::path::absolute(dir)
                .map_err(|source| FinishError::Write { path: dir.to_owned(), source })?;
        }
        self.keep_own_dirs(&mut manifest);
        let Some(mut known) = manifest.cluster.take() else { return Ok(None) };
        let was_incomplete = known.is_incomplete;
        let before = known.owing().len();
        let dir = manifest.mirror_dir.clone().or_else(|| manifest.ring_dir.clone());
        let mut hosts = cluster::fetch(&mut known, dir.as_deref(), fetching);
        let owing = known.owing();
        if was_incomplete && !owing.is_empty() && owing.len() == before {
            let why = known.hosts.iter().filter(|host| host.state.is_pending());
            let why = why.flat_map(|host| host.trouble.iter().chain(host.errors.last())).next();
            return Err(FinishError::Owed {
                hosts: owing.join(", "),
                why: why.map_or(String::new(), |failure| failure.message.clone()),
            });
        }
        known.is_incomplete = !owing.is_empty();
        // Killed before its first sample, it has nothing.
        let here = (self.empty_rings().len() < self.rings.len()).then(|| {
            let run = self.clone();
            // Without any, it is an error of the host as a whole.
            let mut missing =
                if run.open(None).is_ok() { run.unreadable_rings() } else { Vec::new() };
            missing.extend(run.spoiled_rings());
            cluster::Here { open: Box::new(move || run.open(None)), missing }
        });
        let cluster::Output { run, hosts: rings, mut unread } =
            cluster::output(&known, self.run_id, dir.as_deref(), &manifest.results_dir, here);
        let decoder = ClusterDecoder::new(run, rings)?;
        unread.extend(decoder.unread().iter().map(|(host, _)| host.clone()));
        if decoder.outline().num_samples == 0 && owing.is_empty() && unread.is_empty() {
            // Killed before the first sample of any host: there is nothing to write.
            hosts.end(&mut known, &[]);
            for dir in &dirs {
                let _ = dir.remove(MANIFEST);
            }
            return Ok(None);
        }
        // Whoever reads them later writes the files again.
        known.is_incomplete |= !unread.is_empty();
        manifest.cluster = Some(known.clone());
        manifest.warnings.retain(|warning| !warning.contains("ringstat recover"));
        for sentence in self.cut_off_rings() {
            // An earlier attempt may have said so.
            if !manifest.warnings.contains(&sentence) {
                manifest.warnings.push(sentence);
            }
        }
        if !owing.is_empty() {
            manifest.warnings.push(cluster::still_owed(&known, self.run_id));
        }
        if !unread.is_empty() {
            manifest.warnings.push(cluster::not_all_read(&unread, &self.dirs, self.run_id));
        }
        let order = Order {
            manifest: &mut manifest,
            save: true,
            renew: was_incomplete,
            decoder: Some(&decoder),
            system: SystemInfo { hostname: system::hostname(), facts: system::facts() },
            recovered: true,
            deadline: None,
            progress,
        };
        let mut files = order.carry_out()?;
        files.problems.extend(hosts.end(&mut known, &unread));
        if !owing.is_empty() {
            files.problems.push(cluster::still_owed(&known, self.run_id));
        }
        if !unread.is_empty() {
            files.problems.push(cluster::not_all_read(&unread, &self.dirs, self.run_id));
        }
        if !(owing.is_empty() && unread.is_empty()) {
            manifest.cluster = Some(known);
            let _ = manifest.save();
            return Ok(Some(files));
        }
        for dir in &dirs {
            if let Err(error) = dir.remove(MANIFEST) {
                files.problems.push(not_removed(dir.path(), &error));
            }
        }
        Ok(Some(files))
    }
}
