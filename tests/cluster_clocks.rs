//! Clocks of several hosts: the samples of one tick belong to one instant, whatever is known of a clock
//! when the run starts.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::cluster::{
    assert_clean, assert_no_tick_is_missing, assert_nothing_here, errors, ring_of, run, summary,
};
use common::json::Value;
use common::proxy::Proxy;
use common::sshd::{Site, Sshd};
use common::{World, wait_until};
use ringstat::ring::Ring;
use std::time::Duration;

const UNTIL_TOLD: &str = "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done";

/// When the ticks of a host were due, by our `CLOCK_MONOTONIC`, ns.
fn deadlines(file: &Value, host: &Sshd) -> Vec<i64> {
    let samples = file["samples_by_host"][&*host.name].list();
    let collections = samples.iter().map(|sample| &sample["collection"]);
    let with_a_deadline = collections.filter(|at| at.get("extra").is_none());
    let due = |at: &Value| at["monotonic_ns"].int() as f64 - at["lateness_us"].float() * 1e3;
    let ahead_ns = host.monotonic_ahead_ns();
    with_a_deadline.map(|at| due(at).round() as i64 - ahead_ns).collect()
}

/// How much later the newest tick of a host was due than by its own clock, ns.
fn moved(summary: &Value) -> i64 {
    summary.get("ticks_moved_us").map_or(0, |us| (us.float() * 1e3).round() as i64)
}

/// Tick 0 of a host that records, by our `CLOCK_MONOTONIC`, ns, once it has begun.
fn start(host: &Sshd) -> i64 {
    let ring = wait_until("a ring that has begun", || Ring::open(&ring_of(host)).ok());
    ring.header().start_monotonic_ns.cast_signed() - host.monotonic_ahead_ns()
}

#[test]
fn ticks_move_to_where_the_clock_turns_out_to_be() {
    const INTERVAL: i64 = 200_000_000;
    let Some(site) = Site::new("clocks of hosts") else { return };
    let near = site.host("near").start();
    let link = Proxy::new();
    let far = site.host_behind("far", &link);
    // Its clock seems to be half of that behind.
    link.delay_back(Duration::from_millis(8));
    let world = World::new();
    let options = ["--interval", "200ms", "--heartbeat", "400ms"];
    let live = run(&world, &site, "near,far", &options, UNTIL_TOLD).start();
    common::wait_for_file(&world.path("began"));
    link.delay_back(Duration::ZERO);
    let start_ns = start(&near);
    let first_early = start_ns - start(&far);
    // As soon as heartbeats are faster than that, whenever a busy machine lets them. A millisecond is not
    // worth a move, and another one may be in doubt.
    wait_until("ticks that are due at the same time", || {
        let [near_moved, far_moved] = [&near, &far].map(|host| moved(&summary(&world, host)));
        let early = first_early + near_moved - far_moved;
        (far_moved != 0 && early.abs() < 2_000_000).then_some(())
    });
    world.write("end", "");
    live.end().has_status(0);
    let file = world.files().timeseries;
    for host in ["near", "far"] {
        assert_no_tick_is_missing(&file, host);
        assert_eq!(errors(&file, host), []);
        assert_eq!(file["ringstat"]["hosts"][host]["ticks_inconsistent"].int(), 0);
    }
    // What is known of both clocks when they are told the start is wrong by no more than is said of it:
    // the more that is, the less of it are the eight milliseconds.
    let doubt_ns = |host: &str| {
        let doubt_ms = file["ringstat"]["hosts"][host]["clock_uncertainty_ms"].float();
        (doubt_ms * 1e6).round() as i64
    };
    let [near_doubt, far_doubt] = ["near", "far"].map(doubt_ns);
    println!("{first_early} ns early at tick 0, in doubt are {far_doubt} and {near_doubt} ns");
    assert!(far_doubt >= 4_000_000, "{far_doubt} ns");
    let as_said = 8_000_000 - far_doubt - near_doubt..=far_doubt + near_doubt;
    assert!(as_said.contains(&first_early), "{first_early} ns, not of {as_said:?}");
    // Samples were taken there, and no tick moved by more than a thousandth of the interval.
    for (host, early) in [(&near, 0), (&far, first_early)] {
        let due = deadlines(&file, host);
        let host = &*host.name;
        assert_eq!(due[0], start_ns - early, "{host}");
        let steps = due.windows(2).map(|pair| pair[1] - pair[0] - INTERVAL);
        assert!(steps.clone().all(|step| step.abs() <= INTERVAL / 1000), "{host}: {due:?}");
        let facts = &file["ringstat"]["hosts"][host];
        assert_eq!(moved(facts), steps.sum::<i64>(), "{host}");
    }
    assert_nothing_here(&file);
    assert_clean(&near);
    assert_clean(&far);
}
