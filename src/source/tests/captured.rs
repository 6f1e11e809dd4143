//! Every file of the captured trees, compared with the [naive](super::naive) reading. The trees
//! are other projects' data and stay where they are; where they are not, this says so.

use super::*;
use std::io::Write;
use std::path::Path;

#[test]
fn captured_files_are_read_as_the_naive_reading_does() {
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/proc-roots");
    let Ok(trees) = std::fs::read_dir(&roots) else {
        // Not `eprintln`, which the test harness keeps to itself while a test passes.
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "SKIPPED: {} is missing, nothing compared", roots.display());
        return;
    };
    let mut compared = Vec::new();
    for tree in trees {
        let tree = tree.unwrap().path();
        for source in super::super::SOURCES {
            let Ok(text) = std::fs::read(tree.join("proc").join(source.file)) else { continue };
            let expected = naive::read(source.name, &text);
            let lines = text.iter().filter(|byte| **byte == b'\n').count();
            let readable = match source.name {
                "diskstats" => lines,
                "netdev" => lines - 2,
                _ => 1,
            };
            assert_eq!(expected.len(), readable, "{}: the naive reading fails", tree.display());
            let mut lab = Lab::with_room(source.name, &text, 1 << 16, 1024).unwrap();
            for _ in 0..2 {
                assert_eq!(lab.values(&text), expected, "{}/{}", tree.display(), source.file);
            }
            compared.push(source.name);
        }
    }
    for source in super::super::SOURCES {
        assert!(compared.contains(&source.name), "no {} in {}", source.name, roots.display());
    }
}
