//! Loop devices (`loop(4)`) that come and go, and writes to them that nothing else adds to.

use super::wait_until;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, ioctl};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

// `include/uapi/linux/loop.h`.
const LOOP_SET_FD: u32 = 0x4C00;
const LOOP_CLR_FD: u32 = 0x4C01;
const LOOP_CTL_ADD: u32 = 0x4C80;
const LOOP_CTL_REMOVE: u32 = 0x4C81;

pub const SECTOR_BYTES: u64 = 512;
/// Most that is written at once: the kernel makes one request of it.
pub const MAX_SECTORS: u64 = 64;

/// Memory as direct I/O wants it.
#[repr(align(4096))]
struct Aligned([u8; (MAX_SECTORS * SECTOR_BYTES) as usize]);

static DATA: Aligned = Aligned([0x5a; (MAX_SECTORS * SECTOR_BYTES) as usize]);

/// `/dev/loopN`, gone with this value.
pub struct Loop {
    control: File,
    number: u32,
    is_there: bool,
    device: Option<File>,
    writes: u64,
    sectors: u64,
}

impl Loop {
    /// Adds device number `number`, of which there is none, without a file behind it.
    pub fn add(number: u32) -> Loop {
        let control = File::options().read(true).write(true).open("/dev/loop-control").unwrap();
        call::<LOOP_CTL_ADD>(&control, number as usize).unwrap();
        Loop { control, number, is_there: true, device: None, writes: 0, sectors: 0 }
    }

    pub fn name(number: u32) -> String {
        format!("loop{number}")
    }

    /// Puts a file of `bytes` bytes behind it.
    pub fn attach(&mut self, bytes: u64) {
        let backing = File::from(memfd_create("ringstat-test", MemfdFlags::CLOEXEC).unwrap());
        backing.set_len(bytes).unwrap();
        let path = format!("/dev/{}", Loop::name(self.number));
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let device = File::from(rustix::fs::open(path, flags, Mode::empty()).unwrap());
        call::<LOOP_SET_FD>(&device, backing.as_raw_fd() as usize).unwrap();
        self.device = Some(device);
    }

    pub fn is_attached(&self) -> bool {
        self.device.is_some()
    }

    /// Writes `sectors` sectors at once, and waits until they are counted.
    pub fn write(&mut self, sectors: u64) {
        let bytes = &DATA.0[..(sectors * SECTOR_BYTES) as usize];
        self.device.as_ref().unwrap().write_all_at(bytes, 0).unwrap();
        self.writes += 1;
        self.sectors += sectors;
        // A request is counted just after whoever waits for it is woken.
        wait_until("a write to be counted", || (self.counted() == self.done()).then_some(()));
    }

    /// Writes and sectors so far.
    pub fn done(&self) -> [u64; 2] {
        [self.writes, self.sectors]
    }

    fn counted(&self) -> [u64; 2] {
        let stat = std::fs::read_to_string(format!("/sys/block/loop{}/stat", self.number)).unwrap();
        let numbers: Vec<u64> =
            stat.split_whitespace().map(|number| number.parse().unwrap()).collect();
        [numbers[4], numbers[6]]
    }

    /// Takes the file away and removes the device.
    pub fn remove(mut self) {
        self.go().unwrap();
    }

    fn go(&mut self) -> Result<(), Errno> {
        if let Some(device) = self.device.take() {
            call::<LOOP_CLR_FD>(&device, 0)?;
        }
        if std::mem::take(&mut self.is_there) {
            // Busy for a moment behind the last close.
            wait_until("a loop device to be removable", || {
                let result = call::<LOOP_CTL_REMOVE>(&self.control, self.number as usize);
                (result != Err(Errno::BUSY)).then_some(result)
            })?;
        }
        Ok(())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = self.go();
    }
}

fn call<const REQUEST: u32>(file: impl AsFd, argument: usize) -> Result<(), Errno> {
    // SAFETY: each of these requests takes a number and touches no memory of this process, see
    // loop(4).
    unsafe { ioctl(file, IntegerSetter::<REQUEST>::new_usize(argument)) }
}
