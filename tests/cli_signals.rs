//! Signals: those that a user types, at a real terminal, and those that other processes send; and
//! the one that nobody can prepare for.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::terminal::Terminal;
use common::{Cmd, World, entries, wait_for_file, wait_until};
use rustix::process::Signal;
use std::fs;

/// Notes every signal that it hears, in order, and goes on until it has heard USR1 or may go. It
/// hears them at once: what waits is `wait`, not a command in the foreground, so that the same
/// signal twice in a row does not become one.
const LISTENER: &str = "
    for name in INT QUIT TERM HUP USR2 USR1; do
        trap \"echo $name >> '$W/heard'\" $name
    done
    touch \"$W/ready\"
    while [ -d \"$W\" ] && [ ! -e \"$W/go\" ] && ! grep -qs USR1 \"$W/heard\"; do
        sleep 0.1 & wait $!
    done
    exit 7";

fn heard(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path("heard")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn ctrl_c_reaches_the_command_once_and_the_files_are_written() {
    for (byte, name) in [(3, "INT"), (0x1c, "QUIT")] {
        let world = World::new();
        let (mut terminal, live) = Terminal::start(world.run_sh(&[], LISTENER));
        wait_for_file(&world.path("ready"));
        let mut expected: Vec<&str> = Vec::new();
        // The kernel makes one of two that come at the same time; not every time.
        for _ in 0..10 {
            terminal.types(&[byte]);
            expected.push(name);
            wait_until("it to be heard", || (heard(&world).len() >= expected.len()).then_some(()));
            // ringstat passes this one on, and does so after all that it heard before.
            live.signal(Signal::USR2);
            expected.push("USR2");
            wait_until("it to be heard", || (heard(&world).len() >= expected.len()).then_some(()));
            assert_eq!(heard(&world), expected);
        }
        live.signal(Signal::USR1);
        expected.push("USR1");
        live.end().has_status(7);
        assert_eq!(heard(&world), expected);
        let shown = terminal.shown();
        assert!(shown.contains("_timeseries.json"), "{shown}");
        assert_eq!(world.files().metadata["exit_status"].int(), 7);
        world.assert_no_rings();
    }
}

#[test]
fn ctrl_c_that_ends_the_command_does_not_keep_the_files_from_being_written() {
    // The command may be gone before ringstat has heard of the same Ctrl-C; not every time.
    for round in 0..10 {
        let world = World::new();
        let (script, status) = match round % 2 {
            0 => ("touch \"$W/ready\"; exec sleep 100", 128 + 2),
            _ => (
                "trap 'exit 7' INT; touch \"$W/ready\"; while [ -d \"$W\" ]; do sleep 0.1 & wait $!; done",
                7,
            ),
        };
        let (mut terminal, live) = Terminal::start(world.run_sh(&[], script));
        wait_for_file(&world.path("ready"));
        terminal.types(&[3]);
        live.end().has_status(status);
        let shown = terminal.shown();
        assert!(!shown.contains("interrupted"), "round {round}: {shown}");
        assert_eq!(world.files().metadata["exit_status"].int(), status as u64);
        world.assert_no_rings();
    }
}

#[test]
fn the_command_reads_from_the_terminal() {
    let world = World::new();
    let script = "test -t 0 && test -t 1 && read line && echo \"got $line\" > \"$W/got\"";
    let (mut terminal, live) = Terminal::start(world.run_sh(&[], script));
    terminal.types(b"hello\n");
    live.end().has_status(0);
    assert_eq!(fs::read_to_string(world.path("got")).unwrap(), "got hello\n");
}

#[test]
fn every_signal_that_is_sent_to_ringstat_alone_is_passed_on_once() {
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::HUP, "HUP"),
        (Signal::USR2, "USR2"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
    ] {
        let world = World::new();
        // A session of its own: no process group is shared with the sender.
        let (_terminal, live) = Terminal::start(world.run_sh(&[], LISTENER));
        wait_for_file(&world.path("ready"));
        live.signal(signal);
        wait_until("the command to hear it", || (!heard(&world).is_empty()).then_some(()));
        live.signal(Signal::USR1);
        live.end().has_status(7);
        assert_eq!(heard(&world), [name, "USR1"]);
        world.files();
    }
}

#[test]
fn a_terminated_command_ends_ringstat_with_its_signal() {
    let world = World::new();
    let live = world.run_sh(&[], "touch \"$W/ready\"; exec sleep 100").start();
    wait_for_file(&world.path("ready"));
    live.signal(Signal::TERM);
    live.end().has_status(128 + 15);
    assert_eq!(world.files().metadata["exit_status"].int(), 128 + 15);
    world.assert_no_rings();
}

#[test]
fn what_was_ignored_stays_ignored_by_both() {
    let world = World::new();
    let run = world.run_sh(&[], "touch \"$W/ready\"; while [ -d \"$W\" ] && [ ! -e \"$W/go\" ]; do sleep 0.02; done; exit 5");
    let ringstat = run.command.get_program().to_owned();
    let args: Vec<_> = run.command.get_args().map(ToOwned::to_owned).collect();
    // As nohup does it.
    let mut nohup = Cmd::new("sh", &world.path("")).args(&["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    nohup = nohup.arg(ringstat);
    for arg in args {
        nohup = nohup.arg(arg);
    }
    let mut live = nohup.start();
    wait_for_file(&world.path("ready"));
    live.signal(Signal::HUP);
    assert!(live.is_running());
    world.write("go", "");
    live.end().has_status(5);
    world.files();
}

#[test]
fn a_killed_ringstat_leaves_the_command_running_and_the_samples_to_be_recovered() {
    let world = World::new();
    let script = "while [ -d \"$W\" ] && [ ! -e \"$W/go\" ]; do sleep 0.02; done; touch \"$W/end\"";
    let options = ["--interval", "5ms", "--max-samples", "10000", "--benchmark-type", "training"];
    let live = world.run_sh(&options, script).start();
    let dir = world.run_dir(&world.rings());
    let ring = dir.join("00000.ring");
    world.wait_for_samples(&ring, 5);
    live.kill();
    let at_kill = world.info(&ring).unwrap()["summary"]["samples_taken"].int();
    world.write("go", "");
    wait_for_file(&world.path("end"));
    assert_eq!(entries(&world.results()), [""; 0]);
    let run_id = dir.file_name().unwrap().to_str().unwrap();
    world.looking(&["recover", run_id]).succeeds().says(&[run_id, "_timeseries.json"]);
    let files = world.files();
    assert_eq!(files.benchmark_type, "training");
    assert_eq!(files.samples().len() as u64, at_kill);
    assert!(!files.last()["collection"].has("at_stop"));
    assert!(!files.summary()["ended_cleanly"].bool());
    assert!(files.metadata["ringstat"]["recovered"].bool());
    assert!(!files.metadata.has("exit_status"), "nobody knows it");
    assert!(files.metadata["executed_command"].str().contains("sh -c"));
    world.assert_no_rings();
}

#[test]
fn a_terminal_that_stands_still_costs_no_sample() {
    let world = World::new();
    let options = ["--interval", "10ms", "--max-samples", "3000", "--duration", "2500ms"];
    let (mut terminal, live) = Terminal::start(world.record(&options));
    let ring = world.run_dir(&world.rings()).join("00000.ring");
    // Ctrl-S: the progress line has to wait, and with it the end of the recording.
    terminal.types(&[0x13]);
    world.wait_for_samples(&ring, 270);
    terminal.types(&[0x11]);
    live.end().has_status(0);
    let files = world.files();
    assert_eq!(files.samples()[0]["collection"]["tick"].int(), 0, "the oldest is still there");
    assert_eq!(files.summary()["samples_overwritten"].int(), 0);
    let shown = terminal.shown();
    assert!(shown.contains("Ctrl-C to stop"), "a progress line: {shown:?}");
}
