//! On which host a run was begun, as far as it says so. A lock tells living runs from dead ones on one
//! host: on a file system that hosts share it may be the affair of each. What is done about it is for
//! others.

use super::manifest::Manifest;
use super::system;
use crate::cluster::machine::MachineIdentity;
use crate::description::Description;
use crate::ring::Ring;
use uuid::Uuid;

/// What tells one host from another; nil where it is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub hostname: String,
    /// See [`MachineIdentity`].
    pub machine_id: Uuid,
    pub boot_id: Uuid,
}

impl Origin {
    /// This host.
    pub fn own() -> Origin {
        let MachineIdentity { machine_id, boot_id, .. } = MachineIdentity::own();
        Origin { hostname: system::hostname(), machine_id, boot_id }
    }

    /// What a run says of itself.
    pub fn of_manifest(manifest: &Manifest) -> Origin {
        let Manifest { machine_id, boot_id, .. } = *manifest;
        Origin { hostname: manifest.hostname.clone(), machine_id, boot_id }
    }

    /// What one of its rings says, if that can be read.
    pub fn of_ring(ring: &Ring) -> Option<Origin> {
        let description: Description = serde_json::from_slice(&ring.description().ok()?).ok()?;
        let boot_id = ring.header().boot_id;
        Some(Origin { hostname: description.hostname, machine_id: Uuid::nil(), boot_id })
    }

    /// Whether both are one host, if its name and its disk have stayed with it. A run that is taken
    /// for another host's is only asked for by name; one that is taken for this host's may live.
    pub fn is_same_host(&self, other: &Origin) -> bool {
        // One kernel knows all its locks, whatever containers call themselves.
        if !self.boot_id.is_nil() && self.boot_id == other.boot_id {
            return true;
        }
        // Machines made of one image may share an id, and others a name.
        let ids = [self.machine_id, other.machine_id];
        self.hostname == other.hostname && (ids[0] == ids[1] || ids.iter().any(Uuid::is_nil))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_itself_after_a_reboot_and_no_other_is() {
        let of = |hostname: &str, machine_id, boot_id| Origin {
            hostname: hostname.to_owned(),
            machine_id: Uuid::from_u128(machine_id),
            boot_id: Uuid::from_u128(boot_id),
        };
        let here = of("a", 1, 2);
        for (other, is_same) in [
            (of("a", 1, 2), true),
            (of("a", 1, 3), true),  // After a reboot.
            (of("b", 9, 2), true),  // A container.
            (of("a", 0, 3), true),  // An older manifest, or a ring.
            (of("b", 1, 3), false), // Made of the same image.
            (of("a", 9, 3), false), // Of the same name.
            (of("b", 0, 0), false),
            (of("b", 9, 3), false),
        ] {
            assert_eq!(here.is_same_host(&other), is_same, "{other:?}");
            assert_eq!(other.is_same_host(&here), is_same, "{other:?}");
        }
        assert!(!of("a", 0, 0).is_same_host(&of("b", 0, 0)), "nothing is known");
        assert!(Origin::own().is_same_host(&Origin::own()) && !Origin::own().boot_id.is_nil());
    }
}
