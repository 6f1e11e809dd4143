//! How much a power cut costs: the copier at its own pace, by a clock that the test drives.

use super::*;
use crate::run::DEFAULT_SYNC_INTERVAL;
use crate::sampler::mirror::MirrorSettings;
use crate::sampler::pace::{Pace, sync_interval};
use std::time::Instant;

/// The newest record that is durable, and when it was taken.
fn newest_durable(replay: &Replay, truth: &Truth) -> Option<u64> {
    let promise = Promise::of(&replay.files, truth, u64::MAX);
    let (_, words) = &truth.records[promise.records.last()?];
    Some(words[crate::record::Common::BeginNs as usize])
}

/// A run of `ticks` with the default sync interval on a disk that takes `disk_ns` to sync. The
/// longest time, ns, from the newest sample that a cut leaves to the cut; and how many syncs.
fn worst_loss(interval_ns: u64, max_samples: u64, ticks: u64, disk_ns: u64) -> (u64, u64) {
    let host = Host::new();
    let mirror = MirrorSettings {
        dir: PathBuf::new(),
        interval: Duration::from_nanos(interval_ns),
        sync_interval: DEFAULT_SYNC_INTERVAL,
        copy_interval: Duration::from_secs(1),
        max_samples,
    };
    let mut settings = host.settings(max_samples);
    settings.sources.retain(|source| source.name == "loadavg");
    settings.plan.interval_ns = interval_ns;
    settings.plan.spare_slots = mirror.spare_slots();
    let every = sync_interval(mirror.interval, mirror.sync_interval, mirror.spare_slots());
    let start = Instant::now();
    let at = move |ns: u64| start + Duration::from_nanos(ns - START_NS);
    let mut pace = Pace::new(every, start);
    let (log, truth) = cut_off(settings, move |wake, now_ns, hand| {
        hand.hear();
        while pace.next() <= at(now_ns) {
            let begin = pace.next();
            let begin_ns = START_NS + (begin - start).as_nanos() as u64;
            let sync_follows = pace.begin(begin);
            hand.copier.copy();
            let mut end_ns = begin_ns;
            if sync_follows {
                // Until its very end, a cut undoes it.
                end_ns += disk_ns;
                hand.medium.log(Event::Time(end_ns));
                hand.copier.sync();
            }
            pace.end(at(end_ns));
        }
        wake < ticks
    });
    let (mut replay, mut worst, mut syncs) = (Replay::default(), 0, 0);
    for event in &log {
        if let Event::SyncData(_) = event {
            // Just before it is complete, and nothing of what was written since the last.
            let newest = newest_durable(&replay, &truth).unwrap_or(START_NS);
            worst = worst.max(replay.now_ns - newest);
            syncs += 1;
        }
        replay.step(event);
    }
    (worst, syncs)
}

#[test]
fn the_default_sync_interval_bounds_what_a_power_cut_costs() {
    const MS: u64 = 1_000_000;
    let bound_ns = DEFAULT_SYNC_INTERVAL.as_nanos() as u64;
    // Interval, samples to keep, ticks; syncs, which are no more than are needed.
    let rows = [
        (10_000 * MS, 3600, 60, 19..=20),
        (10_000 * MS, 6, 60, 19..=20),
        (1000 * MS, 40, 200, 6..=6),
        (100 * MS, 3600, 1000, 3..=3),
        // The ring keeps less than the sync interval: a sync for each time that it is full.
        (100 * MS, 50, 500, 10..=11),
        (MS, 60, 600, 10..=11),
    ];
    for (interval_ns, max_samples, ticks, expected) in rows {
        for disk_ns in [0, interval_ns / 2] {
            let (worst, syncs) = worst_loss(interval_ns, max_samples, ticks, disk_ns);
            println!(
                "interval {} ms, {max_samples} kept, a sync takes {} ms: {syncs} syncs, a cut costs \
                 at most {} ms",
                interval_ns / MS,
                disk_ns / MS,
                worst / MS
            );
            assert!(worst <= bound_ns + interval_ns + disk_ns, "{interval_ns} {max_samples}");
            assert!(worst > 0 && expected.contains(&syncs), "{interval_ns}: {syncs} syncs");
        }
    }
}
