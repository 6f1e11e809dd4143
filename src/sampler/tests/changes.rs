//! Hosts that change while they are recorded: devices, names, files and layouts that come, go and
//! grow. Nothing is lost, nothing is attributed to another, and memory stays bounded.

use super::*;

#[test]
fn more_devices_than_spare_room_begin_a_new_segment_and_lose_nothing() {
    let host = Host::new();
    let many: Vec<(u32, u32, String, u64)> =
        (0..500).map(|minor| (259, minor, format!("nvme{minor}n1"), u64::from(minor))).collect();
    let many: Vec<_> = many.iter().map(|(a, b, name, d)| (*a, *b, name.as_str(), *d)).collect();
    let segments = host.record(100, |wake| {
        match wake {
            2 => host.disks(&many),
            4 => host.disks(&many[250..]),
            _ => {}
        }
        (wake <= 5).then_some(0)
    });
    assert_eq!(segments.len(), 2);
    let samples = samples(&segments);
    assert_eq!(samples.len(), 7);
    for (index, sample) in samples.iter().enumerate() {
        let expected: Vec<(&str, i128)> = match index {
            0 | 1 => vec![("sda", 1)],
            2 | 3 => many.iter().map(|(_, _, name, value)| (*name, (*value).into())).collect(),
            _ => many[250..].iter().map(|(_, _, name, value)| (*name, (*value).into())).collect(),
        };
        assert_eq!(disks(sample), expected, "sample {index}");
        assert_eq!(sample.errors, None, "sample {index}");
    }
}

#[test]
fn a_table_that_takes_the_spare_room_of_others_costs_them_nothing() {
    // Between "fits" and "does not fit itself" lie the numbers where another source is the one
    // that no longer fits.
    for count in 10..70 {
        let host = Host::new();
        let lines: Vec<String> = (0..180).map(|line| format!("counter_{line} {line}\n")).collect();
        host.write("vmstat", &lines.concat());
        let names: Vec<String> = (0..count).map(|minor| format!("sd{minor}")).collect();
        let disks: Vec<_> =
            (0..).zip(&names).map(|(minor, name)| (8, minor, &name[..], 1)).collect();
        host.disks(&disks[..10]);
        let segments = host.record(20, |wake| {
            if wake == 2 {
                host.disks(&disks);
            }
            (wake <= 5).then_some(0)
        });
        assert!(segments.len() <= 2, "{count} disks: {} segments", segments.len());
        for sample in samples(&segments) {
            assert_eq!(sample.errors, None, "{count} disks");
            assert_eq!(sample.vmstat.unwrap().len(), 180, "{count} disks");
            assert_eq!(sample.netdev.unwrap().len(), 1, "{count} disks");
        }
    }
}

#[test]
fn a_name_that_returns_as_another_device_is_told_apart() {
    let host = Host::new();
    let segments = host.record(100, |wake| {
        match wake {
            1 => host.disks(&[]),
            2 => host.disks(&[(8, 16, "sda", 5)]),
            3 => host.disks(&[(8, 0, "sda", 6)]),
            _ => {}
        }
        (wake <= 3).then_some(0)
    });
    assert_eq!(segments.len(), 1, "a change of devices alone is no new segment");
    let samples = samples(&segments);
    let seen: Vec<_> = samples.iter().map(disks).collect();
    assert_eq!(
        seen,
        [vec![("sda", 1)], vec![], vec![("sda", 5)], vec![("sda", 6)], vec![("sda", 6)]]
    );
    let summary = decoder(&segments).summary().clone();
    let instances: Vec<_> = summary.instances["diskstats"]
        .iter()
        .map(|disk| (disk.major, disk.minor, disk.first_tick, disk.last_tick))
        .collect();
    assert_eq!(instances, [(Some(8), Some(0), 0, 3), (Some(8), Some(16), 2, 2)]);
}

#[test]
fn more_names_than_a_dictionary_holds_lose_nothing() {
    let host = Host::new();
    let segments = host.record(10_000, |wake| {
        host.disks(&[(253, wake as u32, &format!("dm-{wake}"), wake)]);
        (wake <= 6000).then_some(0)
    });
    assert!(segments.len() > 1);
    let samples = samples(&segments);
    assert_eq!(samples.len(), 6002);
    for (tick, sample) in samples.iter().enumerate().skip(1) {
        assert_eq!(disks(sample), [(format!("dm-{tick}").as_str(), tick as i128)]);
    }
}

#[test]
fn a_kernel_file_that_gains_a_line_begins_a_new_segment() {
    let host = Host::new();
    let segments = host.record(100, |wake| {
        if wake == 2 {
            host.write("vmstat", "nr_free_pages 11\nnew_counter 5\npgpgin 21\n");
        }
        (wake <= 2).then_some(0)
    });
    assert_eq!(segments.len(), 2);
    let samples = samples(&segments);
    let keys = |index: usize| {
        let vmstat = samples[index].vmstat.as_ref().unwrap();
        vmstat.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(1), "nr_free_pages=10 pgpgin=20");
    assert_eq!(keys(2), "nr_free_pages=11 new_counter=5 pgpgin=21");
    assert!(samples.iter().all(|sample| sample.errors.is_none()));
}

#[test]
fn a_source_that_fails_leaves_its_error_and_the_others_go_on() {
    let host = Host::new();
    host.write("vmstat", "garbage\n");
    fs::remove_file(host.path().join("meminfo")).unwrap();
    let segments = host.record(100, |wake| {
        match wake {
            1 => host.write("loadavg", "0.52 1.00\n"),
            2 => {
                host.write("vmstat", "pgpgin 1\n");
                host.write("meminfo", "MemTotal: 5 kB\n");
            }
            _ => {}
        }
        (wake <= 2).then_some(0)
    });
    let samples = samples(&segments);
    let path = host.path().display();
    let error =
        |sample: usize, source: &str| samples[sample].errors.as_ref().unwrap()[source].clone();
    assert_eq!(
        error(0, "vmstat"),
        format!("cannot parse {path}/vmstat, line 1: a number was expected")
    );
    assert_eq!(
        error(0, "meminfo"),
        format!("cannot open {path}/meminfo: No such file or directory (os error 2)")
    );
    assert_eq!(
        error(1, "loadavg"),
        format!("cannot parse {path}/loadavg, line 1: columns are missing")
    );
    assert_eq!(
        (&samples[0].vmstat, &samples[0].meminfo, &samples[1].loadavg),
        (&None, &None, &None)
    );
    assert!(samples[0].loadavg.is_some() && samples[1].diskstats.is_some());
    // What could not be read at the start is recorded as soon as it can be.
    assert_eq!(samples[2].vmstat.as_ref().unwrap()["pgpgin"], 1);
    assert_eq!(samples[2].meminfo.as_ref().unwrap()["MemTotal"], 5);
    assert_eq!(samples[2].errors.as_ref().unwrap().keys().collect::<Vec<_>>(), ["loadavg"]);
}

#[test]
fn a_text_that_outgrows_the_buffer_is_read_whole() {
    let host = Host::new();
    let names: Vec<String> = (0..10_000).map(|index| format!("counter_{index}")).collect();
    let segments = host.record(10, |wake| {
        if wake == 1 {
            let lines: Vec<String> = names.iter().map(|name| format!("{name} 1\n")).collect();
            host.write("vmstat", &lines.concat());
        }
        (wake <= 1).then_some(0)
    });
    let samples = samples(&segments);
    assert_eq!(samples[1].vmstat.as_ref().unwrap().len(), 10_000);
    assert_eq!(samples[1].errors, None);
}

#[test]
fn a_layout_that_keeps_changing_ends_in_errors_and_not_in_memory() {
    let host = Host::new();
    let now_ns = Arc::new(AtomicU64::new(START_NS));
    let script = |wake: u64| {
        host.write("vmstat", &format!("counter_{wake} 1\n"));
        (wake <= 300).then_some(0)
    };
    let clock = FakeClock { now_ns, wakes: 0, script };
    let settings = host.settings(400);
    let (sleeper, _) = Sleeper::begin(settings, clock, Control::default(), None, None).unwrap();
    let end = sleeper.run();
    assert_eq!(end.segments.len(), 256);
    assert_eq!(end.notes.len(), 1, "said once: {:?}", end.notes);
    let samples = samples(&end.segments);
    assert_eq!(samples.len(), 302);
    assert!(samples[..256].iter().all(|sample| sample.errors.is_none()));
    let last = &samples[301];
    assert!(last.errors.as_ref().unwrap()["vmstat"].contains("layout of the file changed"));
    assert!(last.vmstat.is_none() && last.diskstats.is_some());
}

#[test]
fn segments_give_back_what_they_no_longer_need() {
    use std::os::unix::fs::MetadataExt;
    let host = Host::new();
    let segments = host.record(20, |wake| {
        if [2, 30, 35].contains(&wake) {
            host.write("vmstat", &format!("counter_{wake} 1\n"));
        }
        (wake <= 40).then_some(0)
    });
    // The first one's samples are all beyond the newest 20 when the third begins.
    let firsts: Vec<u64> = segments.iter().map(|kept| kept.segment.header().first_seq.0).collect();
    assert_eq!(firsts, [2, 30, 35]);
    let bytes = |kept: &Kept| kept.file.as_ref().unwrap().metadata().unwrap().blocks() * 512;
    let whole = segments[2].segment.header().layout.file_bytes().0;
    assert!(bytes(&segments[2]) >= whole, "the last one is all there");
    assert!(bytes(&segments[1]) < whole, "5 of 21 slots were used");
    let ticks: Vec<u64> =
        samples(&segments).iter().map(|sample| sample.collection.as_ref().unwrap().tick).collect();
    assert_eq!(ticks, (22..=40).chain([40]).collect::<Vec<_>>());
}

#[test]
fn what_has_taken_the_name_of_a_segment_stays_when_that_is_not_needed_any_more() {
    for is_taken in [false, true] {
        let (host, dir) = (Host::new(), tempfile::tempdir().unwrap());
        let name = dir.path().join(file_name(0));
        let mut settings = host.settings(20);
        settings.plan.ring_dir = Some(dir.path().to_owned());
        let segments = record(settings, |wake| {
            if [2, 30].contains(&wake) {
                host.write("vmstat", &format!("counter_{wake} 1\n"));
            }
            if wake == 25 && is_taken {
                // Of the same bytes and mode, as a copy that is put back.
                let theirs = dir.path().join("theirs");
                fs::copy(&name, &theirs).unwrap();
                fs::rename(theirs, &name).unwrap();
            }
            (wake <= 35).then_some(0)
        });
        assert_eq!(segments.len(), 2, "the first is not needed");
        assert_eq!(name.exists(), is_taken);
        assert!(dir.path().join(file_name(1)).exists());
    }
}
