//! Files from rings alone: what a ring says of its run, and writing it where a user wants it, whatever the
//! run owes.

use super::finish::{FinalFiles, FinishError, Order};
use super::manifest::{DATETIME, Manifest, is_benchmark_type};
use crate::decode::metadata::SystemInfo;
use crate::decode::{Decoder, Format};
use crate::description::Description;
use chrono::{DateTime, Local};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Decodes rings to files in `results_dir`, without touching the rings: `manifest` as far as it
/// is known, what the rings say for the rest.
///
/// # Errors
/// [`FinishError`].
pub fn write_decoded(
    decoder: &mut Decoder,
    manifest: Option<Manifest>,
    results_dir: &Path,
    change: impl FnOnce(&mut Manifest),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<FinalFiles, FinishError> {
    let mut manifest = manifest.unwrap_or_else(|| manifest_of(decoder));
    manifest.results_dir = std::path::absolute(results_dir)
        .map_err(|source| FinishError::Write { path: results_dir.to_owned(), source })?;
    // These files are not the ones that the run owes.
    manifest.final_datetime = None;
    manifest.merge_metadata = None;
    change(&mut manifest);
    let recovered = !decoder.summary().ended_cleanly;
    Order {
        manifest: &mut manifest,
        save: false,
        renew: false,
        decoder: Some(decoder.as_cluster()),
        system: system_of(decoder),
        recovered,
        deadline: None,
        progress,
    }
    .carry_out()
}

/// Facts about the host of a recording.
pub(super) fn system_of(decoder: &Decoder) -> SystemInfo {
    let Description { hostname, system, .. } = decoder.description();
    SystemInfo { hostname: hostname.clone(), facts: system.clone() }
}

/// A run's manifest from what its rings say.
pub(super) fn manifest_of(decoder: &Decoder) -> Manifest {
    let Description { hostname, run, .. } = decoder.description();
    let nanoseconds = i64::try_from(decoder.header().start_wall_ns).unwrap_or(i64::MAX);
    // It becomes part of a file name, and a ring may come from anywhere.
    let benchmark_type = match &run.benchmark_type {
        name if is_benchmark_type(name) => name.clone(),
        _ => "record".to_owned(),
    };
    Manifest {
        version: 1,
        run_id: decoder.header().run_id,
        benchmark_type,
        mode: run.mode.clone(),
        command: run.command.clone(),
        results_dir: PathBuf::from("."),
        format: <&Format>::default().name.to_owned(),
        merge_metadata: None,
        datetime: DateTime::from_timestamp_nanos(nanoseconds)
            .with_timezone(&Local)
            .format(DATETIME)
            .to_string(),
        hostname: hostname.clone(),
        machine_id: Uuid::nil(),
        boot_id: decoder.header().boot_id,
        pid: 0,
        ring_dir: None,
        mirror_dir: None,
        ended: None,
        final_datetime: None,
        launcher: None,
        cluster: None,
        done: false,
        warnings: Vec::new(),
    }
}
