//! An allocator that counts, by thread. A test crate makes it its own with
//! `#[global_allocator] static COUNTING: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

thread_local! {
    static OF_THIS_THREAD: Cell<u64> = const { Cell::new(0) };
}

/// The one other thread that is watched, by its number in the kernel; 0 for none.
static WATCHED: AtomicI32 = AtomicI32::new(0);
static OF_WATCHED: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counting by thread.
pub struct Counting;

/// What the calling thread has allocated and freed so far, calls.
pub fn of_this_thread() -> u64 {
    OF_THIS_THREAD.get()
}

/// Counts the calls of thread `tid` from now on.
pub fn watch(tid: i32) {
    WATCHED.store(tid, Relaxed);
}

/// What the thread that is watched has allocated and freed since, calls.
pub fn of_watched_thread() -> u64 {
    OF_WATCHED.load(Relaxed)
}

fn count() {
    // A thread that is just ending may have no counter any more.
    let _ = OF_THIS_THREAD.try_with(|count| count.set(count.get() + 1));
    // Asked of the kernel, and only while it matters: a thread-local copy could not be filled
    // before the thread's first allocation.
    let watched = WATCHED.load(Relaxed);
    if watched != 0 && rustix::thread::gettid().as_raw_nonzero().get() == watched {
        OF_WATCHED.fetch_add(1, Relaxed);
    }
}

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract of
// `GlobalAlloc`; counting touches no memory but a thread-local `Cell` without a destructor and two
// statics, and asks the kernel for the thread's number; none of it allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
