//! An agent that says what it was told to, whatever it is asked: for tests and fuzz targets of the
//! launcher's side.

use super::collect::{CollectError, Collected, collect};
use super::protocol::Marker;
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
    use super::super::protocol::{
        FileEntry, Hello, MAX_STDERR_BYTES, ProtocolError, Reply, VERSION, put_chunk, put_control,
    };
    use super::*;
    use std::fs;
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

    #[test]
    fn what_was_here_before_takes_no_more_room_than_the_host_has() {
        let dir = tempfile::tempdir().unwrap();
        let most = MOST as usize;
        let script = |first: u8| {
            let ring = vec![first; most - 10];
            let mut script = Script::new().lists(&[(0, ring.len() as u64)]);
            if first > 1 {
                script = script.ends(0, &ring);
            }
            for (number, piece) in ring.chunks(256 << 10).enumerate() {
                script = script.sends(0, (number * (256 << 10)) as u64, piece);
            }
            script.ends(0, &ring)
        };
        for first in [1, 2, 3] {
            script(first).collect(dir.path()).unwrap();
            assert_eq!(names(dir.path()), ["00000.ring"]);
            assert_eq!(fs::read(dir.path().join("00000.ring")).unwrap()[0], first);
        }
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
        assert!(
            refused(one().says(&Reply::Failed { what: "\u{1b}[2Jno".into() })) == "[2Jno",
            "nothing for terminals"
        );
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
        assert!(
            matches!(error, CollectError::Session(SessionError::Version { found, .. }) if found == VERSION + 1)
        );
    }
}
