//! `ringstat hosts`, and programs that are brought, on real servers: whoever is well, and whoever is
//! not and why, in one table.
#![cfg(feature = "ssh")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::sshd::{Site, Sshd};
use common::{Cmd, World, program_for};
use ringstat::checking::{Binary, Deployed, Program, SshOptions, Step, deploy};
use ringstat::reaching::connect;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// `ringstat hosts ARGS` as the user of this site.
fn hosts(world: &World, site: &Site, args: &[&str]) -> Cmd {
    let cmd = world.ringstat(&["hosts", "--ssh-timeout", "60", "--ssh-config"]);
    cmd.arg(site.path("config")).args(args)
}

/// This very program, as a host's machine takes it.
fn program() -> Program {
    let machine = rustix::system::uname().machine().to_str().unwrap().to_owned();
    let path = Path::new(env!("CARGO_BIN_EXE_ringstat"));
    Program::Upload(vec![Binary::of(&machine, path).unwrap()])
}

fn bring(site: &Site, name: &str, program: &Program) -> Result<Deployed, String> {
    let mut options = SshOptions::new(32);
    options.config = Some(site.path("config"));
    options.timeout = Duration::from_secs(60);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut link = connect(&name.parse().unwrap(), &options, deadline).unwrap();
    let mut last = None;
    let deployed = deploy(link.as_mut(), name, program, deadline, &mut |step| last = Some(step));
    if let Ok(Deployed { uploaded_bytes: sent_bytes @ 1.., .. }) = deployed {
        assert_eq!(last, Some(Step::Uploading { sent_bytes, total_bytes: sent_bytes }));
    }
    deployed.map_err(|error| error.to_string())
}

/// The cells of the row of `host`, parted where the columns are.
fn row<'t>(table: &'t str, host: &str) -> Vec<&'t str> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(host));
    let line = line.unwrap_or_else(|| panic!("no row of {host}: {table}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn every_host_is_checked_and_none_hides_another() {
    let Some(site) = Site::new("checking hosts") else { return };
    let world = World::new();
    let _well = site.host("well").start();
    let noexec = site.path("small/home");
    let noexec = noexec.display();
    let _small = site
        .host("small")
        .setup(&format!("mount -t tmpfs -o noexec,size=1m,mode=777 none {noexec}"))
        .start();
    let _strange = site.host("strange").unknown().start();
    let mut gone = site.host("gone").start();
    gone.stop();
    // Another name of the first.
    site.append("config", &{
        let config = fs::read_to_string(site.path("config")).unwrap();
        let part = config.split("\n\n").next().unwrap();
        format!("{}\n\n", part.replace("Host well", "Host alias"))
    });
    let hostfile = world.write("hosts.txt", "# more\nalias slots=4\r\nno.such.name.invalid\n");
    let ran =
        hosts(&world, &site, &["--hosts", "well:2,small,strange", "--hosts", "gone,localhost"])
            .arg("--hostfile")
            .arg(hostfile)
            .ends_with(1);
    let table = &ran.stdout;
    let names: Vec<&str> = table.lines().filter_map(|l| l.split_whitespace().next()).collect();
    let expected =
        ["HOST", "well", "small", "strange", "gone", "localhost", "alias", "no.such.name.invalid"];
    assert_eq!(names, expected, "{table}");
    let machine = rustix::system::uname().machine().to_str().unwrap().to_owned();
    let well = row(table, "well");
    assert!(well[1].ends_with(" ms") && well[2] == "known" && well[3] == machine, "{table}");
    assert!(well[4].ends_with(" GB") && well[5].contains(" s +-"), "{table}");
    assert_eq!(well[6..], ["to be brought", "0 runs", "-"], "{table}");
    assert_eq!(row(table, "small")[6], "cannot run", "{table}");
    assert_eq!(row(table, "strange")[1..3], ["-", "no: host key"], "{table}");
    assert_eq!(row(table, "gone")[1], "no: connect", "{table}");
    assert_eq!(row(table, "localhost")[1], "this machine", "{table}");
    assert_eq!(row(table, "alias")[1], "same machine as well", "{table}");
    assert_eq!(row(table, "no.such.name.invalid")[1], "no: resolve", "{table}");
    ran.says(&[
        &format!("small: {noexec} is mounted noexec; install ringstat there"),
        "strange: host key: no key of",
        "gone: connect:",
        "no.such.name.invalid: resolve:",
    ])
    .does_not_say(&["well:", "alias:"]);
}

#[test]
fn a_program_is_brought_once_seen_and_removed() {
    let Some(site) = Site::new("bringing programs") else { return };
    let world = World::new();
    let mut sshds: Vec<Sshd> = Vec::new();
    for shell in ["bash", "csh", "fish"] {
        if let Some(path) = program_for("bringing a program through", shell) {
            sshds.push(site.host(shell).shell(path.to_str().unwrap()).start());
        }
    }
    let program = program();
    for host in &sshds {
        fs::write(host.home.join(".bashrc"), "echo Welcome; cat /etc/passwd\n").unwrap();
        let first = bring(&site, &host.name, &program).unwrap();
        assert_eq!(first.version, env!("CARGO_PKG_VERSION"));
        assert!(first.uploaded_bytes > 0);
        let again = bring(&site, &host.name, &program).unwrap();
        assert_eq!(again.uploaded_bytes, 0, "{}", host.name);
        let ran = site.ssh(&[&host.name, &again.line("--version").unwrap()]);
        let said = String::from_utf8(ran.stdout).unwrap();
        let version = format!("ringstat {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(said.lines().last(), Some(version.as_str()), "{}", host.name);
    }
    let names: Vec<&str> = sshds.iter().map(|host| host.name.as_str()).collect();
    let all = names.join(",");
    // The program that asks is the one that was brought.
    for ssh in [&["--ssh-workers", "2"][..], &["--ssh-program", "ssh"]] {
        let ran = hosts(&world, &site, &[&["--hosts", &all], ssh].concat()).succeeds();
        for name in &names {
            let row = row(&ran.stdout, name);
            let there = format!("there, {}", env!("CARGO_PKG_VERSION"));
            assert_eq!(row[6..], [&there, "0 runs", "1 program"], "{}", ran.stdout);
        }
    }
    // Nobody is there to agree.
    let ran = hosts(&world, &site, &["--hosts", &all, "--clean"]).ends_with(1);
    ran.says(&["nothing was removed; give --yes", "bash has a program: "]);
    assert!(sshds.iter().all(|host| host.home.join(".cache/ringstat").exists()));
    hosts(&world, &site, &["--hosts", &all, "--clean", "--yes"]).succeeds().says(&["now removed"]);
    for host in &sshds {
        assert!(!host.home.join(".cache/ringstat").exists(), "{}", host.name);
        let left = host.processes();
        assert!(left.contains(&host.init()), "{left:?}");
    }
    hosts(&world, &site, &["--hosts", &all, "--clean"]).succeeds().says(&["nothing was left"]);
}

#[test]
fn runs_in_other_directories_are_found_and_removed() {
    let Some(site) = Site::new("runs in other directories") else { return };
    let world = World::new();
    let host = site.host("node").start();
    let make = |name: &str| {
        let dir = world.path(name).join("01970000-0000-7000-8000-000000000000");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("run.json"), r#"{"launcher":"host:1"}"#).unwrap();
        fs::write(dir.join("00000.ring"), [1; 8192]).unwrap();
        dir
    };
    let [ring, mirror, other] = ["rings", "my mirrors", "others"].map(make);
    let base = |dir: &Path| dir.parent().unwrap().to_str().unwrap().to_owned();
    let places = ["--ring-dir", &base(&ring), "--mirror-dir", &base(&mirror), "--hosts", "node"];
    let ran = hosts(&world, &site, &places).succeeds();
    assert!(ran.stdout.contains("2 dead runs"), "{}", ran.stdout);
    let clean = [&places[..], &["--clean", "--yes"]].concat();
    let ran = hosts(&world, &site, &clean).succeeds();
    for dir in [&ring, &mirror] {
        assert!(!dir.exists(), "{}", dir.display());
        assert!(ran.stderr.contains(dir.to_str().unwrap()), "{}", ran.stderr);
    }
    assert!(other.join("00000.ring").exists(), "nobody named it");
    assert!(host.processes().contains(&host.init()));
    let bad = ["--hosts", "node", "--ring-dir", "/a;b"];
    hosts(&world, &site, &bad).ends_with(2).says(&["/a;b: ';' cannot stand in a path"]);
}

#[test]
fn an_installed_program_is_found_or_said_to_be_missing() {
    let Some(site) = Site::new("installed programs") else { return };
    let world = World::new();
    let host = site.host("node").start();
    fs::create_dir(host.home.join("bin")).unwrap();
    let path = host.home.join("bin/ringstat");
    fs::copy(env!("CARGO_BIN_EXE_ringstat"), &path).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let there = ["--hosts", "node", "--remote-binary", "~/bin/ringstat"];
    let ran = hosts(&world, &site, &there).succeeds();
    assert!(row(&ran.stdout, "node")[6].starts_with("there, "), "{}", ran.stdout);
    let missing = ["--hosts", "node", "--remote-binary", "/opt/ringstat"];
    hosts(&world, &site, &missing).ends_with(1).says(&[
        "node: /opt/ringstat is not a ringstat that can be used (status 127)",
        "leave out --remote-binary",
    ]);
    for (bad, expected) in [
        (&["--hosts", "-oProxyCommand=x"][..], "cannot stand in the name of a host"),
        (&["--hosts", ","], "no host is named"),
        (&["--hosts", "node", "--remote-binary", "/a;b"], "';' cannot stand in a path"),
        (&["--hosts", "node", "--agent-binary", "aarch64=/etc/passwd"], "it is no ELF file"),
        (&["--hostfile", "/no/such/file"], "cannot read the hostfile /no/such/file"),
    ] {
        // As clap has it: a value that begins with a dash stands behind an equal sign.
        let joined: Vec<String> =
            bad.chunks(2).map(|pair| format!("{}={}", pair[0], pair[1])).collect();
        let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
        hosts(&world, &site, &joined).ends_with(2).says(&[expected]);
    }
}
