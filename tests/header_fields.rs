//! Every field of a ring's header, patched to 0, 1, the largest number and random ones, under a stale
//! checksum of the header and under a right one: the program refuses it and names the field, or
//! takes it where a recorder could have written it so; then what it writes is a whole file. Either
//! way in bounded memory and time.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::{Cmd, Ran, World, format, rounds, seed};
use ringstat::ring::{FIELDS, MAX_INTERVAL_NS, MAX_SEGMENTS, MIN_INTERVAL_NS, Ring};
use ringstat::{Decoder, JSON};
use std::fs;
use std::path::Path;
use xxhash_rust::xxh64::xxh64;

/// Words that the header's checksum covers; it is the next one.
const HEADER_CHECK: usize = 31;

/// What a field may be in a ring that is otherwise as it was.
enum May {
    /// Nothing else: it follows from other fields, or other fields from it.
    Fixed,
    /// Any number at all: it says which run, boot or time this is.
    Free,
    /// A number from the first to the second.
    Within(u64, u64),
}

use May::{Fixed, Free, Within};

/// What is accepted, by field.
fn may(field: &str, word: impl Fn(&str) -> u64) -> May {
    match field {
        "magic" | "version" | "file_bytes" | "description_bytes" | "description_check"
        | "dictionary_offset" | "slots_offset" | "slot_words" | "slots" | "header_check" => Fixed,
        // Whole pages: so many entries take as many as there are.
        "dictionary_entries" => {
            let room = (word("slots_offset") - word("dictionary_offset")) / 128;
            Within(room - 31, room)
        }
        "max_samples" => Within(1, word("slots") - 1),
        "segment" => Within(0, MAX_SEGMENTS),
        "first_seq" => Within(0, 1 << 62),
        "interval_ns" => Within(MIN_INTERVAL_NS, MAX_INTERVAL_NS),
        "run_id_high" | "run_id_low" | "start_wall_ns" | "start_monotonic_ns" | "boot_id_high"
        | "boot_id_low" => Free,
        // Zero as they are written, and for what later versions may say to those who know it.
        "reserved" => Free,
        other => panic!("{other} is not in the table"),
    }
}

fn word_at(ring: &[u8], index: usize) -> u64 {
    u64::from_le_bytes(ring[index * 8..][..8].try_into().unwrap())
}

fn set_word(ring: &mut [u8], index: usize, word: u64) {
    ring[index * 8..][..8].copy_from_slice(&word.to_le_bytes());
}

fn field_of(ring: &[u8], name: &str) -> u64 {
    word_at(ring, FIELDS.iter().position(|field| *field == name).unwrap())
}

/// Numbers from a seed (SplitMix64, Steele et al. 2014).
fn scrambled(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

struct Patch {
    index: usize,
    value: u64,
    has_right_check: bool,
}

impl Patch {
    fn field(&self) -> &'static str {
        match FIELDS.get(self.index) {
            Some(field) => field,
            None if self.index == HEADER_CHECK => "header_check",
            None => "reserved",
        }
    }

    fn shown(&self) -> String {
        let check = if self.has_right_check { "right" } else { "stale" };
        format!("{} = {:#x}, header_check {check}", self.field(), self.value)
    }

    /// The ring with the patch; whether it may be read. `None` if that changes nothing.
    fn apply(&self, good: &[u8]) -> Option<(Vec<u8>, bool)> {
        let is_both = self.index == HEADER_CHECK && self.has_right_check;
        if is_both || word_at(good, self.index) == self.value {
            return None;
        }
        let mut ring = good.to_vec();
        set_word(&mut ring, self.index, self.value);
        if self.has_right_check {
            let check = xxh64(&ring[..HEADER_CHECK * 8], 0);
            set_word(&mut ring, HEADER_CHECK, check);
        }
        let is_sound = match may(self.field(), |name| field_of(good, name)) {
            Fixed => false,
            Free => true,
            Within(least, most) => (least..=most).contains(&self.value),
        };
        Some((ring, is_sound && self.has_right_check))
    }

    /// A refusal names the field. Under a stale checksum only one that no recorder writes so can be
    /// told from the others; of every one the checksum is named.
    fn assert_named(&self, good: &[u8], said: &str) {
        let is_free = match may(self.field(), |name| field_of(good, name)) {
            Fixed => self.field() == "description_check",
            Free => true,
            Within(least, most) => (least..=most).contains(&self.value),
        };
        // A length within the same page is seen by the checksum of the description alone.
        let is_in_page = self.field() == "description_bytes"
            && self.value.div_ceil(4096) == field_of(good, self.field()).div_ceil(4096);
        let is_identified = self.has_right_check || !(is_free || is_in_page);
        if is_identified {
            assert!(said.contains(self.field()), "{}: {said}", self.shown());
        }
        if !self.has_right_check && self.index >= 2 {
            assert!(said.contains("header_check"), "{}: {said}", self.shown());
        }
    }
}

/// Each field with each value, both ways.
fn patches(randoms: u64) -> Vec<Patch> {
    let seed = seed();
    let mut patches = Vec::new();
    for index in 0..=HEADER_CHECK {
        let random = (0..randoms).map(|nth| {
            let value = scrambled(seed ^ (index as u64 * 1000 + nth));
            // Small ones, too: most fields are.
            if nth % 2 == 0 { value } else { value >> (63 - (nth % 40)) }
        });
        for value in [0, 1, u64::MAX].into_iter().chain(random) {
            for has_right_check in [false, true] {
                patches.push(Patch { index, value, has_right_check });
            }
        }
    }
    patches
}

/// A ring of a real run, alone in its directory.
fn ring(world: &World) -> Vec<u8> {
    let options = ["--no-mirror", "--keep-ring", "--interval", "20ms", "--max-samples", "20"];
    world.run_sh(&options, "sleep 0.1").succeeds();
    fs::read(world.run_dir(&world.rings()).join("00000.ring")).unwrap()
}

/// In 256 MiB of memory and 10 s of CPU time.
fn bounded(world: &World, args: &[&str], ring: &Path) -> Ran {
    let script = "ulimit -v 262144 && ulimit -t 10 && exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_ringstat");
    let cmd = Cmd::new("sh", &world.path("")).args(&["-c", script, "sh", program]);
    cmd.args(args).arg(ring).output()
}

#[test]
fn the_library_names_every_field_that_it_refuses() {
    let world = World::new();
    let good = ring(&world);
    let (mut refused, mut accepted) = (0, 0);
    for patch in patches(rounds(20, 2000)) {
        let Some((bytes, is_sound)) = patch.apply(&good) else { continue };
        let opened = Ring::new(Box::new(bytes), Path::new("patched.ring"));
        let decoded = opened.map_err(|error| error.to_string()).and_then(|ring| {
            let mut decoder = Decoder::new(vec![ring]).map_err(|error| error.to_string())?;
            let mut json = Vec::new();
            decoder.write(&JSON, &mut json, &mut |_, _| {}).map_err(|error| error.to_string())?;
            Ok((decoder.summary().samples_kept, json))
        });
        match decoded {
            Ok((kept, json)) => {
                assert!(is_sound, "{}: accepted", patch.shown());
                let data: ringstat::TimeSeriesData = serde_json::from_slice(&json).unwrap();
                assert_eq!(data.num_samples, kept, "{}", patch.shown());
                accepted += 1;
            }
            Err(said) => {
                assert!(!is_sound, "{}: {said}", patch.shown());
                assert!(said.contains("patched.ring"), "{said}");
                patch.assert_named(&good, &said);
                refused += 1;
            }
        }
    }
    println!("{} words: {refused} patches refused by name, {accepted} accepted", HEADER_CHECK + 1);
    assert!(refused > 0 && accepted > 0);
}

#[test]
fn the_program_names_every_field_that_it_refuses() {
    let world = World::new();
    let good = ring(&world);
    let path = world.path("patched.ring");
    let (mut refused, mut accepted) = (0, 0);
    for patch in patches(rounds(3, 10)) {
        let Some((bytes, is_sound)) = patch.apply(&good) else { continue };
        fs::write(&path, bytes).unwrap();
        let info = bounded(&world, &["info", "--json"], &path);
        let decode = bounded(&world, &["decode", "--format", "json-compact", "-o", "-"], &path);
        for ran in [&info, &decode] {
            if is_sound {
                assert_eq!(ran.status, 0, "{}: {}", patch.shown(), ran.stderr);
                accepted += 1;
            } else {
                assert_eq!(ran.status, 1, "{}: {}", patch.shown(), ran.stderr);
                assert!(ran.stderr.contains("patched.ring"), "{}", ran.stderr);
                assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
                patch.assert_named(&good, &ran.stderr);
                refused += 1;
            }
        }
        if is_sound {
            let data: ringstat::TimeSeriesData = serde_json::from_str(&decode.stdout).unwrap();
            assert_eq!(data.samples_by_host.len(), 1, "{}", patch.shown());
            // What a recorder could have written reads like what one wrote.
            if !matches!(patch.field(), "start_wall_ns" | "start_monotonic_ns" | "first_seq") {
                format::timeseries(decode.stdout.trim_end())
                    .unwrap_or_else(|wrong| panic!("{}: {wrong}", patch.shown()));
            }
        }
    }
    println!("{refused} runs refused it by name, {accepted} accepted it");
    assert!(refused > 0 && accepted > 0);
}
