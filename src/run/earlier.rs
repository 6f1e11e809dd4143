//! Files of a run that are there before they are written, and what they say: whether an earlier
//! attempt has finished them. Reads; what is done about it is for others.

use super::trust::open_own;
use crate::decode::Written;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

/// What a time series says at its end of how much is in it; the rest is passed over as it is read.
#[derive(Deserialize)]
struct Said {
    ringstat: Summary,
}

#[derive(Deserialize)]
struct Summary {
    run_id: String,
    hosts: BTreeMap<String, Counts>,
}

#[derive(Deserialize)]
struct Counts {
    samples_taken: u64,
    samples_kept: u64,
}

/// Whether the file at `path` is a whole time series of the same run, of this user's, with all that
/// would be `written`. One that was decoded while the run went on is not: it has the same name and the
/// same run in it, and only a part of the samples, or others, which newer ones have replaced since.
///
/// One of a format that is not read here is taken for another: then the samples are there twice.
pub(super) fn has_all_of(path: &Path, written: &Written) -> bool {
    let Some(file) = open_own(path) else { return false };
    let said: Result<Said, _> = serde_json::from_reader(BufReader::with_capacity(1 << 20, file));
    let Ok(Said { ringstat: said }) = said else { return false };
    let has_all = |(host, wanted): (&String, &crate::HostSummary)| {
        said.hosts.get(host).is_some_and(|said| {
            said.samples_taken >= wanted.samples_taken && said.samples_kept >= wanted.samples_kept
        })
    };
    said.run_id == written.summary.run_id && written.summary.hosts.iter().all(has_all)
}

/// Whether a file of this user's has these bytes in it. One that somebody else has put under our
/// name, in a directory that is shared, is no reason to think that ours is written.
pub(super) fn contains(path: &Path, needle: &[u8]) -> bool {
    let Some(mut file) = open_own(path) else { return false };
    let mut window = Vec::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk) {
            Ok(0) | Err(_) => return false,
            Ok(count) => {
                window.extend_from_slice(&chunk[..count]);
                if window.windows(needle.len()).any(|bytes| bytes == needle) {
                    return true;
                }
                let keep = window.len().min(needle.len() - 1);
                window.drain(..window.len() - keep);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_needle_across_two_chunks_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut bytes = vec![b'x'; (1 << 20) - 3];
        bytes.extend_from_slice(b"needle");
        fs::write(&path, bytes).unwrap();
        assert!(contains(&path, b"needle") && !contains(&path, b"needles"));
        assert!(!contains(&dir.path().join("none"), b"needle"));
    }
}
