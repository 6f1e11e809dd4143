//! Programs that are brought to hosts of all kinds, by way of the shells of this machine: the
//! scripts, the file systems and the errors are real, the program is a small one of the test's own.

use super::*;
use crate::cluster::test_link::{TestLink, is_there, say_skipped};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Says of itself what a program of ours says; a bit longer than a pipe is.
const PROGRAM: &str = r#"#!/bin/sh
[ "$1" = self-check ] || { echo "ran $*"; exit 7; }
echo ringstat-self-check 9.9.9 any $(sha256sum <"$0" | cut -c 1-64)
exit 0
"#;

/// A home of its own, and programs to bring there.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::Builder::new().prefix("ringstat test-").tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Host { dir }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn cache(&self) -> PathBuf {
        self.home().join(".cache/ringstat")
    }

    fn link(&self, shell: &[&str]) -> TestLink {
        TestLink::new(shell, &self.home())
    }

    /// With these programs before all others.
    fn with_tools(&self, tools: &[(&str, &str)]) -> TestLink {
        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        for (name, script) in tools {
            fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut link = self.link(&["sh"]);
        link.env.push(("PATH".to_owned(), format!("{}:/usr/bin:/bin", bin.display())));
        link
    }

    /// Under a home of its own kind: a tmpfs with these options.
    fn on_tmpfs(&self, mut link: TestLink, options: &str) -> TestLink {
        let mount = format!(r#"mount -t tmpfs -o {options} x "$HOME" && exec sh "$@""#);
        link.shell = ["unshare", "--mount", "sh", "-c", &mount, "sh"].map(str::to_owned).into();
        link
    }

    fn binary(&self, name: &str, text: &str) -> Binary {
        let path = self.dir.path().join(name);
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.write_all(&vec![b'#'; 300_000]).unwrap();
        let machine = rustix::system::uname().machine().to_str().unwrap().to_owned();
        Binary::read(&path, machine).unwrap()
    }

    fn program(&self) -> Program {
        Program::Upload(vec![self.binary("program", PROGRAM)])
    }

    /// What lies in the cache.
    fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.cache()).into_iter().flatten() {
            for file in fs::read_dir(entry.unwrap().path()).unwrap() {
                names.push(file.unwrap().file_name().into_string().unwrap());
            }
        }
        names.sort();
        names
    }
}

fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn put(link: &mut TestLink, program: &Program) -> Result<Deployed, DeployError> {
    deploy(link, "node1", program, in_time(), &mut |_| {})
}

/// What is said when it does not work.
fn refused(link: &mut TestLink, program: &Program) -> String {
    put(link, program).expect_err("works").to_string()
}

fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        say_skipped(what, "root");
    }
    is_root
}

#[test]
fn every_login_shell_takes_the_program() {
    for shell in ["dash", "bash", "bsd-csh", "tcsh", "fish", "zsh", "busybox"] {
        if !is_there(shell) {
            say_skipped(&format!("deploying through {shell}"), shell);
            continue;
        }
        let host = Host::new();
        let mut link = match shell {
            "busybox" => host.link(&["busybox", "sh"]),
            _ => host.link(&[shell]),
        };
        link.noise = "Welcome!\nsystem=Other\ringstat-begin\nlast login: no line end".to_owned();
        let program = host.program();
        let mut steps = Vec::new();
        let deployed =
            deploy(&mut link, "node1", &program, in_time(), &mut |step| steps.push(step));
        let deployed = deployed.unwrap_or_else(|error| panic!("{shell}: {error}"));
        let Program::Upload(binaries) = &program else { unreachable!() };
        let total_bytes = binaries[0].bytes;
        assert_eq!((deployed.uploaded_bytes, deployed.version.as_str()), (total_bytes, "9.9.9"));
        assert_eq!(steps[0], Step::Probing);
        let whole = Step::Uploading { sent_bytes: total_bytes, total_bytes };
        assert_eq!(steps.last(), Some(&whole), "{shell}");
        // Private, whole, and alone.
        let file = host.cache().join(&binaries[0].sha256).join("ringstat");
        let dirs = [host.cache(), file.parent().unwrap().to_owned(), file.clone()];
        for path in &dirs {
            let mode = fs::metadata(path).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o700, "{shell}: {}", path.display());
        }
        assert_eq!(fs::read(&file).unwrap(), fs::read(&binaries[0].path).unwrap());
        assert_eq!(host.files(), ["ringstat"], "{shell}");
        // It runs by the line that is said, and is not brought again.
        let inode = fs::metadata(&file).unwrap().ino();
        let again = put(&mut link, &program).unwrap();
        assert_eq!(again.uploaded_bytes, 0, "{shell}");
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
        let mut channel = link.exec(&again.line("agent --x 1").unwrap(), in_time()).unwrap();
        let mut text = Vec::new();
        let mut bytes = [0; 512];
        loop {
            match channel.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&bytes[..count]),
                Err(_) => channel.wait(false, in_time()).unwrap(),
            }
        }
        assert!(String::from_utf8(text).unwrap().ends_with("ran agent --x 1\n"), "{shell}");
        assert_eq!(channel.end(in_time()), crate::cluster::transport::End::Status(7));
    }
}

#[test]
fn a_host_says_what_it_is() {
    let host = Host::new();
    let facts = probe(&mut host.link(&["sh"]), "node1", &host.program(), in_time()).unwrap();
    assert_eq!(facts.system, "Linux");
    assert_eq!(facts.hostname, rustix::system::uname().nodename().to_str().unwrap());
    assert_eq!(facts.home, host.home().to_str().unwrap());
    assert_eq!(facts.cache_dir, facts.home);
    assert!(facts.cache_is_writable && facts.cache_free_kb.unwrap() > 0, "{facts:?}");
    assert!(facts.libc.to_lowercase().contains("libc"), "{facts:?}");
    let own = crate::cluster::machine::MachineIdentity::own();
    assert_eq!(facts.identity, Some(own));
    let (offset, uncertainty) = facts.clock_offset_ms.unwrap();
    assert!(offset.abs() <= uncertainty + 10.0, "{offset} +- {uncertainty}");
    assert!(!host.home().join(".cache").exists(), "nothing was changed");
    fs::create_dir_all(host.cache()).unwrap();
    let facts = probe(&mut host.link(&["sh"]), "node1", &host.program(), in_time()).unwrap();
    assert_eq!(facts.cache_dir, host.cache().to_str().unwrap());
}

#[test]
fn a_cut_or_a_damaged_program_is_brought_again() {
    let host = Host::new();
    let program = host.program();
    let mut link = host.link(&["sh"]);
    link.cut_after = Some(100_000);
    let said = refused(&mut link, &program);
    assert!(said.starts_with("node1: writing the program failed: 100000"), "{said}");
    assert_eq!(host.files(), [""; 0]);
    link.cut_after = None;
    put(&mut link, &program).unwrap();
    let Program::Upload(binaries) = &program else { unreachable!() };
    let file = host.cache().join(&binaries[0].sha256).join("ringstat");
    let whole = fs::read(&file).unwrap();
    for damaged in [&whole[..whole.len() - 1], b"", b"\x7fELF"] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(put(&mut link, &program).unwrap().uploaded_bytes, whole.len() as u64);
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
    // What a launcher left that was killed long ago goes, what another one writes stays.
    let [old, new] = [".new.old", ".new.new"].map(|name| file.with_file_name(name));
    fs::write(&old, "").unwrap();
    fs::write(&new, "").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3 * 86_400);
    fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    fs::write(&file, "").unwrap();
    put(&mut link, &program).unwrap();
    assert_eq!(host.files(), [".new.new", "ringstat"]);
}

#[test]
fn what_arrives_otherwise_than_it_was_is_refused() {
    let host = Host::new();
    let program = host.program();
    // A host whose disk turns bytes: with a hash tool, and with none but the program's own.
    for (tool, expected) in [("echo 0123", "SHA-256 \"0123\""), ("exit 1", "is not what was sent")]
    {
        let said = refused(&mut host.with_tools(&[("sha256sum", tool)]), &program);
        assert!(said.contains(expected), "{said}");
        assert_eq!(host.files(), [""; 0]);
    }
    // Without such a tool a program that knows its hash by itself is taken.
    let mut binary = host.binary("own-hash", &PROGRAM.replace("sha256sum", "openssl-or-own"));
    let own =
        "#!/bin/sh\necho ringstat-self-check 9.9.9 any $(cat \"${0%/*}/../../../hash\")\nexit\n";
    binary = Binary::read(&host.binary("own-hash", own).path, binary.architecture).unwrap();
    fs::write(host.home().join("hash"), &binary.sha256).unwrap();
    let mut link = host.with_tools(&[("sha256sum", "exit 127")]);
    put(&mut link, &Program::Upload(vec![binary])).unwrap();
    assert_eq!(host.files(), ["ringstat"]);
}

#[test]
fn a_host_that_cannot_have_the_program_is_named_with_reason_and_remedy() {
    let host = Host::new();
    let program = host.program();
    for (tools, expected) in [
        (
            ("uname", r#"[ "$1" = -m ] && echo aarch64 || exec /usr/bin/uname "$@""#),
            [
                "node1: it is a machine of kind \"aarch64\", and there is a program for x86_64 only",
                "--agent-binary aarch64=PATH",
            ],
        ),
        (("uname", "echo Darwin"), ["node1: it runs \"Darwin\"", "records Linux"]),
        (
            ("df", "echo head; echo dev 9 9 100 99% /"),
            [
                "there is no room in",
                "100 kB are free, and the program has 1318 kB; make room there",
            ],
        ),
        (("grep", "echo dev / ext4 rw,noexec 0 0"), ["home is mounted noexec", "--remote-binary"]),
    ] {
        if rustix::system::uname().machine().to_bytes() != b"x86_64" && tools.1.contains("aarch") {
            continue;
        }
        let said = refused(&mut host.with_tools(&[tools]), &program);
        for words in expected {
            assert!(said.contains(words), "{said}");
        }
        fs::remove_dir_all(host.dir.path().join("bin")).unwrap();
    }
    let mut link = host.link(&["sh"]);
    for (home, expected) in
        [("", "no home directory"), ("/nonexistent/x", "cannot make a directory")]
    {
        link.env[0].1 = home.to_owned();
        let said = refused(&mut link, &program);
        assert!(said.contains(expected), "{said}");
    }
    assert!(!Path::new("/nonexistent").exists());
    assert!(!host.home().join(".cache").exists(), "nothing was written");
}

#[test]
fn a_full_or_noexec_home_is_named() {
    if !is_root("a_full_or_noexec_home_is_named") {
        return;
    }
    let host = Host::new();
    let program = host.program();
    let lying = ("df", "echo head; echo dev 9 9 100000 9% /nowhere");
    for (tools, options, expected) in [
        (&[][..], "size=64k", "there is no room in"),
        (&[lying][..], "size=64k", "writing it failed; make room there"),
        (&[][..], "noexec", "home is mounted noexec; install ringstat there"),
        (&[lying][..], "noexec", "home is mounted noexec; install ringstat there"),
        (&[][..], "ro", "cannot make a directory in"),
        (&[][..], "size=4m", ""),
    ] {
        let tools = host.with_tools(tools);
        let mut link = host.on_tmpfs(tools, options);
        match put(&mut link, &program) {
            Ok(_) => assert!(expected.is_empty(), "{options}"),
            Err(error) => {
                let said = error.to_string();
                assert!(!expected.is_empty() && said.contains(expected), "{options}: {said}");
            }
        }
        fs::remove_dir_all(host.dir.path().join("bin")).unwrap();
    }
    assert_eq!(fs::read_dir(host.home()).unwrap().count(), 0, "each was a home of its own");
}

#[test]
fn a_program_that_does_not_run_is_removed_and_named() {
    let host = Host::new();
    let libc = r#"l=/lib/libc.so.6
for v in 2.9 2.34 2.33; do echo "$0: $l: version \`GLIBC_$v' not found (required by $0)" >&2; done"#;
    for (text, expected) in [
        (libc, "the program needs glibc 2.34, and the host has "),
        ("kill -SEGV $$", "the program does not run there (status 139)"),
        ("echo some other program", "what is there is not what was sent"),
        ("exit 3", "does not run there (status 3)"),
    ] {
        let text =
            format!("#!/bin/sh\n{text}\nexit 1\n").replace("program\nexit 1", "program\nexit 0");
        let program = Program::Upload(vec![host.binary("program", &text)]);
        let said = refused(&mut host.link(&["sh"]), &program);
        assert!(said.contains(expected), "{said}");
        assert_eq!(host.files(), [""; 0]);
    }
    let no_loader = Program::Upload(vec![host.binary("program", "#!/no/such/loader\n")]);
    let said = refused(&mut host.link(&["sh"]), &no_loader);
    assert!(said.contains("does not run there (status 127)"), "{said}");
    assert!(said.contains("--agent-binary"), "{said}");
}

#[test]
fn an_installed_program_is_used_as_it_is() {
    let host = Host::new();
    let binary = host.binary("a program", PROGRAM);
    fs::set_permissions(&binary.path, PermissionsExt::from_mode(0o755)).unwrap();
    let path = binary.path.to_str().unwrap();
    fs::create_dir(host.home().join("bin")).unwrap();
    fs::copy(path, host.home().join("bin/ringstat")).unwrap();
    for good in [path, "~/bin/ringstat"] {
        let program = Program::Installed(RemotePath::new(good).unwrap());
        let deployed = put(&mut host.link(&["sh"]), &program).unwrap();
        assert_eq!((deployed.version.as_str(), deployed.uploaded_bytes), ("9.9.9", 0));
    }
    for (bad, expected) in [
        ("/no/such/ringstat", "/no/such/ringstat is not a ringstat that can be used (status 127)"),
        ("true", "true is not a ringstat that can be used (status 0)"),
        ("/etc/passwd", "(status 126)"),
    ] {
        let program = Program::Installed(RemotePath::new(bad).unwrap());
        let said = refused(&mut host.link(&["sh"]), &program);
        assert!(said.contains(expected) && said.contains("leave out --remote-binary"), "{said}");
    }
    for bad in ["", "-x", "a;b", "$(id)", "a'b", "a\"b", "a\\b", "a\nb", "a`b`", "a!b"] {
        assert!(RemotePath::new(bad).is_err(), "{bad}");
    }
    assert!(!host.home().join(".cache").exists(), "nothing was brought");
}

#[test]
fn a_shell_that_does_not_answer_is_named_with_what_it_said() {
    let host = Host::new();
    let program = host.program();
    let no_login = "echo This account is \x1b[31mnot available.; exit 1";
    let mut link = host.link(&["sh", "-c", no_login]);
    let said = refused(&mut link, &program);
    assert!(said.contains("(status 1): This account is ?[31mnot available."), "{said}");
    assert!(said.contains("its login shell must run `exec sh -c ...`"), "{said}");
    let mut link = host.link(&["sh", "-c", "kill -9 $$"]);
    assert!(refused(&mut link, &program).contains("(signal "), "{}", refused(&mut link, &program));
    link = host.link(&["sh"]);
    link.noise = "x".repeat(2 << 20);
    assert!(refused(&mut link, &program).contains("it says more than 1048576 bytes"));
    // One that hangs; and one whose profile has left something behind that keeps the output open.
    link = host.link(&["sh", "-c", "echo hm; read line; sleep 60"]);
    let soon = Instant::now() + Duration::from_millis(300);
    let late = deploy(&mut link, "node1", &program, soon, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(late, "node1: it did not answer in time: hm");
    link = host.link(&["sh", "-c", "sleep 5 & exec sh \"$@\"", "sh"]);
    let since = Instant::now();
    put(&mut link, &program).unwrap();
    assert!(since.elapsed() < Duration::from_secs(60));
}

#[test]
fn launchers_that_bring_it_at_once_do_not_disturb_each_other() {
    let host = Host::new();
    let program = host.program();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| put(&mut host.link(&["sh"]), &program).unwrap()))
            .collect();
        for one in all {
            assert_eq!(one.join().unwrap().version, "9.9.9");
        }
    });
    assert_eq!(host.files(), ["ringstat"]);
}

#[test]
fn what_another_launcher_brought_meanwhile_stays_if_it_is_whole() {
    // The home may be shared: there it may run already, on another host.
    let sooner = r#"for new in "$HOME"/.cache/ringstat/*/.new.*; do there=${new%/*}/ringstat; done
[ -e "$there" ] || { SPOIL <"$new" >"$there"; chmod 700 "$there"; ls -i "$there" >"$HOME/sooner"; }
exec /usr/bin/wc "$@""#;
    for (spoil, stays) in [("cat", true), ("head -c 1000", false)] {
        for link in ["exec /bin/ln \"$@\"", "exit 1"] {
            let host = Host::new();
            let program = host.program();
            let Program::Upload(binaries) = &program else { unreachable!() };
            let mut shell =
                host.with_tools(&[("wc", &sooner.replace("SPOIL", spoil)), ("ln", link)]);
            let deployed = put(&mut shell, &program).unwrap();
            assert_eq!(deployed.uploaded_bytes, binaries[0].bytes);
            let file = host.cache().join(&binaries[0].sha256).join("ringstat");
            assert_eq!(fs::read(&file).unwrap(), fs::read(&binaries[0].path).unwrap());
            assert_eq!(host.files(), ["ringstat"]);
            let sooner = fs::read_to_string(host.home().join("sooner")).unwrap();
            let inode = fs::metadata(&file).unwrap().ino().to_string();
            let is_same = sooner.split_whitespace().next() == Some(&inode);
            assert_eq!(is_same, stays, "{spoil}, {link}: {inode}, sooner {sooner}");
        }
    }
    // Where there are no links, it gets its name all the same.
    let host = Host::new();
    put(&mut host.with_tools(&[("ln", "exit 1")]), &host.program()).unwrap();
    assert_eq!(host.files(), ["ringstat"]);
}

#[test]
fn programs_for_other_machines_are_checked_before_they_go_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let elf = |name: &str, machine: u16| {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(18, 0);
        bytes.extend(machine.to_le_bytes());
        bytes.resize(100, 0);
        fs::write(dir.path().join(name), bytes).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let (x86, arm) = (elf("x86", 62), elf("arm", 183));
    let list = Binary::list(&format!("x86_64={x86},aarch64={arm},")).unwrap();
    let names: Vec<_> = list.iter().map(|binary| binary.architecture.as_str()).collect();
    assert_eq!(names, ["x86_64", "aarch64"]);
    assert_eq!(list[0].sha256.len(), 64);
    for (text, expected) in [
        (format!("aarch64={x86}"), "is no program for aarch64: it is one for x86_64"),
        ("x86_64=/etc/passwd".to_owned(), "it is no ELF file"),
        ("x86_64=/no/file".to_owned(), "cannot read the program /no/file"),
        ("x86_64=/dev/zero".to_owned(), "not a file of a program's size"),
        ("x86_64".to_owned(), "\"x86_64\" is not ARCHITECTURE=PATH"),
        ("a)b=/x".to_owned(), "is not ARCHITECTURE=PATH"),
    ] {
        let said = Binary::list(&text).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    // FIPS 180-4's example.
    fs::write(dir.path().join("abc"), "abc").unwrap();
    let abc = Binary::read(&dir.path().join("abc"), "x".to_owned()).unwrap();
    assert_eq!(abc.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let own = Binary::own().unwrap();
    assert_eq!(self_check().unwrap().split(' ').nth(3), Some(own.sha256.as_str()));
}

#[test]
fn scripts_are_such_as_every_shell_takes() {
    let host = Host::new();
    let Program::Upload(mut binaries) = host.program() else { unreachable!() };
    for architecture in ["aarch64", "ppc64le", "riscv64"] {
        let mut other = binaries[0].clone();
        other.architecture = architecture.to_owned();
        binaries.push(other);
    }
    for bad in ["echo 'x'", "echo !x", "a\nb", r"a\\b", &"x".repeat(4000)] {
        assert!(shell::line(bad).is_err(), "{bad}");
    }
    // With as many architectures as there are, too.
    put(&mut host.link(&["sh"]), &Program::Upload(binaries)).unwrap();
}
