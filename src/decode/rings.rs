//! The rings of one run as one sequence of records: segments behind each other, ring and mirror
//! laid over each other, the newest `max_samples` and no more. Reads and verifies; says nothing
//! about what the records mean.

use super::error::DecodeError;
use super::names::{Names, Remembered};
use super::notes::Notes;
use crate::description::Description;
use crate::record::{Common, RecordView};
use crate::ring::{Header, Ring, RingError, Scan};
use crate::schema::Schema;
use crate::units::Seq;
use std::ops::Range;

/// More than any recorder has.
const MAX_SOURCES: usize = 1000;
/// As many words of the recorded command are kept: each takes more memory than it does in a ring.
const MAX_COMMAND_WORDS: usize = 1 << 16;
/// How many rings that cannot be understood are listed.
const MAX_UNREAD: usize = 10;
/// Longest text of why one cannot, which may quote the ring.
const MAX_WHY_CHARS: usize = 300;

/// A segment in one or two copies.
struct Segment {
    copies: Vec<Ring>,
    /// Records that this segment may have.
    seqs: Range<u64>,
    /// By copy, those that it may have.
    extents: Vec<Extent>,
}

/// Which records one copy of a segment may have: those of its last lap, in the slots that its file
/// has. No more are asked for: numbers far apart, under right checksums, or a file that was cut
/// off must not cost a read for each of the up to 2^32 records that its header speaks of.
struct Extent {
    first: u64,
    slots: u64,
    slots_present: u64,
    newest: Option<Seq>,
}

impl Extent {
    fn of(ring: &Ring, scan: &Scan) -> Result<Extent, RingError> {
        Ok(Extent {
            first: ring.header().first_seq.0,
            slots: ring.header().layout.slots,
            slots_present: ring.slots_present()?,
            newest: scan.newest,
        })
    }

    /// The first record from `seq` on that may be there.
    fn next(&self, seq: u64) -> Option<u64> {
        let newest = self.newest.filter(|_| self.slots_present > 0)?.0;
        let lap = (newest + 1).saturating_sub(self.slots).max(self.first);
        let seq = seq.max(lap);
        let slot = (seq - self.first) % self.slots;
        let seq = if slot < self.slots_present { seq } else { seq + (self.slots - slot) };
        (seq <= newest).then_some(seq)
    }
}

/// All rings of one run.
pub struct Rings {
    segments: Vec<Segment>,
    /// Of the oldest segment; those of the others are read as their records are.
    description: Description,
    /// Of all segments.
    pub(super) notes: Notes,
    /// Why others were left out, or parts of these, as far as there is room to say so.
    pub(super) unread: Vec<DecodeError>,
    /// Records that may be there: the newest `max_samples`.
    pub(super) seqs: Range<u64>,
    /// Slots that do not verify, in the copy of each segment that has the fewest.
    pub(super) torn: u64,
}

impl Rings {
    /// Puts the rings of one run together. A ring whose description cannot be understood is left
    /// out and listed in `unread`, unless there is no other.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn new(rings: Vec<Ring>) -> Result<Rings, DecodeError> {
        let run_id = rings.first().ok_or(DecodeError::NoRings)?.header().run_id;
        let mut segments: Vec<Segment> = Vec::new();
        let mut notes = Notes::default();
        let mut first: Option<(u64, Description)> = None;
        let mut unread = Vec::new();
        for ring in rings {
            if ring.header().run_id != run_id {
                return Err(DecodeError::OtherRun {
                    path: ring.path().to_owned(),
                    found: ring.header().run_id.to_string(),
                    expected: run_id.to_string(),
                });
            }
            let number = ring.header().segment;
            let mut leave_out = |why| {
                if unread.len() < MAX_UNREAD {
                    unread.push(DecodeError::Ring(why));
                }
            };
            if let Some(segment) = segments.iter_mut().find(|other| other.number() == number) {
                let first = &segment.copies[0];
                // The header has the checksum of the description.
                if first.header() != ring.header() {
                    // As if it had come first.
                    if let Err(why) = describe(&ring) {
                        leave_out(why);
                        continue;
                    }
                    let (path, other) = (ring.path().to_owned(), first.path().to_owned());
                    return Err(DecodeError::Differs { path, other, segment: number });
                }
                segment.copies.push(ring);
                continue;
            }
            let mut description = match describe(&ring) {
                Ok(description) => description,
                Err(why) => {
                    leave_out(why);
                    continue;
                }
            };
            // In the order of the segments, as recorders name their files.
            notes.take_in(&mut description.sampler.notes);
            shorten(&mut description.run.command);
            if first.as_ref().is_none_or(|(oldest, _)| number < *oldest) {
                first = Some((number, description));
            }
            segments.push(Segment { copies: vec![ring], seqs: 0..0, extents: Vec::new() });
        }
        let Some((_, description)) = first else {
            return Err(unread.pop().unwrap_or(DecodeError::NoRings));
        };
        segments.sort_by_key(Segment::number);
        let mut rings = Rings { segments, description, notes, unread, seqs: 0..0, torn: 0 };
        rings.find_extent()?;
        Ok(rings)
    }

    /// Which records there can be.
    fn find_extent(&mut self) -> Result<(), DecodeError> {
        let (mut end, mut found_end) = (0, 0);
        let mut next_first = u64::MAX;
        for segment in self.segments.iter_mut().rev() {
            let mut newest = None;
            let mut torn = u64::MAX;
            let (mut whole_end, mut unreadable) = (None, None);
            for ring in &segment.copies {
                let scan: Scan = ring.scan()?;
                newest = newest.max(scan.newest);
                torn = torn.min(scan.torn);
                let is_whole = scan.unreadable == 0 && scan.torn == 0;
                if is_whole && ring.slots_present()? == ring.header().layout.slots {
                    whole_end = whole_end.max(Some(scan.newest));
                }
                if scan.unreadable > 0 {
                    let path = ring.path().to_owned();
                    unreadable = Some(DecodeError::Unreadable { path, slots: scan.unreadable });
                }
                segment.extents.push(Extent::of(ring, &scan)?);
            }
            // Another copy may have made up for it, but only one that was read whole surely has.
            let is_made_up_for = whole_end == Some(newest);
            if !is_made_up_for && self.unread.len() < MAX_UNREAD {
                self.unread.extend(unreadable);
            }
            self.torn += torn;
            let first = segment.header().first_seq.0;
            let segment_end = newest.map_or(first, |seq| seq.0 + 1).min(next_first);
            segment.seqs = first..segment_end.max(first);
            end = end.max(segment_end);
            found_end = found_end.max(newest.map_or(0, |_| segment_end));
            next_first = next_first.min(first);
        }
        let is_unreadable = |error: &DecodeError| matches!(error, DecodeError::Unreadable { .. });
        if let (0, Some(at)) = (end, self.unread.iter().position(is_unreadable)) {
            return Err(self.unread.swap_remove(at));
        }
        let max_samples = self.first().header().max_samples;
        // A segment that was only begun says how many records there were. Those that are left are
        // not worth less for it.
        let newest_end = if found_end == 0 { end } else { found_end };
        self.seqs = newest_end.saturating_sub(max_samples)..end;
        Ok(())
    }

    /// The oldest segment that there is.
    fn first(&self) -> &Segment {
        // `new` refuses to make an empty list.
        &self.segments[0]
    }

    /// What the header of the oldest segment says.
    pub fn header(&self) -> &Header {
        self.first().header()
    }

    /// Its description.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Ring files that the run has had.
    pub(super) fn segments_begun(&self) -> u64 {
        self.segments.last().map_or(0, |last| last.header().segment + 1)
    }

    /// Hands every record that verifies to `visit`, in order.
    pub(super) fn each<E>(
        &self,
        mut visit: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut words = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let mut from = segment.seqs.start.max(self.seqs.start);
            if segment.next(from).is_none() {
                continue;
            }
            // That of the oldest segment is known.
            let read = match index {
                0 => None,
                _ => segment.copies.iter().find_map(|ring| describe(ring).ok()),
            };
            let description = match (index, &read) {
                (0, _) => &self.description,
                (_, Some(description)) => description,
                (_, None) => continue,
            };
            let remembered = Remembered::default();
            while let Some(seq) = segment.next(from) {
                from = seq + 1;
                if !segment.read(Seq(seq), &mut words, &description.schema) {
                    continue;
                }
                let Ok(view) = RecordView::new(&words, &description.schema) else { continue };
                let names = Names::new(&segment.copies, &remembered, Seq(seq));
                visit(Record { segment: index, seq: Seq(seq), view, description, names })?;
            }
        }
        Ok(())
    }
}

/// Longest name in a description, of a host (hostname(7)) or of a value.
const MAX_TEXT_BYTES: usize = 256;

/// The description of a ring, or why it cannot be used.
fn describe(ring: &Ring) -> Result<Description, RingError> {
    let refuse = |what| RingError::Description { path: ring.path().to_owned(), what };
    let description: Description = serde_json::from_slice(&ring.description()?)
        .map_err(|error| refuse(shortened(&error.to_string())))?;
    let sources = description.schema.sources.len();
    if sources > MAX_SOURCES {
        return Err(refuse(format!("it has {sources} sources, and {MAX_SOURCES} at most can be")));
    }
    // They are in every sample of the output: a ring may come from anywhere.
    let longest = description.schema.longest_name().max(description.hostname.len());
    if longest > MAX_TEXT_BYTES {
        return Err(refuse(format!(
            "it has a name of {longest} bytes, and {MAX_TEXT_BYTES} at most can be"
        )));
    }
    match description.schema.ambiguous_name() {
        Some(name) => Err(refuse(format!("its schema has the name {name:?} twice in one place"))),
        None => Ok(description),
    }
}

/// Keeps the first words of a very long command, and how many more it had.
fn shorten(command: &mut Vec<String>) {
    let more = command.len().saturating_sub(MAX_COMMAND_WORDS);
    if more > 0 {
        command.truncate(MAX_COMMAND_WORDS);
        command.push(format!("... and {more} more words"));
        command.shrink_to_fit();
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_WHY_CHARS).collect();
    if short.len() < text.len() {
        short.push_str(" ...");
    }
    short
}

/// One record with what it takes to understand it.
pub(super) struct Record<'a> {
    /// Index of its segment.
    pub segment: usize,
    pub seq: Seq,
    pub view: RecordView<'a>,
    pub description: &'a Description,
    pub names: Names<'a>,
}

impl Record<'_> {
    /// `CLOCK_REALTIME` before the first read, ns.
    pub fn wall_ns(&self) -> u64 {
        self.view.common(Common::WallNs)
    }
}

impl Segment {
    fn number(&self) -> u64 {
        self.header().segment
    }

    /// All copies have the same one, but for what the kernel may have lost.
    pub(super) fn header(&self) -> &Header {
        self.copies[0].header()
    }

    /// The first record from `seq` on that any copy may have.
    fn next(&self, seq: u64) -> Option<u64> {
        let next = self.extents.iter().filter_map(|extent| extent.next(seq)).min();
        next.filter(|seq| *seq < self.seqs.end)
    }

    /// A copy whose device refuses, or whose record is not one of these sources, is as one that does
    /// not have it.
    fn read(&self, seq: Seq, words: &mut Vec<u64>, schema: &Schema) -> bool {
        self.copies.iter().any(|ring| {
            ring.read(seq, words).unwrap_or(false) && RecordView::new(words, schema).is_ok()
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Decoder;
    use super::*;
    use crate::ring::ReadAt;
    use std::path::Path;

    /// A ring on a device that refuses some of its bytes.
    struct BadBlocks(Vec<u8>, Range<u64>);

    impl ReadAt for BadBlocks {
        fn read_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
            if offset < self.1.end && offset + bytes.len() as u64 > self.1.start {
                return Err(std::io::Error::from_raw_os_error(libc::EIO));
            }
            self.0.read_at(bytes, offset)
        }

        fn len_bytes(&self) -> std::io::Result<u64> {
            self.0.len_bytes()
        }
    }

    #[test]
    fn bad_blocks_cost_what_lies_on_them_and_nothing_if_a_copy_has_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let bytes = std::fs::read(&path).unwrap();
        let ring = |bad| Ring::new(Box::new(BadBlocks(bytes.clone(), bad)), &path).unwrap();
        let layout = ring(0..0).header().layout;
        let slot = |slot| layout.slot_offset(crate::units::Slot(slot)).0;
        let kept = |rings| {
            let mut count = 0;
            let rings = Rings::new(rings)?;
            rings.each(|_| {
                count += 1;
                Ok::<_, DecodeError>(())
            })?;
            Ok::<_, DecodeError>(count)
        };
        // Seven records in five slots, of which the newest four count: 3 to 6.
        assert_eq!(kept(vec![ring(0..0)]).unwrap(), 4);
        assert_eq!(kept(vec![ring(slot(3)..slot(4))]).unwrap(), 3);
        assert_eq!(kept(vec![ring(slot(0)..slot(5)), ring(0..0)]).unwrap(), 4);
        assert_eq!(kept(vec![ring(slot(0)..slot(2)), ring(slot(2)..slot(5))]).unwrap(), 4);
        // What a second try may yet read must not be removed.
        let unread = |rings| Rings::new(rings).unwrap().unread.len();
        assert_eq!(unread(vec![ring(slot(3)..slot(4))]), 1);
        assert_eq!(unread(vec![ring(slot(3)..slot(4)), ring(0..0)]), 0, "the copy has it");
        let cut = || {
            let bytes = bytes[..slot(2) as usize].to_vec();
            Ring::new(Box::new(bytes), Path::new("cut off")).unwrap()
        };
        assert_eq!(unread(vec![ring(slot(3)..slot(4)), cut()]), 1, "this one does not");
        let error = kept(vec![ring(slot(0)..slot(5))]).unwrap_err().to_string();
        assert!(error.contains("v1.ring: 5 of its slots"), "{error}");
        let names = layout.dictionary_offset.0..layout.slots_offset.0;
        assert_eq!(kept(vec![ring(names)]).unwrap(), 4, "rows without names are left out");
    }

    #[test]
    fn a_segment_that_is_there_twice_and_differs_is_refused() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let first = Ring::open(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let mut header = first.header().clone();
        header.start_wall_ns += 1;
        bytes[..256].copy_from_slice(bytemuck::cast_slice(&header.to_words()));
        let second = Ring::new(Box::new(bytes), Path::new("other")).unwrap();
        let error = Rings::new(vec![first, second]).err().unwrap();
        assert!(matches!(error, DecodeError::Differs { segment: 0, .. }), "{error}");
    }

    #[test]
    fn a_record_that_is_not_understood_is_taken_from_another_copy() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let bytes = std::fs::read(&path).unwrap();
        let whole = || Ring::open(&path).unwrap();
        let header = whole().header().clone();
        // Record 6 in slot 1, a word shorter, under the right checksum.
        let mut shorter = bytes.clone();
        let at = header.layout.slot_offset(crate::units::Slot(1)).0 as usize;
        let slot: &mut [u64] = bytemuck::cast_slice_mut(&mut shorter[at..at + 4096 / 2]);
        assert_eq!(slot[0], 7);
        slot[2] -= 1;
        let covered = bytemuck::cast_slice(&slot[2..3 + slot[2] as usize]);
        slot[1] = xxhash_rust::xxh64::xxh64(covered, header.seed().wrapping_add(6));
        let spoiled = || Ring::new(Box::new(shorter.clone()), Path::new("spoiled")).unwrap();
        let kept = |rings| Decoder::new(rings).unwrap().summary().samples_kept;
        assert_eq!(kept(vec![spoiled()]), 3, "it verifies, and is not one of these sources");
        assert_eq!(kept(vec![whole(), spoiled()]), 4);
        assert_eq!(kept(vec![spoiled(), whole()]), 4);
    }

    /// Another segment of the golden ring, as a later version may have written it.
    fn of_a_later_version(segment: u64, kind: &str) -> Ring {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let golden = Ring::open(&path).unwrap();
        let text = String::from_utf8(golden.description().unwrap()).unwrap();
        let description = text.replacen(r#""unsigned""#, &format!("{kind:?}"), 1).into_bytes();
        let mut header = Header { segment, ..golden.header().clone() };
        header.first_seq = Seq(segment * 7);
        header.description_check = crate::ring::description_check(&description);
        let name = format!("{segment:05}.ring");
        Ring::with_head(Box::new(Vec::new()), Path::new(&name), header, description)
    }

    #[test]
    fn a_segment_that_is_not_understood_is_said_to_be_left_out() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let golden = || Ring::open(&path).unwrap();
        let later = of_a_later_version(1, "fourfold");
        let decoder = Decoder::new(vec![golden(), later]).unwrap();
        assert_eq!(decoder.summary().samples_kept, 4);
        let [why] = &decoder.unread().map(ToString::to_string).collect::<Vec<_>>()[..] else {
            panic!("one is left out")
        };
        assert!(why.contains("the ring 00001.ring: unknown variant `fourfold`"), "{why}");
        let note = format!("samples are missing: {why}");
        assert_eq!(decoder.summary().notes.last(), Some(&note));
        let of_host = decoder.into_cluster();
        assert_eq!(of_host.unread()[0].0, of_host.outline().summary.hosts[0].hostname);
        assert_eq!(Decoder::new(vec![golden()]).unwrap().unread().count(), 0);
        // In whichever order it comes with another that is in its place.
        let in_its_place = || of_a_later_version(0, "fourfold");
        for rings in [[golden(), in_its_place()], [in_its_place(), golden()]] {
            assert_eq!(Decoder::new(rings.into()).unwrap().unread().count(), 1);
        }
        // There is nothing else.
        let error = Decoder::new(vec![of_a_later_version(1, "fourfold")]).err().unwrap();
        assert!(error.to_string().contains("unknown variant `fourfold`"), "{error}");
    }

    #[test]
    fn of_many_segments_that_are_not_understood_some_are_listed_and_in_few_words() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.ring");
        let long = "é".repeat(100_000);
        let mut rings = vec![Ring::open(&path).unwrap()];
        rings.extend((1..100).map(|segment| of_a_later_version(segment, &long)));
        let decoder = Decoder::new(rings).unwrap();
        let whys: Vec<String> = decoder.unread().map(ToString::to_string).collect();
        assert_eq!(whys.len(), MAX_UNREAD);
        assert!(whys.iter().all(|why| why.len() < 1000 && why.contains(" ...")), "{}", whys[0]);
    }

    #[test]
    fn a_very_long_command_ends_with_how_many_words_are_not_shown() {
        let words = |count: usize| vec!["a".to_owned(); count];
        for (count, last) in [(1, "a"), (1 << 16, "a"), ((1 << 16) + 7, "... and 7 more words")] {
            let mut command = words(count);
            shorten(&mut command);
            assert_eq!(command.len(), count.min((1 << 16) + 1));
            assert_eq!(command.last().unwrap(), last);
        }
    }

    fn asked_for(extent: &Extent) -> Vec<u64> {
        let next = |seq: &u64| extent.next(seq + 1);
        std::iter::successors(extent.next(0), next).collect()
    }

    #[test]
    fn only_the_last_lap_of_the_slots_that_are_there_is_asked_for() {
        for (slots, slots_present, newest) in (2..6).flat_map(|slots| {
            (0..=slots).flat_map(move |there| (10..30).map(move |newest| (slots, there, newest)))
        }) {
            let extent = Extent { first: 10, slots, slots_present, newest: Some(Seq(newest)) };
            let expected: Vec<u64> = (10..=newest)
                .filter(|seq| newest - seq < slots && (seq - 10) % slots < slots_present)
                .collect();
            assert_eq!(asked_for(&extent), expected, "{slots} {slots_present} {newest}");
        }
        let none = Extent { first: 10, slots: 4, slots_present: 4, newest: None };
        assert!(asked_for(&none).is_empty());
    }

    #[test]
    fn numbers_far_apart_cost_no_more_than_the_slots_that_are_there() {
        let newest = Some(Seq((1 << 62) + 1));
        let extent = Extent { first: 0, slots: 2, slots_present: 2, newest };
        assert_eq!(asked_for(&extent), [1 << 62, (1 << 62) + 1]);
        let extent = Extent { first: 0, slots: 1 << 32, slots_present: 2, newest };
        assert_eq!(asked_for(&extent), [1 << 62, (1 << 62) + 1]);
        let newest = Some(Seq((1 << 32) + 7));
        let extent = Extent { first: 0, slots: 1 << 32, slots_present: 3, newest };
        assert_eq!(asked_for(&extent), [1 << 32, (1 << 32) + 1, (1 << 32) + 2]);
    }
}
