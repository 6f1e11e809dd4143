//! Writing the final files of a run: temporary, synced, renamed, directory synced; nothing is
//! ever overwritten, nothing half is left. It can be done again after being killed at any point.
//!
//! The order is what makes that so: the manifest names the date and time of the final names before
//! the first of them is taken, so that a later `recover` knows its own files again by that name
//! and by the run id in them.

use super::earlier::{contains, has_all_of};
use super::manifest::{DATETIME, Manifest};
use super::merge::merge_into;
use super::temporary::{remove_leftovers, temporary};
use super::until::Until;
use crate::decode::metadata::{Metadata, RecorderInfo, SystemInfo, TimeSeriesReference};
use crate::decode::{ClusterDecoder, DecodeError, Format, Written};
use crate::place::sync_with_parents;
use chrono::{Duration, NaiveDateTime};
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::{NamedTempFile, TempPath};

/// Names that are tried before giving up.
const MAX_BUMPS: i64 = 3600;

/// The files that a run has left.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FinalFiles {
    /// The time series.
    pub timeseries: Option<PathBuf>,
    /// The metadata that refers to it.
    pub metadata: Option<PathBuf>,
    /// What the time series says of itself.
    pub written: Option<Written>,
    /// What could not be done, though the samples are safe.
    pub problems: Vec<String>,
}

/// Why the final files could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// A file of ours.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file, or its directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The rings.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The run's directory may be somebody else's, and what lies in it is not acted upon.
    #[error(
        "{} {why}: what it says is not acted upon. Recover it as the user whose run it is, or read \
         it with `ringstat decode {} -o DIR`", dir.display(), dir.display()
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Its rings can be read, and have no sample any more.
    #[error("there is nothing left to write: {lost}")]
    Lost {
        /// What has become of them, in sentences.
        lost: String,
    },
    /// Other hosts have samples of the run, and nothing of them could be fetched.
    #[error("{hosts} could not be fetched from: {why}; the files have all that there is without")]
    Owed {
        /// Which.
        hosts: String,
        /// Of the first of them.
        why: String,
    },
    /// The directory is full of files of this name.
    #[error("cannot name the results in {}: every name from {first} on is taken", dir.display())]
    NoName {
        /// The directory.
        dir: PathBuf,
        /// The first date and time that was tried.
        first: String,
    },
}

/// What is to be written, beside what the rings say.
pub(super) struct Order<'a> {
    /// The run; its `final_datetime` is kept up to date, if `save` is set.
    pub manifest: &'a mut Manifest,
    /// Whether these are the files that the run owes, and none but us writes them: the manifest is
    /// saved, as far as there is one, and what an earlier attempt has left is made use of.
    pub save: bool,
    /// The files that an earlier attempt has left lack what is there now: they are written again.
    pub renew: bool,
    /// The rings; none if nothing was recorded.
    pub decoder: Option<&'a ClusterDecoder>,
    /// Facts about the host.
    pub system: SystemInfo,
    /// The recorder died, and this is `recover` or `decode`.
    pub recovered: bool,
    /// When whoever waits for the files has waited enough: what is not written then is not written.
    pub deadline: Option<Instant>,
    /// Hears how many samples are done, of how many.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

impl Order<'_> {
    /// Writes the files.
    ///
    /// # Errors
    /// [`FinishError`]: then no file is there under its final name, unless it is complete.
    pub fn carry_out(mut self) -> Result<FinalFiles, FinishError> {
        let dir = self.manifest.results_dir.clone();
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        // Not for `decode`: those of a run that lives are in use.
        if self.save {
            remove_leftovers(self.manifest);
        }
        let already = self.already_there(&dir);
        let timeseries = match (&already, self.decoder.is_some()) {
            (_, false) => None,
            (Some(_), true) if !self.renew => None,
            (_, true) => Some(self.write_timeseries(&dir)?),
        };
        let mut files = match (already, timeseries) {
            (Some(datetime), None) => self.complete(&dir, &datetime)?,
            (Some(datetime), Some(timeseries)) => self.replace(&dir, &datetime, timeseries)?,
            (None, timeseries) => self.name_both(&dir, timeseries)?,
        };
        files.written = self.decoder.map(|decoder| decoder.outline());
        sync_with_parents(&dir).map_err(failed(&dir))?;
        Ok(files)
    }

    /// The date and time in the name of a time series that an earlier attempt has finished.
    ///
    /// A manifest that could not be renewed does not say it; then the names that would be tried are
    /// looked through, as long as they are taken. Whoever has written it: it counts only with all
    /// the samples that the rings have now.
    fn already_there(&self, dir: &Path) -> Option<String> {
        let outline = self.decoder.as_ref()?.outline();
        let path = |datetime: &str| dir.join(self.timeseries_name(datetime));
        let tried = (0..MAX_BUMPS).map(|bump| bumped(&self.manifest.datetime, bump));
        let taken =
            tried.take_while(|datetime| self.recovered && self.save && exists(&path(datetime)));
        let named = self.manifest.final_datetime.clone();
        if self.renew {
            // What it lacks is about to come in, so that its samples tell nothing.
            let run_id = self.manifest.run_id.to_string();
            return named.filter(|datetime| contains(&path(datetime), run_id.as_bytes()));
        }
        named.into_iter().chain(taken).find(|datetime| has_all_of(&path(datetime), &outline))
    }

    /// One that a later version has written down is replaced by the default: the samples come first.
    fn format(&self) -> &'static Format {
        Format::find(&self.manifest.format).unwrap_or_default()
    }

    fn timeseries_name(&self, datetime: &str) -> String {
        let extension = self.format().extension;
        format!("{}_{datetime}_timeseries.{extension}", self.manifest.benchmark_type)
    }

    fn metadata_name(&self, datetime: &str) -> String {
        format!("{}_{datetime}_metadata.json", self.manifest.benchmark_type)
    }

    fn temporary(&self, dir: &Path) -> Result<NamedTempFile, FinishError> {
        // As any file that a user makes: the umask decides.
        let permissions = Permissions::from_mode(0o666);
        temporary(dir, self.manifest.run_id, permissions).map_err(failed(dir))
    }

    fn write_timeseries(&mut self, dir: &Path) -> Result<TempPath, FinishError> {
        let mut file = self.temporary(dir)?;
        let format = self.format();
        if let Some(decoder) = self.decoder {
            let mut out = Until { out: file.as_file_mut(), deadline: self.deadline };
            let written = decoder.write(format, &mut out, self.progress);
            written.map_err(|error| match error {
                DecodeError::Write(source) => failed(dir)(source),
                other => FinishError::Decode(other),
            })?;
        }
        file.as_file().sync_all().map_err(failed(dir))?;
        Ok(file.into_temp_path())
    }

    /// Gives both files names of one date and time, the first that is free.
    fn name_both(
        &mut self,
        dir: &Path,
        mut timeseries: Option<TempPath>,
    ) -> Result<FinalFiles, FinishError> {
        let first = self.manifest.datetime.clone();
        for bump in 0..MAX_BUMPS {
            let datetime = bumped(&first, bump);
            let ts_path = dir.join(self.timeseries_name(&datetime));
            let md_path = dir.join(self.metadata_name(&datetime));
            if exists(&ts_path) || exists(&md_path) {
                continue;
            }
            self.remember(&datetime);
            let has_timeseries = timeseries.is_some();
            if let Some(temporary) = timeseries.take()
                && let Err(error) = temporary.persist_noclobber(&ts_path)
            {
                if error.error.kind() == io::ErrorKind::AlreadyExists {
                    timeseries = Some(error.path);
                    continue;
                }
                return Err(failed(&ts_path)(error.error));
            }
            let named = has_timeseries.then(|| ts_path.clone());
            let mut files = FinalFiles { timeseries: named, ..FinalFiles::default() };
            match self.write_metadata(dir, &datetime, &mut files) {
                Ok(()) => return Ok(files),
                Err(FinishError::Write { source, .. })
                    if source.kind() == io::ErrorKind::AlreadyExists =>
                {
                    // Somebody took the other name just now: ours moves on with it.
                    if has_timeseries {
                        timeseries =
                            Some(TempPath::try_from_path(&ts_path).map_err(failed(&ts_path))?);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(FinishError::NoName { dir: dir.to_owned(), first })
    }

    /// The time series is there from an earlier attempt; the metadata may be too.
    fn complete(&mut self, dir: &Path, datetime: &str) -> Result<FinalFiles, FinishError> {
        let mut files = FinalFiles {
            timeseries: Some(dir.join(self.timeseries_name(datetime))),
            ..FinalFiles::default()
        };
        let path = dir.join(self.metadata_name(datetime));
        // The reference is not merged again: when the rings are half removed they know less.
        let timeseries = self.timeseries_name(datetime);
        let merged = self.manifest.merge_metadata.clone();
        let merged = merged.filter(|path| contains(path, timeseries.as_bytes()));
        if contains(&path, self.manifest.run_id.to_string().as_bytes()) {
            files.metadata = Some(path);
        } else if merged.is_some() {
            files.metadata = merged;
        } else {
            self.write_metadata(dir, datetime, &mut files)?;
        }
        Ok(files)
    }

    /// The files of an earlier attempt, under the same names, with what is known by now.
    fn replace(
        &mut self,
        dir: &Path,
        datetime: &str,
        timeseries: TempPath,
    ) -> Result<FinalFiles, FinishError> {
        let path = dir.join(self.timeseries_name(datetime));
        timeseries.persist(&path).map_err(|error| failed(&path)(error.error))?;
        let mut files = FinalFiles { timeseries: Some(path), ..FinalFiles::default() };
        let metadata = dir.join(self.metadata_name(datetime));
        if contains(&metadata, self.manifest.run_id.to_string().as_bytes()) {
            let reference = self.reference(datetime);
            let temporary = self.metadata_file(dir, datetime, reference)?;
            temporary.persist(&metadata).map_err(|error| failed(&metadata)(error.error))?;
            files.metadata = Some(metadata);
        } else {
            // In the benchmark's own file the reference is put in the place of the one that is there.
            self.write_metadata(dir, datetime, &mut files)?;
        }
        Ok(files)
    }

    fn remember(&mut self, datetime: &str) {
        self.manifest.final_datetime = Some(datetime.to_owned());
        if self.save {
            // Without it a `recover` after a kill in the next instants writes a second pair.
            let _ = self.manifest.save();
        }
    }

    fn write_metadata(
        &mut self,
        dir: &Path,
        datetime: &str,
        files: &mut FinalFiles,
    ) -> Result<(), FinishError> {
        let reference = self.reference(datetime);
        if let Some(path) = self.manifest.merge_metadata.clone() {
            // Without a time series there is nothing that the benchmark's own file lacks.
            let Some(reference) = &reference else { return Ok(()) };
            match merge_into(&path, reference, self.manifest.run_id) {
                Ok(()) => {
                    files.metadata = Some(path);
                    return Ok(());
                }
                Err(error) => files.problems.push(format!(
                    "cannot merge into {}: {error}. The metadata is in a file of its own: merge its \
                     timeseries_data by hand and remove it, since a submission may have only one",
                    path.display()
                )),
            }
        }
        let path = dir.join(self.metadata_name(datetime));
        let file = self.metadata_file(dir, datetime, reference)?;
        file.persist_noclobber(&path).map_err(|error| failed(&path)(error.error))?;
        files.metadata = Some(path);
        Ok(())
    }

    fn metadata_file(
        &self,
        dir: &Path,
        datetime: &str,
        reference: Option<TimeSeriesReference>,
    ) -> Result<NamedTempFile, FinishError> {
        let metadata = self.metadata(dir, datetime, reference);
        let mut file = self.temporary(dir)?;
        let text =
            serde_json::to_vec_pretty(&metadata).map_err(|error| failed(dir)(error.into()))?;
        file.write_all(&text).map_err(failed(dir))?;
        file.as_file().sync_all().map_err(failed(dir))?;
        Ok(file)
    }

    fn warnings(&self) -> Vec<String> {
        let outline = self.decoder.as_ref().map(|decoder| decoder.outline());
        let found = outline.map_or(Vec::new(), |outline| outline.warnings());
        [self.manifest.warnings.clone(), found].concat()
    }

    fn reference(&self, datetime: &str) -> Option<TimeSeriesReference> {
        let outline = self.decoder.as_ref()?.outline();
        Some(TimeSeriesReference {
            file: self.timeseries_name(datetime),
            num_samples: outline.num_samples,
            interval_seconds: outline.interval_seconds,
            hosts_collected: outline.hosts_collected,
        })
    }

    fn metadata(
        &self,
        dir: &Path,
        datetime: &str,
        timeseries_data: Option<TimeSeriesReference>,
    ) -> Metadata {
        let manifest = &*self.manifest;
        let recorded_s =
            self.decoder.as_ref().map_or(0.0, |decoder| decoder.duration_ns() as f64 / 1e9);
        Metadata {
            benchmark_type: manifest.benchmark_type.clone(),
            command: manifest.mode.clone(),
            run_datetime: datetime.to_owned(),
            result_dir: dir.display().to_string(),
            system_info: self.system.clone(),
            timeseries_data,
            runtime: manifest.ended.map_or(recorded_s, |ended| ended.runtime_seconds),
            executed_command: (!manifest.command.is_empty())
                .then(|| shell_words::join(&manifest.command)),
            exit_status: manifest.ended.and_then(|ended| ended.exit_status),
            ringstat: RecorderInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                run_id: Some(manifest.run_id.to_string()),
                recovered: self.recovered,
                warnings: self.warnings(),
            },
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> FinishError {
    let path = path.to_owned();
    move |source| FinishError::Write { path: path.clone(), source }
}

/// Also true for a dangling symlink.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// `seconds` later than `datetime`.
fn bumped(datetime: &str, seconds: i64) -> String {
    match NaiveDateTime::parse_from_str(datetime, DATETIME) {
        Ok(time) => (time + Duration::seconds(seconds)).format(DATETIME).to_string(),
        Err(_) => format!("{datetime}.{seconds}"),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::*;
    use crate::decode::{ClusterRun, CollectionMethod};

    fn order(manifest: &mut Manifest) -> Order<'_> {
        Order {
            manifest,
            save: false,
            renew: false,
            decoder: None,
            system: SystemInfo::default(),
            recovered: false,
            deadline: None,
            progress: Box::leak(Box::new(|_, _| {})),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_taken_name_is_bumped_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("training_20260102_030405_timeseries.json"), "theirs").unwrap();
        let link = dir.path().join("training_20260102_030406_metadata.json");
        std::os::unix::fs::symlink("/nowhere", link).unwrap();
        order(&mut manifest(dir.path())).carry_out().unwrap();
        assert_eq!(
            names(dir.path()),
            [
                "training_20260102_030405_timeseries.json",
                "training_20260102_030406_metadata.json",
                "training_20260102_030407_metadata.json"
            ]
        );
        let theirs = dir.path().join("training_20260102_030405_timeseries.json");
        assert_eq!(fs::read(theirs).unwrap(), b"theirs");
    }

    #[test]
    fn temporary_files_of_a_killed_attempt_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = manifest(dir.path());
        let mine = format!(".ringstat-{}-x.tmp", manifest.run_id);
        for name in [&mine, ".ringstat-other.tmp"] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        order(&mut manifest).carry_out().unwrap();
        assert!(names(dir.path()).contains(&mine), "a living recorder's, for all `decode` knows");
        Order { save: true, ..order(&mut manifest) }.carry_out().unwrap();
        let left = names(dir.path());
        assert!(!left.contains(&mine) && left.contains(&".ringstat-other.tmp".to_owned()));
    }

    #[test]
    fn what_takes_too_long_to_write_is_not_written_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = manifest(dir.path());
        let run = ClusterRun {
            run_id: manifest.run_id,
            interval_ns: 1,
            start_wall_ns: 0,
            end_wall_ns: 0,
            collection_method: CollectionMethod::Ssh,
        };
        let decoder = ClusterDecoder::new(run, Vec::new()).unwrap();
        let mut write = |deadline| {
            let manifest = &mut manifest;
            Order { decoder: Some(&decoder), deadline, ..order(manifest) }.carry_out()
        };
        match write(Some(Instant::now())) {
            Err(FinishError::Write { source, .. }) if source.kind() == io::ErrorKind::TimedOut => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(names(dir.path()), [""; 0]);
        write(None).unwrap();
        assert_eq!(names(dir.path()).len(), 2);
    }

    #[test]
    fn names_carry_over_midnight() {
        assert_eq!(bumped("20261231_235959", 1), "20270101_000000");
        assert_eq!(bumped("20261231_235959", 0), "20261231_235959");
    }
}
