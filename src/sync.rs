//! The atomics that ring words are made of: std's, or loom's while its models run
//! (`RUSTFLAGS="--cfg loom"`). Nothing else lives here.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
