//! Devices and interfaces come, go and move: every row stays with its instance, and a steady
//! state is recognised without adding to the dictionary.

use super::*;

/// A line of diskstats whose numbers count up from `first`.
fn disk(major: u32, minor: u32, name: &str, first: i128) -> String {
    let numbers: String = (first..first + 17).map(|number| format!(" {number}")).collect();
    format!("{major:4} {minor:7} {name}{numbers}\n")
}

fn row(name: &str, first: i128) -> (&str, Vec<i128>) {
    (name, (first..first + 17).collect())
}

fn three() -> String {
    disk(8, 0, "sda", 100) + &disk(8, 16, "sdb", 200) + &disk(8, 32, "sdc", 300)
}

#[test]
fn rows_stay_with_their_devices_as_these_come_go_and_move() {
    let line = |letter: u8, first| {
        disk(8, 16 * u32::from(letter - b'a'), &format!("sd{}", letter as char), first)
    };
    let mut lab = Lab::new("diskstats", three()).unwrap();
    assert_eq!(numbers(&lab.values(three())), [row("sda", 100), row("sdb", 200), row("sdc", 300)]);
    assert_eq!(lab.entries, [0, 1, 2]);
    for (order, entries) in [
        (&b"abcd"[..], &[0, 1, 2, 3][..]),
        (b"acd", &[0, 2, 3]),
        (b"dca", &[3, 2, 0]),
        (b"eabcd", &[4, 0, 1, 2, 3]),
        (b"b", &[1]),
        (b"", &[]),
        (b"abcde", &[0, 1, 2, 3, 4]),
    ] {
        for round in [1000, 2000] {
            let firsts: Vec<i128> = order.iter().map(|n| round + 20 * i128::from(*n)).collect();
            let text: String =
                order.iter().zip(&firsts).map(|(letter, first)| line(*letter, *first)).collect();
            let rows = lab.values(&text);
            let names: Vec<String> = order.iter().map(|n| format!("sd{}", *n as char)).collect();
            let expected: Vec<_> =
                names.iter().zip(&firsts).map(|(name, first)| row(name, *first)).collect();
            assert_eq!(numbers(&rows), expected);
            assert_eq!(lab.entries, entries, "the same entries ever again");
        }
    }
    assert_eq!(lab.names.entries.len(), 5);
    assert_eq!(lab.probes, 1);
}

#[test]
fn interfaces_are_told_apart_by_their_whole_name() {
    let mut lab = Lab::new("netdev", NETDEV).unwrap();
    let rows = lab.values(NETDEV);
    let entries = lab.entries.clone();
    // Without its line, the alias must not take eth0's place, nor eth0 the alias's.
    for gone in 3..=9 {
        let text = without_line(NETDEV, gone);
        for _ in 0..2 {
            let mut expected = (rows.clone(), entries.clone());
            expected.0.remove(gone - 3);
            expected.1.remove(gone - 3);
            assert_eq!((lab.values(&text), lab.entries.clone()), expected);
        }
    }
    let renamed = with(NETDEV, "  eth0:", "  eth9:");
    assert_eq!(instances(&lab.values(&renamed))[1], "eth9");
    assert_eq!(lab.entries[1] as usize, entries.len(), "a new name is a new entry");
}

#[test]
fn a_name_with_other_device_numbers_is_another_device() {
    let replaced = disk(8, 0, "sda", 100) + &disk(65, 16, "sdb", 1) + &disk(8, 32, "sdc", 300);
    let mut lab = Lab::new("diskstats", three()).unwrap();
    lab.values(three());
    assert_eq!(numbers(&lab.values(&replaced))[1], row("sdb", 1));
    assert_eq!(lab.entries, [0, 3, 2]);
    assert_eq!(lab.names.entries[1], (8 << 32 | 16, "sdb".to_owned()));
    assert_eq!(lab.names.entries[3], (65 << 32 | 16, "sdb".to_owned()));
    lab.values(three());
    assert_eq!(lab.entries, [0, 1, 2], "the first one is back");
    assert_eq!(lab.names.entries.len(), 4);
}

/// On rows of 14 columns, a digit of the name that were taken for the first number would go
/// unnoticed: the surplus column is one that kernels have had.
#[test]
fn a_name_that_begins_like_the_one_before_is_another_device() {
    let numbers = " 1 2 3 4 5 6 7 8 9 10 11\n";
    let [short, long] = ["sda", "sda1"].map(|name| format!("   8       0 {name}{numbers}"));
    let mut lab = Lab::new("diskstats", &short).unwrap();
    for text in [&short, &long, &short, &long] {
        assert_eq!(lab.values(text), naive::read("diskstats", text.as_bytes()));
    }
    assert_eq!(lab.names.entries.len(), 2);
}

/// `seq_file` walks the devices anew for each page, and may print one twice when another goes.
#[test]
fn a_line_that_is_repeated_counts_once() {
    let first = values("diskstats", &three());
    for repeated in [disk(8, 16, "sdb", 200), disk(8, 16, "sdb", 201)] {
        for warm in [false, true] {
            let mut lab = Lab::new("diskstats", three()).unwrap();
            if warm {
                lab.values(three());
            }
            assert_eq!(lab.values(three() + &repeated), first);
            assert_eq!(lab.values(three()), first);
            assert_eq!(lab.names.entries.len(), 3);
        }
    }
}

/// Of a line without room nobody looks whether it stands there twice: at worst a segment begins that need
/// not, and nothing is lost or there twice.
#[test]
fn a_repeated_line_without_room_is_no_more_once_there_is_room() {
    let text = three() + &disk(8, 16, "sdb", 201) + &disk(8, 32, "sdc", 301);
    let mut lab = Lab::with_room("diskstats", &text, 3 * 18 + 17, 64).unwrap();
    assert_eq!(lab.parse(&text).0, Parsed::Outgrown { written: 3, lost: 2 });
    let mut lab = Lab::with_room("diskstats", &text, 5 * 18, 64).unwrap();
    assert_eq!(lab.parse(&text), (all(3), values("diskstats", &three())));
}

#[test]
fn more_rows_than_the_record_holds_are_counted() {
    for room in 0..=5 {
        // A word short of one more row.
        let words = room * 18 + 17;
        let text = three() + &disk(8, 48, "sdd", 400) + &disk(8, 64, "sde", 500);
        let whole = values("diskstats", &text);
        let mut lab = Lab::with_room("diskstats", &text, words, 64).unwrap();
        for _ in 0..2 {
            let (parsed, rows) = lab.parse(&text);
            assert_eq!(rows, whole[..room]);
            match room {
                5 => assert_eq!(parsed, all(5)),
                _ => assert_eq!(parsed, Parsed::Outgrown { written: room, lost: 5 - room }),
            }
        }
    }
}

#[test]
fn a_full_dictionary_is_outgrown_and_what_it_knows_goes_on() {
    let more = three() + &disk(8, 48, "sdd", 400) + &disk(8, 64, "sde", 500);
    let whole = values("diskstats", &more);
    for its_own_room in [false, true] {
        let mut lab = Lab::new("diskstats", three()).unwrap();
        match its_own_room {
            true => lab.source.begin_segment(3),
            false => lab.names.room = 3,
        }
        for _ in 0..2 {
            assert_eq!(lab.parse(&more).0, Parsed::Outgrown { written: 3, lost: 2 });
            assert_eq!(lab.parse(&more).1, whole[..3]);
            assert_eq!(lab.parse(three()), (all(3), whole[..3].to_vec()));
        }
        assert_eq!(lab.names.entries.len(), 3);
    }
}

#[test]
fn scalars_without_room_are_outgrown() {
    for (source, text) in [("vmstat", VMSTAT), ("meminfo", MEMINFO), ("loadavg", LOADAVG)] {
        let fields = values(source, text)[0].1.len();
        let parsed = |room| Lab::with_room(source, text, room, 0).unwrap().parse(text).0;
        assert_eq!(parsed(fields), all(fields));
        assert_eq!(parsed(fields - 1), Parsed::Outgrown { written: 0, lost: 1 });
    }
}

#[test]
fn a_new_segment_names_its_instances_anew() {
    let mut lab = Lab::new("diskstats", three()).unwrap();
    let rows = lab.values(three());
    lab.names.entries.clear();
    lab.source.begin_segment(64);
    let moved = disk(8, 32, "sdc", 300) + &disk(8, 0, "sda", 100) + &disk(8, 16, "sdb", 200);
    assert_eq!(instances(&lab.values(&moved)), ["sdc", "sda", "sdb"]);
    assert_eq!(lab.entries, [0, 1, 2]);
    assert_eq!(lab.values(three()), rows);
    assert_eq!(lab.entries, [1, 2, 0]);
}

#[test]
fn a_host_may_have_no_device() {
    let mut lab = Lab::new("diskstats", "").unwrap();
    assert_eq!(lab.parse(""), (all(0), vec![]));
    assert_eq!(instances(&lab.values(three())), ["sda", "sdb", "sdc"]);
    let header: String = lines_of(NETDEV).take(2).collect();
    assert!(Lab::new("netdev", &header).unwrap().values(&header).is_empty());
}

#[test]
fn a_text_is_another_list_only_if_an_instance_came_or_went() {
    let [a, b, c] = [("sda", 0), ("sdb", 16), ("sdc", 32)]
        .map(|(name, minor)| [100, 200].map(|first| disk(8, minor, name, first)));
    let mut lab = Lab::new("diskstats", three()).unwrap();
    for (text, has_changed) in [
        (three(), true),
        (three(), false),
        (a[1].clone() + &b[1] + &c[1], false),
        (c[0].clone() + &b[0] + &a[0], false),
        (a[0].clone() + &b[0] + &c[0] + &b[1], false),
        (a[0].clone() + &c[0], true),
        (a[0].clone() + &c[0], false),
        (a[0].clone() + &b[0] + &c[0], true),
        (disk(65, 0, "sda", 1) + &b[0] + &c[0], true),
        (a[0].clone() + &b[0] + &c[0], true),
        (String::new(), true),
        (String::new(), false),
    ] {
        lab.parse(&text);
        assert_eq!(lab.source.changed(), has_changed, "{text}");
    }
    lab.source.begin_segment(64);
    lab.parse(three());
    assert!(lab.source.changed(), "a segment does not know what was listed before it");
}

#[test]
fn a_second_reading_adds_what_the_first_has_left_out() {
    let [a, b, c, d] =
        ["a", "b", "c", "d"].map(|name| disk(8, u32::from(name.as_bytes()[0]), name, 100));
    let mut lab = Lab::new("diskstats", "").unwrap();
    lab.values(a.clone() + &b + &c);
    let words: Vec<AtomicU64> = (0..4096).map(|_| AtomicU64::new(POISON)).collect();
    let mut record = RecordWriter::new(&words, 1).unwrap();
    let mut block = record.block().unwrap();
    let mut read = |text: &str, again: bool| match again {
        false => lab.source.parse(text.as_bytes(), &mut block, &mut lab.names),
        true => lab.source.add_missing(text.as_bytes(), &mut block, &mut lab.names),
    };
    // While c's page is waited for, a goes away, and d is being made.
    let being_made = disk(0, 0, "d", 100);
    assert_eq!(read(&(a.clone() + &b + &being_made), false), all(3));
    let moved = disk(8, u32::from(b'b'), "b", 200);
    assert_eq!(read(&(moved + &c + &d), true), all(4));
    block.finish(4, None);
    let words: Vec<u64> =
        words[..record.used_words()].iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let rows = lab.decode(&words);
    assert_eq!(numbers(&rows), [row("a", 100), row("b", 100), row("d", 100), row("c", 100)]);
    assert!(lab.source.changed());
    lab.values(a.clone() + &b + &c + &being_made);
    assert!(!lab.source.changed(), "the next text has the same");
}
