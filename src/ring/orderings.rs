//! The memory orderings that the ring's protocols rest on, all in one place. A trait only so that
//! `models.rs` can take one away and see that loom misses it; everything else uses [`Sound`].

use crate::sync::{Ordering, fence};

/// The orderings; what each is for is said where it is used.
pub(super) trait Orderings {
    /// Of the commit word's store in `SlotWriter::commit`.
    const STORE_COMMIT: Ordering = Ordering::Release;
    /// Of the commit word's first load in `slot::copy`.
    const LOAD_COMMIT: Ordering = Ordering::Acquire;
    /// Of the check word's store in `dictionary::write`.
    const STORE_ENTRY: Ordering = Ordering::Release;
    /// Of the check word's load in `dictionary::copy`.
    const LOAD_ENTRY: Ordering = Ordering::Acquire;

    /// Between the busy mark and the record, in `SlotWriter::begin`.
    #[inline]
    fn fence_begin() {
        fence(Ordering::Release);
    }

    /// Between the copied words and the second look at the commit word, in `slot::copy`.
    #[inline]
    fn fence_copy() {
        fence(Ordering::Acquire);
    }
}

/// The orderings as they are needed.
pub(super) struct Sound;

impl Orderings for Sound {}
