//! Any bytes as what a launcher says to an agent, in whatever pieces: requests, or an error and an end;
//! and what was understood is said again alike.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringstat::fuzzing::{Frames, Message, Request, put_control};

fn requests(bytes: &[u8], step: usize) -> (Vec<Message<Request>>, bool) {
    let mut frames = Frames::default();
    let mut heard = Vec::new();
    for piece in bytes.chunks(step) {
        frames.push(piece);
        loop {
            match frames.take::<Request>() {
                Ok(Some(message)) => heard.push(message),
                Ok(None) => break,
                Err(_) => return (heard, true),
            }
        }
    }
    (heard, false)
}

fuzz_target!(|data: &[u8]| {
    let (step, said) = data.split_first().map_or((1, data), |(step, said)| (*step as usize, said));
    let all = requests(said, said.len().max(1));
    assert_eq!(all, requests(said, step.max(1)), "whatever the pieces");
    for message in all.0 {
        let Message::Control(request) = message else { continue };
        let mut again = Vec::new();
        put_control(&request, &mut again).expect("a frame");
        assert_eq!(requests(&again, 64), (vec![Message::Control(request)], false));
    }
});
