//! Hosts that fail, over real sshd, each in another way, alone and between healthy ones: these miss no
//! tick, the failed one says why and has what could still be had of it, the benchmark ends as it ends, and
//! nothing is left anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::cable::Cable;
use common::cluster::{
    assert_clean, assert_no_tick_is_missing, assert_nothing_here, errors, fetch_what_is_owed, kill,
    recorders, run, strings, ticks, wait_for_more_samples, wait_for_samples,
};
use common::json::Value;
use common::proxy::{BlackHole, Proxy};
use common::sshd::{Host, Site, Sshd};
use common::{Live, Ran, World, rounds, wait_until, with_own_network};
use ringstat::Slot;
use ringstat::ring::Ring;
use rustix::fs::{FileType, Mode};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How the benchmark ends, whatever becomes of hosts.
const STATUS: i32 = 7;
/// A command that ends when the test says so.
const UNTIL_TOLD: &str = "touch $W/began; while [ ! -e $W/end ]; do sleep 0.1; done; exit 7";

fn begin(world: &World, site: &Site, hosts: &str, options: &[&str]) -> Live {
    let live = run(world, site, hosts, options, UNTIL_TOLD).start();
    common::wait_for_file(&world.path("began"));
    live
}

/// The benchmark ends, and ringstat no later than the user allows: how long that takes is what is tested.
/// To the bound comes what writing may take, as long again and 10 s at least, and 10 s for a busy machine.
fn end_in_time(world: &World, live: Live, stop_timeout: &str) -> Ran {
    const WRITING: Duration = Duration::from_secs(10);
    let bound = Duration::from_secs(stop_timeout.parse().unwrap());
    let allowed = bound + bound.max(WRITING) + WRITING;
    let since = Instant::now();
    world.write("end", "");
    let ran = live.end().has_status(STATUS);
    let took = since.elapsed();
    assert!(took < allowed, "it took {took:?} with --stop-timeout {stop_timeout}");
    ran
}

/// Those that a host is recorded with which is to fail: nobody, or healthy ones.
struct Company<'s> {
    site: &'s Site,
    healthy: &'s [Sshd],
}

impl Company<'_> {
    /// Does `test` of a host alone and of one among these, side by side.
    fn both(site: &Site, healthy: &[Sshd], test: impl Fn(&Company<'_>) + Sync) {
        thread::scope(|scope| {
            for healthy in [&[], healthy] {
                let test = &test;
                scope.spawn(move || test(&Company { site, healthy }));
            }
        });
        healthy.iter().for_each(assert_clean);
    }

    /// A host's name, which another company has no host of.
    fn name(&self, what: &str) -> String {
        if self.healthy.is_empty() { format!("{what}-alone") } else { what.to_owned() }
    }

    fn host(&self, what: &str) -> Host<'_> {
        self.site.host(&self.name(what))
    }

    /// All names, the healthy ones around the other.
    fn names<'n>(&'n self, bad: &'n str) -> Vec<&'n str> {
        let healthy = || self.healthy.iter().map(|host| host.name.as_str());
        healthy().take(1).chain([bad]).chain(healthy().skip(1)).collect()
    }

    /// A run with that host, when its command has begun.
    fn begin(&self, world: &World, bad: &Sshd, options: &[&str]) -> Live {
        begin(world, self.site, &self.names(&bad.name).join(","), options)
    }

    fn wait_for_samples(&self, world: &World, count: u64) {
        self.healthy.iter().for_each(|host| wait_for_samples(world, host, count));
    }

    /// The file has all of the healthy hosts, and of the other one something if it `is_collected`.
    fn check(&self, file: &Value, bad: &str, is_collected: bool) {
        for Sshd { name, .. } in self.healthy {
            assert_no_tick_is_missing(file, name);
            assert_eq!(errors(file, name), [], "{name}");
        }
        let mut names = self.names(bad);
        assert_eq!(strings(&file["hosts_requested"]), names);
        names.retain(|name| is_collected || *name != bad);
        assert_eq!(strings(&file["hosts_collected"]), names);
        assert_eq!(file["collection_method"].str(), "ssh");
    }

    /// The file of a run in which `spoil` was done to that host when all had some samples; nothing of it
    /// is left anywhere.
    fn spoiled(&self, options: &[&str], bad: &Sshd, spoil: impl FnOnce()) -> Value {
        let world = World::new();
        let live = self.begin(&world, bad, options);
        self.wait_for_samples(&world, 5);
        wait_for_samples(&world, bad, 5);
        spoil();
        world.write("end", "");
        live.end().has_status(STATUS);
        let file = world.files().timeseries;
        self.check(&file, &bad.name, true);
        assert_nothing_here(&file);
        assert_clean(bad);
        file
    }

    /// As [`spoiled`](Self::spoiled), of what costs no sample and is no error.
    fn spoiled_in_vain(&self, options: &[&str], bad: &Sshd, spoil: impl FnOnce()) -> Value {
        let file = self.spoiled(options, bad, spoil);
        assert_no_tick_is_missing(&file, &bad.name);
        assert_eq!(errors(&file, &bad.name), [], "{}", bad.name);
        assert!(file["ringstat"]["hosts"][&*bad.name]["ended_cleanly"].bool(), "{}", bad.name);
        file
    }

    /// A run at whose end the host cannot be reached and goes on by itself; later, `recover` has all of it.
    fn is_away_at_the_end(&self, host: &Sshd, goes: impl FnOnce(), comes_back: impl FnOnce()) {
        const BOUND: &str = "4";
        let (world, away) = (World::new(), &*host.name);
        let live = self.begin(&world, host, &["--stop-timeout", BOUND]);
        self.wait_for_samples(&world, 5);
        wait_for_samples(&world, host, 5);
        goes();
        let ran = end_in_time(&world, live, BOUND);
        let ran = ran.says(&[&format!("{away} still has samples"), "ringstat recover"]);
        let before = world.files().timeseries;
        self.check(&before, away, false);
        assert!(errors(&before, away).iter().any(|(kind, _)| kind == "collection"));
        self.healthy.iter().for_each(assert_clean);
        // It has not heard of the stop, and goes on.
        assert_eq!(recorders(host).len(), 1);
        comes_back();
        fetch_what_is_owed(&world, &ran);
        let after = world.files().timeseries;
        self.check(&after, away, true);
        assert_no_tick_is_missing(&after, away);
        for Sshd { name, .. } in self.healthy {
            assert_eq!(ticks(&after, name), ticks(&before, name));
        }
        assert_nothing_here(&after);
        assert_clean(host);
    }
}

/// The one thing that is said of a host.
fn only_error(file: &Value, host: &str) -> (String, String) {
    let mut errors = errors(file, host);
    assert_eq!(errors.len(), 1, "{host}: {errors:?}");
    errors.remove(0)
}

/// A whole run of hosts that are healthy, if any, beside some that are not; `failed` is where and with which
/// words each of these fails.
fn assert_run(site: &Site, healthy: &[&str], failed: &[(&str, &str, &str)], options: &[&str]) {
    let world = World::new();
    let names = |of: &mut dyn Iterator<Item = &str>| of.collect::<Vec<_>>().join(",");
    // The healthy ones between the others.
    let bad: Vec<&str> = failed.iter().map(|(name, ..)| *name).collect();
    let (first, others) = healthy.split_at(healthy.len().min(1));
    let all = names(&mut first.iter().chain(&bad).chain(others).copied());
    let ran = run(&world, site, &all, options, "sleep 1; exit 7").ends_with(STATUS);
    let file = world.files().timeseries;
    for name in healthy {
        assert_no_tick_is_missing(&file, name);
        assert_eq!(errors(&file, name), [], "{name}");
    }
    assert_eq!(strings(&file["hosts_collected"]), healthy);
    assert_eq!(names(&mut strings(&file["hosts_requested"]).into_iter()), all);
    assert_eq!(file["collection_method"].str(), "ssh");
    for (name, kind, words) in failed {
        let (of, what) = only_error(&file, name);
        assert!(of == *kind && what.contains(words), "{name}, not {kind} {words:?}: {of} {what}");
        assert!(ran.stderr.contains(&format!("{name} is not recorded: ")), "{}", ran.stderr);
    }
    assert_nothing_here(&file);
}

#[test]
fn a_host_that_cannot_be_reached_says_why_and_costs_the_others_nothing() {
    let Some(site) = Site::new("hosts that cannot be reached") else { return };
    let healthy = ["good1", "good2"];
    let hosts = healthy.map(|name| site.host(name).start());
    let mut refusing = site.host("refusing").start();
    refusing.stop();
    let stranger = site.host("stranger").unknown().start();
    let changed = site.host("changed").unknown().start();
    let another = site.keygen("another", "ed25519", &[]).with_extension("pub");
    let another = fs::read_to_string(another).unwrap();
    site.append("known_hosts", &format!("[{}]:{} {another}", changed.address, changed.port));
    let locked = site.host("locked").server_config("AuthorizedKeysFile none").start();
    let [dead, dying] = [Proxy::new(), Proxy::new()];
    let silent = site.host_behind("silent", &dead);
    dead.stall();
    // It says who it is, and some of the key exchange.
    let falling_silent = site.host_behind("falling-silent", &dying);
    dying.let_through(1500);
    let hole = BlackHole::new();
    site.append("config", &format!("Host hole\nHostName 127.0.0.1\nPort {}\n\n", hole.port));
    let failed = [
        ("nowhere.invalid", "ssh", "resolve"),
        ("refusing", "ssh", "refused"),
        ("stranger", "ssh", "no key of"),
        ("changed", "ssh", "CHANGED"),
        ("locked", "ssh", "authentication"),
        ("hole", "ssh", "connect: no end after"),
        ("silent", "ssh", "handshake"),
        ("falling-silent", "ssh", "handshake"),
    ];
    let options = ["--ssh-timeout", "6"];
    // Each alone, with the healthy ones and without any, in any order, and then all together.
    thread::scope(|scope| {
        for one in failed {
            for healthy in [&healthy[..], &[]] {
                let site = &site;
                scope.spawn(move || assert_run(site, healthy, &[one], &options));
            }
        }
    });
    assert_run(&site, &healthy, &failed, &options);
    hosts
        .iter()
        .chain([&stranger, &changed, &locked, &silent, &falling_silent])
        .for_each(assert_clean);
}

#[test]
fn a_host_that_falls_silent_behind_the_handshake_is_given_up() {
    let Some(site) = Site::new("hosts that fall silent") else { return };
    let good = site.host("good").start();
    let proxies = [Proxy::new(), Proxy::new()];
    let bad: [Sshd; 2] =
        std::array::from_fn(|at| site.host_behind(&format!("bad{at}"), &proxies[at]));
    // All that is said until we are let in, and of all that follows not enough.
    for bytes in [3_500, 4_500] {
        thread::scope(|scope| {
            for (healthy, at) in [(&["good"][..], 0), (&[], 1)] {
                let (site, bad) = (&site, &bad[at]);
                proxies[at].let_through(bytes);
                scope.spawn(move || {
                    let failed = [(&*bad.name, "ssh", "answer in time")];
                    assert_run(site, healthy, &failed, &["--ssh-timeout", "6"]);
                });
            }
        });
    }
    bad.iter().chain([&good]).for_each(assert_clean);
}

#[test]
fn silent_hosts_keep_no_healthy_one_from_being_set_up() {
    let Some(site) = Site::new("many silent hosts") else { return };
    let good = ["good1", "good2"].map(|name| site.host(name).start());
    let behind = site.host("behind").client_config("ProxyJump good1").start();
    // More than can be set up at once, of each kind.
    let dead: Vec<(Proxy, Sshd)> = (0..3)
        .map(|index| {
            let proxy = Proxy::new();
            let host = site.host_behind(&format!("silent{index}"), &proxy);
            proxy.stall();
            (proxy, host)
        })
        .collect();
    let holes: [BlackHole; 3] = std::array::from_fn(|_| BlackHole::new());
    for (index, hole) in holes.iter().enumerate() {
        let port = hole.port;
        site.append("config", &format!("Host hole{index}\nHostName 127.0.0.1\nPort {port}\n\n"));
    }
    let failed = [
        ("silent0", "ssh", "handshake"),
        ("hole0", "ssh", "hole0: connect: no end after"),
        ("silent1", "ssh", "handshake"),
        ("hole1", "ssh", "hole1: connect: no end after"),
        ("silent2", "ssh", "handshake"),
        ("hole2", "ssh", "hole2: connect: no end after"),
    ];
    let options = ["--ssh-workers", "2", "--ssh-timeout", "10"];
    assert_run(&site, &["good1", "good2", "behind"], &failed, &options);
    let failed = failed.map(|(name, kind, _)| (name, kind, "not logged in within time"));
    let options = [&options[..], &["--ssh-program", "ssh"]].concat();
    assert_run(&site, &["good1", "good2", "behind"], &failed, &options);
    good.iter().chain([&behind]).chain(dead.iter().map(|(_, host)| host)).for_each(assert_clean);
}

#[test]
fn silent_hosts_keep_no_healthy_one_from_the_bastion_that_all_are_behind() {
    let Some(site) = Site::new("silent hosts behind a bastion") else { return };
    let healthy = ["first", "good"].map(|name| site.host(name));
    let [first, good] = healthy.map(|host| host.client_config("ProxyJump bastion").start());
    let bastion = site.host("bastion").server_config("MaxStartups 100").start();
    // Twice as many as have a place there at once.
    let silent: Vec<(String, Proxy)> = (0..20)
        .map(|number| {
            let (name, dead) = (format!("silent{number}"), Proxy::new());
            let at = format!("HostName {}\nPort {}\nProxyJump bastion", dead.address, dead.port);
            site.append("config", &format!("Host {name}\n{at}\n\n"));
            dead.lead_to(bastion.address, bastion.port);
            dead.stall();
            (name, dead)
        })
        .collect();
    for (options, words) in [
        (&["--ssh-program", "ssh", "--ssh-timeout", "16"][..], "not logged in within time"),
        (&["--ssh-timeout", "16"], "handshake"),
    ] {
        let failed: Vec<(&str, &str, &str)> =
            silent.iter().map(|(name, _)| (&**name, "ssh", words)).collect();
        assert_run(&site, &["first", "good"], &failed, options);
    }
    [&first, &good, &bastion].into_iter().for_each(assert_clean);
}

#[test]
fn a_host_that_was_given_up_and_is_away_holds_nobody_up_and_is_owed() {
    const STOP_TIMEOUT: u64 = 40;
    let Some(site) = Site::new("hosts that were given up and are away") else { return };
    let good = site.host("good").start();
    let fifo = site.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mount = format!("mount --bind {} /etc/os-release", fifo.display());
    let proxy = Proxy::new();
    let late = site.host("late").setup(&mount).behind(&proxy).start();
    proxy.lead_to(late.address, late.port);
    let world = World::new();
    let stop_timeout = STOP_TIMEOUT.to_string();
    let options = ["--ssh-timeout", "6", "--stop-timeout", &stop_timeout];
    let live = begin(&world, &site, "late,good", &options);
    assert_eq!(recorders(&late).len(), 1, "it is on its way");
    proxy.cut();
    wait_for_samples(&world, &good, 5);
    world.write("end", "");
    let since = Instant::now();
    let owed = "late may have a recorder of this run that waits for its start";
    let ran = live.end().has_status(STATUS).says(&[owed, "ringstat recover"]);
    // Samples have all of that time but for three seconds, and it has none. No shorter than that: the
    // time that the user allows is what this is about, and `recover` takes it all below.
    assert!(since.elapsed() < Duration::from_secs(STOP_TIMEOUT - 3), "{:?}", since.elapsed());
    let before = world.files().timeseries;
    assert_no_tick_is_missing(&before, "good");
    assert_eq!(strings(&before["hosts_collected"]), ["good"]);
    assert_clean(&good);
    // As long as it is away, it is said what is owed, and all is left as it is.
    let again = world.take_the_advice(&ran).has_status(1);
    again.says(&["late could not be fetched from"]);
    assert_eq!(world.files().timeseries, before);
    assert_eq!(recorders(&late).len(), 1);
    proxy.flow();
    fs::write(&fifo, "NAME=late\n").unwrap();
    world.take_the_advice(&ran).has_status(0);
    let after = world.files().timeseries;
    assert_eq!(ticks(&after, "good"), ticks(&before, "good"));
    assert_nothing_here(&after);
    assert_clean(&late);
}

#[test]
fn a_recorder_that_is_ready_when_its_host_was_given_up_does_not_stay() {
    let Some(site) = Site::new("recorders that are late") else { return };
    let good = site.host("good").start();
    // Whoever opens it waits until somebody writes to it.
    let fifo = site.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mount = format!("mount --bind {} /etc/os-release", fifo.display());
    let late = site.host("late").setup(&mount).start();
    let world = World::new();
    let live = begin(&world, &site, "late,good", &["--ssh-timeout", "6"]);
    assert_eq!(recorders(&late).len(), 1, "it is on its way");
    // The run goes on, and so does the recorder.
    fs::write(&fifo, "NAME=late\n").unwrap();
    wait_until("the recorder's end", || recorders(&late).is_empty().then_some(()));
    wait_for_samples(&world, &good, 5);
    world.write("end", "");
    live.end().has_status(STATUS);
    let file = world.files().timeseries;
    assert_no_tick_is_missing(&file, "good");
    let errors = errors(&file, "late");
    assert!(
        matches!(&errors[..], [(kind, what)] if kind == "ssh" && what.contains("to be ready")),
        "{errors:?}"
    );
    assert_eq!(strings(&file["hosts_collected"]), ["good"]);
    assert_nothing_here(&file);
    assert_clean(&good);
    assert_clean(&late);
}

#[test]
fn a_link_that_is_cut_for_a_while_costs_no_sample() {
    let Some(site) = Site::new("links that are cut for a while") else { return };
    Company::both(&site, &[site.host("good").start()], |company| {
        for (what, heartbeat) in [("stalled", "300ms"), ("stalled-unheard", "off")] {
            let proxy = Proxy::new();
            let host = site.host_behind(&company.name(what), &proxy);
            company.spoiled_in_vain(&["--heartbeat", heartbeat], &host, || {
                let before = recorders(&host);
                proxy.stall();
                // A minute, in the long form.
                thread::sleep(Duration::from_secs(rounds(3, 60)));
                proxy.flow();
                assert_eq!(recorders(&host), before, "it lives on");
            });
        }
        let by_program = ["--heartbeat", "300ms", "--ssh-program", "ssh"];
        for (what, options) in [
            ("cut", &by_program[..2]),
            ("cut-at-the-end", &by_program[..2]),
            ("cut-by-program", &by_program),
        ] {
            let proxy = Proxy::new();
            let host = site.host_behind(&company.name(what), &proxy);
            thread::scope(|scope| {
                company.spoiled_in_vain(options, &host, || {
                    proxy.cut();
                    let for_a_while = |seconds| {
                        thread::sleep(Duration::from_secs(seconds));
                        proxy.flow();
                    };
                    if what == "cut-at-the-end" {
                        // While it is fetched from.
                        scope.spawn(move || for_a_while(2));
                    } else {
                        for_a_while(rounds(2, 60));
                    }
                });
            });
        }
    });
}

#[test]
fn a_link_that_is_cut_until_after_the_end_leaves_what_recover_fetches() {
    let Some(site) = Site::new("links that stay cut") else { return };
    Company::both(&site, &[site.host("good").start()], |company| {
        let proxy = Proxy::new();
        let host = site.host_behind(&company.name("away"), &proxy);
        company.is_away_at_the_end(&host, || proxy.stall(), || proxy.flow());
    });
}

#[test]
fn a_cable_that_is_unplugged_costs_no_sample() {
    with_own_network("cables that are unplugged", || {
        let Some(site) = Site::new("cables that are unplugged") else { return };
        let cables = [Cable::new("unplugging"), Cable::new("unplugging")];
        let [Some(alone), Some(beside)] = cables else { return };
        Company::both(&site, &[site.host("good").start()], |company| {
            let cable = if company.healthy.is_empty() { &alone } else { &beside };
            let mut host = cable.leads_to(company.host("unplugged")).start();
            company.spoiled_in_vain(&["--heartbeat", "300ms"], &host, || {
                let before = recorders(&host);
                cable.unplug();
                // A minute, in the long form.
                thread::sleep(Duration::from_secs(rounds(4, 60)));
                cable.plug();
                assert_eq!(recorders(&host), before, "it lives on");
            });
            host.stop();
            let host = cable.leads_to(company.host("away")).start();
            company.is_away_at_the_end(&host, || cable.unplug(), || cable.plug());
        });
    });
}

#[test]
fn a_connection_that_is_being_set_up_at_the_end_is_not_waited_for_and_leaves_nothing() {
    let Some(site) = Site::new("connections that are being set up at the end") else { return };
    for (name, program) in [("built-in", &[][..]), ("program", &["--ssh-program", "ssh"])] {
        let world = World::new();
        let proxy = Proxy::new();
        let host = site.host_behind(name, &proxy);
        // Who waits for a connection has an hour for it; to fetch all of it takes a busy machine seconds.
        let bound = "12";
        let options = ["--heartbeat", "300ms", "--ssh-timeout", "3600", "--stop-timeout", bound];
        let options = [&options, program].concat();
        std::fs::create_dir(world.path("tmp")).unwrap();
        let cmd = run(&world, &site, name, &options, UNTIL_TOLD);
        let live = cmd.env("TMPDIR", world.path("tmp")).start();
        common::wait_for_file(&world.path("began"));
        wait_for_samples(&world, &host, 5);
        proxy.cut_and_stall();
        let ran = end_in_time(&world, live, bound);
        let ran = ran.says(&["still has samples", "ringstat recover"]);
        let config = site.path("config");
        let is_ours = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
        };
        // They are told to end, and not waited for.
        common::wait_until("the end of programs of ours", || {
            let pids = common::entries(std::path::Path::new("/proc"));
            let mut left = pids.iter().filter_map(|name| name.parse().ok()).filter(is_ours);
            left.next().is_none().then_some(())
        });
        assert_eq!(common::entries(&world.path("tmp")), [""; 0]);
        proxy.flow();
        fetch_what_is_owed(&world, &ran);
        let file = world.files().timeseries;
        assert_no_tick_is_missing(&file, name);
        assert_nothing_here(&file);
        assert_clean(&host);
    }
}

#[test]
fn a_connection_that_is_lost_without_a_word_costs_no_sample_though_somebody_waits_for_it() {
    let Some(site) = Site::new("connections that are lost without a word") else { return };
    Company::both(&site, &[site.host("good").start()], |company| {
        let proxy = Proxy::new();
        let host = site.host_behind(&company.name("forgotten"), &proxy);
        // An answer may take a minute otherwise, and the end has less.
        let options = ["--heartbeat", "300ms", "--ssh-timeout", "60", "--stop-timeout", "20"];
        company.spoiled_in_vain(&options, &host, || {
            proxy.swallow();
            proxy.wait_for_loss();
        });
    });
}

#[test]
fn delay_and_stalls_cost_no_sample_and_the_clock_says_how_sure_it_is() {
    let Some(site) = Site::new("delay and stalls") else { return };
    Company::both(&site, &[site.host("good").start()], |company| {
        let proxy = Proxy::new();
        let host = site.host_behind(&company.name("far"), &proxy);
        proxy.delay(Duration::from_millis(300));
        let options = ["--heartbeat", "500ms", "--ssh-timeout", "60", "--stop-timeout", "60"];
        let file = company.spoiled_in_vain(&options, &host, || {
            for _ in 0..rounds(2, 10) {
                proxy.stall();
                thread::sleep(Duration::from_secs(2));
                proxy.flow();
                thread::sleep(Duration::from_secs(1));
            }
        });
        let facts = &file["ringstat"]["hosts"][&*host.name];
        let (offset_ms, doubt_ms) =
            (facts["clock_offset_ms"].float(), facts["clock_uncertainty_ms"].float());
        // Half of the least of many trips, each of which is held up for 600 ms, and a few for seconds.
        assert!((300.0..2000.0).contains(&doubt_ms), "{doubt_ms}");
        assert!(offset_ms.abs() <= doubt_ms, "it is the same clock: {offset_ms} +- {doubt_ms}");
    });
}

#[test]
fn a_killed_recorder_loses_nothing_that_it_had() {
    let Some(site) = Site::new("killed recorders") else { return };
    Company::both(&site, &["good1", "good2"].map(|name| site.host(name).start()), |company| {
        let host = company.host("bad").start();
        let file = company.spoiled(&[], &host, || {
            let [recorder] = recorders(&host)[..] else { panic!("{:?}", recorders(&host)) };
            kill(recorder);
        });
        assert_no_tick_is_missing(&file, &host.name);
        assert!(!file["ringstat"]["hosts"][&*host.name]["ended_cleanly"].bool());
        let (kind, what) = only_error(&file, &host.name);
        assert!(kind == "collection" && what.contains("killed"), "{kind} {what}");
    });
}

#[test]
fn a_host_that_reboots_has_what_its_mirror_had() {
    let Some(site) = Site::new("a host that reboots") else { return };
    Company::both(&site, &[site.host("good").start()], |company| {
        let mut host = company.host("rebooted").start();
        let world = World::new();
        let options = ["--heartbeat", "300ms", "--sync-interval", "50ms"];
        let live = company.begin(&world, &host, &options);
        company.wait_for_samples(&world, 5);
        ring_with_mirror(&world, &host, 5);
        host.reboot();
        world.write("end", "");
        live.end().has_status(STATUS);
        let file = world.files().timeseries;
        company.check(&file, &host.name, true);
        let ticks = ticks(&file, &host.name);
        assert!(ticks.len() >= 5 && ticks.iter().copied().eq(0..ticks.len() as u64), "{ticks:?}");
        assert!(!file["ringstat"]["hosts"][&*host.name]["ended_cleanly"].bool());
        let (kind, what) = only_error(&file, &host.name);
        assert!(kind == "collection" && what.contains("went down"), "{kind} {what}");
        assert_nothing_here(&file);
        assert_clean(&host);
    });
}

/// The ring of a host's one run, when its mirror has so many samples.
fn ring_with_mirror(world: &World, host: &Sshd, count: u64) -> PathBuf {
    let mirrors = host.path("var-tmp/ringstat-0");
    let run = common::entries(&mirrors).remove(0);
    world.wait_for_samples(&mirrors.join(&run).join("00000.ring"), count);
    host.shm.join("ringstat-0").join(run).join("00000.ring")
}

#[test]
fn what_a_ring_on_a_host_has_lost_its_mirror_gives_back() {
    const BEFORE: u64 = 8;
    let Some(site) = Site::new("rings that lose something") else { return };
    let options = ["--sync-interval", "50ms"];
    let ring_of = |host: &Sshd| {
        let ring = ring_with_mirror(&World::new(), host, BEFORE);
        let layout = Ring::open(&ring).unwrap().header().layout;
        (fs::File::options().write(true).open(ring).unwrap(), layout)
    };
    Company::both(&site, &[site.host("good").start()], |company| {
        let host = company.host("zeroed").start();
        company.spoiled_in_vain(&options, &host, || {
            let (ring, layout) = ring_of(&host);
            let bytes = vec![0; (BEFORE * layout.slot.bytes().0) as usize];
            ring.write_all_at(&bytes, layout.slots_offset.0).unwrap();
        });
        let host = company.host("cut").start();
        let file = company.spoiled(&options, &host, || {
            let (ring, layout) = ring_of(&host);
            ring.set_len(layout.slot_offset(Slot(BEFORE / 2)).0).unwrap();
        });
        // One that was taken and not yet copied went with the ring.
        let ticks = ticks(&file, &host.name);
        assert!(ticks.len() as u64 >= BEFORE && ticks[..BEFORE as usize].is_sorted());
        let facts = &file["ringstat"]["hosts"][&*host.name];
        assert!(facts["samples_lost"].int() <= 1, "{ticks:?}");
        assert_eq!(errors(&file, &host.name), []);
    });
}

#[test]
fn full_disks_on_a_host_cost_what_cannot_be_and_nothing_else() {
    let Some(site) = Site::new("full disks on hosts") else { return };
    // From the beginning: neither a ring nor a mirror can be had.
    let full = "mount -t tmpfs -o size=4k,mode=1777 none";
    let fill = |dir: &str| format!("{full} {dir}\nhead -c 4096 /dev/zero > {dir}/fill");
    // And on the way: the ring has its memory already, and the mirror can do without.
    let small = "mount -t tmpfs -o size=16m,mode=1777 none";
    Company::both(&site, &[site.host("good").start()], |company| {
        let none = company.host("none").setup(&fill("/dev/shm")).setup(&fill("/var/tmp")).start();
        let healthy: Vec<&str> = company.healthy.iter().map(|host| host.name.as_str()).collect();
        assert_run(&site, &healthy, &[(&none.name, "collection", "no room")], &[]);
        assert_clean(&none);
        let host = company.host("filling").setup(&format!("{small} /var/tmp")).start();
        company.spoiled_in_vain(&[], &host, || {
            let filled = host.inside("cat /dev/zero > /var/tmp/fill");
            assert!(!filled.status.success(), "{filled:?}");
            // Samples that the mirror cannot have.
            wait_for_more_samples(&World::new(), &host, 8);
        });
    });
}

#[test]
fn a_clock_that_is_49_seconds_off_is_said_to_be_and_changes_no_tick() {
    let Some(site) = Site::new("a wrong clock") else { return };
    if !cfg!(target_arch = "x86_64") {
        common::say_skipped("a wrong clock", "x86_64");
        return;
    }
    Company::both(&site, &[site.host("good").start()], |company| {
        let host = company.host("ahead").clock_ahead(49).start();
        let file = company.spoiled_in_vain(&[], &host, || {});
        let clock = |name: &str| {
            let facts = &file["ringstat"]["hosts"][name];
            (facts["clock_offset_ms"].float(), facts["clock_uncertainty_ms"].float())
        };
        let (wrong, more_doubt) = clock(&host.name);
        assert!((wrong - 49_000.0).abs() <= more_doubt, "{wrong} +- {more_doubt}");
        for Sshd { name, .. } in company.healthy {
            let (right, doubt) = clock(name);
            assert!(right.abs() <= doubt, "{right} +- {doubt}");
            // By the clocks of the two hosts the same tick is that far apart. Neither sample was late by
            // an interval, or a tick would be missing.
            let first = |name: &str| {
                let sample = &file["samples_by_host"][name].list()[0];
                sample["collection"]["time_unix_ns"].int() as f64 / 1e6
            };
            let interval_ms = file["collection_interval_seconds"].float() * 1e3;
            let apart = first(&host.name) - first(name);
            let most = interval_ms + more_doubt + doubt;
            assert!((apart - 49_000.0).abs() <= most, "{apart} ms, not within {most} of 49 s");
        }
    });
}

#[test]
fn hosts_that_are_ready_wait_for_their_start_however_long_others_take() {
    let Some(site) = Site::new("hosts that wait") else { return };
    let good = site.host("good").start();
    let dead = Proxy::new();
    let _silent = site.host_behind("silent", &dead);
    dead.stall();
    // An orphan would end long before the other one is given up.
    let options = ["--ssh-timeout", "8", "--orphan-timeout", "3", "--heartbeat", "off"];
    assert_run(&site, &["good"], &[("silent", "ssh", "handshake")], &options);
    assert_clean(&good);
}

#[test]
fn a_server_that_asks_whether_we_are_there_is_answered() {
    let Some(site) = Site::new("servers that ask") else { return };
    let config = "ClientAliveInterval 4\nClientAliveCountMax 3";
    let host = site.host("asking").server_config(config).start();
    let world = World::new();
    let live = begin(&world, &site, "asking", &["--heartbeat", "off"]);
    // Twice as long as it waits for an answer: how long nothing is said is what this is about.
    thread::sleep(Duration::from_secs(32));
    world.write("end", "");
    live.end().has_status(STATUS);
    let file = world.files().timeseries;
    assert_no_tick_is_missing(&file, "asking");
    assert_eq!(errors(&file, "asking"), []);
    assert_eq!(host.log().matches("Accepted publickey").count(), 1, "{}", host.log());
    assert_clean(&host);
}
