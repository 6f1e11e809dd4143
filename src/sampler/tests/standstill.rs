//! A mirror whose disk stands still while the run goes on: what waits for it is what is still wanted.

use super::power::{Event, Medium, Replay};
use super::*;
use crate::sampler::copier::Copier;
use crate::sampler::disk::Disk;
use crate::units::Bytes;
use std::sync::{Condvar, Mutex};

/// A disk that makes no file while it stands still.
#[derive(Clone, Default)]
struct Still {
    medium: Medium,
    stands: Arc<(Mutex<bool>, Condvar)>,
    /// How nice whoever made its files was then.
    nice: Arc<Mutex<Vec<i32>>>,
}

impl Still {
    fn stand(&self, stands: bool) {
        *self.stands.0.lock().unwrap() = stands;
        self.stands.1.notify_all();
    }
}

impl Disk for Still {
    type File = <Medium as Disk>::File;

    fn create(&self, name: &str, bytes: Bytes) -> std::io::Result<Self::File> {
        self.nice.lock().unwrap().push(own_nice());
        let (stands, moved) = &*self.stands;
        drop(moved.wait_while(stands.lock().unwrap(), |stands| *stands).unwrap());
        self.medium.create(name, bytes)
    }

    fn remove(&self, name: &str, file: &Self::File) {
        self.medium.remove(name, file);
    }

    fn damage(&self, name: &str, file: &Self::File, bytes: Bytes) -> Option<(&'static str, bool)> {
        self.medium.damage(name, file, bytes)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.medium.sync()
    }

    fn shown(&self) -> String {
        self.medium.shown()
    }
}

fn own_nice() -> i32 {
    rustix::process::getpriority_process(None).unwrap()
}

/// Keeps so many samples of `host`, with a mirror on `disk`.
fn mirrored(host: &Host, kept: u64, disk: &Still) -> (SamplerSettings, Mirror) {
    let mut settings = host.settings(kept);
    let mirror_settings = MirrorSettings {
        dir: PathBuf::new(),
        interval: Duration::from_nanos(INTERVAL_NS),
        sync_interval: Duration::from_secs(3600),
        copy_interval: Duration::from_secs(3600),
        max_samples: kept,
    };
    settings.plan.mirror_dir = Some(PathBuf::from("/the/model"));
    settings.plan.spare_slots = mirror_settings.spare_slots();
    (settings, Mirror::start_on(disk.clone(), mirror_settings).unwrap())
}

/// What is durable on the disk, and how many files it took.
fn durable(disk: &Still) -> (Decoder, u64) {
    let (mut replay, mut made) = (Replay::default(), 0);
    for event in disk.medium.take_log() {
        replay.step(&event);
        made += u64::from(matches!(event, Event::Create(..)));
    }
    let begun = replay.files.iter().filter(|(_, content)| content.is_begun());
    let rings = begun.map(|(name, content)| {
        Ring::new(Box::new(content.durable.clone()), Path::new(name)).unwrap()
    });
    (Decoder::new(rings.collect()).unwrap(), made)
}

#[test]
fn after_a_standstill_only_what_is_still_wanted_is_written() {
    const KEPT: u64 = 5;
    let (host, disk) = (Host::new(), Still::default());
    let (settings, mirror) = mirrored(&host, KEPT, &disk);
    let now_ns = Arc::new(AtomicU64::new(START_NS));
    let script = |wake: u64| {
        if wake == 4 {
            disk.stand(true);
        }
        // Another layout for each sample.
        host.write("vmstat", &format!("counter_{wake} {wake}\n"));
        (wake < 150).then_some(0)
    };
    let clock = FakeClock { now_ns, wakes: 0, script };
    let (sleeper, _) =
        Sleeper::begin(settings, clock, Control::default(), Some(mirror.feed()), None).unwrap();
    let end = sleeper.run();
    disk.stand(false);
    let mirrored = mirror.finish(Duration::from_secs(60));
    assert_eq!((mirrored.error, mirrored.complete), (None, true));
    let (mut decoder, made) = durable(&disk);
    let summary = decoder.summary().clone();
    assert_eq!((summary.samples_taken, summary.samples_kept, summary.samples_lost), (151, KEPT, 0));
    assert_eq!(decoder.data().unwrap().samples_by_host, data(&end.segments).samples_by_host);
    // Before it stood still, then the one that it stood still with, and what is wanted.
    assert!(made <= 4 + 1 + KEPT + 1, "{made} files were made");
}

#[test]
fn what_waits_for_the_disk_outlives_whoever_recorded_it() {
    for panics in [false, true] {
        let (host, disk) = (Host::new(), Still::default());
        let (settings, mirror) = mirrored(&host, 50, &disk);
        let feed = mirror.feed();
        let now_ns = Arc::new(AtomicU64::new(START_NS));
        let its_disk = disk.clone();
        let script = move |wake: u64| {
            if wake == 4 {
                its_disk.stand(true);
            }
            host.write("vmstat", &format!("counter_{wake} {wake}\n"));
            assert!(wake < 20 || !panics, "a bug");
            (wake < 20).then_some(0)
        };
        let end = std::thread::spawn(move || {
            let clock = FakeClock { now_ns, wakes: 0, script };
            let (sleeper, _) =
                Sleeper::begin(settings, clock, Control::default(), Some(feed), None).unwrap();
            sleeper.run()
        });
        let end = end.join().unwrap_or_default();
        // In private memory, and nobody else has it.
        drop(end.segments);
        disk.stand(false);
        let mirrored = mirror.finish(Duration::from_secs(60));
        assert_eq!((mirrored.error, mirrored.complete), (None, true), "{panics}");
        let summary = durable(&disk).0.summary().clone();
        let taken = if panics { 20 } else { 21 };
        assert_eq!((summary.samples_taken, summary.samples_kept), (taken, taken), "{panics}");
        assert_eq!((summary.samples_lost, summary.ended_cleanly), (0, !panics));
        let said = end.notes.iter().any(|note| note.contains("panicked after 20 samples"));
        assert_eq!(said, panics, "{:?}", end.notes);
    }
}

#[test]
fn a_segment_that_is_gone_before_it_is_copied_is_said() {
    let disk = Still::default();
    let mut copier = Copier::new(disk, 9);
    copier.add(original(b"{}".to_vec(), 1, 10).downgrade());
    copier.copy();
    let end = copier.finish();
    let expected = "no complete mirror in the model: the memory of 00000.ring was gone before it could \
        be copied, with the samples from number 0 on; please report this";
    assert_eq!((end.error.as_deref(), end.complete), (Some(expected), false));
}

#[test]
fn who_starts_a_run_waits_for_a_file_behind_nobody() {
    let (host, disk) = (Host::new(), Still::default());
    let (settings, mirror) = mirrored(&host, 50, &disk);
    let script = |wake: u64| {
        host.write("vmstat", &format!("counter_{wake} {wake}\n"));
        (wake < 20).then_some(0)
    };
    let clock = FakeClock { now_ns: Arc::new(AtomicU64::new(START_NS)), wakes: 0, script };
    let (sleeper, _) =
        Sleeper::begin(settings, clock, Control::default(), Some(mirror.feed()), None).unwrap();
    let end = sleeper.run();
    assert!(mirror.finish(Duration::from_secs(60)).complete);
    assert!(end.segments.len() > 1);
    let nice = disk.nice.lock().unwrap();
    assert_eq!(nice[0], own_nice());
    assert!(nice.len() > 1 && nice[1..].iter().all(|&nice| nice == 19), "{nice:?}");
}
