//! An agent that says what it was told to, whatever it is asked: for tests and fuzz targets of the
//! launcher's side.

use super::collect::{CollectError, Collected, collect};
use super::frames::Marker;
use super::session::{Session, SessionError};
use super::transport::{Channel, End};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Says these bytes, and ends.
pub struct Scripted {
    bytes: Vec<u8>,
    at: usize,
    /// Bytes that it gives at a time.
    step: usize,
    /// Bytes that it has on standard error.
    stderr: usize,
}

impl Channel for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.step).min(self.bytes.len() - self.at);
        bytes[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }

    fn read_stderr(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.stderr);
        bytes[..count].fill(b'!');
        self.stderr -= count;
        Ok(count)
    }

    fn end_input(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn wait(&mut self, _to_write: bool, _deadline: Instant) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, _deadline: Instant) -> End {
        End::Status(0)
    }
}

/// A conversation with an agent that says `said` behind its marker, in pieces, and has so many bytes on
/// standard error.
fn session_with(
    said: &[u8],
    step: usize,
    stderr: usize,
    deadline: Instant,
) -> Result<Session<'static>, SessionError> {
    const NONCE: &str = "0123";
    let bytes = [Marker::line(NONCE).as_bytes(), said].concat();
    let channel = Box::new(Scripted { bytes, at: 0, step: step.max(1), stderr });
    Session::begin(channel, NONCE, deadline).map(|(session, _)| session)
}

/// Fetches into `dir` at most `most` bytes from an agent that says `said` behind its marker.
///
/// # Errors
/// `CollectError`.
pub fn collect_from(
    said: &[u8],
    step: usize,
    dir: &Path,
    most: u64,
) -> Result<Collected, CollectError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut session = session_with(said, step, 0, deadline)?;
    collect(&mut session, dir, most, deadline, &mut |_| {})
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::frames::{MAX_STDERR_BYTES, ProtocolError, put_chunk, put_control};
    use super::super::protocol::{FileEntry, Hello, Reply, VERSION};
    use super::*;
    use crate::ring::{
        Draft, Header, Layout, MIN_INTERVAL_NS, RingWriter, Segment, WordMap, description_check,
    };
    use crate::sync::Ordering;
    use crate::units::{Bytes, Seq, Words};
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use xxhash_rust::xxh3::xxh3_64;

    const MOST: u64 = 1 << 20;

    struct Script(Vec<u8>);

    impl Script {
        fn new() -> Script {
            Script(Vec::new()).says(&Reply::Hello(Box::new(Hello::here("h".into(), None))))
        }

        fn says(mut self, reply: &Reply) -> Script {
            put_control(reply, &mut self.0).unwrap();
            self
        }

        fn lists(self, files: &[(u64, u64)]) -> Script {
            let entry =
                |&(segment, bytes): &(u64, u64)| FileEntry { segment, is_mirror: false, bytes };
            self.says(&Reply::Files(files.iter().map(entry).collect()))
        }

        fn sends(mut self, file: u32, offset: u64, bytes: &[u8]) -> Script {
            put_chunk(file, offset, bytes, &mut self.0).unwrap();
            self
        }

        fn ends(self, file: u32, bytes: &[u8]) -> Script {
            self.says(&Reply::End { file, check: xxh3_64(bytes), unreadable: 0 })
        }

        fn collect(&self, dir: &Path) -> Result<Collected, CollectError> {
            collect_from(&self.0, 1000, dir, MOST)
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn rings_come_with_their_zeros_and_under_our_names() {
        let dir = tempfile::tempdir().unwrap();
        let ring = [&[1; 100][..], &[0; 900], &[2; 24]].concat();
        let script = Script::new()
            .lists(&[(7, 1024)])
            .sends(0, 0, &ring[..100])
            .sends(0, 1000, &ring[1000..])
            .ends(0, &ring);
        assert_eq!(script.collect(dir.path()).unwrap(), Collected { files: 1, bytes: 1024 });
        assert_eq!(names(dir.path()), ["00007.ring"]);
        assert_eq!(fs::read(dir.path().join("00007.ring")).unwrap(), ring);
        // What is there is not sent again.
        let again = || Script::new().lists(&[(7, 1024)]).ends(0, &ring);
        assert_eq!(again().collect(dir.path()).unwrap().files, 1);
        let sent = Script::new().lists(&[(7, 1024)]).sends(0, 0, &[1]);
        assert!(sent.collect(dir.path()).unwrap_err().to_string().contains("there already"));
        assert_eq!(names(dir.path()), ["00007.ring"]);
        // Unless it is not what it was.
        let mut damaged = ring.clone();
        damaged[1000] = 3;
        fs::write(dir.path().join("00007.ring"), &damaged).unwrap();
        let anew = again().sends(0, 0, &ring[..100]).sends(0, 1000, &ring[1000..]).ends(0, &ring);
        anew.collect(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("00007.ring")).unwrap(), ring);
        // It may be the host that has lost something.
        assert_eq!(names(dir.path()), ["00007.ring", "earlier-00007.ring"]);
        assert_eq!(fs::read(dir.path().join("earlier-00007.ring")).unwrap(), damaged);
    }

    /// Has a ring of segment 0, whatever is here of it: `had` tells whether that is as long.
    fn script_of(ring: &[u8], had: bool) -> Script {
        let mut script = Script::new().lists(&[(0, ring.len() as u64)]);
        if had {
            script = script.ends(0, ring);
        }
        for (number, piece) in ring.chunks(256 << 10).enumerate() {
            script = script.sends(0, (number * (256 << 10)) as u64, piece);
        }
        script.ends(0, ring)
    }

    #[test]
    fn nothing_that_was_kept_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        // The last one of a kind is as good as any.
        for (round, first) in [1, 2, 3, 1].into_iter().enumerate() {
            script_of(&[first; 5000], round > 0).collect(dir.path()).unwrap();
        }
        for (name, first) in [
            ("earlier-00000.ring", 1),
            ("earlier-2-00000.ring", 2),
            ("earlier-3-00000.ring", 3),
            ("00000.ring", 1),
        ] {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), [first; 5000], "{name}");
        }
        assert_eq!(names(dir.path()).len(), 4);
    }

    /// A ring with that many samples, of a length that leaves no room for another one.
    fn ring(samples: u64) -> Vec<u8> {
        const DESCRIPTION: &[u8] = b"{}";
        let layout = Layout::new(Bytes(DESCRIPTION.len() as u64), 1, Words(512), 150).unwrap();
        let bytes = layout.file_bytes();
        assert!((MOST / 2..MOST).contains(&bytes.0), "{bytes:?}");
        let header = Header {
            layout,
            description_check: description_check(DESCRIPTION),
            max_samples: 149,
            run_id: uuid::Uuid::from_u128(1),
            segment: 0,
            first_seq: Seq(0),
            start_wall_ns: 1,
            start_monotonic_ns: 1,
            interval_ns: MIN_INTERVAL_NS,
            boot_id: uuid::Uuid::from_u128(2),
        };
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes.0).unwrap();
        let memory = Arc::new(WordMap::of_file(&file, bytes).unwrap());
        let writer =
            RingWriter::new(Arc::new(Segment::create(memory, header, DESCRIPTION).unwrap()));
        let draft = Draft::new(layout.record());
        draft.record()[0].store(7, Ordering::Relaxed);
        for seq in 0..samples {
            writer.begin(Seq(seq)).unwrap().commit_draft(&draft, 1);
        }
        let mut whole = vec![0; bytes.0 as usize];
        file.read_exact_at(&mut whole, 0).unwrap();
        whole
    }

    #[test]
    fn without_room_for_both_the_ring_with_more_samples_stays() {
        let dir = tempfile::tempdir().unwrap();
        let here = || fs::read(dir.path().join("00000.ring")).unwrap();
        let mut headless = ring(7);
        headless[..512].fill(0);
        // Samples that come, and how many are here then.
        for (round, (comes, stays)) in [
            (ring(5), ring(5)),
            (ring(3), ring(5)),
            (ring(6), ring(6)),
            (headless.clone(), headless.clone()),
            (ring(7), headless),
            (ring(8), ring(8)),
        ]
        .into_iter()
        .enumerate()
        {
            let collected = script_of(&comes, round > 0).collect(dir.path());
            assert!(here() == stays, "round {round}");
            assert_eq!(collected.is_ok(), comes == stays, "round {round}: {collected:?}");
            if let Err(error) = collected {
                assert!(!error.is_lost());
                let said = error.to_string();
                assert!(said.contains("1 of its rings") && said.contains("no room"), "{said}");
            }
            assert_eq!(names(dir.path()), ["00000.ring"], "round {round}");
        }
    }

    #[test]
    fn the_bound_holds_for_all_conversations_together() {
        let dir = tempfile::tempdir().unwrap();
        let most = MOST as usize;
        let long = vec![1; most - 100];
        script_of(&long, false).collect(dir.path()).unwrap();
        // Other segments at each attempt.
        for segment in [1, 2] {
            let said = Script::new().lists(&[(segment, 101)]).collect(dir.path()).unwrap_err();
            assert!(matches!(said, CollectError::TooLarge { found: 1_048_577, .. }), "{said}");
        }
        let short = |segment, bytes: &[u8]| {
            Script::new().lists(&[(segment, bytes.len() as u64)]).sends(0, 0, bytes).ends(0, bytes)
        };
        short(1, &[2; 60]).collect(dir.path()).unwrap();
        let said = short(2, &[3; 60]).collect(dir.path()).unwrap_err();
        assert!(matches!(said, CollectError::TooLarge { .. }), "{said}");
        // A list in which the long one is short.
        let said = Script::new().lists(&[(0, 1), (2, 60)]).collect(dir.path()).unwrap_err();
        assert!(matches!(said, CollectError::TooLarge { .. }), "{said}");
        assert_eq!(names(dir.path()), ["00000.ring", "00001.ring"]);

        // What was begun and is not listed any more goes, and what is not begun is no file.
        let dir = tempfile::tempdir().unwrap();
        for segment in 0..3 {
            let begun = Script::new().lists(&[(segment, MOST)]).sends(0, 0, &[1; 9]);
            assert!(begun.collect(dir.path()).unwrap_err().is_lost());
            assert_eq!(names(dir.path()), [format!("{segment:05}.ring.part")]);
        }
        // Nor is it longer than what is listed by then.
        let begun = Script::new().lists(&[(0, MOST)]).sends(0, MOST - 1, &[1]);
        assert!(begun.collect(dir.path()).unwrap_err().is_lost());
        let said = Script::new().lists(&[(1, MOST - 9), (0, 9)]).collect(dir.path()).unwrap_err();
        assert!(said.is_lost(), "{said}");
        assert_eq!(names(dir.path()), ["00001.ring.part"]);
        let whole = vec![4; most];
        script_of(&whole, false).collect(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["00000.ring"]);

        // Nor many small ones.
        let dir = tempfile::tempdir().unwrap();
        let all =
            |from: u64| -> Vec<(u64, u64)> { (from..from + 512).map(|one| (one, 0)).collect() };
        let empty = |from| {
            let script = Script::new().lists(&all(from));
            (0..512).fold(script, |script, file| script.ends(file, b""))
        };
        empty(0).collect(dir.path()).unwrap();
        let said = empty(1).collect(dir.path()).unwrap_err();
        assert!(matches!(said, CollectError::TooLarge { files: 513, .. }), "{said}");
        assert_eq!(names(dir.path()).len(), 512);
    }

    #[test]
    fn a_damaged_beginning_is_fetched_again_and_what_the_host_cannot_read_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let ring: Vec<u8> = (0..300 << 10).map(|at| (at % 251) as u8).collect();
        let (first, rest) = ring.split_at(256 << 10);
        fs::write(dir.path().join("00000.ring.part"), vec![0; first.len()]).unwrap();
        let lists = || Script::new().lists(&[(0, ring.len() as u64), (1, 10)]);
        let script = lists()
            .sends(0, first.len() as u64, rest)
            .ends(0, &ring)
            .sends(0, 0, first)
            .sends(0, first.len() as u64, rest)
            .says(&Reply::End { file: 0, check: xxh3_64(&ring), unreadable: 4096 })
            .sends(1, 0, &[1; 10])
            .ends(1, &[1; 10]);
        let error = script.collect(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("4096 bytes of its rings cannot be read there"),
            "{error}"
        );
        assert!(!error.is_lost());
        assert_eq!(names(dir.path()), ["00000.ring", "00001.ring"], "all that can be had");
        assert_eq!(fs::read(dir.path().join("00000.ring")).unwrap(), ring);
    }

    #[test]
    fn of_rings_that_are_not_sent_all_others_are_fetched_and_the_host_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let closed = |name: &str| Reply::Failed { what: format!("{name} cannot be opened there") };
        let script = Script::new()
            .lists(&[(0, 0), (1, 10), (2, 0)])
            .says(&closed("00000.ring"))
            .sends(1, 0, &[1; 10])
            .ends(1, &[1; 10])
            .says(&closed("00002.ring"));
        let error = script.collect(dir.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "00000.ring cannot be opened there, and so it is with 1 more of its rings; all else is here, \
             and nothing is removed there"
        );
        assert!(!error.is_lost(), "another connection does not do better");
        assert_eq!(fs::read(dir.path().join("00001.ring")).unwrap(), [1; 10]);
        // When they can be opened again, all is here.
        let script = Script::new()
            .lists(&[(0, 5), (1, 10)])
            .sends(0, 0, &[2; 5])
            .ends(0, &[2; 5])
            .ends(1, &[1; 10]);
        assert_eq!(script.collect(dir.path()).unwrap(), Collected { files: 2, bytes: 15 });
        assert_eq!(fs::read(dir.path().join("00000.ring")).unwrap(), [2; 5]);
    }

    #[test]
    fn what_was_cut_off_goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let ring: Vec<u8> = (0..600 << 10).map(|at| (at % 251) as u8).collect();
        let (first, rest) = ring.split_at(256 << 10);
        let lists = || Script::new().lists(&[(0, ring.len() as u64)]);
        let cut = lists().sends(0, 0, first).collect(dir.path()).unwrap_err();
        assert!(cut.is_lost(), "{cut}");
        let second = 512 << 10;
        let script = lists()
            .sends(0, 256 << 10, &rest[..256 << 10])
            .sends(0, second, &ring[second as usize..])
            .ends(0, &ring);
        script.collect(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("00000.ring")).unwrap(), ring);
    }

    #[test]
    fn an_agent_can_neither_fill_the_disk_nor_speak_out_of_turn() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |script: Script| script.collect(dir.path()).unwrap_err().to_string();
        let too_large = refused(Script::new().lists(&[(0, MOST), (1, 1)]));
        assert!(too_large.contains("at most 1048576"), "{too_large}");
        assert!(refused(Script::new().lists(&[(0, u64::MAX), (1, u64::MAX)])).contains("at most"));
        let many: Vec<(u64, u64)> = (0..600).map(|segment| (segment, 1)).collect();
        assert!(refused(Script::new().lists(&many)).contains("600 files"));
        assert!(refused(Script::new().lists(&[(0, 1), (0, 1)])).contains("twice"));
        assert_eq!(names(dir.path()), [""; 0]);
        let one = || Script::new().lists(&[(0, 10)]);
        assert!(refused(one().sends(0, 0, &[1; 11])).contains("behind the end"));
        assert!(refused(one().sends(0, u64::MAX, &[1])).contains("behind the end"));
        assert!(refused(one().sends(1, 0, &[1])).contains("another ring"));
        assert!(refused(one().sends(0, 5, &[1; 5]).sends(0, 0, &[1])).contains("already"));
        assert!(refused(one().says(&Reply::Discarded)).contains("Discarded"));
        let said = refused(one().says(&Reply::Failed { what: "\u{1b}[2Jno".into() }));
        assert!(said.starts_with("[2Jno; all else is here"), "nothing for terminals: {said:?}");
        assert!(refused(one().sends(0, 0, &[1; 10]).ends(0, &[2; 10])).contains("checksum"));
        assert_eq!(names(dir.path()), [""; 0], "a file that is wrong is no start for another");
    }

    #[test]
    fn what_comes_on_standard_error_is_read_but_not_for_ever() {
        let script = Script::new();
        let begun = |step, stderr| {
            let deadline = Instant::now() + Duration::from_secs(60);
            session_with(&script.0, step, stderr, deadline)
        };
        const FLOOD: usize = 16 * MAX_STDERR_BYTES;
        assert!(begun(usize::MAX, FLOOD).is_ok(), "its words are not held up by it");
        // As many looks at it as there are bytes to be heard.
        let wrong = Some(SessionError::Protocol(ProtocolError::Stderr));
        assert_eq!(begun(1, MAX_STDERR_BYTES + 1).err(), wrong);
        assert_eq!(begun(1, FLOOD).err(), wrong);
        let lost = begun(1, MAX_STDERR_BYTES).unwrap().listen().unwrap_err();
        assert!(lost.is_lost() && lost.to_string().contains("!!!"), "{lost}");
    }

    #[test]
    fn an_agent_that_speaks_when_it_was_not_asked_is_none() {
        let script = Script::new().says(&Reply::Goodbye);
        let listened = |step| {
            let deadline = Instant::now() + Duration::from_secs(60);
            session_with(&script.0, step, 0, deadline).unwrap().listen()
        };
        for step in [1, usize::MAX] {
            // Behind its first words, and with them.
            assert_eq!(listened(step), Err(SessionError::Protocol(ProtocolError::Unasked)));
        }
    }

    #[test]
    fn another_version_is_told_so() {
        let mut old = Hello::here("h".into(), None);
        old.version = VERSION + 1;
        let script = Script(Vec::new()).says(&Reply::Hello(Box::new(old)));
        let dir = tempfile::tempdir().unwrap();
        let error = script.collect(dir.path()).unwrap_err();
        let CollectError::Session(SessionError::Version { found, .. }) = error else {
            panic!("{error}")
        };
        assert_eq!(found, VERSION + 1);
    }
}
