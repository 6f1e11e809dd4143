//! Any bytes as what an agent says while its rings are fetched, in two conversations. The launcher neither
//! panics nor takes more than it was to, and nothing is written but under the names that are its own.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringstat::fuzzing::collect_from;
use std::path::Path;

const MOST_BYTES: u64 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let (step, said) = data.split_first().map_or((1, data), |(step, said)| (*step as usize, said));
    let (first, second) = said.split_at(said.len() / 2);
    // What is here of a ring stays until that which is fetched instead is whole.
    for (said, most) in [(said, MOST_BYTES), (first, 2 * MOST_BYTES), (second, 2 * MOST_BYTES)] {
        let _ = collect_from(said, step, dir.path(), MOST_BYTES);
        assert_all_is_ours(dir.path(), most);
    }
});

fn assert_all_is_ours(dir: &Path, most: u64) {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name of ours");
        let bare = name.strip_suffix(".part").unwrap_or(&name);
        let bare = bare.strip_prefix("earlier-").unwrap_or(bare);
        let bare = bare.trim_start_matches("2-").trim_start_matches("3-");
        let bare = bare.strip_prefix("mirror-").unwrap_or(bare);
        let number = bare.strip_suffix(".ring").expect("a ring");
        assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
        bytes += entry.metadata().expect("a file").len();
    }
    assert!(bytes <= most, "{bytes} bytes");
}
