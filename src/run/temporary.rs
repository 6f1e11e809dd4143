//! Files that are not yet what they are to become, beside the final files of a run: made under names that say
//! whose they are, so that those of an attempt that was killed can be removed. What is written to them is for
//! others.

use super::manifest::Manifest;
use std::fs::{self, Permissions};
use std::io;
use std::path::Path;
use tempfile::NamedTempFile;
use uuid::Uuid;

/// Removes the temporary files that attempts of this run have left when they were killed.
pub(super) fn remove_leftovers(manifest: &Manifest) {
    let theirs = manifest.merge_metadata.as_ref().and_then(|path| fs::canonicalize(path).ok());
    let prefix = temporary_prefix(manifest.run_id);
    for dir in [Some(&*manifest.results_dir), theirs.as_deref().and_then(Path::parent)] {
        let entries = dir.into_iter().flat_map(fs::read_dir).flatten().flatten();
        for entry in entries {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn temporary_prefix(run_id: Uuid) -> String {
    format!(".ringstat-{run_id}-")
}

/// A file of this run that is not yet what it is to become.
pub(super) fn temporary(
    dir: &Path,
    run_id: Uuid,
    permissions: Permissions,
) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(&temporary_prefix(run_id))
        .suffix(".tmp")
        .permissions(permissions)
        .tempfile_in(dir)
}
