//! The memory orderings that the ring's protocols rest on, all in one place. A trait only so that
//! `models.rs` can take one away and see that loom misses it; everything else uses [`Sound`].

use crate::sync::{Ordering, fence};

/// Where an ordering is needed; what it is for is said where it is used. `models.rs` has a model for
/// each, and a test that there is no ordering beside these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// Release: the fence between the busy mark and the record, in `SlotWriter::begin`.
    BeginFence,
    /// Release: the commit word's store, in `SlotWriter::commit_draft`.
    CommitStore,
    /// Acquire: the commit word's first load, in `slot::copy`.
    CommitLoad,
    /// Acquire: the fence between the copied words and the second look at the commit word, in
    /// `slot::copy`.
    CopyFence,
    /// Release: the check word's store, in `dictionary::write_with`.
    EntryStore,
    /// Acquire: the check word's load, in `dictionary::copy_with`.
    EntryLoad,
    /// Release: the store of the header's magic, the last of all, in `Segment::create`.
    HeaderStore,
}

/// The orderings; [`Point`] says where each is used.
pub(super) trait Orderings {
    /// The one that is taken away.
    const WITHOUT: Option<Point>;

    /// Of a store.
    #[inline]
    fn release(point: Point) -> Ordering {
        if Self::WITHOUT == Some(point) { Ordering::Relaxed } else { Ordering::Release }
    }

    /// Of a load.
    #[inline]
    fn acquire(point: Point) -> Ordering {
        if Self::WITHOUT == Some(point) { Ordering::Relaxed } else { Ordering::Acquire }
    }

    /// A fence of its own.
    #[inline]
    fn fence(point: Point, ordering: Ordering) {
        if Self::WITHOUT != Some(point) {
            fence(ordering);
        }
    }
}

/// The orderings as they are needed.
pub(super) struct Sound;

impl Orderings for Sound {
    const WITHOUT: Option<Point> = None;
}
