//! Several hosts recorded by the program, end to end over real sshd: the healthy ones miss no tick, the
//! failed ones say why and have what could still be had of them, and nothing is left running or lying
//! about anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::cluster::{
    PROGRAM, assert_clean, assert_no_tick_is_missing, assert_nothing_here, cut_connections, errors,
    fetch_what_is_owed, left, recorders, run, strings, ticks, wait_for_more_samples,
    wait_for_samples,
};
use common::sshd::{Site, Sshd};
use common::{Files, World, entries, program_for, wait_until};

/// A user that no machine has.
const GUEST: u32 = 54321;

#[test]
fn several_hosts_have_the_same_ticks_and_nothing_stays_there() {
    let Some(site) = Site::new("several hosts") else { return };
    let world = World::new();
    let names = ["n1", "n2", "n3", "n4"];
    let hosts = names.map(|name| site.host(name).start());
    let ran = run(&world, &site, "n[1-4]:8,n1,localhost", &[], "sleep 1; exit 7").ends_with(7);
    let Files { timeseries: file, .. } = world.files();
    let all = ["n1", "n2", "n3", "n4", "localhost"];
    assert_eq!(strings(&file["hosts_requested"]), all);
    assert_eq!(strings(&file["hosts_collected"]), all);
    assert_eq!(file["collection_method"].str(), "ssh");
    for name in all {
        assert_no_tick_is_missing(&file, name);
        assert!(errors(&file, name).is_empty(), "{}", ran.stderr);
        let facts = &file["ringstat"]["hosts"][name];
        assert!(facts["ended_cleanly"].bool(), "{name}");
        assert!(facts.get("clock_offset_ms").is_some(), "{name}");
    }
    let samples = file["samples_by_host"]["n2"].list();
    assert!(samples.iter().all(|sample| sample["hostname"].str() == "n2"));
    hosts.iter().for_each(assert_clean);
}

#[test]
fn a_host_that_cannot_be_had_costs_the_others_nothing() {
    let Some(site) = Site::new("hosts that fail") else { return };
    let world = World::new();
    let good = site.host("good").start();
    let mut gone = site.host("gone").start();
    gone.stop();
    let stranger = site.host("stranger").unknown().start();
    let hosts = "good,gone,stranger,nowhere.invalid";
    let ran = run(&world, &site, hosts, &[], "sleep 1").ends_with(0);
    let Files { timeseries: file, .. } = world.files();
    assert_no_tick_is_missing(&file, "good");
    assert_eq!(strings(&file["hosts_collected"]), ["good"]);
    for (name, words) in
        [("gone", "refused"), ("stranger", "host key"), ("nowhere.invalid", "nowhere.invalid")]
    {
        let errors = errors(&file, name);
        assert_eq!(errors.len(), 1, "{name}: {errors:?}");
        assert_eq!(errors[0].0, "ssh", "{name}: {errors:?}");
        assert!(errors[0].1.contains(words), "{name}: {errors:?}");
        assert!(ran.stderr.contains(&format!("{name} is not recorded")), "{}", ran.stderr);
    }
    assert_clean(&good);
    assert_clean(&stranger);
}

#[test]
fn one_machine_under_two_names_is_recorded_once() {
    let Some(site) = Site::new("two names") else { return };
    let world = World::new();
    let host = site.host("first").start();
    let again = std::fs::read_to_string(site.path("config")).unwrap();
    site.append("config", &again.replace("Host first", "Host second"));
    run(&world, &site, "first,second", &[], "sleep 1")
        .ends_with(0)
        .says(&["second is the same machine as first"]);
    let Files { timeseries: file, .. } = world.files();
    assert_no_tick_is_missing(&file, "first");
    assert_eq!(file["samples_by_host"]["second"].list().len(), 0);
    assert_eq!(file["ringstat"]["hosts"]["second"]["same_as"].str(), "first");
    assert_eq!(strings(&file["hosts_collected"]), ["first"]);
    assert_clean(&host);
}

#[test]
fn one_machine_reached_as_two_users_is_recorded_once() {
    let Some(site) = Site::new("two users of one machine") else { return };
    let world = World::new();
    let home = tempfile::Builder::new().prefix("ringstat-guest-").tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(GUEST), Some(GUEST)).unwrap();
    let guest = format!("guest:x:{GUEST}:{GUEST}::{}:/bin/sh", home.path().display());
    let host = site.host("node").setup(&format!("echo {guest} >> /etc/passwd")).start();
    let again = std::fs::read_to_string(site.path("config")).unwrap();
    let again = again.replace("Host node", "Host same").replace("User root", "User guest");
    site.append("config", &again);
    for (hosts, name) in [("node,same", "same"), ("same,node", "node")] {
        run(&world, &site, hosts, &[], "sleep 1")
            .ends_with(0)
            .says(&[&format!("{name} is the same machine as")]);
        let Files { timeseries: file, .. } = world.files();
        let [first, second] = strings(&file["hosts_requested"])[..] else { panic!("{hosts}") };
        assert_no_tick_is_missing(&file, first);
        assert_eq!(file["samples_by_host"][second].list().len(), 0);
        assert_eq!(file["ringstat"]["hosts"][second]["same_as"].str(), first);
        assert_eq!(strings(&file["hosts_collected"]), [first]);
        std::fs::remove_dir_all(world.results()).unwrap();
        for base in [host.shm.clone(), host.path("var-tmp")] {
            assert_eq!(entries(&base.join(format!("ringstat-{GUEST}"))), [""; 0], "{base:?}");
        }
        assert_clean(&host);
    }
}

#[test]
fn one_connection_stays_for_each_host_during_the_run() {
    let Some(site) = Site::new("connections during the run") else { return };
    for options in [&[][..], &["--ssh-program", "ssh"]] {
        let world = World::new();
        let names = ["n1", "n2", "n3"].map(|name| format!("{name}-{}", options.len()));
        let hosts = names.each_ref().map(|name| site.host(name).start());
        let script = "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done";
        let options = [&["--heartbeat", "100ms"], options].concat();
        let live = run(&world, &site, &names.join(","), &options, script).start();
        common::wait_for_file(&world.path("began"));
        for samples in [5, 15] {
            for host in &hosts {
                wait_for_samples(&world, host, samples);
                assert_eq!(connections(host), 1, "{} {options:?}", host.name);
            }
        }
        world.write("end", "");
        live.end().has_status(0);
        hosts.iter().for_each(assert_clean);
    }
}

/// The connections that a host's server has, by proc_net_tcp(5).
fn connections(host: &Sshd) -> usize {
    let address = u32::from_ne_bytes(host.address.octets());
    let local = format!("{address:08X}:{:04X}", host.port);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_established = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&local) && words.nth(1) == Some("01")
    };
    table.lines().filter(is_established).count()
}

#[test]
fn a_host_that_says_it_is_another_machine_keeps_nobody_from_being_recorded() {
    let Some(site) = Site::new("machines that claim to be others") else { return };
    let good = site.host("good").start();
    let mut bad = site.host("bad");
    for (id, file) in
        [("machine-id", "/etc/machine-id"), ("boot-id", "/proc/sys/kernel/random/boot_id")]
    {
        bad = bad.setup(&format!("mount --bind {} {file}", good.path(id).display()));
    }
    let bad = bad.start();
    let ids = "cat /etc/machine-id /proc/sys/kernel/random/boot_id";
    assert_eq!(good.inside(ids).stdout, bad.inside(ids).stdout);
    let world = World::new();
    let ran = run(&world, &site, "bad,good", &[], "sleep 1").ends_with(0);
    // Whichever answered first.
    assert!(ran.stderr.contains("says that it is the same machine as"), "{}", ran.stderr);
    let Files { timeseries: file, .. } = world.files();
    for host in [&good, &bad] {
        assert_no_tick_is_missing(&file, &host.name);
        assert_clean(host);
    }
    assert_eq!(strings(&file["hosts_collected"]), ["bad", "good"]);
}

#[test]
fn a_host_that_is_gone_at_the_end_owes_until_it_is_back() {
    let Some(site) = Site::new("a host that is gone for a while") else { return };
    let world = World::new();
    let good = site.host("good").start();
    let mut away = site.host("away").start();
    let options = ["--stop-timeout", "2", "--sync-interval", "50ms"];
    let live = run(
        &world,
        &site,
        "good,away",
        &options,
        "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done",
    )
    .start();
    common::wait_for_file(&world.path("began"));
    let mirror = away.path("var-tmp/ringstat-0");
    wait_until("samples in the mirror", || {
        let run = entries(&mirror).into_iter().next()?;
        let info = world.info(&mirror.join(run).join("00000.ring"))?;
        (info["summary"]["samples_kept"].int() >= 5).then_some(())
    });
    away.stop();
    world.write("end", "");
    let ran = live.end().has_status(0).says(&["away still has samples", "ringstat recover"]);
    let before = world.files().timeseries;
    assert_no_tick_is_missing(&before, "good");
    assert_eq!(strings(&before["hosts_collected"]), ["good"]);
    assert!(errors(&before, "away").iter().any(|(kind, _)| kind == "collection"));
    away.reboot();
    fetch_what_is_owed(&world, &ran);
    let after = world.files().timeseries;
    assert_eq!(strings(&after["hosts_collected"]), ["good", "away"]);
    assert_eq!(ticks(&after, "good"), ticks(&before, "good"));
    assert!(ticks(&after, "away").len() >= 5);
    assert_clean(&good);
    assert_clean(&away);
}

#[test]
fn what_was_fetched_and_is_still_on_hosts_is_removed_by_recover() {
    let Some(site) = Site::new("rings that stay on hosts") else { return };
    let world = World::new();
    let mut hosts = ["n1", "n2"].map(|name| site.host(name).start());
    // All is fetched, and nothing can be written: until it can, hosts keep what they have.
    let spoil = "sleep 1; rm -rf $W/results; touch $W/results";
    let options = ["--stop-timeout", "4"];
    let ran = run(&world, &site, "n1,n2", &options, spoil).ends_with(0);
    let ran = ran.says(&["the samples are safe in", "ringstat recover"]);
    for host in &hosts {
        assert_eq!(left(host).len(), 2, "a ring and its mirror: {:?}", left(host));
        assert!(recorders(host).is_empty(), "{}", host.name);
    }
    std::fs::remove_file(world.results()).unwrap();
    // What is here already does not need its host.
    hosts[1].stop();
    // All is written; that something stays is what it says with its status.
    let recovered = world.take_the_advice(&ran).has_status(1);
    recovered.says(&["n2 still has the rings of run", "ringstat hosts --hosts n2 --clean"]);
    let Files { timeseries: file, .. } = world.files();
    for name in ["n1", "n2"] {
        assert_no_tick_is_missing(&file, name);
        assert_eq!(errors(&file, name), [], "{name}");
        assert!(file["ringstat"]["hosts"][name]["ended_cleanly"].bool(), "{name}");
    }
    assert_eq!(strings(&file["hosts_collected"]), ["n1", "n2"]);
    assert_nothing_here(&file);
    assert_clean(&hosts[0]);
    hosts[1].start();
    assert_eq!(left(&hosts[1]).len(), 2);
    let hosts_args = ["hosts", "--hosts", "n2", "--clean", "--yes", "--remote-binary", PROGRAM];
    world.ringstat(&hosts_args).arg("--ssh-config").arg(site.path("config")).succeeds();
    assert_clean(&hosts[1]);
}

#[test]
fn a_connection_that_is_lost_costs_no_sample() {
    let Some(site) = Site::new("a lost connection") else { return };
    for heartbeat in ["100ms", "off"] {
        let world = World::new();
        let host = site.host(&format!("host-{heartbeat}")).start();
        let script = "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done";
        let options = ["--heartbeat", heartbeat];
        let live = run(&world, &site, &host.name, &options, script).start();
        common::wait_for_file(&world.path("began"));
        let [recorder] = recorders(&host)[..] else { panic!("{:?}", recorders(&host)) };
        cut_connections(&host);
        wait_for_more_samples(&world, &host, 5);
        assert_eq!(recorders(&host), [recorder], "it lives on");
        world.write("end", "");
        live.end().has_status(0);
        let Files { timeseries: file, .. } = world.files();
        assert_no_tick_is_missing(&file, &host.name);
        assert_eq!(errors(&file, &host.name), [], "with a heartbeat of {heartbeat}");
        assert!(file["ringstat"]["hosts"][host.name.as_str()]["ended_cleanly"].bool());
        assert_clean(&host);
    }
}

#[test]
fn a_recorder_does_not_end_while_its_launcher_lives_though_it_wants_no_heartbeat() {
    let Some(site) = Site::new("a run that is longer than orphans live") else { return };
    let world = World::new();
    let host = site.host("long").start();
    let script = "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done";
    let options = ["--heartbeat", "off", "--orphan-timeout", "5", "--interval", "100ms"];
    let live = run(&world, &site, "long", &options, script).start();
    common::wait_for_file(&world.path("began"));
    // Twice as long, and once without the connection.
    for samples in [60, 120] {
        wait_for_samples(&world, &host, samples);
        cut_connections(&host);
    }
    world.write("end", "");
    live.end().has_status(0);
    let Files { timeseries: file, .. } = world.files();
    assert_no_tick_is_missing(&file, "long");
    assert_eq!(errors(&file, "long"), []);
    assert!(file["ringstat"]["hosts"]["long"]["ended_cleanly"].bool());
    assert_clean(&host);
}

#[test]
fn a_recorder_without_a_launcher_ends_and_leaves_its_rings_alone() {
    let Some(site) = Site::new("an orphan") else { return };
    let world = World::new();
    let host = site.host("orphan").start();
    let options = ["--orphan-timeout", "1", "-v"];
    let live = run(&world, &site, "orphan", &options, "touch $W/began; exec sleep 600").start();
    common::wait_for_file(&world.path("began"));
    let said = live.said();
    let id = said
        .lines()
        .find_map(|line| line.strip_prefix("ringstat: run "))
        .expect("its id")
        .to_owned();
    live.kill();
    wait_until("the orphan's end", || recorders(&host).is_empty().then_some(()));
    let runs = left(&host);
    assert_eq!(runs.len(), 2, "a ring and its mirror: {runs:?}");
    for run in runs {
        assert_eq!(entries(&run), ["00000.ring", "run.json"], "{}", run.display());
    }
    // They are there for whoever asks.
    world.ringstat(&["recover", &id]).succeeds();
    assert_eq!(strings(&world.files().timeseries["hosts_collected"]), ["orphan"]);
    assert_clean(&host);
}

#[test]
fn a_noisy_login_shell_and_other_shells_do_no_harm() {
    let Some(site) = Site::new("login shells") else { return };
    let world = World::new();
    let noisy = site.host("noisy").start();
    std::fs::write(noisy.home.join(".bashrc"), "echo Welcome; echo >&2 careful\n").unwrap();
    let mut hosts = vec![noisy];
    for shell in ["dash", "csh", "fish"] {
        if let Some(path) = program_for("a host with the login shell", shell) {
            hosts.push(site.host(shell).shell(path.to_str().unwrap()).start());
        }
    }
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    run(&world, &site, &names.join(","), &[], "sleep 1").ends_with(0);
    let Files { timeseries: file, .. } = world.files();
    names.iter().for_each(|name| assert_no_tick_is_missing(&file, name));
    hosts.iter().for_each(assert_clean);
}

#[test]
fn the_program_is_brought_to_hosts_and_opensshs_own_reaches_them_too() {
    let Some(site) = Site::new("a host without ringstat") else { return };
    let host = site.host("bare").start();
    for options in [&["--ssh-timeout", "120"][..], &["--ssh-program", "ssh"]] {
        let world = World::new();
        let config = site.path("config");
        let mut cmd = world.ringstat(&["run", "--hosts", "bare", "--interval", "250ms"]);
        cmd = cmd.arg("--ssh-config").arg(config).arg("--results-dir").arg(world.results());
        cmd = cmd.args(&["--max-samples", "100"]).args(options);
        cmd.args(&["--", "sleep", "1"]).ends_with(0);
        let Files { timeseries: file, .. } = world.files();
        assert_eq!(strings(&file["hosts_collected"]), ["bare"], "{options:?}");
        assert_no_tick_is_missing(&file, "bare");
        assert_clean(&host);
        let programs = entries(&host.home.join(".cache/ringstat"));
        assert_eq!(programs.len(), 1, "one program, whoever brought it: {programs:?}");
    }
}

#[test]
fn times_that_no_clock_counts_are_as_good_as_without_an_end() {
    let Some(site) = Site::new("times without an end") else { return };
    let host = site.host("patient").start();
    for ssh in [&[][..], &["--ssh-program", "ssh"]] {
        let world = World::new();
        let options = ["--ssh-timeout", "--stop-timeout", "--orphan-timeout", "--heartbeat"];
        let options: Vec<&str> = options.iter().flat_map(|option| [option, "1e20"]).collect();
        run(&world, &site, "patient", &[&options, ssh].concat(), "sleep 1").ends_with(0);
        assert_eq!(strings(&world.files().timeseries["hosts_collected"]), ["patient"]);
        assert_clean(&host);
    }
}
