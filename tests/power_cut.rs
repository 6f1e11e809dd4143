//! Power cuts of a real file system: an ext4 that stops from one moment to the next, as if the host
//! had lost power, while a recorder keeps its mirror there; then it is mounted again, which replays
//! its journal, and the run is recovered from what it has.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::{World, rounds, seed, wait_until, with_own_mounts};
use ringstat::ring::{Ring, SlotState};
use ringstat::{Decoder, Slot};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

/// `FS_IOC_SHUTDOWN`, and "do not flush the log": nothing that is not on the disk gets there
/// (`fs/ext4/ioctl.c`).
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
const WITHOUT_FLUSH: u32 = 2;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

/// An ext4 in a file, mounted while this value lives.
struct Disk {
    image: PathBuf,
    dir: PathBuf,
}

impl Disk {
    fn new(image: PathBuf, dir: PathBuf) -> Disk {
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir_all(&dir).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        let disk = Disk { image, dir };
        disk.mount();
        disk
    }

    fn mount(&self) {
        run("mount", &["-o", "loop", self.image.to_str().unwrap(), self.dir.to_str().unwrap()]);
    }

    fn cut_power(&self) {
        let (dir, flags) = (File::open(&self.dir).unwrap(), WITHOUT_FLUSH);
        // SAFETY: `dir` is open, and the kernel reads one `u32` from the address, which is valid
        // for the call.
        let result = unsafe { libc::ioctl(dir.as_raw_fd(), SHUTDOWN, &raw const flags) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    fn power_up(&self) {
        run("umount", &[self.dir.to_str().unwrap()]);
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.dir).status();
    }
}

/// The records that verify in a ring.
fn records(ring: &Ring) -> BTreeSet<u64> {
    let mut words = Vec::new();
    let slots = 0..ring.header().layout.slots;
    let found = slots.filter_map(|slot| match ring.read_slot(Slot(slot), &mut words).unwrap() {
        SlotState::Valid(seq, _) => Some(seq.0),
        _ => None,
    });
    found.collect()
}

/// Records in `world` until the mirror has `samples`, cuts the power, and recovers. How many
/// records that were in the mirror's file, synced or not, the cut has cost.
fn cut_after(world: &World, disk: &Disk, samples: u64) -> u64 {
    let max_samples = 1000;
    let options = ["--interval", "2ms", "--sync-interval", "20ms", "--max-samples", "1000"];
    let live = world.record(&options).start();
    let run = world.run_dir(&world.rings());
    let mirror = world.mirrors().join(run.file_name().unwrap()).join("00000.ring");
    let in_mirror = || Some(records(&Ring::open(&mirror).ok()?));
    let has_enough = |found: &BTreeSet<u64>| found.last() >= Some(&samples);
    let seen = wait_until("samples in the mirror", || in_mirror().filter(has_enough));
    disk.cut_power();
    live.kill();
    // The host's memory is gone, too.
    fs::remove_dir_all(world.rings()).unwrap();
    disk.power_up();
    let ring = Ring::open(&mirror).unwrap();
    let spare = ring.header().layout.slots - max_samples;
    assert_eq!(spare, 12, "what is written in 20 ms, and two");
    let found = records(&ring);
    // No more than the spare slots are written to before the next sync: what was seen in the mirror
    // before those is there, unless newer ones have taken its place.
    let newest = *found.last().expect("no record at all");
    let synced = *seen.iter().rev().nth(spare as usize).unwrap();
    assert!(newest >= synced, "{seen:?} seen, {found:?} found");
    let from = (newest + 1).saturating_sub(max_samples);
    let promised = seen.iter().filter(|seq| (from..=synced).contains(*seq));
    let missing: Vec<_> = promised.filter(|seq| !found.contains(seq)).collect();
    assert!(missing.is_empty(), "{missing:?} were synced; {seen:?} seen, {found:?} found");
    let kept = Decoder::new(vec![ring]).unwrap().summary().samples_kept;
    world.looking(&["recover"]).succeeds();
    assert_eq!(world.files().samples().len() as u64, kept);
    seen.range(newest + 1..).count() as u64
}

#[test]
fn an_ext4_that_loses_power_has_every_sample_up_to_the_last_sync() {
    with_own_mounts("an ext4 on a loop device", || {
        let seed = seed();
        let cuts = rounds(6, 100);
        let mut lost = 0;
        for cut in 0..cuts {
            let world = World::new();
            let disk = Disk::new(world.path("image"), world.mirrors());
            // After the first lap, in which no slot has anything to lose. (A lap takes two seconds:
            // no copier is away for so long, and has to catch up.)
            let samples = 1020 + seed.wrapping_mul(cut * 2 + 1).rotate_left(17) % 300;
            lost += cut_after(&world, &disk, samples);
            drop(disk);
        }
        println!("{cuts} cuts; {lost} records that were in the page cache alone were lost");
    });
}
