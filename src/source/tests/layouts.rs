//! A kernel, or a module that is loaded, changes which counters a file has: values move with
//! their names or are probed anew, and never shift.

use super::*;

/// The layout at hand refuses `changed`; probed anew, it says what the naive reading says.
fn relayouts(source: &str, text: &str, changed: &str) -> Vec<Row> {
    let mut lab = Lab::new(source, text).unwrap();
    lab.values(text);
    assert_eq!(lab.parse(changed), (Parsed::Relayout, vec![]), "{changed}");
    let rows = lab.values(changed);
    assert_eq!(rows, naive::read(source, changed.as_bytes()));
    assert_eq!(lab.values(text), naive::read(source, text.as_bytes()), "and back");
    rows
}

#[test]
fn a_counter_added_removed_renamed_or_moved_is_another_layout() {
    for (source, text, new) in [("vmstat", VMSTAT, "new 7\n"), ("meminfo", MEMINFO, "New: 7 kB\n")]
    {
        let lines: Vec<&str> = lines_of(text).collect();
        for at in 0..=lines.len() {
            let (before, after) = lines.split_at(at);
            let before: String = before.concat();
            let added = format!("{before}{new}{}", after.concat());
            assert_eq!(relayouts(source, text, &added)[0].1.len(), lines.len() + 1);
            let Some((line, after)) = after.split_first() else { continue };
            let removed = before.clone() + &after.concat();
            assert_eq!(relayouts(source, text, &removed)[0].1.len(), lines.len() - 1);
            for renamed in [format!("x{line}"), line[1..].to_owned()] {
                relayouts(source, text, &format!("{before}{renamed}{}", after.concat()));
            }
            let Some((next, after)) = after.split_first() else { continue };
            relayouts(source, text, &format!("{before}{next}{line}{}", after.concat()));
        }
    }
}

#[test]
fn a_value_that_only_gets_longer_or_shorter_is_the_same_layout() {
    let mut lab = Lab::new("vmstat", VMSTAT).unwrap();
    for value in ["0", "7", "18446744073709551615"] {
        let text = with(VMSTAT, "pgfault 440120933", &format!("pgfault {value}"));
        assert_eq!(one(&lab.values(&text), "pgfault"), value.parse().unwrap());
    }
    assert_eq!(lab.probes, 1);
}

/// The published format drops the unit, so all that can be promised for a lost one is that it was
/// noticed.
#[test]
fn a_unit_lost_or_gained_is_another_layout_and_another_unit_is_a_fault() {
    let total = "MemTotal:       24684084 kB";
    let rows = relayouts("meminfo", MEMINFO, &with(MEMINFO, total, "MemTotal:       24684084"));
    assert_eq!(one(&rows, "MemTotal"), 24684084);
    let gained = with(MEMINFO, "HugePages_Total:      512", "HugePages_Total:      512 kB");
    assert_eq!(one(&relayouts("meminfo", MEMINFO, &gained), "HugePages_Total"), 512);
    for unit in ["MB", "KB", "kBit", "kB ", "k", "B", "pages", "kB kB"] {
        let text = with(MEMINFO, total, &format!("MemTotal:       24684084 {unit}"));
        let mut lab = Lab::new("meminfo", MEMINFO).unwrap();
        assert_eq!(lab.parse(&text), (nothing(Reason::UnknownUnit, 1), vec![]), "{unit:?}");
        let probed = Lab::new("meminfo", &text).err();
        assert_eq!(probed, Some(Fault::at(Reason::UnknownUnit, 1)), "{unit:?}");
    }
}

#[test]
fn a_counter_that_turns_negative_is_probed_anew_and_is_negative() {
    let text = with(VMSTAT, "nr_writeback 310", "nr_writeback -310");
    let rows = relayouts("vmstat", VMSTAT, &text);
    assert_eq!((one(&rows, "nr_writeback"), one(&rows, "numa_hit")), (-310, u64::MAX.into()));
    let text = with(MEMINFO, "Writeback:             0 kB", "Writeback:            -1 kB");
    assert_eq!(one(&relayouts("meminfo", MEMINFO, &text), "Writeback"), -1);
    let text = with(DISKSTATS, " 1650430 127 ", " 1650430 -127 ");
    let rows = relayouts("diskstats", DISKSTATS, &text);
    assert_eq!(rows[6].1[8], ("ios_in_progress".into(), -127));
    assert_eq!(rows[5].1[8], ("ios_in_progress".into(), 128));
    let text = with(NETDEV, "   1    2    3 ", "   1   -2    3 ");
    let rows = relayouts("netdev", NETDEV, &text);
    assert_eq!(one(&rows[1..2], "rx_dropped"), -2);
}

#[test]
fn a_signed_counter_stays_as_it_is_while_its_numbers_fit() {
    let of = |value: &str| with(VMSTAT, "nr_writeback 310", &format!("nr_writeback {value}"));
    let mut lab = Lab::new("vmstat", of("-1")).unwrap();
    for value in ["-1", "0", "310", "-9223372036854775808", "9223372036854775807"] {
        assert_eq!(one(&lab.values(of(value)), "nr_writeback"), value.parse().unwrap());
    }
    assert_eq!(lab.probes, 1);
    assert_eq!(one(&lab.values(of("9223372036854775808")), "nr_writeback"), 1 << 63);
    assert_eq!(lab.probes, 2, "what only an unsigned word holds");
}

/// No layout holds both numbers, so that probing anew would not help: one row has to go.
#[test]
fn a_column_of_minus_one_and_of_all_64_bits_does_not_relayout_for_ever() {
    let text = with(DISKSTATS, " 1650430 127 ", " 1650430 -127 ");
    let text = with(&text, " 4294960001 128 ", " 4294960001 18446744073709551488 ");
    let mut lab = Lab::new("diskstats", DISKSTATS).unwrap();
    for _ in 0..2 {
        let (parsed, rows) = lab.sample(&text).unwrap();
        assert_eq!(parsed, values_and(Reason::NumberTooLarge, 6, 9));
        let mut expected = naive::read("diskstats", text.as_bytes());
        expected.remove(5);
        assert_eq!(rows, expected);
    }
    assert_eq!(lab.probes, 2);
}

#[test]
fn a_kernel_that_appends_to_diskstats_is_recorded_beside_it() {
    let mut lab = Lab::new("diskstats", DISKSTATS).unwrap();
    assert!(lab.extras().is_empty());
    let text = with(DISKSTATS, " 9931 20114\n", " 9931 20114 70021 -5\n");
    assert_eq!(lab.parse(&text), (Parsed::Relayout, vec![]));
    let rows = lab.values(&text);
    assert_eq!(lab.extras(), ["column_21", "column_22"]);
    assert_eq!(
        rows[5].1[16..],
        [("time_flushing_ms".into(), 20114), ("column_21".into(), 70021), ("column_22".into(), -5)]
    );
    assert_eq!(rows[6].1.len(), 17, "another line has no such column");
    assert_eq!(rows, naive::read("diskstats", text.as_bytes()));
}

/// From 20 columns to 14 and back, on the same line: what a row lacks is absent, not left over.
#[test]
fn fewer_columns_than_before_are_absent() {
    let short: String = lines_of(DISKSTATS)
        .map(|line| line.split_inclusive(' ').collect::<Vec<_>>())
        .map(|words| words[..words.len() - 6].concat().trim_end().to_owned() + "\n")
        .collect();
    let mut lab = Lab::new("diskstats", DISKSTATS).unwrap();
    for text in [DISKSTATS, &short, DISKSTATS, &short] {
        assert_eq!(lab.values(text), naive::read("diskstats", text.as_bytes()));
    }
    assert_eq!(lab.values(&short)[5].1.len(), 11);
    assert_eq!(lab.probes, 1);
}

#[test]
fn netdev_columns_go_by_the_headers_names() {
    let header: String = lines_of(NETDEV).take(2).collect();
    let inserted = with(NETDEV, "drop fifo frame", "drop nohandler fifo frame");
    let insert = |line: &str| {
        let (name, numbers) = line.rsplit_once(':').unwrap();
        let mut numbers: Vec<&str> = numbers.split_whitespace().collect();
        numbers.insert(4, "77");
        format!("{name}: {}\n", numbers.join(" "))
    };
    let body: String = lines_of(NETDEV).skip(2).map(insert).collect();
    let text = lines_of(&inserted).take(2).collect::<String>() + &body;
    let rows = relayouts("netdev", NETDEV, &text);
    let expected: Vec<_> = values("netdev", NETDEV)
        .into_iter()
        .map(|(name, mut counters)| {
            counters.insert(4, ("rx_nohandler".into(), 77));
            (name, counters)
        })
        .collect();
    assert_eq!(rows, expected);
    assert_eq!(Lab::new("netdev", &text).unwrap().extras(), ["rx_nohandler"]);

    let swapped = with(
        &header,
        "bytes    packets errs drop fifo frame",
        "frame packets errs drop fifo bytes",
    );
    let rows = values("netdev", &(swapped + "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"));
    assert_eq!((one(&rows, "rx_bytes"), one(&rows, "rx_frame")), (6, 1));
    assert_eq!((one(&rows, "tx_bytes"), one(&rows, "tx_collisions")), (9, 14));
}

#[test]
fn a_netdev_header_of_another_kind_is_refused() {
    for (from, to) in [
        (" face |", " name |"),
        (" face |bytes", " face  bytes"),
        ("colls carrier", "colls colls"),
        ("colls carrier", "colls | carrier"),
        ("multicast|bytes", "multicast bytes"),
        ("Transmit\n", "Transmit "),
    ] {
        let text = with(NETDEV, from, to);
        let mut lab = Lab::new("netdev", NETDEV).unwrap();
        assert_eq!(lab.parse(&text), (Parsed::Relayout, vec![]), "{to}");
        assert_eq!(lab.sample(&text).err(), Some(Fault::at(Reason::BadHeader, 2)), "{to}");
    }
}

#[test]
fn a_kernel_that_appends_to_loadavg_is_recorded_beside_it() {
    let mut lab = Lab::new("loadavg", LOADAVG).unwrap();
    let text = with(LOADAVG, " 430129\n", " 430129 5\n");
    assert_eq!(lab.parse(&text), (Parsed::Relayout, vec![]));
    let rows = lab.values(&text);
    assert_eq!(lab.extras(), ["last_pid", "column_6"]);
    assert_eq!((one(&rows, "column_6"), one(&rows, "last_pid")), (5, 430129));
    assert_eq!(lab.parse(LOADAVG), (Parsed::Relayout, vec![]), "and the column is gone again");
}
