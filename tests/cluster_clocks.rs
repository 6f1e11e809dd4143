//! Clocks of several hosts: the samples of one tick belong to one instant, whatever is known of a clock
//! when the run starts.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::World;
use common::cluster::{
    assert_clean, assert_no_tick_is_missing, assert_nothing_here, errors, run, wait_for_samples,
};
use common::json::Value;
use common::proxy::Proxy;
use common::sshd::Site;
use std::time::Duration;

const UNTIL_TOLD: &str = "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done";

/// When the ticks of a host were due, ms: all hosts here have one wall clock.
fn deadlines(file: &Value, host: &str) -> Vec<f64> {
    let samples = file["samples_by_host"][host].list();
    let collections = samples.iter().map(|sample| &sample["collection"]);
    let with_a_deadline = collections.filter(|at| at.get("extra").is_none());
    with_a_deadline
        .map(|at| at["time_unix_ns"].int() as f64 / 1e6 - at["lateness_us"].float() / 1e3)
        .collect()
}

#[test]
fn ticks_move_to_where_the_clock_turns_out_to_be() {
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
    // At a thousandth of the interval per tick it takes 20.
    wait_for_samples(&world, &far, 40);
    world.write("end", "");
    live.end().has_status(0);
    let file = world.files().timeseries;
    for host in ["near", "far"] {
        assert_no_tick_is_missing(&file, host);
        assert_eq!(errors(&file, host), []);
        assert_eq!(file["ringstat"]["hosts"][host]["ticks_inconsistent"].int(), 0);
    }
    let [near_ms, far_ms] = ["near", "far"].map(|host| deadlines(&file, host));
    let early_ms: Vec<f64> = near_ms.iter().zip(&far_ms).map(|(near, far)| near - far).collect();
    let (first, last) = (early_ms[0], early_ms[38]);
    println!("{first:.3} ms early at tick 0, {last:.3} ms at tick 38");
    assert!((3.0..6.0).contains(&first), "{first} ms");
    // As near as twelve trips on a busy machine tell.
    assert!(last.abs() < 2.0, "{last} ms, after {first} ms");
    let moved_us = file["ringstat"]["hosts"]["far"]["ticks_moved_us"].float();
    assert!((moved_us / 1e3 - (first - last)).abs() < 1.0, "{moved_us} us");
    assert_nothing_here(&file);
    assert_clean(&near);
    assert_clean(&far);
}
