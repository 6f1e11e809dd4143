//! Any requests of a launcher to an agent whose host has rings of runs, damaged ones too, and maybe a
//! recorder that answers anything. Each is answered once and by what it asks for, a ring that is fetched is
//! the one that is there, and no file is changed or removed but those of runs that were named.
//!
//! | byte | what |
//! |---|---|
//! | 0 | what there is: bit 0 a recorder, 1 no mirror, 2 no ring, 3 the ring is cut off, 4 a second segment |
//! | 1, then so many | how the recorder answers |
//! | 1, then three for each | damage to the ring: offset, value |
//! | the rest | requests as JSON, a line each; what is none is sent as it is |

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringstat::fuzzing::{Frames, Marker, Message, Place, Reply, Request, converse, put_control};
use ringstat_fuzz::world::{Files, World};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

const NONCE: &str = "0123";

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let flags = take(&mut rest, 1).first().copied().unwrap_or_default();
    let answers = counted(&mut rest, 1);
    let damage = counted(&mut rest, 3);
    let world = World::new();
    let [rings, mirrors] = world.run_dirs();
    spoil(&rings.join("00000.ring"), flags, damage);
    if flags & 16 != 0 {
        fs::copy(mirrors.join("00000.ring"), rings.join("00001.ring")).expect("copied");
    }
    for (flag, dir) in [(2, &mirrors), (4, &rings)] {
        if flags & flag != 0 {
            fs::remove_dir_all(dir).expect("removed");
        }
    }
    let before = world.files();
    let (asked, said) = requests(rest, &world);
    let recorder = (flags & 1 != 0).then_some((&*rings, answers));
    let heard = converse(&said, 1 + usize::from(flags), NONCE, recorder);
    // One that was killed leaves it.
    let _ = fs::remove_file(rings.join("agent.sock"));
    let whole = conversation(&heard.bytes, &asked, &world);
    assert!(heard.is_understood || whole == asked.len(), "all that was understood is answered");
    let prepared = asked.iter().filter(|request| matches!(request, Request::Prepare(_)));
    assert!(heard.started <= prepared.count());
    assert_others_are_whole(&before, &world.files(), &asked, &world);
});

/// So many bytes, or what there is.
fn take<'d>(rest: &mut &'d [u8], count: usize) -> &'d [u8] {
    let (taken, left) = rest.split_at(count.min(rest.len()));
    *rest = left;
    taken
}

/// What a byte counts, of so many bytes each.
fn counted<'d>(rest: &mut &'d [u8], each: usize) -> &'d [u8] {
    let count = take(rest, 1).first().map_or(0, |count| usize::from(*count));
    take(rest, count * each)
}

fn spoil(ring: &Path, flags: u8, damage: &[u8]) {
    let mut bytes = fs::read(ring).expect("a ring");
    if flags & 8 != 0 {
        bytes.truncate(bytes.len() / 2);
    }
    for change in damage.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = change[2];
        }
    }
    fs::write(ring, bytes).expect("written");
}

/// Requests in this world, up to one that is none, and what is sent.
fn requests(lines: &[u8], world: &World) -> (Vec<Request>, Vec<u8>) {
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(mut request) = serde_json::from_slice(line) else {
            // No frame begins so: its length would be too much.
            said.extend([0xff; 4]);
            said.extend_from_slice(line);
            break;
        };
        if let Request::Attach(place) | Request::Look { place, .. } = &mut request {
            confine(place, world);
        }
        if put_control(&request, &mut said).is_err() {
            break;
        }
        let is_last = request == Request::Bye;
        asked.push(request);
        if is_last {
            break;
        }
    }
    (asked, said)
}

/// Whatever it names lies in the world.
fn confine(place: &mut Place, world: &World) {
    for (base, default) in [(&mut place.ring_base, "rings"), (&mut place.mirror_base, "mirrors")] {
        let name = match base.as_deref() {
            Some("elsewhere") => "elsewhere",
            Some("mirrors") => "mirrors",
            Some("rings") => "rings",
            Some("") => "rings/../mirrors",
            _ => default,
        };
        *base = Some(world.path().join(name).to_str().expect("a name").to_owned());
    }
}

/// Holds what was heard against what was asked; how much of that was answered.
fn conversation(heard: &[u8], asked: &[Request], world: &World) -> usize {
    let behind = Marker::new(NONCE).push(heard).expect("a marker").expect("a marker");
    let mut frames = Frames::default();
    frames.push(&behind);
    let mut next = || frames.take::<Reply>().expect("frames");
    assert!(matches!(next(), Some(Message::Control(Reply::Hello(_)))));
    let mut files = Vec::new();
    for (number, request) in asked.iter().enumerate() {
        let mut ring = Vec::new();
        let reply = loop {
            match (next(), request) {
                (Some(Message::Chunk(chunk)), Request::Fetch { file, from }) => {
                    assert_eq!(chunk.file, *file);
                    let (at, end) =
                        (chunk.offset as usize, chunk.offset + chunk.bytes.len() as u64);
                    assert!(at >= ring.len() && end > *from, "{at} behind {}", ring.len());
                    ring.resize(at, 0);
                    ring.extend(chunk.bytes);
                }
                (Some(Message::Control(reply)), _) => break reply,
                (None, _) => return number,
                (Some(Message::Chunk(_)), _) => panic!("a ring that was not asked for"),
            }
        };
        match (request, reply) {
            (Request::List, Reply::Files(listed)) => files = listed,
            (Request::Ping { id, beat }, Reply::Pong { id: same, recorder, .. }) => {
                assert_eq!((*id, *beat), (same, recorder.is_some()));
            }
            (Request::Fetch { file, from }, Reply::End { file: same, check, unreadable }) => {
                assert_eq!((*file, 0), (same, unreadable));
                let bytes = files[*file as usize].bytes as usize;
                assert!(ring.len() <= bytes);
                ring.resize(bytes, 0);
                assert!(*from > 0 || xxh3_64(&ring) == check, "not the ring that is there");
            }
            (Request::Discard, Reply::Discarded) => {
                files.clear();
                // Of the last one that was named.
                let place = asked[..number].iter().rev().find_map(|request| match request {
                    Request::Attach(place) => Some(place),
                    _ => None,
                });
                assert_nothing_is_left(place.expect("a run"));
            }
            (Request::Discard, Reply::Failed { .. }) => files.clear(),
            (Request::Attach(_), Reply::Attached(_))
            | (Request::Look { .. }, Reply::Seen(_))
            | (Request::Prepare(_), Reply::Prepared | Reply::Failed { .. })
            | (Request::Go { .. }, Reply::Going | Reply::Failed { .. })
            | (Request::Stop, Reply::Stopped { .. } | Reply::Failed { .. })
            | (Request::List | Request::Fetch { .. }, Reply::Failed { .. })
            | (Request::Bye, Reply::Goodbye) => {}
            (request, reply) => panic!("{reply:?} to {request:?}"),
        }
    }
    assert_eq!(next(), None, "nobody asked for that, in {}", world.path().display());
    asked.len()
}

fn assert_nothing_is_left(place: &Place) {
    for base in [&place.ring_base, &place.mirror_base].into_iter().flatten() {
        let dir = Path::new(base).join(place.run_id.to_string());
        let names =
            fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let names: Vec<_> =
            names.filter(|name| name.to_string_lossy().ends_with(".ring")).collect();
        assert!(names.is_empty(), "{names:?} in {base}");
    }
}

/// No file is new or another, and only those of runs that were named are gone: that were ringstat's.
fn assert_others_are_whole(before: &Files, after: &Files, asked: &[Request], world: &World) {
    let named: BTreeSet<String> = asked
        .iter()
        .filter_map(|request| match request {
            Request::Attach(place) => Some(place.run_id.to_string()),
            _ => None,
        })
        .collect();
    for (path, bytes) in after {
        assert!(before.get(path) == Some(bytes), "{} was written", path.display());
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        let below = path.strip_prefix(world.path()).expect("in the world");
        let run = below.iter().nth(1).expect("a run").to_string_lossy();
        let name = below.iter().nth(2).unwrap_or_default().to_string_lossy();
        let is_ours = name.ends_with(".ring") || name.starts_with("run.json");
        assert!(named.contains(&*run) && is_ours, "{} is gone", below.display());
    }
}
