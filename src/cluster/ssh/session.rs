//! A session of libssh2 from the socket to the end of authentication, on one thread and never
//! blocking: what cannot go on is polled for, until a deadline.

use super::SshOptions;
use super::auth;
use super::config::Target;
use super::error::{ConnectError, Step};
use super::known_hosts::{self, Entries, Verdict, key_type, lookup_name};
use super::route::{self, Socket};
use super::throttle::Turn;
use super::tries::Tries;
use crate::cluster::transport::poll;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustix::event::{PollFd, PollFlags};
use ssh2::{BlockDirections, ErrorCode, HashType, MethodType};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What the names of the types of certificates end with (`PROTOCOL.certkeys`).
const CERTIFICATE: &str = "-cert-v01@openssh.com";
/// What libssh2 says when nothing goes on now, and when the server has gone away.
const EAGAIN: ErrorCode = ErrorCode::Session(-37);
const SOCKET_DISCONNECT: ErrorCode = ErrorCode::Session(-13);
const SOCKET_RECV: ErrorCode = ErrorCode::Session(-43);
const KEX_FAILURE: ErrorCode = ErrorCode::Session(-5);

/// Why a call did not succeed.
#[derive(Debug)]
pub enum Failed {
    TimedOut,
    Ssh(ssh2::Error),
    Io(io::Error),
}

impl Failed {
    /// As an error of reading and writing.
    pub fn into_io(self) -> io::Error {
        match self {
            Failed::TimedOut => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            Failed::Ssh(error) => error.into(),
            Failed::Io(error) => error,
        }
    }
}

/// A session with its socket. It goes without waiting for its peer.
pub struct Session {
    ssh: ssh2::Session,
    socket: Arc<Socket>,
    /// As long as it is being set up.
    turn: Option<Arc<Turn>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both would otherwise wait for a peer that may be gone.
        let _ = self.ssh.disconnect(None, "done", None);
        self.socket.shut();
    }
}

impl Session {
    /// Connects to `target`, makes sure that it is the right one, and logs in. It has the `turn` until it
    /// is [set up](Self::is_set_up).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(
        target: &Target,
        options: &SshOptions,
        turn: &Arc<Turn>,
        deadline: Instant,
        hops: usize,
    ) -> Result<Session, ConnectError> {
        let since = Instant::now();
        let timed_out = |step, remedy| ConnectError::TimedOut {
            host: target.name.clone(),
            step,
            after: since.elapsed(),
            remedy,
        };
        let Some(_permit) =
            options.throttle.at(&[(target.host.clone(), target.port)], turn, deadline)
        else {
            let remedy = "others wait for the same server; give a longer --ssh-timeout";
            return Err(timed_out(Step::Connect, remedy));
        };
        let on_file = OnFile::read(target)?;
        let mut tries = Tries::default();
        let session = loop {
            let socket = route::open(target, options, turn, deadline, hops)?;
            let mut session = Session::new(socket, turn, target)?;
            session.prefer(&on_file, target)?;
            let failed = match session.handshake(deadline) {
                Ok(()) => break session,
                Err(failed) => failed,
            };
            let is_dropped = matches!(&failed, Failed::Ssh(error)
                if [SOCKET_DISCONNECT, SOCKET_RECV].contains(&error.code()));
            if is_dropped {
                // Its place at the server is free for the next try.
                session.socket.shut();
            }
            if !tries.again(is_dropped, turn, deadline) {
                return Err(match failed {
                    Failed::TimedOut => timed_out(
                        Step::Handshake,
                        "something listens there but does not speak SSH, or is overloaded; check \
                         it, or give a longer --ssh-timeout",
                    ),
                    failed => session.not_agreed(target, &failed, tries.count()),
                });
            }
        };
        on_file.check(target, &session.ssh)?;
        auth::log_in(&session, target, deadline)?;
        Ok(session)
    }

    fn new(socket: Socket, turn: &Arc<Turn>, target: &Target) -> Result<Session, ConnectError> {
        let mut ssh = ssh2::Session::new().map_err(|error| ConnectError::Connect {
            host: target.name.clone(),
            to: target.host.clone(),
            found: error.to_string(),
            remedy: "free some memory",
        })?;
        let socket = Arc::new(socket);
        ssh.set_tcp_stream(Arc::clone(&socket));
        ssh.set_blocking(false);
        Ok(Session { ssh, socket, turn: Some(turn.clone()) })
    }

    fn handshake(&mut self, deadline: Instant) -> Result<(), Failed> {
        loop {
            match self.ssh.handshake() {
                Err(error) if error.code() == EAGAIN => self.wait(deadline)?,
                done => return done.map_err(Failed::Ssh),
            }
        }
    }

    /// Makes a call again and again until it has an answer.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn until<T>(
        &self,
        deadline: Instant,
        mut call: impl FnMut(&ssh2::Session) -> Result<T, ssh2::Error>,
    ) -> Result<T, Failed> {
        loop {
            match call(&self.ssh) {
                Err(error) if error.code() == EAGAIN => self.wait(deadline)?,
                done => return done.map_err(Failed::Ssh),
            }
        }
    }

    fn wait(&self, deadline: Instant) -> Result<(), Failed> {
        if Instant::now() >= deadline {
            return Err(Failed::TimedOut);
        }
        let wanted = self.wanted() | PollFlags::IN;
        let look = |until| {
            let mut fds = [PollFd::new(self.socket(), wanted)];
            poll(&mut fds, until)?;
            Ok((!fds[0].revents().is_empty()).then_some(()))
        };
        let Some(turn) = &self.turn else { return look(deadline).map(drop).map_err(Failed::Io) };
        match turn.watch(deadline, look).map_err(Failed::Io)? {
            Some(()) if turn.take(deadline) => Ok(()),
            _ => Err(Failed::TimedOut),
        }
    }

    /// It is logged in: the turn is for others.
    pub fn is_set_up(&mut self) {
        self.turn = None;
    }

    /// What libssh2 waits for, beyond input.
    pub fn wanted(&self) -> PollFlags {
        match self.ssh.block_directions() {
            BlockDirections::Outbound | BlockDirections::Both => PollFlags::OUT,
            _ => PollFlags::empty(),
        }
    }

    pub fn ssh(&self) -> &ssh2::Session {
        &self.ssh
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What the server says that it is.
    pub fn banner(&self) -> String {
        match self.ssh.banner_bytes() {
            Some(banner) => banner.escape_ascii().to_string(),
            None => "which says nothing".into(),
        }
    }

    /// Puts the types of keys that are on file first: another one would be taken for a change. Never
    /// offers those of certificates, which libssh2 does not understand.
    fn prefer(&self, on_file: &OnFile, target: &Target) -> Result<(), ConnectError> {
        let wrong = |found: String| ConnectError::Configuration {
            host: target.name.clone(),
            found,
            remedy: "change HostKeyAlgorithms, or give --ssh-program ssh".into(),
        };
        let supported = self.ssh.supported_algs(MethodType::HostKey);
        let supported = supported.map_err(|error| wrong(error.to_string()))?;
        let wanted = algorithms(&supported, &target.host_key_algorithms, |kind| {
            // As OpenSSH has it, those without the port do not count.
            on_file.entries.prefer(kind)
        });
        if wanted.is_empty() {
            return Err(wrong("none of its HostKeyAlgorithms is known here".into()));
        }
        let set = self.ssh.method_pref(MethodType::HostKey, &wanted.join(","));
        set.map_err(|error| wrong(error.to_string()))
    }

    fn not_agreed(&self, target: &Target, failed: &Failed, tries: u32) -> ConnectError {
        let mut found = match failed {
            Failed::Ssh(error) => format!("{} ({})", error.message(), error.code()),
            Failed::Io(error) => error.to_string(),
            Failed::TimedOut => "no answer in time".into(),
        };
        if tries > 1 {
            found += &format!(", {tries} times");
        }
        if let Some(said) = self.socket.said() {
            found += &format!("; its ProxyCommand says {said:?}");
        }
        let is_kex = matches!(failed, Failed::Ssh(error) if error.code() == KEX_FAILURE);
        ConnectError::Handshake {
            host: target.name.clone(),
            to: format!("{}:{}", target.host, target.port),
            banner: self.banner(),
            found,
            remedy: if is_kex {
                "it may allow only what is not built in (key exchange sntrup761, MACs umac or \
                 hmac-sha1): allow curve25519 or mlkem768 and hmac-sha2 there, or give \
                 --ssh-program ssh"
            } else {
                "check that it is an SSH server and lets this machine in (MaxStartups, \
                 PerSourcePenalties, TCP wrappers)"
            },
        }
    }
}

/// What OpenSSH has of itself, but for certificates and keys of devices (`KEX_DEFAULT_PK_ALG` in its
/// `myproposal.h`).
const USUAL: [&str; 6] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
];
/// The same before 8.5, when it still had [`OLD_RSA`].
const USUAL_BEFORE: [&str; 6] = [
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-ed25519",
    "rsa-sha2-512",
    "rsa-sha2-256",
];
const OLD_RSA: &str = "ssh-rsa";

/// What is supported and not forbidden, with the types first that are `preferred`, unless the very
/// first is one of them (`order_hostkeyalgs` in OpenSSH's `sshconnect2.c`). A list in an order of
/// somebody's own stays as it is.
fn algorithms(
    supported: &[&str],
    configured: &[String],
    preferred: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut names: Vec<&str> = configured.iter().map(String::as_str).collect();
    if names.is_empty() {
        names = USUAL.to_vec();
    }
    let is_preferred = |name: &&str| {
        // A certificate is of a plain key.
        let plain = name.strip_suffix(CERTIFICATE).unwrap_or(name);
        preferred(if plain.starts_with("rsa-sha2-") { OLD_RSA } else { plain })
    };
    if is_usual(&names) && !names.first().is_some_and(is_preferred) {
        // Stable: the order is kept as far as it can be.
        names.sort_by_key(|name| !is_preferred(name));
    }
    names.retain(|name| !name.ends_with(CERTIFICATE) && supported.contains(name));
    names.into_iter().map(str::to_owned).collect()
}

/// Whether a list is the usual one, with less (`-`) or with more behind it (`+`): only such a one does
/// `ssh_kex2` in OpenSSH's `sshconnect2.c` order, not one with something in front (`^`), and not one that
/// says all. `ssh -G` shows none of these signs, so that one which says all, in the usual order, is taken
/// for a shorter usual one: a key on file is then found where OpenSSH's program may miss it.
fn is_usual(names: &[&str]) -> bool {
    let plain = |name: &&&str| !name.ends_with(CERTIFICATE) && !name.starts_with("sk-");
    let is_in_order = |usual: &[&str]| {
        let place = |name: &&str| usual.iter().position(|each| each == name);
        names.iter().filter(plain).map(|name| place(name).unwrap_or(usual.len())).is_sorted()
    };
    is_in_order(&USUAL) || names.contains(&OLD_RSA) && is_in_order(&USUAL_BEFORE)
}

/// What files have for a host, by the name with the port, and without it: OpenSSH takes a key that
/// is known for any port, but does not miss one.
struct OnFile {
    name: String,
    entries: Entries,
    of_any_port: Entries,
}

impl OnFile {
    fn read(target: &Target) -> Result<OnFile, ConnectError> {
        let read = |name: &str| {
            let read = Entries::read(&target.known_hosts, name);
            read.map_err(|(file, source)| ConnectError::KnownHosts {
                host: target.name.clone(),
                file,
                source,
            })
        };
        let has_port = target.alias.is_none() && target.port != 22;
        let name = match &target.alias {
            Some(alias) => alias.clone(),
            None => lookup_name(&target.host, target.port),
        };
        Ok(OnFile {
            entries: read(&name)?,
            of_any_port: if has_port {
                read(&lookup_name(&target.host, 22))?
            } else {
                Entries::default()
            },
            name,
        })
    }

    fn verdict(&self, key: &[u8]) -> Verdict {
        let of_any_port = self.of_any_port.verdict(key);
        match self.entries.verdict(key) {
            Verdict::Unknown if matches!(of_any_port, Verdict::Known | Verdict::Revoked) => {
                of_any_port
            }
            verdict => verdict,
        }
    }

    /// Fails unless the server's key is the right one, or may be taken for it from now on.
    fn check(&self, target: &Target, ssh: &ssh2::Session) -> Result<(), ConnectError> {
        let [host, name] = [target.name.clone(), self.name.clone()];
        let failed = |file: &PathBuf, source| ConnectError::KnownHosts {
            host: target.name.clone(),
            file: file.clone(),
            source,
        };
        let Some((key, _)) = ssh.host_key() else {
            return Err(failed(&PathBuf::new(), io::ErrorKind::InvalidData.into()));
        };
        let kind = key_type(key).unwrap_or("?");
        let hash = ssh.host_key_hash(HashType::Sha256).unwrap_or_default();
        let shown = format!("{kind} SHA256:{}", STANDARD_NO_PAD.encode(hash));
        match self.verdict(key) {
            Verdict::Known => Ok(()),
            Verdict::Revoked => Err(ConnectError::RevokedKey { host, name, key: shown }),
            Verdict::Changed { file, line } => {
                Err(ConnectError::ChangedKey { host, name, key: shown, file, line })
            }
            Verdict::Unknown => match &target.add_new_to {
                Some(file) => known_hosts::append(file, &name, key, target.hash_known_hosts)
                    .map_err(|source| failed(file, source)),
                None => {
                    let files = target.known_hosts.clone();
                    Err(ConnectError::UnknownKey { host, name, key: shown, files })
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519";
    const ECDSA: &str = "ecdsa-sha2-nistp256";
    const OTHER_ECDSA: &str = "ecdsa-sha2-nistp384";
    const RSA: &str = "rsa-sha2-512";
    const CERT: &str = "ssh-ed25519-cert-v01@openssh.com";

    /// What is offered of these if keys of those types are on file.
    fn offered(configured: &[&str], on_file: &[&str]) -> Vec<String> {
        let configured: Vec<String> = configured.iter().map(|&name| name.into()).collect();
        let supported = [ED25519, CERT, ECDSA, OTHER_ECDSA, RSA, OLD_RSA];
        algorithms(&supported, &configured, |kind| on_file.contains(&kind))
    }

    #[test]
    fn keys_on_file_come_first_and_certificates_never() {
        assert_eq!(offered(&[], &[]), [ED25519, ECDSA, OTHER_ECDSA, RSA]);
        assert_eq!(offered(&[], &[OLD_RSA]), [RSA, ED25519, ECDSA, OTHER_ECDSA]);
        assert_eq!(offered(&[CERT, RSA, "x", OLD_RSA], &[]), [RSA, OLD_RSA]);
        assert_eq!(offered(&[CERT], &[]), [""; 0], "never what was not asked for");
        let three = [ED25519, RSA, OLD_RSA];
        assert_eq!(offered(&three, &[ED25519, OLD_RSA]), three);
        assert_eq!(offered(&three, &[OLD_RSA]), [RSA, OLD_RSA, ED25519]);
        // The first is known, even though it is never offered: the rest is left as it is.
        let before = [CERT, ECDSA, ED25519, OLD_RSA];
        assert_eq!(offered(&before, &[ED25519]), before[1..]);
    }

    #[test]
    fn only_the_usual_order_is_changed() {
        let device = "sk-ssh-ed25519@openssh.com";
        for (usual, on_file, expected) in [
            (&[CERT, ED25519, ECDSA, device, RSA][..], OLD_RSA, &[RSA, ED25519, ECDSA][..]),
            // With less, and with more.
            (&[ECDSA, RSA], OLD_RSA, &[RSA, ECDSA]),
            (&[ED25519, RSA, OLD_RSA], OLD_RSA, &[RSA, OLD_RSA, ED25519]),
            // The one before 8.5.
            (&[ECDSA, ED25519, RSA, OLD_RSA], ED25519, &[ED25519, ECDSA, RSA, OLD_RSA]),
        ] {
            assert_eq!(offered(usual, &[on_file]), expected, "{usual:?}");
        }
        for own in [
            &[RSA, ED25519][..],
            &[ED25519, OLD_RSA, RSA],
            &[OLD_RSA, ED25519, ECDSA, RSA],
            &[ECDSA, ED25519, RSA],
            &[ECDSA, ED25519, OTHER_ECDSA, RSA, OLD_RSA],
        ] {
            for on_file in [ED25519, ECDSA, OLD_RSA] {
                assert_eq!(offered(own, &[on_file]), own, "{on_file}");
            }
        }
    }
}
