//! Fixed texts and every value in them.

use super::*;

const NO_COUNTS: [i128; 17] = [0; 17];

#[test]
fn diskstats_of_twenty_columns() {
    let rows = values("diskstats", DISKSTATS);
    let names: Vec<&str> = rows[0].1.iter().map(|(name, _)| &name[..]).collect();
    let expected = [
        "reads_completed",
        "reads_merged",
        "sectors_read",
        "time_reading_ms",
        "writes_completed",
        "writes_merged",
        "sectors_written",
        "time_writing_ms",
        "ios_in_progress",
        "time_doing_ios_ms",
        "weighted_time_doing_ios_ms",
        "discards_completed",
        "discards_merged",
        "sectors_discarded",
        "time_discarding_ms",
        "flush_requests_completed",
        "time_flushing_ms",
    ];
    assert_eq!(names, expected);
    #[rustfmt::skip]
    let expected = [
        ("loop0", NO_COUNTS.to_vec()),
        ("loop1", vec![61, 0, 2248, 19, 0, 0, 0, 0, 0, 40, 19, 0, 0, 0, 0, 0, 0]),
        ("nvme0n1", vec![1203344, 1187, 150893912, 402311, 8830021, 412233, 1204499821, 9123004, 3,
            1883201, 9612345, 40112, 7, 982733312, 8812, 120033, 78218]),
        ("nvme0n1p1", vec![512, 3, 18440, 97, 2, 1, 16, 5, 0, 120, 102, 11, 0, 2088960, 4, 0, 0]),
        ("nvme0n1p2", vec![1202799, 1184, 150873280, 402209, 8830019, 412232, 1204499805, 9122999,
            3, 1883100, 9534016, 40101, 7, 980644352, 8808, 0, 0]),
        ("sda", vec![30211, 880, 2410912, 4294967295, 771203, 90021, 48811264, 4294960001, 128,
            601220, 3300112, 0, 0, 0, 0, 9931, 20114]),
        ("sdb", vec![30212, 881, 2410920, 13370, 771204, 90022, 48811272, 1650430, 127, 601221,
            1663800, 0, 0, 0, 0, 9932, 20115]),
        ("md0", vec![61804, 0, 4820000, 21004, 1540112, 0, 97622528, 5401220, 0, 812004, 5422224,
            0, 0, 0, 0, 0, 0]),
        ("dm-0", vec![1202601, 0, 150871001, 410022, 9241880, 0, 1204499804, 18446744073709551615,
            5, 1883344, 9900321, 40101, 0, 980644352, 8900, 0, 0]),
        ("dm-1", vec![104, 0, 5360, 12, 0, 0, 0, 0, 0, 24, 12, 0, 0, 0, 0, 0, 0]),
    ];
    assert_eq!(numbers(&rows), expected);
}

#[test]
fn a_row_has_the_columns_that_its_line_has() {
    let rows = values("diskstats", MIXED_DISKSTATS);
    #[rustfmt::skip]
    let expected = [
        ("ram0", vec![0; 11]),
        ("sda", vec![4711, 12, 90210, 3311, 20115, 811, 402118, 90114, 1, 40022, 93425]),
        ("sda1", vec![301, 0, 2408, 51, 2, 0, 16, 9, 0, 58, 60]),
        ("sdb", vec![551, 3, 44010, 720, 1902, 77, 30118, 5021, 0, 4410, 5741,
            68, 2, 660213912, 118]),
        ("sdc", vec![12031, 15, 160992, 1401, 1182, 189, 17290, 1007, 2, 9870, 2408,
            20331, 1, 440120016, 9031, 2107, 1288]),
        ("cciss/c0d0", vec![77, 1, 616, 30, 9, 4, 104, 12, 0, 38, 42]),
    ];
    assert_eq!(numbers(&rows), expected);
}

#[test]
fn half_a_group_of_columns_is_left_out() {
    let line = |count: i128| {
        let numbers: String = (1..=count).map(|number| format!(" {number}")).collect();
        format!("   8       0 sda{numbers}\n")
    };
    for (printed, shown) in [(11, 11), (12, 11), (14, 11), (15, 15), (16, 15), (17, 17)] {
        let rows = values("diskstats", &line(printed));
        assert_eq!(numbers(&rows), [("sda", (1..=shown).collect())], "{printed}");
    }
}

#[test]
fn vmstat_in_the_kernels_order() {
    let expected = [
        ("nr_free_pages", 974703),
        ("nr_zone_inactive_anon", 108859),
        ("nr_zone_active_anon", 622),
        ("nr_zone_inactive_file", 95012),
        ("nr_dirty", 12844),
        ("nr_writeback", 310),
        ("nr_slab_reclaimable", 22338),
        ("numa_hit", 18446744073709551615),
        ("numa_miss", 0),
        ("nr_dirty_threshold", 981204),
        ("nr_tlb_remote_flush", 0),
        ("pgpgin", 1204499821),
        ("pgpgout", 9223372036854775808),
        ("pswpin", 0),
        ("pswpout", 3),
        ("pgfault", 440120933),
        ("pgmajfault", 2281),
        ("pgsteal_kswapd", 77120),
        ("pgscan_direct", 44),
        ("thp_fault_alloc", 1880),
        ("unevictable_pgs_culled", 20117),
    ];
    assert_eq!(only(&values("vmstat", VMSTAT)), expected);
}

#[test]
fn meminfo_with_and_without_a_unit() {
    let expected = [
        ("MemTotal", 24684084),
        ("MemFree", 23508952),
        ("MemAvailable", 23906292),
        ("Buffers", 2492),
        ("Cached", 567828),
        ("SwapCached", 0),
        ("Active", 182932),
        ("Inactive", 812336),
        ("Active(anon)", 1536),
        ("Inactive(anon)", 432364),
        ("Active(file)", 181396),
        ("Inactive(file)", 379972),
        ("Dirty", 51880),
        ("Writeback", 0),
        ("Slab", 113260),
        ("SReclaimable", 89352),
        ("VmallocTotal", 34359738367),
        ("HardwareCorrupted", 0),
        ("HugePages_Total", 512),
        ("HugePages_Free", 500),
        ("HugePages_Rsvd", 4),
        ("HugePages_Surp", 0),
        ("Hugepagesize", 2048),
        ("Hugetlb", 1048576),
        ("DirectMap4k", 26624),
        ("DirectMap2M", 2070528),
        ("DirectMap1G", 25165824),
    ];
    assert_eq!(only(&values("meminfo", MEMINFO)), expected);
}

#[test]
fn loadavg_in_hundredths() {
    let mut lab = Lab::new("loadavg", LOADAVG).unwrap();
    let expected = [
        ("load_1min", 1205),
        ("load_5min", 99),
        ("load_15min", 10000),
        ("running_processes", 3),
        ("total_processes", 1871),
        ("last_pid", 430129),
    ];
    assert_eq!(only(&lab.values(LOADAVG)), expected);
    let kinds: Vec<Kind> = lab.fields().iter().map(|field| field.kind).collect();
    assert_eq!(kinds[..4], [Kind::Hundredths, Kind::Hundredths, Kind::Hundredths, Kind::Unsigned]);
    assert_eq!(lab.extras(), ["last_pid"], "it is not in the published format");
}

#[test]
fn netdev_with_colons_in_names_and_none_behind_them() {
    let mut lab = Lab::new("netdev", NETDEV).unwrap();
    let rows = lab.values(NETDEV);
    let expected = [
        ("rx_bytes", 77120045),
        ("rx_packets", 60118),
        ("rx_errors", 1),
        ("rx_dropped", 2),
        ("rx_fifo", 3),
        ("rx_frame", 4),
        ("rx_compressed", 5),
        ("rx_multicast", 30277),
        ("tx_bytes", 234627),
        ("tx_packets", 1729),
        ("tx_errors", 6),
        ("tx_dropped", 7),
        ("tx_fifo", 8),
        ("tx_collisions", 9),
        ("tx_carrier", 10),
        ("tx_compressed", 11),
    ];
    assert_eq!(only(&rows[1..2]), expected);
    #[rustfmt::skip]
    let expected = [
        ("lo", vec![8810022417, 902113, 0, 0, 0, 0, 0, 0, 8810022417, 902113, 0, 0, 0, 0, 0, 0]),
        ("eth0", vec![77120045, 60118, 1, 2, 3, 4, 5, 30277, 234627, 1729, 6, 7, 8, 9, 10, 11]),
        ("eth0:1", vec![480, 8, 0, 0, 0, 0, 0, 0, 960, 16, 0, 0, 0, 0, 0, 0]),
        ("eth1", vec![1234567890, 88100231, 0, 21, 0, 0, 0, 110992,
            5120033417, 71200938, 0, 64, 0, 0, 0, 0]),
        ("eth1:2", vec![123, 4, 0, 0, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 0, 0]),
        ("enp129s0f0np0", vec![18446744073709551615, 9223372036854775808, 0, 0, 0, 0, 0, 0,
            1, 2, 0, 0, 0, 0, 0, 0]),
        ("bond0.100", vec![0; 16]),
    ];
    assert_eq!(numbers(&rows), expected);
    assert!(lab.extras().is_empty());
    let glued = with(NETDEV, "eth1:2:     123 ", "eth1:2:123 ");
    assert_eq!(lab.values(&glued), rows);
}

/// The limit is on the name, wherever it stands.
#[test]
fn a_name_of_ninety_six_bytes_is_read_and_one_of_more_is_not() {
    let numbers = " 1".repeat(17);
    let header: String = lines_of(NETDEV).take(2).collect();
    for (source, before, after) in [
        ("diskstats", "   8       0 ", format!("{numbers}\n")),
        ("vmstat", "", " 5\n".into()),
        ("meminfo", "", ": 5 kB\n".into()),
        ("netdev", &header[..], format!(":{}\n", &numbers[2..])),
    ] {
        for (bytes, rows) in [(96, 1), (97, 0)] {
            let text = format!("{before}{}{after}", "n".repeat(bytes));
            let found = Lab::new(source, &text).map(|mut lab| lab.parse(&text).1.len());
            assert_eq!(found.unwrap_or(0), rows, "{source}: {bytes} bytes");
        }
    }
}

#[test]
fn the_same_text_is_the_same_values_ever_again() {
    for (source, text) in MODERN {
        let mut lab = Lab::new(source, text).unwrap();
        let first = lab.values(text);
        let entries = lab.entries.clone();
        for _ in 0..3 {
            assert_eq!((lab.values(text), &lab.entries), (first.clone(), &entries), "{source}");
        }
        assert_eq!(first, naive::read(source, text.as_bytes()), "{source}");
        assert_eq!(lab.probes, 1, "{source}");
    }
}

#[test]
fn a_source_is_found_by_its_name_and_by_its_file() {
    for (name, file) in [("netdev", "net/dev"), ("vmstat", "vmstat")] {
        let by_file = find(file).unwrap();
        assert_eq!((by_file.name, by_file.file), (name, file));
        assert_eq!(find(name).unwrap().file, file);
    }
    assert!(find("net").is_none() && find("").is_none());
}
