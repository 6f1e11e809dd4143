//! kill -9 of a launcher of several hosts before and after each call of its final write that gives a file
//! its name: `recover` then ends with both files, the samples of all hosts in them, and nothing is left
//! here or there. The hosts are real ones, over sshd.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::cluster::{assert_clean, assert_no_tick_is_missing, errors, run, strings};
use common::sshd::Site;
use common::trace::{Call, End, Then, trace};
use common::{Files, World, entries};
use std::fs;
use std::sync::Mutex;
use std::time::Instant;

const HOSTS: [&str; 3] = ["n1", "n2", "localhost"];

/// The launcher's own places are this world's; so are the hosts', which see the same files.
fn launcher(world: &World, site: &Site) -> common::Cmd {
    let places = [world.rings(), world.mirrors()];
    let [rings, mirrors] = places.each_ref().map(|dir| dir.to_str().unwrap());
    let options = ["--ring-dir", rings, "--mirror-dir", mirrors];
    run(world, site, &HOSTS.join(","), &options, "sleep 1")
}

/// Runs the launcher and kills it at call number `kill_at` of those that give a name once the final files
/// are being written. How many there were, and how it ended.
fn killed_at(cmd: &common::Cmd, world: &World, kill_at: usize) -> (Vec<Call>, End) {
    let mut calls = Vec::new();
    let end = trace(cmd, |call| {
        let gives_name = call.name.starts_with("rename") || call.name.starts_with("link");
        if !gives_name || entries(&world.results()).is_empty() {
            return Then::GoOn;
        }
        calls.push(call);
        if calls.len() > kill_at { Then::Kill } else { Then::GoOn }
    });
    (calls, end)
}

/// The run that has not been fetched by another, if it has left anything: hosts see the same files.
fn launchers_run(world: &World) -> Option<String> {
    let dirs = [world.rings(), world.mirrors()];
    let runs = dirs.iter().flat_map(|dir| entries(dir).into_iter().map(|id| (dir.join(&id), id)));
    let mut launchers = runs.filter(|(dir, _)| {
        let manifest = fs::read_to_string(dir.join("run.json")).unwrap_or_default();
        !manifest.contains("\"launcher\"")
    });
    launchers.next().map(|(_, id)| id)
}

fn check(world: &World) {
    let Files { timeseries: file, .. } = world.files();
    assert_eq!(strings(&file["hosts_collected"]), HOSTS);
    for name in HOSTS {
        assert_no_tick_is_missing(&file, name);
        assert!(errors(&file, name).is_empty(), "{name}: {:?}", errors(&file, name));
        assert!(file["ringstat"]["hosts"][name]["ended_cleanly"].bool(), "{name}");
    }
    world.assert_no_rings();
}

#[test]
fn a_launcher_is_killed_at_each_name_that_its_final_write_gives() {
    let Some(site) = Site::new("a launcher that is killed") else { return };
    let since = Instant::now();
    let hosts = ["n1", "n2"].map(|name| site.host(name).start());
    let world = World::new();
    let (calls, end) = killed_at(&launcher(&world, &site), &world, usize::MAX);
    assert_eq!(end, End::Exited(0));
    check(&world);
    let names: Vec<&str> = calls.iter().filter(|call| !call.done).map(|call| call.name).collect();
    // At least both files, each before and behind it.
    assert!(calls.len() >= 4, "{calls:?}");
    let (todo, kills) = (Mutex::new((0..calls.len()).collect::<Vec<_>>()), Mutex::new([0; 2]));
    let work = || {
        loop {
            let Some(point) = todo.lock().unwrap().pop() else { return };
            let world = World::new();
            let (calls, end) = killed_at(&launcher(&world, &site), &world, point);
            println!("{:?}: {end:?}", calls.last());
            let id = launchers_run(&world);
            if let Some(id) = &id {
                world.looking(&["recover", id]).succeeds();
                world.looking(&["recover", id]).ends_with(1).says(&["there is no", id]);
            }
            check(&world);
            let mut kills = kills.lock().unwrap();
            kills[0] += u64::from(end == End::Killed);
            kills[1] += u64::from(id.is_some());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(work);
        }
    });
    hosts.iter().for_each(assert_clean);
    let [killed, recovered] = kills.into_inner().unwrap();
    println!(
        "{killed} kills at {} points ({names:?}, before and after each), {recovered} runs recovered, in \
         {:.1} s",
        calls.len(),
        since.elapsed().as_secs_f64()
    );
    assert!(killed >= calls.len() as u64 / 2 && recovered > 0);
}
