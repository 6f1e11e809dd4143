//! Who logs in: keys of the agent, certificates, key files. Never a password.

use super::agent::Relay;
use super::config::Target;
use super::error::{ConnectError, Step};
use super::session::{Failed, Session};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh2::ErrorCode;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

const MAX_KEY_BYTES: u64 = 64 << 10;
/// The server does not take the key.
const REFUSED: ErrorCode = ErrorCode::Session(-18);
/// It takes the key, but not the signature, or the agent does not sign.
const NOT_SIGNED: ErrorCode = ErrorCode::Session(-19);

/// Logs in.
///
/// # Errors
/// [`ConnectError::Refused`] with all that was tried, [`ConnectError::TimedOut`].
pub fn log_in(session: &Session, target: &Target, deadline: Instant) -> Result<(), ConnectError> {
    let since = Instant::now();
    let mut attempts = Attempts { session, target, deadline, tried: Vec::new() };
    let mut methods = String::from("publickey");
    let outcome = match attempts.methods() {
        Ok(None) => return Ok(()),
        Ok(Some(known)) => {
            methods = known;
            if methods.split(',').any(|method| method == "publickey") {
                attempts.all()
            } else {
                attempts.tried.push("keys are not taken at all".into());
                Ok(false)
            }
        }
        Err(failed) => Err(failed),
    };
    let host = target.name.clone();
    match outcome {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(Failed::TimedOut) => {
            return Err(ConnectError::TimedOut {
                host,
                step: Step::Authentication,
                after: since.elapsed(),
                remedy: "check the server's log (it may wait for a name service), or give a \
                         longer --ssh-timeout",
            });
        }
        // As after `Too many authentication failures`.
        Err(failed) => attempts.tried.push(format!("then: {}", failed.into_io())),
    }
    if attempts.tried.is_empty() {
        attempts.tried.push("there is no key to try".into());
    }
    let has_passphrase = attempts.tried.iter().any(|each| each.contains("passphrase"));
    Err(ConnectError::Refused {
        host,
        who: format!("{} at {}:{}", target.user, target.host, target.port),
        tried: attempts.tried,
        methods,
        remedy: if has_passphrase {
            "add the key to an agent (`ssh-add`), or name another with IdentityFile"
        } else {
            "add the public key to authorized_keys there, or name another with IdentityFile, or \
             give --ssh-program ssh for Kerberos and security keys"
        },
    })
}

struct Attempts<'s> {
    session: &'s Session,
    target: &'s Target,
    deadline: Instant,
    /// What was tried, and how it went.
    tried: Vec<String>,
}

impl Attempts<'_> {
    /// The methods that the server takes; `None` if it lets everybody in.
    fn methods(&self) -> Result<Option<String>, Failed> {
        let user = &self.target.user;
        let asked = self.session.until(self.deadline, |ssh| {
            ssh.auth_methods(user).map(str::to_owned).map_err(|error| {
                // The text is gone with the session's next call.
                ssh2::Error::from_errno(error.code())
            })
        });
        match asked {
            Err(Failed::Ssh(_)) if self.session.ssh().authenticated() => Ok(None),
            asked => asked.map(Some),
        }
    }

    /// Tries all keys; whether one was taken.
    fn all(&mut self) -> Result<bool, Failed> {
        Ok(self.certificates()? || self.agent()? || self.files()?)
    }

    fn certificates(&mut self) -> Result<bool, Failed> {
        let target = self.target;
        for identity in &target.identities {
            let mut certificates = target.certificates.clone();
            certificates.push(with_suffix(identity, "-cert.pub"));
            for certificate in certificates.iter().filter(|certificate| certificate.exists()) {
                if is_certificate_of(certificate, identity)
                    && self.file(identity, Some(certificate))?
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn agent(&mut self) -> Result<bool, Failed> {
        let Some(socket) = self.target.agent.clone() else { return Ok(false) };
        let said = |error: &dyn std::fmt::Display| format!("agent {}: {error}", socket.display());
        let relay = match Relay::to(&socket, self.deadline) {
            Ok(relay) => relay,
            Err(error) => {
                self.tried.push(said(&error));
                return Ok(false);
            }
        };
        let open = || {
            let mut agent = self.session.ssh().agent()?;
            agent.set_identity_path(&relay.path())?;
            agent.connect()?;
            agent.list_identities()?;
            let identities = agent.identities()?;
            Ok((agent, identities))
        };
        let (agent, mut identities) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                let error: ssh2::Error = error;
                return self.after(said(&error.message()), ssh2::Error::from_errno(error.code()));
            }
        };
        let configured: Vec<Vec<u8>> =
            self.target.identities.iter().filter_map(|path| public_key(path)).collect();
        let is_configured =
            |key: &ssh2::PublicKey| configured.iter().any(|each| each == key.blob());
        if self.target.identities_only {
            identities.retain(is_configured);
        }
        // A server lets only some six be tried.
        identities.sort_by_key(|key| !is_configured(key));
        let user = &self.target.user;
        for identity in &identities {
            match self.session.until(self.deadline, |_| agent.userauth(user, identity)) {
                Ok(()) => return Ok(true),
                Err(Failed::Ssh(error)) => {
                    let what = format!("agent's key {}: {}", identity.comment(), error.message());
                    let is_signed = error.code() != NOT_SIGNED;
                    self.after(what, error)?;
                    if !is_signed {
                        break;
                    }
                }
                Err(failed) => return Err(failed),
            }
        }
        Ok(false)
    }

    fn files(&mut self) -> Result<bool, Failed> {
        let target = self.target;
        for identity in target.identities.iter().filter(|identity| identity.exists()) {
            if self.file(identity, None)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn file(&mut self, identity: &Path, certificate: Option<&Path>) -> Result<bool, Failed> {
        let shown = certificate.unwrap_or(identity).display().to_string();
        match what_it_is(identity) {
            Ok(Kind::Plain) => {}
            Ok(Kind::Encrypted) => {
                self.tried.push(format!("{shown} has a passphrase"));
                return Ok(false);
            }
            Ok(Kind::SecurityKey) => {
                self.tried.push(format!("{shown} is of a security key"));
                return Ok(false);
            }
            Err(error) => {
                self.tried.push(format!("{shown}: {error}"));
                return Ok(false);
            }
        }
        let user = &self.target.user;
        let tried = self.session.until(self.deadline, |ssh| {
            ssh.userauth_pubkey_file(user, certificate, identity, None)
        });
        match tried {
            Ok(()) => Ok(true),
            Err(Failed::Ssh(error)) => self.after(format!("{shown}: {}", error.message()), error),
            Err(failed) => Err(failed),
        }
    }

    /// Goes on after a key that was not taken, unless there is nobody to go on with.
    fn after(&mut self, what: String, error: ssh2::Error) -> Result<bool, Failed> {
        let is_refused = [REFUSED, NOT_SIGNED].contains(&error.code());
        self.tried.push(what);
        if Instant::now() >= self.deadline {
            return Err(Failed::TimedOut);
        }
        // A file that cannot be read or used, or the agent's own fault: the server saw nothing.
        let is_local =
            matches!(error.code(), ErrorCode::Session(-16 | -33 | -34 | -39 | -42 | -48));
        if is_refused || is_local { Ok(false) } else { Err(Failed::Ssh(error)) }
    }
}

enum Kind {
    Plain,
    Encrypted,
    SecurityKey,
}

/// What a file with a private key holds. libssh2 says of an encrypted one that it is of an
/// unsupported format.
fn what_it_is(path: &Path) -> io::Result<Kind> {
    let text = read(path)?;
    if text.contains("ENCRYPTED") {
        return Ok(Kind::Encrypted);
    }
    const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
    let Some((_, rest)) = text.split_once(BEGIN) else { return Ok(Kind::Plain) };
    let (body, _) = rest.split_once("-----END").unwrap_or((rest, ""));
    let body: String = body.split_whitespace().collect();
    let bytes = STANDARD.decode(body).map_err(|_| io::Error::other("not a private key"))?;
    // `PROTOCOL.key` of OpenSSH: the magic, then the name of the cipher.
    let Some(rest) = bytes.strip_prefix(b"openssh-key-v1\0\0\0\0") else {
        return Err(io::Error::other("not a private key"));
    };
    if !rest.starts_with(b"\x04none") {
        return Ok(Kind::Encrypted);
    }
    // The public key comes next, and begins with its type.
    let is_security_key = bytes.windows(3).take(100).any(|three| three == b"sk-");
    Ok(if is_security_key { Kind::SecurityKey } else { Kind::Plain })
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_KEY_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The public key beside a private one, as it goes over the wire.
fn public_key(identity: &Path) -> Option<Vec<u8>> {
    // `IdentityFile` may name the public key of one that only the agent has.
    let beside = [with_suffix(identity, ".pub"), identity.to_owned()];
    beside.iter().find_map(|path| encoded(&read(path).ok()?))
}

/// The second word of a file with a public key or a certificate.
fn encoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.split_whitespace().nth(1)?).ok()
}

/// Whether the certificate has that key in it. Where the public key is not there to compare, the
/// server finds out.
fn is_certificate_of(certificate: &Path, identity: &Path) -> bool {
    if with_suffix(identity, "-cert.pub") == certificate {
        return identity.exists();
    }
    let Some(certificate) = read(certificate).ok().and_then(|text| encoded(&text)) else {
        return false;
    };
    let Some(key) = public_key(identity) else { return identity.exists() };
    // Beyond the type, a certificate has the key's own numbers in it as they are.
    let Some(numbers) = key.get(4..).and_then(|rest| {
        let len = u32::from_be_bytes(*key.first_chunk::<4>()?) as usize;
        rest.get(len..)
    }) else {
        return false;
    };
    !numbers.is_empty() && certificate.windows(numbers.len()).any(|window| window == numbers)
}
