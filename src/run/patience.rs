//! Waiting for a disk, but not for ever: work that a frozen or dead disk could hold up is done on a
//! thread of its own, and left behind if it does not come back.

use std::time::Duration;

/// How long the start of a run, and its end, wait for one thing that the mirror's disk is to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What `work` returns, or `None` if it takes longer than `patience` or there can be no thread.
pub(crate) fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    within_or(patience, work, drop)
}

/// As [`within`]; `unwanted` gets what comes too late.
pub(super) fn within_or<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
    unwanted: impl FnOnce(T) + Send + 'static,
) -> Option<T> {
    let (outbox, inbox) = crossbeam::channel::bounded(1);
    std::thread::Builder::new()
        .name("rs-disk".to_owned())
        .spawn(move || {
            if let Err(late) = outbox.send(work()) {
                unwanted(late.into_inner());
            }
        })
        .ok()?;
    inbox.recv_timeout(patience).ok()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn work_that_does_not_come_back_is_left_behind() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (_keep, never) = crossbeam::channel::bounded::<()>(0);
        assert_eq!(within(Duration::from_millis(10), move || never.recv().is_ok()), None);
    }
}
