//! The stream between launcher and agent: how messages become bytes and bytes messages, whatever these
//! say. Pure: bytes come in and go out, nothing is read or written. What the messages are is `protocol`'s.
//!
//! ```text
//! agent, once:  START_MARKER nonce "\n"          behind whatever a shell's profile has printed
//! both ways:    | length u32 | XXH3-64 u64 | kind u8 | body |       all little endian
//! ```
//!
//! `length` counts kind and body. A control message is JSON, a chunk of a ring is binary. Whatever
//! the other side sends is bounded before it takes memory, and a wrong byte ends the conversation.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64;

/// Begins the first line that is the agent's own.
pub const START_MARKER: &str = "\u{1}ringstat-agent ";
/// Longest frame, without length and checksum.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// Noise that may come before the marker: profiles are chatty, but not endless.
pub const MAX_NOISE_BYTES: usize = 1 << 20;
/// Bytes that may come on standard error in one conversation: an agent says little there.
pub const MAX_STDERR_BYTES: usize = 1 << 20;
/// Bytes of a ring that go into one chunk, before compression.
pub const CHUNK_BYTES: usize = 256 << 10;

const HEAD_BYTES: usize = 12;
const CONTROL: u8 = 1;
const CHUNK: u8 = 2;
const CHUNK_HEAD_BYTES: usize = 16;

/// A part of a ring file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Place of the file in the list.
    pub file: u32,
    /// Where it begins.
    pub offset: u64,
    /// At most 256 kB.
    pub bytes: Vec<u8>,
}

/// Anything that is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<C> {
    /// Words.
    Control(C),
    /// Bytes of a ring.
    Chunk(Chunk),
}

/// The other side does not speak this protocol, or not rightly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No frame is so long, or so short.
    #[error("a frame of {found} bytes, expected 1 to {MAX_FRAME_BYTES}")]
    Length {
        /// What it says.
        found: u32,
    },
    /// Bytes were changed on the way, or are no frame.
    #[error("a frame's checksum is {found:#018x}, expected {expected:#018x}")]
    Check {
        /// What it says.
        found: u64,
        /// What its bytes have.
        expected: u64,
    },
    /// Not of this version.
    #[error("a frame of kind {0}, expected {CONTROL} or {CHUNK}")]
    Kind(u8),
    /// A control message that is none.
    #[error("a message that cannot be understood: {0}")]
    Message(String),
    /// A chunk that is none.
    #[error("a chunk that cannot be unpacked: {0}")]
    Chunk(&'static str),
    /// There is no agent behind the noise.
    #[error("no agent speaks within the first {MAX_NOISE_BYTES} bytes")]
    NoMarker,
    /// It keeps us reading what nobody wants.
    #[error("more than {MAX_STDERR_BYTES} bytes on standard error")]
    Stderr,
    /// It speaks out of turn.
    #[error("it says something that was not asked for")]
    Unasked,
}

/// Puts a frame around a control message, behind what `out` has.
///
/// # Errors
/// [`ProtocolError::Length`] if it is too long, [`ProtocolError::Message`] if it cannot be JSON.
pub fn put_control(message: &impl Serialize, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let json =
        serde_json::to_vec(message).map_err(|error| ProtocolError::Message(error.to_string()))?;
    put_frame(CONTROL, &[&json], out)
}

/// Puts a chunk, compressed, behind what `out` has.
///
/// # Errors
/// [`ProtocolError::Length`] if there are more than 256 kB.
pub fn put_chunk(
    file: u32,
    offset: u64,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    if bytes.len() > CHUNK_BYTES {
        let found = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        return Err(ProtocolError::Length { found });
    }
    let mut head = [0; CHUNK_HEAD_BYTES];
    head[..4].copy_from_slice(&file.to_le_bytes());
    head[4..12].copy_from_slice(&offset.to_le_bytes());
    head[12..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    put_frame(CHUNK, &[&head, &lz4_flex::block::compress(bytes)], out)
}

fn put_frame(kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let start = out.len();
    out.resize(start + HEAD_BYTES, 0);
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let length = out.len() - start - HEAD_BYTES;
    let found = u32::try_from(length).unwrap_or(u32::MAX);
    if length > MAX_FRAME_BYTES {
        out.truncate(start);
        return Err(ProtocolError::Length { found });
    }
    let check = xxh3_64(&out[start + HEAD_BYTES..]);
    out[start..start + 4].copy_from_slice(&found.to_le_bytes());
    out[start + 4..start + HEAD_BYTES].copy_from_slice(&check.to_le_bytes());
    Ok(())
}

/// Takes frames out of a stream of bytes, as they come in.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: VecDeque<u8>,
}

impl Frames {
    /// More bytes have come. Never holds more than one frame beyond what is [taken](Self::take).
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Whether nothing is there that was not [taken](Self::take).
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// [`ProtocolError`]: the stream is of no use any more.
    pub fn take<C: DeserializeOwned>(&mut self) -> Result<Option<Message<C>>, ProtocolError> {
        let buffer = self.bytes.make_contiguous();
        let Some((head, rest)) = buffer.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let found = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = found as usize;
        if !(1..=MAX_FRAME_BYTES).contains(&length) {
            return Err(ProtocolError::Length { found });
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let (mut found, expected) = ([0; 8], xxh3_64(frame));
        found.copy_from_slice(&head[4..]);
        let found = u64::from_le_bytes(found);
        if found != expected {
            return Err(ProtocolError::Check { found, expected });
        }
        let message = message(frame)?;
        self.bytes.drain(..HEAD_BYTES + length);
        Ok(Some(message))
    }
}

fn message<C: DeserializeOwned>(frame: &[u8]) -> Result<Message<C>, ProtocolError> {
    match frame.split_first() {
        Some((&CONTROL, json)) => serde_json::from_slice(json)
            .map(Message::Control)
            .map_err(|error| ProtocolError::Message(error.to_string())),
        Some((&CHUNK, body)) => chunk(body).map(Message::Chunk),
        Some((kind, _)) => Err(ProtocolError::Kind(*kind)),
        None => Err(ProtocolError::Length { found: 0 }),
    }
}

fn chunk(body: &[u8]) -> Result<Chunk, ProtocolError> {
    let short = ProtocolError::Chunk("it ends in its head");
    let (file, rest) = body.split_first_chunk::<4>().ok_or(short.clone())?;
    let (offset, rest) = rest.split_first_chunk::<8>().ok_or(short.clone())?;
    let (length, packed) = rest.split_first_chunk::<4>().ok_or(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > CHUNK_BYTES {
        return Err(ProtocolError::Chunk("it would be too long"));
    }
    // No more room than it says: what is longer is an error, and no memory.
    let mut bytes = vec![0; length];
    match lz4_flex::block::decompress_into(packed, &mut bytes) {
        Ok(count) if count == length => {}
        _ => return Err(ProtocolError::Chunk("its bytes are not what they say")),
    }
    Ok(Chunk { file: u32::from_le_bytes(*file), offset: u64::from_le_bytes(*offset), bytes })
}

/// Looks for the agent's start behind the noise of shells.
#[derive(Debug)]
pub struct Marker {
    line: Vec<u8>,
    seen: Vec<u8>,
    noise: usize,
}

impl Marker {
    /// The line that an agent says first. `nonce` is the launcher's choice: no profile prints it.
    pub fn line(nonce: &str) -> String {
        format!("{START_MARKER}{nonce}\n")
    }

    /// Waits for that line.
    pub fn new(nonce: &str) -> Marker {
        Marker { line: Marker::line(nonce).into_bytes(), seen: Vec::new(), noise: 0 }
    }

    /// More bytes have come. What lies behind the marker, once it is found.
    ///
    /// # Errors
    /// [`ProtocolError::NoMarker`] if there is too much else.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, ProtocolError> {
        self.seen.extend_from_slice(bytes);
        let found = self.seen.windows(self.line.len()).position(|window| window == self.line);
        if let Some(at) = found {
            return Ok(Some(self.seen.split_off(at + self.line.len())));
        }
        let keep = self.seen.len().min(self.line.len() - 1);
        let dropped = self.seen.len() - keep;
        self.noise += dropped;
        self.seen.drain(..dropped);
        if self.noise > MAX_NOISE_BYTES { Err(ProtocolError::NoMarker) } else { Ok(None) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::protocol::{Reply, Request};
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Message<Request>>, ProtocolError> {
        let mut frames = Frames::default();
        let mut messages = Vec::new();
        for part in bytes.chunks(step) {
            frames.push(part);
            while let Some(message) = frames.take()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_come_out_as_they_went_in_whatever_the_pieces() {
        let mut bytes = Vec::new();
        let ping = Request::Ping { id: 7, beat: true };
        put_control(&ping, &mut bytes).unwrap();
        let ring: Vec<u8> = (0..CHUNK_BYTES).map(|at| (at / 100) as u8).collect();
        put_chunk(3, 1 << 40, &ring, &mut bytes).unwrap();
        put_control(&Request::Stop, &mut bytes).unwrap();
        assert!(bytes.len() < CHUNK_BYTES / 10, "{} bytes: not compressed", bytes.len());
        let expected = [
            Message::Control(ping),
            Message::Chunk(Chunk { file: 3, offset: 1 << 40, bytes: ring }),
            Message::Control(Request::Stop),
        ];
        for step in [1, 7, 4096, bytes.len()] {
            assert_eq!(all(&bytes, step).unwrap(), expected, "{step}");
        }
        assert_eq!(all(&bytes[..bytes.len() - 1], 100).unwrap(), expected[..2]);
    }

    #[test]
    fn every_wrong_byte_is_found() {
        let mut good = Vec::new();
        put_control(&Request::Fetch { file: 1, from: 9 }, &mut good).unwrap();
        for at in 0..good.len() {
            for flip in [1, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                // A length that is longer than what is there waits for more, at most a frame.
                assert!(all(&bad, 1000).is_err() || all(&bad, 1000) == Ok(vec![]), "{at} {flip}");
                bad.resize(bad.len() + MAX_FRAME_BYTES, 0);
                assert!(all(&bad, 4096).is_err(), "{at} {flip}");
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_takes_memory() {
        let head = |length: u32| [&length.to_le_bytes()[..], &[0; 8]].concat();
        for length in [0, MAX_FRAME_BYTES as u32 + 1, u32::MAX] {
            assert_eq!(all(&head(length), 5), Err(ProtocolError::Length { found: length }));
        }
        let long = "x".repeat(MAX_FRAME_BYTES);
        let mut out = vec![1];
        assert!(put_control(&Reply::Failed { what: long }, &mut out).is_err());
        assert_eq!(out, [1]);
        assert!(put_chunk(0, 0, &[0; CHUNK_BYTES + 1], &mut out).is_err());
        let mut bomb = vec![CHUNK];
        bomb.extend([0; 12]);
        bomb.extend(u32::MAX.to_le_bytes());
        let mut out = Vec::new();
        put_frame(bomb[0], &[&bomb[1..]], &mut out).unwrap();
        assert_eq!(all(&out, 9), Err(ProtocolError::Chunk("it would be too long")));
        let packed = lz4_flex::block::compress(&[7; 100_000]);
        let head = [&[0; 12][..], &10_u32.to_le_bytes()].concat();
        let mut out = Vec::new();
        put_frame(CHUNK, &[&head, &packed], &mut out).unwrap();
        assert!(matches!(all(&out, 9), Err(ProtocolError::Chunk(_))));
    }

    #[test]
    fn the_marker_is_found_behind_noise_and_only_with_its_nonce() {
        let noise = format!("Welcome!\n{START_MARKER}0000\n{START_MARKER}ab");
        let stream = [noise.as_bytes(), Marker::line("abcd").as_bytes(), b"frame"].concat();
        for step in [1, 3, stream.len()] {
            let mut marker = Marker::new("abcd");
            let mut behind: Option<Vec<u8>> = None;
            for part in stream.chunks(step) {
                match &mut behind {
                    Some(bytes) => bytes.extend(part),
                    None => behind = marker.push(part).unwrap(),
                }
            }
            assert_eq!(behind.unwrap(), b"frame", "{step}");
        }
        let mut marker = Marker::new("abcd");
        let endless = (0..1000).try_for_each(|_| marker.push(&[b'y'; 4096]).map(drop));
        assert_eq!(endless, Err(ProtocolError::NoMarker));
        assert!(marker.seen.len() <= 4096 + 64, "noise is not kept");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = all(&bytes, 7);
            let mut framed = Vec::new();
            put_frame(bytes.first().copied().unwrap_or(0) % 4, &[&bytes], &mut framed).unwrap();
            let _ = all(&framed, 64);
        }
    }
}
