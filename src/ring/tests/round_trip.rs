//! What a writer puts into a ring comes out of it.

use super::*;
use crate::ring::layout::{ENTRY_NAME_BYTES, HEADER_BYTES, SLOT_HEAD_WORDS};
use crate::ring::{BadHeader, Entry, Scan};

#[test]
fn a_new_ring_is_empty_and_says_what_it_is() {
    let rig = Rig::new(header(1, 2, 60, 4));
    let ring = open(rig.bytes()).unwrap();
    assert_eq!(ring.header(), rig.writer.segment().header());
    assert_eq!(ring.description().unwrap(), DESCRIPTION);
    assert_eq!(ring.scan().unwrap(), Scan { empty: 4, ..Scan::default() });
    assert_eq!(ring.entry(0).unwrap(), None);
    assert!(!ring.read(Seq(FIRST), &mut Vec::new()).unwrap());
}

#[test]
fn the_newest_records_are_kept() {
    let slots = 5;
    let mut rig = Rig::new(header(1, 0, 60, slots));
    for written in 1..=3 * slots + 2 {
        rig.write();
        let ring = open(rig.bytes()).unwrap();
        let kept = written.min(slots);
        let (oldest, newest) = (rig.next - kept, rig.next - 1);
        assert_eq!(records_of(&ring, rig.room(), rig.next), Vec::from_iter(oldest..=newest));
        let scan = Scan {
            newest: Some(Seq(newest)),
            oldest: Some(Seq(oldest)),
            valid: kept,
            empty: slots - kept,
            ..Scan::default()
        };
        assert_eq!(ring.scan().unwrap(), scan);
        let mut words = Vec::new();
        for seq in FIRST - 1..=rig.next + slots {
            let there = (oldest..=newest).contains(&seq);
            assert_eq!(ring.read(Seq(seq), &mut words).unwrap(), there, "record {seq}");
            assert!(!there || is_record(&words, seq, rig.room()), "record {seq}");
        }
    }
}

#[test]
fn an_unfinished_record_costs_only_the_oldest() {
    let slots = 4;
    let mut rig = Rig::new(header(1, 0, 60, slots));
    rig.write_many(6);
    let _ = rig.writer.begin(Seq(rig.next)).unwrap();
    let begun = rig.writer.segment().header().layout.slot_of(Seq(FIRST), Seq(rig.next)).unwrap();
    let first_word = &rig.writer.segment().slot(begun)[SLOT_HEAD_WORDS];
    first_word.store(7, Ordering::Relaxed);
    let ring = open(rig.bytes()).unwrap();
    let (oldest, newest) = (rig.next - 3, rig.next - 1);
    assert_eq!(records_of(&ring, rig.room(), rig.next), Vec::from_iter(oldest..=newest));
    let scan = ring.scan().unwrap();
    assert_eq!((scan.valid, scan.busy, scan.torn, scan.empty), (3, 1, 0, 0));
    assert_eq!((scan.oldest, scan.newest), (Some(Seq(oldest)), Some(Seq(newest))));
    assert!(!ring.read(Seq(rig.next), &mut Vec::new()).unwrap());
    // And the next lap finds the slot as good as any.
    rig.next += 1;
    rig.write_many(slots);
    assert_eq!(open(rig.bytes()).unwrap().scan().unwrap().valid, slots);
}

#[test]
fn a_record_before_the_segment_has_no_slot() {
    let rig = Rig::new(header(1, 0, 60, 4));
    assert!(rig.writer.begin(Seq(FIRST - 1)).is_none());
}

#[test]
fn records_of_every_length_are_read_back() {
    let mut rig = Rig::new(header(1, 0, 61, 2));
    let room = rig.room() as usize;
    assert_eq!(room, 61, "a slot of 64 words");
    for used in 0..=room {
        let seq = rig.next;
        rig.commit(vec![seq; used].into_iter());
        let mut words = Vec::new();
        assert!(open(rig.bytes()).unwrap().read(Seq(seq), &mut words).unwrap());
        assert_eq!(words, vec![seq; used]);
    }
}

#[test]
fn entries_are_read_back_until_the_dictionary_is_full() {
    let rig = Rig::new(header(1, 0, 60, 2));
    let entry = |nth: u64| Entry {
        source: nth as u32 * 1000,
        identity: nth << 32 | 3,
        first_seq: Seq(FIRST + nth),
        name: vec![0xf0 | nth as u8; ENTRY_NAME_BYTES * nth as usize / (ENTRIES as usize - 1)],
    };
    for nth in 0..ENTRIES {
        let Entry { source, identity, first_seq, name } = entry(nth);
        let added = rig.writer.add_entry(source, identity, first_seq, &name);
        assert_eq!(added, Some(nth as u32));
        let ring = open(rig.bytes()).unwrap();
        for index in 0..ENTRIES {
            let expected = (index <= nth).then(|| entry(index));
            assert_eq!(ring.entry(index as u32).unwrap(), expected, "entry {index}");
        }
    }
    assert_eq!(rig.writer.add_entry(1, 1, Seq(FIRST), b"one more"), None);
    let ring = open(rig.bytes()).unwrap();
    assert_eq!(ring.entry(ENTRIES as u32).unwrap(), None);
    assert_eq!(ring.entry(u32::MAX).unwrap(), None);
    assert_eq!(ring.scan().unwrap().empty, 2, "the slots behind it are untouched");
}

#[test]
fn nothing_lies_between_the_parts() {
    let mut rig = Rig::new(header(1, 0, 60, 2));
    rig.write_many(5);
    rig.writer.add_entry(1, 2, Seq(FIRST), b"sda").unwrap();
    let (bytes, layout) = (rig.bytes(), rig.writer.segment().header().layout);
    let description = HEADER_BYTES.0 as usize..HEADER_BYTES.0 as usize + DESCRIPTION.len();
    let dictionary = layout.entry_offset(0).0 as usize..layout.entry_offset(1).0 as usize;
    let slots = layout.slots_offset.0 as usize;
    for (from, to) in
        [(256, description.start), (description.end, dictionary.start), (dictionary.end, slots)]
    {
        assert!(bytes[from..to].iter().all(|byte| *byte == 0), "{from} to {to}");
    }
}

#[test]
fn no_ring_is_made_that_no_reader_would_take() {
    let create = |header: Header, description: &[u8], bytes: Bytes| {
        Segment::create(
            Arc::new(crate::ring::WordMap::private(bytes).unwrap()),
            header,
            description,
        )
        .err()
    };
    let good = header(1, 0, 60, 4);
    let bytes = good.layout.file_bytes();
    let field = |error| match error {
        Some(BadHeader::Field(bad)) => bad.field,
        other => panic!("{other:?}"),
    };
    assert_eq!(create(good.clone(), DESCRIPTION, bytes), None);
    let short = Bytes(bytes.0 - 4096);
    assert_eq!(field(create(good.clone(), DESCRIPTION, short)), "file_bytes");
    let longer = [DESCRIPTION, b" "].concat();
    assert_eq!(field(create(good.clone(), &longer, bytes)), "description_bytes");
    let other = vec![b'x'; DESCRIPTION.len()];
    assert_eq!(field(create(good.clone(), &other, bytes)), "description_check");
    let slow = Header { interval_ns: 0, ..good };
    assert_eq!(field(create(slow, DESCRIPTION, bytes)), "interval_ns");
}
