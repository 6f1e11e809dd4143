//! Made-up `/proc` trees: a virtual machine's files as they were captured, but for disks and
//! interfaces, which are as many as are asked for, and busy. The text is the same on every machine.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use tempfile::TempDir;

/// What was captured of each file, and how many words at the beginning of a line are no counters.
const CAPTURED: [(&str, &str, usize); 5] = [
    ("diskstats", "", 3),
    ("vmstat", include_str!("../proc/vmstat"), 1),
    ("meminfo", include_str!("../proc/meminfo"), 1),
    ("loadavg", include_str!("../proc/loadavg"), 0),
    ("net/dev", include_str!("../proc/net/dev"), 1), // Its two lines of head.
];
/// Digits of a busy disk's counters.
const DISK_DIGITS: [u32; 17] = [6, 4, 8, 6, 5, 5, 8, 6, 1, 5, 6, 5, 2, 7, 4, 4, 3];
/// Digits of a busy interface's counters, and the width that the kernel gives them
/// (`net/core/net-procfs.c`).
const INTERFACE_DIGITS: [(u32, usize); 16] = [
    (9, 7),
    (6, 7),
    (1, 4),
    (2, 4),
    (1, 4),
    (1, 5),
    (1, 10),
    (4, 9),
    (8, 8),
    (6, 7),
    (1, 4),
    (1, 4),
    (1, 4),
    (1, 5),
    (1, 7),
    (1, 10),
];

/// A tree in memory, gone with this value.
pub struct Tree {
    dir: TempDir,
    texts: Vec<(&'static str, String, usize)>,
}

impl Tree {
    /// So many disks and interfaces.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(disks: usize, interfaces: usize) -> io::Result<Tree> {
        let dir = tempfile::Builder::new().prefix("ringstat-bench-").tempdir_in("/dev/shm")?;
        fs::create_dir(dir.path().join("net"))?;
        let mut texts = CAPTURED.map(|(file, text, skip)| (file, text.to_owned(), skip));
        for (file, text, _) in &mut texts {
            match *file {
                "diskstats" => (0..disks).for_each(|nth| add_disk(text, nth)),
                "net/dev" => (0..interfaces).for_each(|nth| add_interface(text, nth)),
                _ => {}
            }
        }
        let tree = Tree { dir, texts: texts.into() };
        tree.change(0)?;
        Ok(tree)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the files with every counter another than in the round before, and as long.
    ///
    /// # Errors
    /// The kernel's.
    pub fn change(&self, round: u8) -> io::Result<()> {
        let mut changed = String::new();
        for (file, text, skip) in &self.texts {
            changed.clear();
            for line in text.lines() {
                let mut nth = 0;
                let mut chars = line.chars().peekable();
                while let Some(c) = chars.next() {
                    let ends = chars.peek().is_none_or(|next| *next == ' ');
                    let digit = c.to_digit(10).filter(|_| ends && nth >= *skip);
                    let digit = digit
                        .and_then(|digit| char::from_digit((digit + u32::from(round)) % 10, 10));
                    changed.push(digit.unwrap_or(c));
                    nth += usize::from(ends && c != ' ');
                }
                changed.push('\n');
            }
            // The same file again: those who read it keep it open.
            fs::write(self.path().join(file), &changed)?;
        }
        Ok(())
    }
}

fn add_disk(text: &mut String, nth: usize) {
    // Writing to a string cannot fail.
    let _ = write!(text, " 259 {nth:7} nvme{nth}n1");
    for (column, digits) in DISK_DIGITS.into_iter().enumerate() {
        let _ = write!(text, " {}", counter(nth, column, digits));
    }
    text.push('\n');
}

fn add_interface(text: &mut String, nth: usize) {
    let _ = write!(text, "{:>6}:", format!("veth{nth}"));
    for (column, (digits, width)) in INTERFACE_DIGITS.into_iter().enumerate() {
        let _ = write!(text, " {:width$}", counter(nth, column, digits));
    }
    text.push('\n');
}

/// Some number of so many digits at most, most of them of just as many.
fn counter(nth: usize, column: usize, digits: u32) -> usize {
    (nth + 1) * (column + 3) * 7_654_321 % 10_usize.pow(digits)
}
