//! Any bytes as what an agent says while its rings are fetched. The launcher neither panics nor takes
//! more than it was to, and nothing is written but under the names that are its own.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringstat::fuzzing::collect_from;

const MOST_BYTES: u64 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let (step, said) = data.split_first().map_or((1, data), |(step, said)| (*step as usize, said));
    let _ = collect_from(said, step, dir.path(), MOST_BYTES);
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir.path()).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name of ours");
        let bare = name.strip_suffix(".part").unwrap_or(&name);
        let bare = bare.strip_prefix("mirror-").unwrap_or(bare);
        let number = bare.strip_suffix(".ring").expect("a ring");
        assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
        bytes += entry.metadata().expect("a file").len();
    }
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
});
