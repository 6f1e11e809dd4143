//! Which machine a host is: the same for two ways to one, and another for every other.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What tells one running machine from another; nil or 0 where it cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MachineIdentity {
    /// `/etc/machine-id`; copies of one disk image may share it (machine-id(5)).
    pub machine_id: Uuid,
    /// The kernel's, new at each boot; containers share it (random(4)).
    pub boot_id: Uuid,
    /// Number of the network namespace: containers of one machine have interfaces of their own
    /// (namespaces(7)).
    pub network: u64,
}

impl MachineIdentity {
    /// That of this machine.
    pub fn own() -> MachineIdentity {
        let read = |path| std::fs::read_to_string(path).ok();
        let text = read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"));
        let boot_id = read("/proc/sys/kernel/random/boot_id");
        let network = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
        MachineIdentity::of(
            &text.unwrap_or_default(),
            &boot_id.unwrap_or_default(),
            &network.to_string_lossy(),
        )
    }

    /// Of the texts of the two files, and of where the link `/proc/self/ns/net` leads: `net:[4026531840]`.
    pub fn of(machine_id: &str, boot_id: &str, network: &str) -> MachineIdentity {
        let id = |text: &str| Uuid::try_parse(text.trim()).unwrap_or_default();
        let network = network.trim().strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
        MachineIdentity {
            machine_id: id(machine_id),
            boot_id: id(boot_id),
            network: network.and_then(|number| number.parse().ok()).unwrap_or_default(),
        }
    }

    /// Whether it tells anything: without a boot id no two are known to be the same.
    pub fn is_known(&self) -> bool {
        !self.boot_id.is_nil()
    }
}

/// For each host the first before it that is the same machine, if there is one. A host that was not
/// reached has no identity, and is nobody else.
pub fn same_machines(identities: &[Option<MachineIdentity>]) -> Vec<Option<usize>> {
    let mut first = IndexMap::new();
    identities
        .iter()
        .enumerate()
        .map(|(number, identity)| {
            let identity = (*identity).filter(MachineIdentity::is_known)?;
            let first = *first.entry(identity).or_insert(number);
            (first != number).then_some(first)
        })
        .collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_one_machine_are_found_by_its_ids() {
        let boots = [Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string()];
        let machine = "0123456789abcdef0123456789abcdef\n";
        let of = |machine: &str, boot: &str| Some(MachineIdentity::of(machine, boot, "net:[7]"));
        let identities = [
            of(machine, &boots[0]),
            None,
            of(machine, &boots[1]), // Another that was made of the same image.
            of(machine, &format!("{}\n", boots[0])),
            of("", &boots[0]), // A container.
            None,
            of(machine, "?"),
            of(machine, "?"),
            of("", &boots[0]),
            of(machine, &boots[0]),
        ];
        let expected = [None, None, None, Some(0), None, None, None, None, Some(4), Some(0)];
        assert_eq!(same_machines(&identities), expected);
        let network = |text| MachineIdentity::of(machine, &boots[0], text).network;
        assert_eq!(["net:[7]", "net:[8]\n", "", "net:[x]", "7"].map(network), [7, 8, 0, 0, 0]);
        let own = MachineIdentity::own();
        assert!(own == MachineIdentity::own() && own.is_known() && own.network > 0, "{own:?}");
    }
}
