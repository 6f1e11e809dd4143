//! The programs that can be brought to hosts: this one, and those of other architectures that were
//! named. Each is held open from the first look on, so that what is sent is what was hashed.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First word of what a program says of itself, see [`self_check`].
pub const SELF_CHECK: &str = "ringstat-self-check";
/// Most bytes of a program; one with all its symbols has a tenth.
const MAX_BYTES: u64 = 1 << 30;
/// Machines of `elf.h` by the kernel's names.
const ELF_MACHINES: [(&str, u16); 8] = [
    ("x86_64", 62),
    ("aarch64", 183),
    ("ppc64le", 21),
    ("s390x", 22),
    ("riscv64", 243),
    ("loongarch64", 258),
    ("armv7l", 40),
    ("i686", 3),
];

/// Why a program cannot be brought anywhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    /// It cannot be read.
    #[error("cannot read the program {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is none, or not for these machines.
    #[error("{} is no program for {architecture}: {why}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What it should be for.
        architecture: String,
        /// What it is.
        why: String,
    },
    /// Not a list of programs.
    #[error("{0:?} is not ARCHITECTURE=PATH, such as aarch64=./ringstat-aarch64 (see uname -m)")]
    Malformed(String),
}

/// A program and its hash.
#[derive(Debug, Clone)]
pub struct Binary {
    /// As of `uname -m`.
    pub architecture: String,
    /// Where it was found.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    file: Arc<File>,
}

impl Binary {
    /// This program, for machines like this one. It is read once to hash it.
    ///
    /// # Errors
    /// [`BinaryError::Read`].
    pub fn own() -> Result<Binary, BinaryError> {
        let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
        Binary::read(Path::new("/proc/self/exe"), machine)
    }

    /// One that was named for an architecture.
    ///
    /// # Errors
    /// [`BinaryError`].
    pub fn of(architecture: &str, path: &Path) -> Result<Binary, BinaryError> {
        let binary = Binary::read(path, architecture.to_owned())?;
        let mut head = [0; 20];
        let is_elf =
            binary.file.read_exact_at(&mut head, 0).is_ok() && head.starts_with(b"\x7fELF");
        let other = |why: String| BinaryError::Other {
            path: path.to_owned(),
            architecture: architecture.to_owned(),
            why,
        };
        if !is_elf {
            return Err(other("it is no ELF file".to_owned()));
        }
        // e_ident[EI_DATA] is 2 for big endian.
        let machine = [head[18], head[19]];
        let machine =
            if head[5] == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
        let known = |name: &str| ELF_MACHINES.iter().find(|(other, _)| *other == name);
        match known(architecture) {
            Some((_, expected)) if *expected != machine => {
                let name = ELF_MACHINES.iter().find(|(_, number)| *number == machine);
                let name = name.map_or("another machine", |(name, _)| name);
                Err(other(format!("it is one for {name}")))
            }
            _ => Ok(binary),
        }
    }

    /// A list as of `--agent-binary`: `x86_64=PATH,aarch64=PATH`.
    ///
    /// # Errors
    /// [`BinaryError`].
    pub fn list(text: &str) -> Result<Vec<Binary>, BinaryError> {
        let entries = text.split(',').filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                let is_name = |name: &str| {
                    !name.is_empty()
                        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                };
                match entry.split_once('=') {
                    Some((name, path)) if is_name(name) && !path.is_empty() => {
                        Binary::of(name, Path::new(path))
                    }
                    _ => Err(BinaryError::Malformed(entry.to_owned())),
                }
            })
            .collect()
    }

    pub(super) fn read(path: &Path, architecture: String) -> Result<Binary, BinaryError> {
        let failed = |source| BinaryError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() || meta.len() > MAX_BYTES {
            let why = io::Error::new(io::ErrorKind::InvalidInput, "not a file of a program's size");
            return Err(failed(why));
        }
        let mut binary = Binary {
            architecture,
            path: path.to_owned(),
            bytes: meta.len(),
            sha256: String::new(),
            file: Arc::new(file),
        };
        binary.sha256 = sha256(&mut binary.reader()).map_err(failed)?;
        Ok(binary)
    }

    /// Its bytes from the first on, for one of many who read it at the same time.
    pub fn reader(&self) -> impl Read + use<> {
        BinaryReader { file: self.file.clone(), at: 0, end: self.bytes }
    }
}

struct BinaryReader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for BinaryReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = bytes.len().min(left);
        let count = self.file.read_at(&mut bytes[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn sha256(from: &mut impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut bytes = vec![0; 256 << 10];
    loop {
        match from.read(&mut bytes)? {
            0 => break,
            count => hash.update(&bytes[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What this program says of itself on a host that it was brought to: that it runs there, its version
/// and its hash.
///
/// # Errors
/// `BinaryError::Read`.
pub fn self_check() -> Result<String, BinaryError> {
    let own = Binary::own()?;
    Ok(format!("{SELF_CHECK} {} {} {}", env!("CARGO_PKG_VERSION"), own.architecture, own.sha256))
}
