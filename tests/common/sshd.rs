//! Hosts with a real OpenSSH server on loopback addresses. Each has namespaces of its own, so that
//! it is a machine as far as an agent can see: its own processes, home directory, login shell,
//! `/dev/shm`, `/var/tmp`, host name, machine id and boot id; what is in its directories is seen
//! from outside too. Nothing of the user's `~/.ssh` is read. Needs root and `openssh-server`.

use super::proxy::Proxy;
use super::{bad_memory, say_skipped, wait_until, wall_clock};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

/// What one user has: a key (`id`), a file of known hosts, and a configuration in which all hosts
/// are that were started, by their names.
pub struct Site {
    dir: TempDir,
    memory: TempDir,
    lock: Mutex<()>,
}

impl Site {
    /// `None`, said loudly, where there cannot be one.
    pub fn new(what: &str) -> Option<Site> {
        if !rustix::process::geteuid().is_root() {
            say_skipped(what, "root");
            return None;
        }
        if !Path::new(SSHD).exists() {
            say_skipped(what, "the package openssh-server");
            return None;
        }
        let mut dirs = tempfile::Builder::new();
        let dirs = dirs.prefix("ringstat-site-").permissions(fs::Permissions::from_mode(0o755));
        let dir = dirs.tempdir().unwrap();
        let memory = dirs.tempdir_in("/dev/shm").unwrap();
        let site = Site { dir, memory, lock: Mutex::new(()) };
        site.keygen("id", "ed25519", &[]);
        fs::copy(site.path("id.pub"), site.path("authorized_keys")).unwrap();
        for name in ["known_hosts", "config"] {
            fs::write(site.path(name), "").unwrap();
        }
        Some(site)
    }

    /// Of a file of the user's: `id`, `known_hosts`, `config`, `authorized_keys`, others' keys.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a key pair without a passphrase, unless `more` has one for `ssh-keygen`.
    pub fn keygen(&self, name: &str, kind: &str, more: &[&str]) -> PathBuf {
        let path = self.path(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-C", name, "-f"]).arg(&path).args(more);
        if !more.contains(&"-N") {
            command.args(["-N", ""]);
        }
        succeeds(&mut command);
        path
    }

    /// Lets this public key in on all hosts.
    pub fn authorize(&self, public_key: &Path) {
        let line = fs::read_to_string(public_key).unwrap();
        self.append("authorized_keys", &line);
    }

    /// Adds to a file of the user's.
    pub fn append(&self, name: &str, text: &str) {
        let _guard = self.lock.lock().unwrap();
        let path = self.path(name);
        let mut content = fs::read_to_string(&path).unwrap_or_default();
        content.push_str(text);
        fs::write(path, content).unwrap();
    }

    /// A host that is behind a link of its own, started.
    pub fn host_behind(&self, name: &str, proxy: &Proxy) -> Sshd {
        let host = self.host(name).behind(proxy).start();
        proxy.lead_to(host.address, host.port);
        host
    }

    /// A host that is not started yet.
    pub fn host(&self, name: &str) -> Host<'_> {
        let dir = self.path(name);
        let [home, shm] = [dir.join("home"), self.memory.path().join(name)];
        Host {
            site: self,
            name: name.to_owned(),
            address: next_address(),
            shell: "/bin/bash".into(),
            user: "root".into(),
            uid: 0,
            host_keys: vec!["ed25519".into()],
            server_config: String::new(),
            client_config: String::new(),
            is_known: true,
            setup: String::new(),
            dir,
            home,
            shm,
            link: None,
            network: None,
        }
    }

    /// OpenSSH's own program, with this user's configuration.
    pub fn ssh(&self, args: &[&str]) -> Output {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.path("config")).args(["-o", "BatchMode=yes"]).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    }
}

/// A host that is not started yet: root logs in to bash with the key `id`, and the host's key is
/// known, unless told otherwise.
pub struct Host<'s> {
    site: &'s Site,
    name: String,
    address: Ipv4Addr,
    shell: String,
    user: String,
    uid: u32,
    host_keys: Vec<String>,
    server_config: String,
    client_config: String,
    is_known: bool,
    setup: String,
    dir: PathBuf,
    home: PathBuf,
    shm: PathBuf,
    link: Option<(Ipv4Addr, u16)>,
    network: Option<String>,
}

impl Host<'_> {
    pub fn address(mut self, address: Ipv4Addr) -> Self {
        self.address = address;
        self
    }

    /// The login shell.
    pub fn shell(mut self, path: &str) -> Self {
        self.shell = path.into();
        self
    }

    /// Who logs in, with the home directory of this host.
    pub fn user(mut self, name: &str, uid: u32) -> Self {
        (self.user, self.uid) = (name.into(), uid);
        self
    }

    /// The types of its keys, as `ssh-keygen -t` takes them.
    pub fn host_keys(mut self, kinds: &[&str]) -> Self {
        self.host_keys = kinds.iter().map(|&kind| kind.into()).collect();
        self
    }

    /// Lines for `sshd_config`. The first value of a directive counts, and these come first.
    pub fn server_config(mut self, lines: &str) -> Self {
        let _ = writeln!(self.server_config, "{lines}");
        self
    }

    /// Lines for the host's part of the user's configuration; these come first.
    pub fn client_config(mut self, lines: &str) -> Self {
        let _ = writeln!(self.client_config, "{lines}");
        self
    }

    /// Does not put its key into the file of known hosts.
    pub fn unknown(mut self) -> Self {
        self.is_known = false;
        self
    }

    /// Behind `proxy`, which leads to it once it is started.
    pub fn behind(self, proxy: &Proxy) -> Self {
        Host { link: Some((proxy.address, proxy.port)), ..self }
    }

    /// In a network of its own, which `nsenter` finds by this, at that address.
    pub fn in_network(self, namespace: String, address: Ipv4Addr) -> Self {
        Host { address, network: Some(namespace), ..self }
    }

    /// With a wall clock that is so many seconds ahead of everybody else's.
    pub fn clock_ahead(self, seconds: i64) -> Self {
        fs::create_dir_all(&self.dir).unwrap();
        let library = wall_clock::ahead(&self.dir, seconds);
        self.server_config(&format!("SetEnv LD_PRELOAD={}", library.display()))
    }

    /// With rings in memory of which these bytes cannot be read as long as its file `bad` is there.
    pub fn bad_memory(self, bytes: &Range<u64>) -> Self {
        fs::create_dir_all(&self.dir).unwrap();
        let library = bad_memory::bad(&self.dir, bytes);
        self.server_config(&format!("SetEnv LD_PRELOAD={}", library.display()))
    }

    /// A command that root runs on the host before its server starts, like
    /// `mount -t tmpfs -o size=1m none /var/tmp`.
    pub fn setup(mut self, command: &str) -> Self {
        let _ = writeln!(self.setup, "{command}");
        self
    }

    /// Starts it, and waits until it listens.
    pub fn start(self) -> Sshd {
        let Host { site, name, address, dir, home, shm, .. } = &self;
        for each in [dir, home, shm, &dir.join("var-tmp")] {
            fs::create_dir_all(each).unwrap();
        }
        fs::set_permissions(dir.join("var-tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::set_permissions(shm, fs::Permissions::from_mode(0o1777)).unwrap();
        std::os::unix::fs::chown(home, Some(self.uid), Some(self.uid)).unwrap();
        let port = match self.network {
            // It has all ports there.
            Some(_) => 2222,
            None => TcpListener::bind((*address, 0)).unwrap().local_addr().unwrap().port(),
        };

        let mut config = self.server_config.clone();
        for kind in &self.host_keys {
            let key = site.keygen(&format!("{name}/host_{kind}"), kind, &[]);
            let public = fs::read_to_string(key.with_extension("pub")).unwrap();
            if self.is_known {
                let (address, port) = self.link.unwrap_or((*address, port));
                site.append("known_hosts", &format!("[{address}]:{port} {public}"));
            }
            let _ = writeln!(config, "HostKey {}", key.display());
        }
        let keys = site.path("authorized_keys");
        let _ = write!(
            config,
            "ListenAddress {address}:{port}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nLogLevel VERBOSE\n",
            keys.display()
        );
        fs::write(dir.join("sshd_config"), config).unwrap();
        fs::write(dir.join("passwd"), self.passwd()).unwrap();
        new_id(&dir.join("machine-id"), "");
        new_id(&dir.join("boot-id"), "-");
        fs::write(dir.join("start.sh"), self.script()).unwrap();

        let identity = site.path("id");
        let known_hosts = site.path("known_hosts");
        let (link_address, link_port) = self.link.unwrap_or((*address, port));
        let client = format!(
            "Host {name}\n{}HostName {link_address}\nPort {link_port}\nUser {}\nIdentityFile {}\n\
             UserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n\n",
            self.client_config,
            self.user,
            identity.display(),
            known_hosts.display(),
        );
        site.append("config", &client);
        let Host { name, address, dir, home, shm, network, .. } = self;
        let mut sshd = Sshd { name, address, port, dir, home, shm, network, child: None };
        sshd.start();
        sshd
    }

    /// The machine's users, but for who logs in.
    fn passwd(&self) -> String {
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let Host { user, uid, home, shell, .. } = self;
        let others = users.lines().filter(|line| line.split(':').next() != Some(user));
        let mut passwd: String = others.map(|line| format!("{line}\n")).collect();
        let _ = writeln!(passwd, "{user}:x:{uid}:{uid}:{user}:{}:{shell}", home.display());
        passwd
    }

    /// Makes the machine and becomes its server.
    fn script(&self) -> String {
        let Host { name, setup, shm, dir, .. } = self;
        let [shm, dir] = [shm, dir].map(|path| path.display());
        format!(
            "set -e
cd /
hostname {name}
mkdir -p /run/sshd
mount -t tmpfs -o mode=755 none /run/sshd
mount --bind {dir}/passwd /etc/passwd
[ -e /etc/machine-id ] || touch /etc/machine-id
mount --bind {dir}/machine-id /etc/machine-id
mount --bind {dir}/boot-id /proc/sys/kernel/random/boot_id
mount --bind {dir}/var-tmp /var/tmp
mount --bind {shm} /dev/shm
{setup}exec {SSHD} -D -E {dir}/sshd.log -f {dir}/sshd_config
"
        )
    }
}

/// A host that runs. It ends with all of its processes when this value goes.
pub struct Sshd {
    pub name: String,
    pub address: Ipv4Addr,
    pub port: u16,
    /// The home directory of who logs in, as seen by both sides.
    pub home: PathBuf,
    /// Its `/dev/shm`, as seen from outside.
    pub shm: PathBuf,
    dir: PathBuf,
    network: Option<String>,
    child: Option<Child>,
}

/// By how much the `CLOCK_MONOTONIC` of a host with this address is ahead of everybody else's: no two
/// machines were started at the same time.
fn uptime_ahead_s(address: Ipv4Addr) -> u32 {
    let may_be = Path::new("/proc/self/ns/time").exists();
    if may_be { u32::from(address) % 100_000 } else { 0 }
}

impl Sshd {
    /// By how much its `CLOCK_MONOTONIC` is ahead of everybody else's, ns.
    pub fn monotonic_ahead_ns(&self) -> i64 {
        i64::from(uptime_ahead_s(self.address)) * 1_000_000_000
    }

    /// Where a file of the host's lies: `sshd.log`, `var-tmp`, `machine-id`, `host_ed25519.pub`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What its server has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("sshd.log")).unwrap_or_default()
    }

    /// Its first process: the server that listens. Its number is that seen from outside.
    pub fn init(&self) -> u32 {
        let unshare = self.child.as_ref().expect("a host that runs").id();
        wait_until("the host's first process", || only_child(unshare))
    }

    /// The numbers of its processes, as seen from outside.
    pub fn processes(&self) -> Vec<u32> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(self.init());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(|&pid| namespace(pid) == own).collect()
    }

    /// Runs a command on it as root, not over the network.
    pub fn inside(&self, command: &str) -> Output {
        let init = self.init().to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &init, "-m", "-p", "-u", "sh", "-c", command]);
        nsenter.stdin(Stdio::null()).output().unwrap()
    }

    /// Ends it as a power cut does, but that nothing in its directories is lost.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // With the first process of its namespace all others go, and before it is reaped.
        if let Some(init) = only_child(child.id()) {
            let _ = Command::new("kill").args(["-9", &init.to_string()]).status();
        } else {
            let _ = child.kill();
        }
        let _ = child.wait();
    }

    /// Starts it again on the same port.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let _ = fs::remove_file(self.path("sshd.log"));
        let mut unshare = Command::new(if self.network.is_some() { "nsenter" } else { "unshare" });
        if let Some(network) = &self.network {
            unshare.args([network, "unshare"]);
        }
        unshare.args(["--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]);
        let uptime = uptime_ahead_s(self.address);
        if uptime > 0 {
            unshare.args(["--time", "--monotonic", &uptime.to_string()]);
        }
        unshare.args(["sh"]).arg(self.path("start.sh")).stdin(Stdio::null());
        let said = fs::File::create(self.path("start.log")).unwrap();
        unshare.stdout(said.try_clone().unwrap()).stderr(said);
        let child = self.child.insert(unshare.spawn().unwrap());
        let [log, said] = ["sshd.log", "start.log"].map(|name| self.dir.join(name));
        wait_until("an sshd to listen", || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = child.try_wait().unwrap() {
                let said = fs::read_to_string(&said).unwrap();
                panic!("sshd of {}: {status}\n{said}\n{log}", self.name);
            }
            log.contains("Server listening on").then_some(())
        });
    }

    /// Ends it and starts it again with what a reboot leaves: not `/dev/shm`, and another boot id.
    pub fn reboot(&mut self) {
        self.stop();
        for entry in fs::read_dir(&self.shm).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        new_id(&self.path("boot-id"), "-");
        self.start();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A loopback address that no other test has.
fn next_address() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    // Relaxed: only that no two are alike counts.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Not 127.0/16, where others listen.
    let number = (std::process::id() * 512 + count) % 0xfe_0000 + 0x1_0000;
    Ipv4Addr::from(0x7f00_0000 | number)
}

/// Writes an id as the kernel and systemd do: with `hyphen` between its parts.
fn new_id(path: &Path, hyphen: &str) {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    // Written in place: the file may be mounted.
    fs::write(path, id.replace('-', hyphen)).unwrap();
}

pub(super) fn succeeds(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
