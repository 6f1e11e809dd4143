//! Any bytes as the ring files of a run, one behind the other: segments, and copies of segments that
//! differ. Changes that the fuzzer makes are mostly mended, so that they get
//! past the checksums: see `ringstat_fuzz::rings::mutate`.
//!
//! Beyond "no panic" and bounded time and memory: counts add up; whatever the description and the
//! records say, the output is JSON without ambiguity; and as long as they say what a recorder
//! could have written, it has the types of the published format. What two copies of a ring have between
//! them is what the whole ring has.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use ringstat::fuzzing::{RecordView, RowHead};
use ringstat::ring::{Ring, SlotState};
use ringstat::{
    DecodeError, Decoder, Description, JSON, JSON_COMPACT, Schema, Shape, Slot, SourceSchema,
    TimeSeriesData,
};
use ringstat_fuzz::json::Unambiguous;
use ringstat_fuzz::rings::{TEXTS, mutate, source_schema, split};
use std::path::Path;
use std::sync::LazyLock;

static RECORDED: LazyLock<Vec<SourceSchema>> =
    LazyLock::new(|| TEXTS.iter().map(|(source, text)| source_schema(source, text)).collect());

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed, fuzzer_mutate)
});

fuzz_target!(|data: &[u8]| match &split(data)[..] {
    [_] => one_ring(data),
    all => {
        let parts = all.iter().map(|part| &data[part.clone()]);
        several_rings(&parts.collect::<Vec<_>>());
    }
});

/// Any rings at all: of several runs, twice, without a head.
fn several_rings(parts: &[&[u8]]) {
    let open = |bytes: &[u8]| Ring::new(Box::new(bytes.to_vec()), Path::new("fuzz"));
    let opened = || {
        let mut rings: Vec<Ring> = parts.iter().filter_map(|bytes| open(bytes).ok()).collect();
        // As a copy is read whose head was damaged.
        if let Some(first) = rings.first()
            && let Ok(description) = first.description()
        {
            let header = first.header().clone();
            let headless = parts.iter().filter(|bytes| open(bytes).is_err()).map(|bytes| {
                let (header, description) = (header.clone(), description.clone());
                Ring::with_head(Box::new(bytes.to_vec()), Path::new("fuzz"), header, description)
            });
            rings.extend(headless.collect::<Vec<_>>());
        }
        rings
    };
    let are_recorders = opened().iter().all(look_at);
    let in_turn = Decoder::new(opened());
    let reversed = Decoder::new(opened().into_iter().rev().collect());
    match (in_turn, reversed) {
        (Ok(decoder), Ok(reversed)) => {
            assert_eq!(decoder.unread().count(), reversed.unread().count());
            assert_eq!(counts(&decoder), counts(&reversed));
            check_output(decoder, are_recorders);
        }
        (Err(_), Err(_)) => {}
        (in_turn, reversed) => panic!(
            "in turn {:?}, reversed {:?}",
            in_turn.err().map(|error| error.to_string()),
            reversed.err().map(|error| error.to_string())
        ),
    }
}

/// Samples that were taken, kept, lost and overwritten.
fn counts(decoder: &Decoder) -> [u64; 4] {
    let summary = decoder.summary();
    let counts = [
        summary.samples_taken,
        summary.samples_kept,
        summary.samples_lost,
        summary.samples_overwritten,
    ];
    assert_eq!(counts[0], counts[1..].iter().sum::<u64>(), "{counts:?}");
    counts
}

fn one_ring(data: &[u8]) {
    let open = || Ring::new(Box::new(data.to_vec()), Path::new("fuzz"));
    let Ok(ring) = open() else { return };
    let is_recorders = look_at(&ring);
    match Decoder::new(vec![ring]) {
        Ok(decoder) => check_output(decoder, is_recorders),
        Err(error) => assert!(!is_recorders, "{error}"),
    }
    // Ring and mirror are the same to the decoder.
    let copies = vec![open().expect("opened before"), open().expect("opened before")];
    let one = Decoder::new(vec![open().expect("opened before")]);
    let (Ok(one), Ok(two)) = (one, Decoder::new(copies)) else { return };
    assert_eq!(one.outline(), two.outline());
    // As are two copies of which each has lost what the other has.
    let layout = one.header().layout;
    let without = |remainder: usize| {
        let mut bytes = data.to_vec();
        let from =
            usize::try_from(layout.slots_offset.0).map_or(bytes.len(), |at| at.min(data.len()));
        let slots = bytes[from..].chunks_mut(layout.slot.bytes().0 as usize).enumerate();
        slots.filter(|(slot, _)| slot % 2 == remainder).for_each(|(_, slot)| slot.fill(0));
        Ring::new(Box::new(bytes), Path::new("fuzz")).expect("its head is whole")
    };
    let halves = Decoder::new(vec![without(0), without(1)]).expect("two copies");
    assert_eq!(counts(&halves), counts(&one));
}

/// Looks at every slot and entry; returns whether a recorder could have written the ring.
fn look_at(ring: &Ring) -> bool {
    let scan = ring.scan().expect("memory can be read");
    let slots = ring.header().layout.slots;
    assert_eq!(scan.valid + scan.empty + scan.busy + scan.torn, slots);
    assert_eq!(scan.newest.is_some(), scan.valid > 0);
    assert!(scan.oldest <= scan.newest);
    let description: Option<Description> =
        ring.description().ok().and_then(|json| serde_json::from_slice(&json).ok());
    let schema = description.map(|description| description.schema);
    let mut is_recorders = schema.as_ref().is_some_and(is_recorded);
    let mut words = Vec::new();
    for slot in 0..ring.slots_present().expect("memory can be read") {
        let state = ring.read_slot(Slot(slot), &mut words).expect("memory can be read");
        let SlotState::Valid(seq, used) = state else { continue };
        assert_eq!(words.len(), used);
        assert_eq!(seq.0.checked_sub(ring.header().first_seq.0).map(|nth| nth % slots), Some(slot));
        let copy = words.clone();
        assert!(ring.read(seq, &mut words).expect("memory can be read") && words == copy);
        if let Some(schema) = &schema
            && let Ok(view) = RecordView::new(&words, schema)
        {
            is_recorders &= view.blocks().all(|block| match &block.source.shape {
                Some(shape @ Shape::Table { columns, .. }) => {
                    let mut heads = block.data.chunks_exact(shape.row_words());
                    heads.all(|row| RowHead::from_word(row[0]).columns as usize == columns.len())
                }
                _ => true,
            });
        }
    }
    for entry in (0..64).chain([u32::MAX]) {
        if let Some(entry) = ring.entry(entry).expect("memory can be read") {
            assert!(entry.name.len() <= ringstat::MAX_NAME_BYTES);
        }
    }
    is_recorders
}

/// Whether these are sources of ours, each at most once, and with their own columns.
fn is_recorded(schema: &Schema) -> bool {
    let mut sources = schema.sources.iter().enumerate();
    sources.all(|(index, source)| {
        let twice = schema.sources[..index].iter().any(|other| other.name == source.name);
        let shape = RECORDED.iter().find(|known| known.name == source.name);
        !twice && shape.is_some_and(|known| source.shape.is_none() || source.shape == known.shape)
    })
}

fn check_output(mut decoder: Decoder, is_recorders: bool) {
    let kept = decoder.summary().samples_kept;
    let outline = decoder.outline();
    let [indented, compact] = [&JSON, &JSON_COMPACT].map(|format| {
        let mut json = Vec::new();
        let mut heard = 0;
        let written = decoder.write(format, &mut json, &mut |done, of| {
            heard += 1;
            assert!(done == heard && of == kept, "{done} of {of}");
        });
        match written {
            Ok(written) => assert_eq!(written, outline),
            Err(DecodeError::Write(error)) => panic!("{error}"),
            Err(error) => panic!("memory does not change: {error}"),
        }
        assert_eq!(heard, kept);
        json
    });
    if let Err(error) = serde_json::from_slice::<Unambiguous>(&indented) {
        panic!("{error}: {}", String::from_utf8_lossy(&indented));
    }
    let values = [indented, compact.clone()]
        .map(|json| serde_json::from_slice::<serde_json::Value>(&json).expect("JSON"));
    assert!(values[0] == values[1], "indented and compact differ");
    if !is_recorders {
        return;
    }
    match serde_json::from_slice::<TimeSeriesData>(&compact) {
        Ok(data) => {
            let samples: usize = data.samples_by_host.values().map(Vec::len).sum();
            assert_eq!((samples as u64, data.num_samples), (kept, kept));
        }
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(&compact)),
    }
}
