//! The launcher is killed, or its own machine goes down and comes up again: the recorders of its hosts, be
//! it one or several, go on, and what they and its mirror have is had by `recover`. A launcher that goes
//! down runs on a host of the test's own, too, so that it loses what a machine loses.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::cluster::{
    assert_clean, assert_no_tick_is_missing, errors, left, recorders, run, strings, ticks,
    wait_for_samples,
};
use common::json::Value;
use common::proxy::Proxy;
use common::sshd::{Site, Sshd};
use common::terminal::Terminal;
use common::{Cmd, World, entries, wait_for_file, wait_until};
use std::fs;
use std::path::PathBuf;
use std::slice;
use std::thread;

/// A command as it runs on a host.
fn on(host: &Sshd, cmd: Cmd) -> Cmd {
    cmd.behind("nsenter", &["-t", &host.init().to_string(), "-m", "-p", "-u"])
}

/// The ring of the one run in a host's mirror.
fn mirrored(host: &Sshd) -> PathBuf {
    let base = host.path("var-tmp/ringstat-0");
    let run = wait_until("a run in a mirror", || entries(&base).into_iter().next());
    base.join(run).join("00000.ring")
}

/// Every tick up to the last one that its mirror has.
fn assert_has_its_mirror(file: &Value, launcher: &Sshd) {
    let name = &*launcher.name;
    let ticks = ticks(file, name);
    assert!(ticks.len() >= 5 && ticks.iter().copied().eq(0..ticks.len() as u64), "{ticks:?}");
    let facts = &file["ringstat"]["hosts"][name];
    assert_eq!((facts["samples_lost"].int(), facts["ended_cleanly"].bool()), (0, false));
    assert_eq!(errors(file, name), []);
}

/// How it is recovered, in its files.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Recovery {
    /// As all that this host has begun.
    Unnamed,
    /// By the run's id.
    Named,
    /// By the run's id, since the machine is another one now, as one that boots from the network may be.
    NamedElsewhere,
}

/// `others` are those that are recorded beside the launcher's own machine.
fn goes_down(site: &Site, recovery: Recovery, others: usize) {
    let world = World::new();
    let name = |what: String| format!("{what}-{recovery:?}").to_lowercase();
    let mut launcher = site.host(&name(format!("launcher{others}"))).start();
    let start = |number| site.host(&name(format!("n{number}of{others}"))).start();
    let hosts: Vec<Sshd> = (0..others).map(start).collect();
    let all: Vec<String> = hosts.iter().chain([&launcher]).map(|host| host.name.clone()).collect();
    let options = ["--sync-interval", "50ms", "--heartbeat", "300ms"];
    let script = "touch $W/began; exec sleep 600";
    let live = on(&launcher, run(&world, site, &all.join(","), &options, script)).start();
    wait_for_file(&world.path("began"));
    hosts.iter().for_each(|host| wait_for_samples(&world, host, 5));
    world.wait_for_samples(&mirrored(&launcher), 5);
    let before: Vec<Vec<u32>> = hosts.iter().map(recorders).collect();
    assert!(before.iter().all(|recorders| recorders.len() == 1), "{before:?}");

    if recovery == Recovery::NamedElsewhere {
        fs::write(launcher.path("machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    }
    launcher.reboot();
    assert_ne!(live.end().status, 0, "nobody wrote its files");
    let run_dir = mirrored(&launcher).parent().unwrap().to_owned();
    assert_eq!(
        left(&launcher),
        slice::from_ref(&run_dir),
        "its ring is gone, and its mirror is not"
    );
    let id = run_dir.file_name().unwrap().to_str().unwrap();
    for (host, before) in hosts.iter().zip(&before) {
        let info = world.info(&mirrored(host)).unwrap();
        wait_for_samples(&world, host, info["summary"]["samples_taken"].int() + 3);
        assert_eq!(recorders(host), *before, "it lives on");
    }

    let recover = |args: &[&str]| on(&launcher, world.ringstat(&[&["recover"], args].concat()));
    match recovery {
        Recovery::Unnamed => drop(recover(&[]).succeeds().says(&["recovered run", id])),
        Recovery::Named => drop(recover(&[id]).succeeds()),
        Recovery::NamedElsewhere => {
            let named = format!("name it if it is dead: ringstat recover {id}");
            recover(&[]).succeeds().says(&["is left alone", &named]);
            assert_eq!(left(&launcher), slice::from_ref(&run_dir));
            recover(&[id]).succeeds();
        }
    }
    let file = world.files().timeseries;
    assert_eq!(strings(&file["hosts_requested"]), all);
    assert_eq!(strings(&file["hosts_collected"]), all);
    assert_eq!(file["collection_method"].str(), "ssh");
    for host in &hosts {
        assert_no_tick_is_missing(&file, &host.name);
        assert_eq!(errors(&file, &host.name), []);
        assert!(file["ringstat"]["hosts"][&*host.name]["ended_cleanly"].bool());
        assert_clean(host);
    }
    assert_has_its_mirror(&file, &launcher);
    assert_clean(&launcher);
    recover(&[]).succeeds().says(&["no run owes any files"]);
}

#[test]
fn a_killed_launcher_finds_everything_again() {
    let Some(site) = Site::new("a killed launcher") else { return };
    thread::scope(|scope| {
        for names in [&["n1", "n2"][..], &["alone"]] {
            let site = &site;
            scope.spawn(move || is_killed(site, names));
        }
    });
}

fn is_killed(site: &Site, names: &[&str]) {
    let world = World::new();
    let hosts: Vec<Sshd> = names.iter().map(|name| site.host(name).start()).collect();
    let places = [world.rings(), world.mirrors()];
    // Its own rings go elsewhere than the user's; so do the hosts', at the same paths.
    for host in &hosts {
        let dirs = places.clone().map(|dir| dir.display().to_string());
        let made = host.inside(&format!("mkdir -p {} {}", dirs[0], dirs[1]));
        assert!(made.status.success(), "{made:?}");
    }
    let options =
        ["--ring-dir", places[0].to_str().unwrap(), "--mirror-dir", places[1].to_str().unwrap()];
    let script = "touch $W/began; exec sleep 600";
    let live = run(&world, site, &names.join(","), &options, script).start();
    wait_for_file(&world.path("began"));
    live.kill();
    assert!(hosts.iter().all(|host| !recorders(host).is_empty()), "they live on");
    let rings = wait_until("the rings of all hosts", || {
        let rings = entries(&places[0]).into_iter().map(|run| places[0].join(run));
        let rings: Vec<_> =
            rings.map(|run| run.join("00000.ring")).filter(|it| it.exists()).collect();
        (rings.len() == hosts.len()).then_some(rings)
    });
    rings.iter().for_each(|ring| world.wait_for_samples(ring, 5));
    let launchers = wait_until("the launcher's run", || {
        let is_launcher = |run: &String| places[1].join(run).join("hosts").is_dir();
        entries(&places[0]).into_iter().find(is_launcher)
    });
    world.looking(&["recover", &launchers]).succeeds();
    let file = world.files().timeseries;
    for name in names {
        assert_no_tick_is_missing(&file, name);
        assert_eq!(errors(&file, name), []);
        assert!(file["ringstat"]["hosts"][*name]["ended_cleanly"].bool(), "{name}");
    }
    assert_eq!(strings(&file["hosts_collected"]), names);
    world.assert_no_rings();
    hosts.iter().for_each(assert_clean);
}

#[test]
fn a_launcher_that_reboots_finds_all_that_its_hosts_and_its_mirror_have() {
    let Some(site) = Site::new("a launcher that reboots") else { return };
    thread::scope(|scope| {
        use Recovery::{Named, NamedElsewhere, Unnamed};
        for (recovery, others) in [(Unnamed, 2), (Unnamed, 1), (Named, 2), (NamedElsewhere, 2)] {
            let site = &site;
            scope.spawn(move || goes_down(site, recovery, others));
        }
    });
}

#[test]
fn a_launcher_that_reboots_before_the_start_leaves_no_recorder_that_waits_for_it() {
    let Some(site) = Site::new("a launcher that reboots before the start") else { return };
    let world = World::new();
    let good = site.host("good").start();
    let dead = Proxy::new();
    let silent = site.host_behind("silent", &dead);
    dead.stall();
    let mut launcher = site.host("launcher").start();
    let live = on(&launcher, run(&world, &site, "good,silent", &[], "touch $W/began")).start();
    wait_until("a recorder", || (recorders(&good).len() == 1).then_some(()));
    launcher.reboot();
    assert_ne!(live.end().status, 0);
    assert!(!world.path("began").exists(), "it waited for all of them");
    // What became of the other one is not known.
    dead.flow();
    let counted = "collection has errors in 1 of 1 samples of good";
    on(&launcher, world.ringstat(&["recover"])).succeeds().says(&["recovered run", counted]);
    let file = world.files().timeseries;
    assert_eq!(strings(&file["hosts_collected"]), [""; 0]);
    for host in [&good, &silent] {
        let errors = errors(&file, &host.name);
        let is_said = |(kind, what): &(String, String)| {
            kind == "collection" && what.contains("nothing is left of its samples")
        };
        assert!(errors.iter().any(is_said), "{}: {errors:?}", host.name);
        assert_clean(host);
    }
    assert_clean(&launcher);
}

#[test]
fn who_recovers_at_a_terminal_sees_what_is_fetched_and_who_is_waited_for() {
    let Some(site) = Site::new("recovering at a terminal") else { return };
    let world = World::new();
    let good = site.host("good").start();
    let proxy = Proxy::new();
    let away = site.host_behind("away", &proxy);
    let options = ["--stop-timeout", "50", "-v"];
    let script = "touch $W/began; exec sleep 600";
    let live = run(&world, &site, "good,away", &options, script).start();
    wait_for_file(&world.path("began"));
    [&good, &away].iter().for_each(|host| wait_for_samples(&world, host, 5));
    let said = live.said();
    let id = said.lines().find_map(|line| line.strip_prefix("ringstat: run ")).unwrap().to_owned();
    live.kill();
    proxy.stall();
    let (terminal, recovers) = Terminal::start(world.ringstat(&["recover", &id]));
    terminal.wait_for("fetched from 1 of 2 hosts, 0 MB, waiting for away");
    proxy.flow();
    recovers.end().has_status(0);
    let shown = terminal.shown();
    assert!(shown.contains("recovered run"), "{shown}");
    assert_eq!(strings(&world.files().timeseries["hosts_collected"]), ["good", "away"]);
    [&good, &away].into_iter().for_each(assert_clean);
}
