//! Text that no kernel prints: every value that is shown all the same is right, and the first
//! line that was passed over is named.

use super::*;

/// Every value in `rows` stands in the whole text, under the same instance and name. What is
/// missing may be missing.
fn assert_part_of(rows: &[Row], whole: &[Row], what: &str) {
    for (instance, counters) in rows {
        let found = whole.iter().find(|row| row.0 == *instance);
        let known = &found.unwrap_or_else(|| panic!("{what}: {instance} is not there")).1;
        for counter in counters {
            assert!(known.contains(counter), "{what}: {instance} {counter:?}");
        }
    }
}

/// A cut in the middle of a number leaves a shorter number, and in the middle of a row of
/// diskstats an older kernel's row. Only the missing line feed tells, and the kernel writes one
/// on each line; so a last line without one is refused.
#[test]
fn a_text_cut_anywhere_shows_no_wrong_value() {
    for (source, text) in MODERN.into_iter().chain([("diskstats", MIXED_DISKSTATS)]) {
        let whole = values(source, text);
        for end in 0..text.len() {
            let (cut, what) = (&text[..end], format!("{source} cut at {end}"));
            let complete = cut.is_empty() || cut.ends_with('\n');
            let mut warm = Lab::new(source, text).unwrap();
            warm.values(text);
            let cold = Lab::new(source, cut).and_then(|mut lab| lab.sample(cut));
            for outcome in [cold, warm.sample(cut)] {
                let Ok((parsed, rows)) = outcome else { continue };
                assert_part_of(&rows, &whole, &what);
                assert_eq!(rows, naive::read(source, cut.as_bytes()), "{what}");
                let sound = matches!(parsed, Parsed::Values { fault: None, .. });
                assert!(!sound || complete, "{what}: {parsed:?}");
            }
            assert_eq!(warm.values(text), whole, "{what}, and whole again");
        }
    }
}

#[test]
fn a_last_line_without_its_line_feed_is_refused_and_named() {
    for (source, text) in MODERN {
        let cut = text.strip_suffix('\n').unwrap();
        let lines = lines_of(text).count();
        let mut lab = Lab::new(source, text).unwrap();
        let whole = lab.values(text);
        let expected = match source {
            "diskstats" | "netdev" => {
                let rows = whole.len() - 1;
                (values_and(Reason::MissingColumns, lines, rows), whole[..rows].to_vec())
            }
            _ => (nothing(Reason::MissingColumns, lines), vec![]),
        };
        for _ in 0..2 {
            assert_eq!(lab.parse(cut), expected, "{source}");
        }
        let probed = Lab::new(source, cut).map(|mut lab| lab.parse(cut));
        match expected {
            (Parsed::Nothing(fault), _) => assert_eq!(probed, Err(fault), "{source}"),
            _ => assert_eq!(probed, Ok(expected), "{source}"),
        }
    }
}

#[test]
fn an_empty_text_has_no_values() {
    for (source, text) in MODERN {
        let mut lab = Lab::new(source, text).unwrap();
        lab.values(text);
        let (parsed, rows) = lab.parse("");
        assert!(rows.is_empty());
        let empty = Fault::at(Reason::Empty, 0);
        let (expected, probed) = match source {
            // A host without a block device has such a file.
            "diskstats" => (all(0), None),
            "netdev" => (Parsed::Relayout, Some(Fault::at(Reason::BadHeader, 2))),
            _ => (Parsed::Nothing(empty), Some(empty)),
        };
        assert_eq!(parsed, expected, "{source}");
        assert_eq!(Lab::new(source, "").err(), probed, "{source}");
    }
}

#[test]
fn garbage_is_a_fault_and_the_next_sound_text_is_read() {
    let garbage: [(&str, &[u8], Reason); 18] = [
        ("diskstats", b"garbage\n", Reason::NotANumber),
        ("diskstats", b"8 0\n", Reason::BadName),
        ("diskstats", b"8 0 sda\n", Reason::MissingColumns),
        ("diskstats", b"8 0 sda 1 2 3 4 5 6 7 8 9 10\n", Reason::MissingColumns),
        ("diskstats", b"8 0 sda 1 2 3 4 5 6 7 8 9 10 11x\n", Reason::NotANumber),
        ("vmstat", b"\xff\xfe\n", Reason::NotANumber),
        ("vmstat", b"nr_free_pages\n", Reason::NotANumber),
        ("vmstat", b"nr_free_pages 1 2\n", Reason::SurplusColumns),
        ("vmstat", b"nr_free_pages 18446744073709551616\n", Reason::NumberTooLarge),
        ("vmstat", b" 5\n", Reason::BadName),
        ("meminfo", b"MemTotal 5 kB\n", Reason::NotANumber),
        ("meminfo", b"MemTotal: kB\n", Reason::NotANumber),
        ("meminfo", b": 5 kB\n", Reason::BadName),
        ("loadavg", b"0.00 0.00 0.00 1/2\n", Reason::MissingColumns),
        ("loadavg", b"0.00 0.00 0.00 1 2 3\n", Reason::MissingColumns),
        ("loadavg", b"0.0 0.00 0.00 1/2 3\n", Reason::NotANumber),
        ("loadavg", b"0.00 0.00 0.00 1/2 3 \n", Reason::NotANumber),
        ("loadavg", b"0.00 0.00 0.00 1/2 3\n0.00 0.00 0.00 1/2 3\n", Reason::NotANumber),
    ];
    for (source, text, reason) in garbage {
        let what = text.escape_ascii();
        let (_, good) = MODERN.into_iter().find(|(name, _)| *name == source).unwrap();
        let mut lab = Lab::new(source, good).unwrap();
        let expected = lab.values(good);
        assert_eq!(lab.parse(text), (nothing(reason, 1), vec![]), "{what}");
        assert_eq!(lab.values(good), expected, "{what}");
        assert_eq!(lab.probes, 1, "{what}");
        match Lab::new(source, text) {
            Err(fault) => assert_eq!(fault, Fault::at(reason, 1), "{what}"),
            Ok(mut lab) => assert_eq!(lab.parse(text).0, nothing(reason, 1), "{what}"),
        }
    }
}

#[test]
fn a_bad_row_is_passed_over_and_the_first_one_is_named() {
    let cases = [
        ("diskstats", DISKSTATS, " 9931 20114", " 9931 x", Reason::NotANumber),
        ("diskstats", DISKSTATS, " 9931 20114", " 9931 20-14", Reason::NotANumber),
        ("diskstats", DISKSTATS, "   8       0 sda ", "   8 sda ", Reason::NotANumber),
        ("diskstats", DISKSTATS, "   8       0 sda ", "   8       0sda ", Reason::NotANumber),
        ("diskstats", DISKSTATS, " 0 sda ", " 4294967296 sda ", Reason::NumberTooLarge),
        ("netdev", NETDEV, " 1234567890 ", " 12345.6789 ", Reason::NotANumber),
        ("netdev", NETDEV, "64    0     0       0          0", "64    0", Reason::MissingColumns),
        ("netdev", NETDEV, "  eth1: ", "  eth1  ", Reason::BadName),
        ("netdev", NETDEV, "  eth1: ", "      : ", Reason::BadName),
    ];
    for (source, text, from, to, reason) in cases {
        let text = &text.replace("eth1:1234567890", "eth1: 1234567890");
        let broken = with(text, from, to);
        let mut lab = Lab::new(source, text).unwrap();
        let whole = lab.values(text);
        let index = lines_of(&broken).zip(lines_of(text)).position(|(a, b)| a != b).unwrap();
        let row = if source == "netdev" { index - 2 } else { index };
        let mut expected = whole.clone();
        expected.remove(row);
        let later = with(&broken, lines_of(text).next_back().unwrap(), "garbage\n");
        for _ in 0..2 {
            assert_eq!(
                lab.parse(&broken),
                (values_and(reason, index + 1, expected.len()), expected.clone()),
                "{to}"
            );
            let (parsed, _) = lab.parse(&later);
            assert_eq!(parsed, values_and(reason, index + 1, expected.len() - 1), "{to}");
        }
        assert_eq!(lab.values(text), whole);
    }
}

/// As when a line feed is lost: neither may the second row's numbers go to the first, nor may the
/// two become one of an interface that nobody has.
#[test]
fn two_rows_on_one_line_are_no_row() {
    for (source, text, line) in [("diskstats", DISKSTATS, 6), ("netdev", NETDEV, 5)] {
        let lines: Vec<&str> = lines_of(text).collect();
        let joined = lines[..line].concat().trim_end().to_owned() + " " + &lines[line..].concat();
        let joined = joined.replace("  ", " ");
        let mut lab = Lab::new(source, text).unwrap();
        lab.values(text);
        for outcome in [lab.sample(&joined), Lab::new(source, &joined).unwrap().sample(&joined)] {
            // The header of net/dev was squeezed too: that is another layout of the same rows.
            let (parsed, rows) = outcome.unwrap();
            assert_eq!(rows.len(), values(source, text).len() - 2, "{source}: {rows:?}");
            assert_part_of(&rows, &values(source, text), source);
            let Parsed::Values { fault: Some(Fault::Parse { line: named, .. }), .. } = parsed
            else {
                panic!("{source}: {parsed:?}")
            };
            assert_eq!(named as usize, line);
        }
    }
}

/// A number that a broken line seems to have is nothing to lay the other rows out by.
#[test]
fn a_broken_row_leaves_the_layout_alone() {
    let broken = with(DISKSTATS, " 9931 20114", " 9931-5 20114 7");
    let mut lab = Lab::new("diskstats", &broken).unwrap();
    assert!(lab.extras().is_empty(), "{:?}", lab.extras());
    assert!(lab.fields().iter().all(|field| field.kind == Kind::Unsigned));
    assert_eq!(lab.parse(&broken).0, values_and(Reason::NotANumber, 6, 9));
}

#[test]
fn a_counter_that_stands_there_twice_is_refused() {
    for (source, text) in [("vmstat", VMSTAT), ("meminfo", MEMINFO)] {
        let doubled = text.to_owned() + lines_of(text).next().unwrap();
        let line = lines_of(text).count() + 1;
        let mut lab = Lab::new(source, text).unwrap();
        assert_eq!(lab.parse(&doubled), (Parsed::Relayout, vec![]));
        assert_eq!(lab.sample(&doubled).err(), Some(Fault::at(Reason::DuplicateName, line)));
    }
}

#[test]
fn two_names_that_the_output_cannot_tell_apart_are_refused() {
    for (source, text) in [("vmstat", &b"\xfe 1\n\xff 2\n"[..]), ("meminfo", b"\xfe: 1\n\xff: 2\n")]
    {
        assert_eq!(Lab::new(source, text).err(), Some(Fault::at(Reason::DuplicateName, 2)));
    }
}
