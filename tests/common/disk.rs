//! A disk of a test's own: an ext4 in a file, on a loop device. It can be frozen, filled, broken and
//! copied as a power cut would leave it. Needs root, and a mount namespace of the test's own.

use super::{DEADLINE, mount, wait_until};
use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An ext4 mounted over a directory, as long as this value lives. Beside it lies the file that it
/// is in.
pub struct LoopExt4 {
    dir: PathBuf,
    image: PathBuf,
}

impl LoopExt4 {
    /// Makes one of `size`, as `truncate` takes it, over `dir`, which is made; `mkfs` are options of
    /// `mkfs.ext4`.
    pub fn over(dir: &Path, size: &str, mkfs: &[&str]) -> LoopExt4 {
        fs::create_dir_all(dir).unwrap();
        let image = dir.with_extension("ext4");
        run("truncate", &["-s", size, utf8(&image)]);
        run("mkfs.ext4", &[mkfs, &["-q", "-F", utf8(&image)]].concat());
        Self::mounted(dir, &image)
    }

    /// As it would be found after a power cut just now: what has not reached the device is lost.
    /// Mounted over another directory.
    pub fn after_a_power_cut(&self, dir: &Path) -> LoopExt4 {
        fs::create_dir_all(dir).unwrap();
        let image = dir.with_extension("ext4");
        fs::copy(&self.image, &image).unwrap();
        Self::mounted(dir, &image)
    }

    fn mounted(dir: &Path, image: &Path) -> LoopExt4 {
        // `-o loop`: the device goes with the mount, even if this process is killed.
        mount(&["-t", "ext4", "-o", "loop", utf8(image), utf8(dir)]);
        let _ = fs::remove_dir(dir.join("lost+found"));
        LoopExt4 { dir: dir.to_owned(), image: image.to_owned() }
    }

    /// Lets nobody change anything on it, as long as the result lives. To be made after whatever may
    /// come to wait for it, so that it goes before that is waited for.
    pub fn freeze(&self) -> Frozen {
        run("fsfreeze", &["-f", utf8(&self.dir)]);
        // A test that hangs must not do so for ever.
        let script = format!("sleep {}; fsfreeze -u \"$0\"", 2 * DEADLINE.as_secs());
        let mut guard = Command::new("sh");
        guard.args(["-c", &script, utf8(&self.dir)]).stderr(Stdio::null());
        Frozen { dir: self.dir.clone(), guard: guard.spawn().unwrap() }
    }

    /// Has it fail as after an error that a journal does not survive: nothing can be written any
    /// more.
    pub fn break_down(&self) {
        let found =
            Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.dir).output().unwrap();
        let device = String::from_utf8(found.stdout).unwrap();
        let name = Path::new(device.trim()).file_name().unwrap();
        let trigger = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
        remount(&self.dir, "errors=remount-ro");
        fs::write(trigger, "a test").unwrap();
    }
}

impl Drop for LoopExt4 {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.dir).stderr(Stdio::null()).status();
        let _ = Command::new("umount").arg("--lazy").arg(&self.dir).status();
        let _ = fs::remove_file(&self.image);
    }
}

/// A frozen file system; thawed when this value goes.
pub struct Frozen {
    dir: PathBuf,
    guard: Child,
}

impl Frozen {
    pub fn thaw(self) {}
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let thawed = Command::new("fsfreeze").arg("-u").arg(&self.dir).status();
        assert!(std::thread::panicking() || thawed.unwrap().success());
    }
}

/// Mounts anew with other options; only where nobody is in the way.
pub fn remount(dir: &Path, options: &str) {
    mount(&["-o", &format!("remount,{options}"), utf8(dir)]);
}

/// Waits until the thread of that name is kept waiting by a disk, and cannot even be killed.
pub fn wait_until_stopped_by_a_disk(pid: Pid, thread: &str) {
    let what = format!("{thread} to wait for its disk");
    wait_until(&what, || is_stopped_by_a_disk(pid, thread).then_some(()));
}

/// Whether the thread of that name is in uninterruptible sleep (proc(5), state `D`).
pub fn is_stopped_by_a_disk(pid: Pid, thread: &str) -> bool {
    // `number (name) state ...`
    of_thread(pid, thread, "stat").is_some_and(|stat| stat.contains(") D "))
}

/// Waits until the thread of that name waits for another thread: it is not in the middle of
/// anything.
pub fn wait_until_idle(pid: Pid, thread: &str) {
    let futex = libc::SYS_futex.to_string();
    wait_until(&format!("{thread} to have nothing to do"), || {
        let syscall = of_thread(pid, thread, "syscall")?;
        (syscall.split(' ').next() == Some(&futex)).then_some(())
    });
}

/// How long the thread of that name has been kept from running by others that did, ns
/// (`Documentation/scheduler/sched-stats.rst`).
pub fn kept_from_running_ns(pid: Pid, thread: &str) -> u64 {
    let text = of_thread(pid, thread, "schedstat").unwrap();
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A file of proc(5) of the thread of that name, if there is such a thread.
fn of_thread(pid: Pid, thread: &str, file: &str) -> Option<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).ok()?;
    let read = |task: &Path, file| fs::read_to_string(task.join(file)).unwrap_or_default();
    let mut tasks = tasks.flatten().map(|task| task.path());
    let task = tasks.find(|task| read(task, "comm").trim_end() == thread)?;
    Some(read(&task, file))
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}
