//! What keeps a ring file that somebody else cuts off from ending this process. A store to a page
//! of a map that its file no longer has is a SIGBUS; its handler here puts zeroed memory of the
//! process's own in the place of the lost pages, marks the map as lost, and the store is repeated.
//! One of the few files with `unsafe` in it.
//!
//! The handler is installed once, with the first map of a file, and is for addresses in such maps
//! alone: for all others it does what was in force before it. It takes no lock, allocates nothing,
//! and leaves `errno` as it was (signal-safety(7)).

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError};

/// Maps of files that this process can have at a time. A ring that finds no place here is kept in
/// private memory.
const MAX_MAPS: usize = 2048;

/// One guarded map. The owner writes `start` and `end` while `version` is even; the handler
/// believes them if `version` is odd before and behind its look at them.
struct Entry {
    version: AtomicU64,
    start: AtomicUsize,
    end: AtomicUsize,
    /// From here to `end` the map is memory of the process's own.
    lost_from: AtomicUsize,
}

impl Entry {
    const fn unused() -> Entry {
        Entry {
            version: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            lost_from: AtomicUsize::new(0),
        }
    }

    /// The end of the map, if `address` lies in it.
    fn end_if_has(&self, address: usize) -> Option<usize> {
        // Pairs with the store in `Guarded::new`: start and end are those of this version.
        let version = self.version.load(Ordering::Acquire);
        if version & 1 == 0 {
            return None;
        }
        let start = self.start.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        // Keeps the loads above before the one below. Pairs with the fence in `Guarded::new`.
        fence(Ordering::Acquire);
        let unchanged = self.version.load(Ordering::Relaxed) == version;
        (unchanged && (start..end).contains(&address)).then_some(end)
    }
}

static ENTRIES: [Entry; MAX_MAPS] = [const { Entry::unused() }; MAX_MAPS];
/// What was in force before our handler.
static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::uninit()));
/// For whoever makes or ends a map; the handler does not take it. Whether the handler is installed.
static INSTALLED: Mutex<bool> = Mutex::new(false);
/// So that the handler does not ask for it; 0 until it is installed.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, under `INSTALLED`, before the handler that reads it is in force for any
// map of ours; `PAGE_BYTES` hands it over (its store and load name each other).
unsafe impl Sync for Previous {}

/// A map that the handler knows, until this value is dropped: before the map is.
pub(super) struct Guarded(&'static Entry);

impl Guarded {
    /// Guards the map of a file at `start`, `bytes` long, both of whole pages.
    ///
    /// # Errors
    /// The kernel's, if the handler cannot be installed; `OutOfMemory` if there are too many maps.
    pub fn new(start: usize, bytes: usize) -> io::Result<Guarded> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*installed {
            install()?;
            *installed = true;
        }
        let is_free = |entry: &&Entry| entry.version.load(Ordering::Relaxed) & 1 == 0;
        let entry = ENTRIES.iter().find(is_free).ok_or_else(|| {
            io::Error::new(io::ErrorKind::OutOfMemory, "too many rings in one process")
        })?;
        // A handler that believed what is stored here in the version before this one would have
        // seen that one's end first. Pairs with the fence in `end_if_has`.
        fence(Ordering::Release);
        let end = start.saturating_add(bytes);
        entry.start.store(start, Ordering::Relaxed);
        entry.end.store(end, Ordering::Relaxed);
        entry.lost_from.store(end, Ordering::Relaxed);
        // Pairs with the load in `end_if_has`.
        entry.version.fetch_add(1, Ordering::Release);
        Ok(Guarded(entry))
    }

    /// How many bytes of the map, from its start, still are the file's. Those behind them are
    /// memory of this process.
    #[inline]
    pub fn bytes_of_file(&self) -> usize {
        // Tells what has happened to the map, and hands nothing over.
        let lost_from = self.0.lost_from.load(Ordering::Relaxed);
        lost_from - self.0.start.load(Ordering::Relaxed)
    }

    /// Whether the file has lost a page that was needed.
    #[inline]
    pub fn is_lost(&self) -> bool {
        self.0.lost_from.load(Ordering::Relaxed) != self.0.end.load(Ordering::Relaxed)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _lock = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        // The next owner's stores come behind it: see the fence in `new`.
        self.0.version.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets SIGBUS through to the calling thread, which may have inherited a mask that holds back every
/// signal: the kernel ends a process for one that a fault raises and that is blocked.
pub(crate) fn let_through() {
    // SAFETY: both calls write `set`, a valid `sigset_t`, and the last changes nothing but the
    // calling thread's mask, see sigsetops(3) and pthread_sigmask(3).
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

fn install() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: zero is a valid value of every field of `sigaction`. `PREVIOUS` is written here alone,
    // under the lock that the caller holds, and only as long as the handler is not installed: until
    // the store below the handler does not read it. `sigaction` reads `action`, writes the previous
    // one to the place that it is given, and changes nothing else, see sigaction(2); `sysconf` gives
    // a number. The handler
    // has the signature that `SA_SIGINFO` asks for and is async-signal-safe, see there.
    let result = unsafe {
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(0);
        libc::sigaction(libc::SIGBUS, std::ptr::null(), (*PREVIOUS.0.get()).as_mut_ptr());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        // Pairs with the load in `on_sigbus`: a handler that sees it may read `PREVIOUS`.
        PAGE_BYTES.store(page, Ordering::Release);
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: `__errno_location` gives the calling thread's own `errno`, valid as long as it runs.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: with `SA_SIGINFO` the kernel gives a `siginfo_t` that is valid while the handler
    // runs. `si_addr` is read only where the kernel has set it: with the code of a page that is not
    // there.
    let (code, address) = unsafe {
        let code = (*info).si_code;
        (code, if code == libc::BUS_ADRERR { (*info).si_addr() as usize } else { 0 })
    };
    // Memory that is defective is no page that was cut off: it would be found so again and again.
    if !(code == libc::BUS_ADRERR && replace_page(address)) {
        pass_on(signal, info, context, code > 0);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Puts zeroed memory where the file has nothing any more, from the page of `address` on. `false`
/// if the address is not in a map of ours or there is no memory.
fn replace_page(address: usize) -> bool {
    // Pairs with the store in `install`.
    let page = PAGE_BYTES.load(Ordering::Acquire);
    let found = ENTRIES.iter().find(|entry| entry.end_if_has(address).is_some());
    let (Some(entry), true) = (found, page.is_power_of_two()) else { return false };
    let from = address & !(page - 1);
    // Each page is replaced by the one thread that takes it from the file's part: what is stored
    // in it later is not thrown away. Whoever comes second repeats its store until the first is
    // done. All that is shared is this one word.
    let to = entry.lost_from.fetch_min(from, Ordering::Relaxed);
    if to <= from {
        return true;
    }
    // SAFETY: `from..to` are whole pages of a map of ours, which stays mapped as long as its entry
    // is in the table, and the thread that faulted on it borrows it. They are accessed through
    // atomics alone, and any bits are valid words, so that new zeros under them break nothing that
    // Rust relies on. With `MAP_FIXED` the kernel replaces the pages in one step; `mmap` is a bare
    // system call, safe in a handler.
    let replaced = unsafe {
        libc::mmap(
            from as *mut libc::c_void,
            to - from,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    replaced != libc::MAP_FAILED
}

/// Does what was in force before this handler, as if it were not there.
fn pass_on(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    is_fault: bool,
) {
    // SAFETY: the handler is in force, so `install` has filled `PREVIOUS`, before the store that
    // the load in `replace_page` or this one sees; it is never written again.
    let previous = unsafe {
        if PAGE_BYTES.load(Ordering::Acquire) == 0 {
            return;
        }
        (*PREVIOUS.0.get()).assume_init_ref()
    };
    match previous.sa_sigaction {
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: zero is a valid `sigaction`, of the default action. `sigaction` and `raise`
            // are async-signal-safe. A fault happens again as soon as the handler returns; a signal
            // that was sent is sent again, and waits until then.
            unsafe {
                let action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
                if !is_fault {
                    libc::raise(signal);
                }
            }
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: whoever installed it with `SA_SIGINFO` has given a function of this type,
            // and it gets what the kernel has given to this one.
            unsafe {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
        }
        handler => {
            // SAFETY: without `SA_SIGINFO` it is a function of the signal's number alone.
            unsafe {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}
