//! A terminal with a user in front of it.

use super::{Cmd, Live, wait_until};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The terminal. What is shown on it is kept.
pub struct Terminal {
    keyboard: File,
    screen: JoinHandle<()>,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command as the foreground process group of a terminal of its own.
    pub fn start(mut cmd: Cmd) -> (Terminal, Live) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = openpt(flags).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let far = File::from(ioctl_tiocgptpeer(&near, flags).unwrap());
        let mut keyboard = File::from(near);
        let stdin = far.try_clone().unwrap();
        cmd.command.stdin(stdin).stdout(far.try_clone().unwrap()).stderr(far.try_clone().unwrap());
        // SAFETY: two system calls, which allocate nothing and take no lock; descriptor 0 is the
        // terminal by now.
        unsafe {
            cmd.command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(BorrowedFd::borrow_raw(0))?;
                Ok(())
            });
        }
        let mut near = keyboard.try_clone().unwrap();
        let live = cmd.spawn(far.try_clone().unwrap(), far);
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = text.clone();
        let screen = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // It ends with an error when nobody has the other side open any more.
            while let Ok(count @ 1..) = near.read(&mut chunk) {
                kept.lock().unwrap().extend_from_slice(&chunk[..count]);
            }
        });
        keyboard.flush().unwrap();
        (Terminal { keyboard, screen, text }, live)
    }

    pub fn types(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
    }

    /// Waits until that is shown.
    pub fn wait_for(&self, words: &str) {
        wait_until(words, || self.so_far().contains(words).then_some(()));
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// All that was shown, once everybody is gone.
    pub fn shown(self) -> String {
        let Terminal { screen, text, .. } = self;
        screen.join().unwrap();
        let text = text.lock().unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}
