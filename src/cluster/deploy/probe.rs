//! What there is to know of a host before a program goes there: one script, one round trip.

use super::{Binary, Program, SELF_CHECK};
use crate::cluster::machine::MachineIdentity;
use crate::cluster::shell::{self, Answers, ScriptError, clean};
use crate::cluster::transport::Link;
use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What a host says of itself. Whatever is not known is empty or `None`; nothing of it is believed
/// more than it must be.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// `uname -s`.
    pub system: String,
    /// `uname -m`.
    pub machine: String,
    /// `uname -n`.
    pub hostname: String,
    /// The user's home directory.
    pub home: String,
    /// Version of the C library, as it calls itself.
    pub libc: String,
    /// The directory that programs go to, or the nearest above it that is there.
    pub cache_dir: String,
    /// Whether the user can write there.
    pub cache_is_writable: bool,
    /// Room there.
    pub cache_free_kb: Option<u64>,
    /// Whether programs can run from there; `None` if its mount was not found.
    pub cache_is_noexec: Option<bool>,
    /// Which machine it is.
    pub identity: Option<MachineIdentity>,
    /// How much later the host's clock is than ours, and by how much that may be wrong: a rough
    /// figure, since starting a shell takes its time.
    pub clock_offset_ms: Option<(f64, f64)>,
    /// What the program that is there says when it is run.
    pub(super) check: Check,
}

/// How the program that is there, if one is, answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Check {
    pub status: String,
    pub said: String,
}

impl Check {
    pub fn of(answers: &Answers) -> Check {
        Check { status: answers.get("status").to_owned(), said: clean(answers.get("check")) }
    }

    /// Version and hash, if it is one of ours and runs.
    pub fn answer(&self) -> Option<(&str, &str)> {
        let mut words = self.said.split(' ').skip_while(|word| *word != SELF_CHECK).skip(1);
        let (version, _machine, hash) = (words.next()?, words.next()?, words.next()?);
        (self.status == "0").then_some((version, hash))
    }
}

impl HostFacts {
    /// Asks a host.
    ///
    /// # Errors
    /// [`ScriptError`].
    pub(super) fn ask(
        link: &mut dyn Link,
        program: &Program,
        deadline: Instant,
    ) -> Result<HostFacts, ScriptError> {
        let before = SystemTime::now();
        let answers = shell::run(link, &script(program), &mut io::empty(), deadline, &mut |_| {})?;
        let rtt = before.elapsed().unwrap_or_default().as_secs_f64();
        let since_epoch = before.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let get = |key| clean(answers.get(key));
        let (machine_id, boot_id) = (answers.get("machine_id"), answers.get("boot_id"));
        let identity = MachineIdentity::of(machine_id, boot_id, answers.get("network"));
        Ok(HostFacts {
            system: get("system"),
            machine: get("machine"),
            hostname: get("hostname"),
            home: get("home"),
            libc: get("libc"),
            cache_dir: get("dir"),
            cache_is_writable: answers.get("writable") == "yes",
            cache_free_kb: free_kb(answers.get("df")),
            cache_is_noexec: is_noexec(answers.get("mount")),
            identity: identity.is_known().then_some(identity),
            clock_offset_ms: clock(answers.get("time"), since_epoch, rtt),
            check: Check::of(&answers),
        })
    }
}

/// Runs in `sh`; see [`shell`] for what may stand in it.
fn script(program: &Program) -> String {
    let find = match program {
        // The one for this machine, if it has been here before.
        Program::Upload(binaries) => {
            let case = |binary: &Binary| format!("{}) h={};; ", binary.architecture, binary.sha256);
            let cases: String = binaries.iter().map(case).collect();
            format!(
                r#"h=; case "$(uname -m)" in {cases} esac; f=$HOME/.cache/ringstat/$h/ringstat; [ -f "$f" ] || f="#
            )
        }
        Program::Installed(path) => format!("f={}", path.word()),
    };
    [
        r#"p system "$(uname -s)"; p machine "$(uname -m)"; p hostname "$(uname -n)"; "#,
        r#"p home "$HOME"; p time "$(date +%s.%N)"; "#,
        r#"p libc "$(getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1)"; "#,
        r#"p machine_id "$(cat /etc/machine-id /var/lib/dbus/machine-id 2>/dev/null | head -n 1)"; "#,
        r#"p boot_id "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"; "#,
        r#"p network "$(readlink /proc/self/ns/net 2>/dev/null)"; "#,
        r#"d=$HOME; for x in .cache .cache/ringstat; do [ -d "$HOME/$x" ] && d=$HOME/$x; done; "#,
        r#"p dir "$d"; [ -w "$d" ] && p writable yes; "#,
        r#"n=$(df -Pk "$d" 2>/dev/null | tail -n 1); p df "$n"; "#,
        // The mount point stands behind "NN% "; of several mounts there the last counts.
        r#"p mount "$(grep -F " /${n#*% /} " /proc/mounts 2>/dev/null | tail -n 1)"; "#,
        &find,
        r#"; [ -z "$f" ] && exit; "#,
        r#"c=$("$f" self-check 2>&1 </dev/null); p status $?; p check "$(echo "$c" | tr "\n" " ")""#,
    ]
    .concat()
}

/// Of a line of `df -Pk`: device (perhaps with blanks), blocks, used, free, capacity, mount point.
fn free_kb(line: &str) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let capacity = words.iter().rposition(|word| word.ends_with('%'))?;
    words.get(capacity.checked_sub(1)?)?.parse().ok()
}

/// Of a line of `/proc/mounts`: device, mount point, type, options.
fn is_noexec(line: &str) -> Option<bool> {
    let options = line.split_whitespace().nth(3)?;
    Some(options.split(',').any(|option| option == "noexec"))
}

/// Offset and its uncertainty in ms. Some `date`s have no `%N`.
fn clock(text: &str, before: f64, rtt: f64) -> Option<(f64, f64)> {
    let (seconds, nanoseconds) = text.split_once('.').unwrap_or((text, ""));
    let seconds = seconds.parse::<u32>().ok()?;
    let (there, unknown) = match nanoseconds.parse::<u32>() {
        Ok(nanoseconds) => (f64::from(seconds) + f64::from(nanoseconds) / 1e9, 0.0),
        Err(_) => (f64::from(seconds) + 0.5, 0.5),
    };
    let offset = there - (before + rtt / 2.0);
    Some((offset * 1e3, (rtt / 2.0 + unknown) * 1e3))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn room_and_mounts_are_read_from_their_lines() {
        assert_eq!(free_kb("/dev/sda1  100 40 60 40% /"), Some(60));
        assert_eq!(free_kb("a b:/c d 9 4 5 45% /mnt/50% full"), None, "no number before a %");
        assert_eq!(free_kb("my disk 9 4 5 45% /mnt/x y"), Some(5));
        assert_eq!([free_kb(""), free_kb("%"), free_kb("x y%"), free_kb("- - - - /")], [None; 4]);
        assert_eq!(is_noexec("tmpfs /tmp tmpfs rw,noexec,nosuid 0 0"), Some(true));
        assert_eq!(is_noexec("tmpfs /tmp tmpfs rw,xnoexec 0 0"), Some(false));
        assert_eq!(is_noexec("tmpfs"), None);
    }

    #[test]
    fn a_clock_is_read_with_and_without_fractions() {
        let near = |found: Option<(f64, f64)>, expected: (f64, f64)| {
            let (offset, uncertainty) = found.unwrap();
            assert!((offset - expected.0).abs() < 1e-3, "{offset}");
            assert!((uncertainty - expected.1).abs() < 1e-3, "{uncertainty}");
        };
        near(clock("1049.250000000", 1000.0, 0.5), (49_000.0, 250.0));
        near(clock("1049.%N", 1000.0, 0.0), (49_500.0, 500.0));
        near(clock("999", 1000.0, 0.0), (-500.0, 500.0));
        for text in ["", "x", "-1", "1e9", "99999999999", ".5"] {
            assert_eq!(clock(text, 0.0, 0.0), None, "{text}");
        }
    }

    #[test]
    fn only_a_program_that_ended_well_is_believed() {
        let check = |status: &str, said: &str| Check { status: status.into(), said: said.into() };
        let ours = check("0", "noise ringstat-self-check 0.1.0 x86_64 abc more");
        assert_eq!(ours.answer(), Some(("0.1.0", "abc")));
        assert_eq!(check("1", "ringstat-self-check 0.1.0 x86_64 abc").answer(), None);
        assert_eq!(check("0", "ringstat-self-check 0.1.0 x86_64").answer(), None);
        assert_eq!(check("", "").answer(), None);
    }
}
