//! A host in a network of its own, to which a cable leads that a test unplugs: a pair of veth between the
//! calling thread's network namespace and another one. Needs root and `ip` (iproute2).

use super::program_for;
use super::sshd::{Host, succeeds};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// The cable. The network behind it goes with this value and with the processes in it.
pub struct Cable {
    near: String,
    /// Of the host at the other end.
    address: Ipv4Addr,
    /// Keeps the other namespace.
    holder: Child,
}

impl Cable {
    /// One from the namespace of the calling thread, which is [its own](super::with_own_network), to a new
    /// one. `None`, said loudly, where there is no `ip`.
    pub fn new(what: &str) -> Option<Cable> {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        program_for(what, "ip")?;
        // Relaxed: only that no two are alike counts.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let near = format!("near{number}");
        let [own, address] = [1, 2].map(|end| Ipv4Addr::new(10, 77, number, end));
        // It says so when it is there.
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "sh", "-c", "echo; exec cat"]).stdin(Stdio::piped());
        let mut holder = unshare.stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let cable = Cable { near, address, holder };
        let pid = cable.holder.id().to_string();
        ip(&["link", "set", "lo", "up"]);
        ip(&["link", "add", &cable.near, "type", "veth", "peer", "name", "far", "netns", &pid]);
        ip(&["addr", "add", &format!("{own}/30"), "dev", &cable.near]);
        cable.plug();
        let there = format!("addr add {address}/30 dev far\nlink set far up\n");
        let commands = format!("printf '{there}' | ip -batch -");
        succeeds(Command::new("nsenter").arg(cable.namespace()).args(["sh", "-c", &commands]));
        Some(cable)
    }

    /// Nothing goes through any more.
    pub fn unplug(&self) {
        ip(&["link", "set", &self.near, "down"]);
    }

    /// All is as it was.
    pub fn plug(&self) {
        ip(&["link", "set", &self.near, "up"]);
    }

    /// A host at the other end; there is room for one.
    pub fn leads_to<'s>(&self, host: Host<'s>) -> Host<'s> {
        host.in_network(self.namespace(), self.address)
    }

    fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.holder.id())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn ip(args: &[&str]) {
    succeeds(Command::new("ip").args(args));
}
