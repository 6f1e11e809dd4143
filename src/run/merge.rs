//! Putting the reference to a time series into the metadata file that a benchmark has written: read whole,
//! replaced whole, still its owner's. What is put where in it is `decode`'s.

use super::temporary::temporary;
use crate::decode::metadata::{self, TimeSeriesReference};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use uuid::Uuid;

/// Largest metadata file of a benchmark that is read.
const MAX_METADATA_BYTES: u64 = 64 << 20;

/// Puts the reference into the benchmark's own metadata file.
///
/// # Errors
/// The kernel's, or what keeps it from being such a file: then it is as it was.
pub(super) fn merge_into(
    path: &Path,
    reference: &TimeSeriesReference,
    run_id: Uuid,
) -> io::Result<()> {
    // Through a symlink, the file behind it is what is replaced.
    let path = fs::canonicalize(path)?;
    let meta = fs::metadata(&path)?;
    // Looked at before it is opened: a pipe would wait for a writer.
    if !meta.is_file() || meta.len() > MAX_METADATA_BYTES {
        return Err(io::Error::other("it is not a metadata file"));
    }
    let mut file = File::open(&path)?;
    let mut text = String::new();
    Read::by_ref(&mut file).take(MAX_METADATA_BYTES).read_to_string(&mut text)?;
    let merged = metadata::merge(&text, reference)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut temporary = temporary(dir, run_id, meta.permissions())?;
    temporary.write_all(merged.as_bytes())?;
    // It stays its owner's; only root can have to give it back.
    std::os::unix::fs::fchown(temporary.as_file(), Some(meta.uid()), Some(meta.gid()))?;
    temporary.as_file().set_permissions(meta.permissions())?;
    temporary.as_file().sync_all()?;
    temporary.persist(&path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}
