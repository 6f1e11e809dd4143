//! Rings of hosts of which something cannot be read, there or here: all that can be had of any copy is in
//! the output, and what may still be had is not removed anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::cluster::{
    assert_clean, assert_no_tick_is_missing, assert_nothing_here, errors, kill, left, recorders,
    run, strings, wait_for_samples,
};
use common::proxy::Proxy;
use common::sshd::{Site, Sshd};
use common::{World, entries};
use ringstat::ring::Ring;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const UNTIL_TOLD: &str = "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done";

/// The ring of a host's one run and its mirror, when both have so many samples.
fn ring_and_mirror(world: &World, host: &Sshd, count: u64) -> [PathBuf; 2] {
    wait_for_samples(world, host, count);
    let mirrors = host.path("var-tmp/ringstat-0");
    let run = entries(&mirrors).remove(0);
    let copies =
        [host.shm.join("ringstat-0"), mirrors].map(|base| base.join(&run).join("00000.ring"));
    world.wait_for_samples(&copies[1], count);
    copies
}

#[test]
fn what_cannot_be_read_stays_on_a_host_that_has_two_names() {
    let Some(site) = Site::new("two names of a host that cannot be read") else { return };
    let host = site.host("second").start();
    // The first name answers last, and the samples go by it all the same.
    let far = Proxy::new();
    far.lead_to(host.address, host.port);
    far.delay(Duration::from_millis(200));
    let config = fs::read_to_string(site.path("config")).unwrap();
    let config = config.replace("Host second", "Host first");
    let config = config.replace(&format!("Port {}", host.port), &format!("Port {}", far.port));
    let config = config.replace(&host.address.to_string(), &far.address.to_string());
    site.append("config", &config);
    let key = fs::read_to_string(host.path("host_ed25519.pub")).unwrap();
    site.append("known_hosts", &format!("[{}]:{} {key}", far.address, far.port));
    let world = World::new();
    let options = ["--sync-interval", "50ms"];
    let live = run(&world, &site, "first,second", &options, UNTIL_TOLD).start();
    common::wait_for_file(&world.path("began"));
    let copies = ring_and_mirror(&world, &host, 5);
    recorders(&host).into_iter().for_each(kill);
    let whole = copies.each_ref().map(|copy| fs::read(copy).unwrap());
    for (copy, bytes) in copies.iter().zip(&whole) {
        fs::write(copy, [&[7; 100], &bytes[100..]].concat()).unwrap();
    }
    world.write("end", "");
    let words = ["second is the same machine as first", "not all rings of first can be read"];
    let ran = live.end().has_status(0).says(&words);
    let before = world.files().timeseries;
    assert_eq!(strings(&before["hosts_collected"]), [""; 0]);
    assert_eq!(left(&host).len(), 2, "what may still be read stays there");
    // What was fetched is as bad: it is fetched again.
    for (copy, bytes) in copies.iter().zip(&whole) {
        fs::write(copy, bytes).unwrap();
    }
    far.flow();
    world.take_the_advice(&ran).has_status(0);
    let after = world.files().timeseries;
    assert_eq!(strings(&after["hosts_collected"]), ["first"]);
    assert_no_tick_is_missing(&after, "first");
    assert_nothing_here(&after);
    assert_clean(&host);
}

#[test]
fn of_a_ring_that_cannot_be_read_on_its_host_the_mirror_is_fetched() {
    let Some(site) = Site::new("a ring that cannot be read") else { return };
    // Where its first samples are, whatever the machine has: the ring of another run tells.
    let world = World::new();
    let probe = world.kept(2, &[]);
    let layout = Ring::open(&probe.join("00000.ring")).unwrap().header().layout;
    let at = layout.slots_offset.0;
    let good = site.host("good").start();
    let host = site.host("bad").bad_memory(&(at..at + 3 * layout.slot.bytes().0)).start();
    let world = World::new();
    let options = ["--sync-interval", "50ms", "--stop-timeout", "12"];
    let live = run(&world, &site, "good,bad", &options, UNTIL_TOLD).start();
    common::wait_for_file(&world.path("began"));
    wait_for_samples(&world, &good, 8);
    ring_and_mirror(&world, &host, 8);
    fs::write(host.path("bad"), "").unwrap();
    world.write("end", "");
    let ran = live.end().has_status(0).says(&["bad still has samples", "ringstat recover"]);
    let before = world.files().timeseries;
    for name in ["good", "bad"] {
        assert_no_tick_is_missing(&before, name);
    }
    let what = errors(&before, "bad");
    assert!(
        matches!(&what[..], [(kind, what)] if kind == "collection" && what.contains("cannot be read there")),
        "{what:?}"
    );
    assert_clean(&good);
    assert_eq!(left(&host).len(), 2, "what may still be read stays there");
    // Nor is it removed when it is asked again, and is as it was.
    let again = world.take_the_advice(&ran).has_status(1);
    again.says(&["bad could not be fetched from", "cannot be read there"]);
    assert_eq!(left(&host).len(), 2);
    fs::remove_file(host.path("bad")).unwrap();
    world.take_the_advice(&ran).has_status(0);
    let after = world.files().timeseries;
    assert_no_tick_is_missing(&after, "bad");
    assert_eq!(errors(&after, "bad"), []);
    assert_nothing_here(&after);
    assert_clean(&host);
}

#[test]
fn what_was_fetched_and_is_damaged_here_is_fetched_again() {
    let Some(site) = Site::new("rings that are damaged behind the way") else { return };
    let host = site.host("n1").start();
    let world = World::new();
    let spoil = "sleep 1; rm -rf $W/results; touch $W/results";
    let ran = run(&world, &site, "n1", &["--stop-timeout", "8"], spoil).ends_with(0);
    let [.., run] = common::advice(&ran)[..] else { ran.fail("no run") };
    let copy = Path::new(run).join("hosts/00000/00000.ring");
    fs::remove_file(world.results()).unwrap();
    let layout = Ring::open(&copy).unwrap().header().layout;
    let mut bytes = fs::read(&copy).unwrap();
    let at = layout.slots_offset.0 as usize;
    bytes[at..at + 3 * layout.slot.bytes().0 as usize].fill(0);
    fs::write(&copy, bytes).unwrap();
    world.take_the_advice(&ran).has_status(0);
    let file = world.files().timeseries;
    assert_no_tick_is_missing(&file, "n1");
    assert_eq!(errors(&file, "n1"), []);
    assert!(!copy.exists());
    assert_nothing_here(&file);
    assert_clean(&host);
}

#[test]
fn a_ring_that_cannot_be_opened_on_its_host_is_owed_until_it_can_be() {
    let Some(site) = Site::new("a ring that cannot be opened") else { return };
    let host = site.host("bad").start();
    let world = World::new();
    // The mirror has the first sample, and no other.
    let options = ["--sync-interval", "1h", "--stop-timeout", "12"];
    let live = run(&world, &site, "bad", &options, UNTIL_TOLD).start();
    common::wait_for_file(&world.path("began"));
    wait_for_samples(&world, &host, 8);
    recorders(&host).into_iter().for_each(kill);
    let [ring] =
        &left(&host).into_iter().filter(|run| run.starts_with(&host.shm)).collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", left(&host))
    };
    let ring = ring.join("00000.ring");
    let aside = ring.with_extension("aside");
    fs::rename(&ring, &aside).unwrap();
    std::os::unix::fs::symlink("00000.ring", &ring).unwrap();
    world.write("end", "");
    let ran = live.end().has_status(0).says(&["bad still has samples", "ringstat recover"]);
    let before = world.files().timeseries;
    let [(kind, _), (_, what)] = &errors(&before, "bad")[..] else {
        panic!("{:?}", errors(&before, "bad"))
    };
    assert_eq!(kind, "collection");
    for part in ["00000.ring cannot be opened there", "os error 40", "nothing is removed there"] {
        assert!(what.contains(part), "{what}");
    }
    assert_eq!(left(&host).len(), 2, "what may still be opened stays there");
    let again = world.take_the_advice(&ran).has_status(1);
    again.says(&["bad could not be fetched from", "00000.ring cannot be opened there"]);
    assert_eq!(left(&host).len(), 2);
    fs::rename(&aside, &ring).unwrap();
    world.take_the_advice(&ran).has_status(0);
    let after = world.files().timeseries;
    assert_no_tick_is_missing(&after, "bad");
    assert!(common::cluster::ticks(&after, "bad").len() >= 8);
    assert_nothing_here(&after);
    assert_clean(&host);
}
