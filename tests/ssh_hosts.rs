//! The hosts of the tests are what they are said to be.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how a test fails.

mod common;

use common::sshd::Site;
use std::fs;

#[test]
fn a_host_is_a_machine_of_its_own() {
    let Some(site) = Site::new("a host is a machine of its own") else { return };
    let first = site.host("first").shell("/bin/sh").start();
    let mut second = site.host("second").user("tester", 4711).start();

    let ask = |host: &str| {
        let command = "pwd; echo $0; id -u; hostname; cat /etc/machine-id \
                       /proc/sys/kernel/random/boot_id; echo x >/dev/shm/it; setsid sleep 1000 \
                       >/dev/null 2>&1 </dev/null & exec 2>&1; ls /var/tmp";
        let ran = site.ssh(&[host, command]);
        assert!(ran.status.success(), "{ran:?}");
        let said = String::from_utf8(ran.stdout).unwrap();
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let read = |path| fs::read_to_string(path).unwrap().trim().to_owned();
    for (host, shell, uid) in [(&first, "sh", "0"), (&second, "bash", "4711")] {
        let [machine, boot] = ["machine-id", "boot-id"].map(|name| read(host.path(name)));
        let said = ask(&host.name);
        assert_eq!(said[0], host.home.to_str().unwrap());
        assert_eq!(said[1], shell);
        assert_eq!(said[2..], [uid, &host.name, &machine, &boot], "an empty /var/tmp");
        assert_eq!(read(host.shm.join("it")), "x");
        assert_eq!(machine.len(), 32);
    }
    assert_ne!(read(first.path("machine-id")), read(second.path("machine-id")));

    let boot = read(second.path("boot-id"));
    let processes = second.processes();
    assert!(processes.len() >= 2, "the server and `sleep`: {processes:?}");
    second.reboot();
    assert_eq!(common::entries(&second.shm), [""; 0]);
    assert_ne!(read(second.path("boot-id")), boot);
    assert_eq!(second.processes(), [second.init()], "only the server");
    ask("second");
    let init = first.init();
    drop(first);
    assert!(!std::path::Path::new(&format!("/proc/{init}")).exists());
}
