//! The instances that a table has met in this segment, found again by name and identity without
//! allocating. Only the cold half of a table's parser comes here.

use hashbrown::HashTable;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Average room for one name; the kernel's own are shorter.
const NAME_ROOM_BYTES: usize = 32;

/// One instance.
pub(super) struct Instance {
    name_start: usize,
    name_end: usize,
    identity: u64,
    /// Its entry in the dictionary.
    pub entry: u32,
    /// The last pass over a text that met it.
    pub pass: u64,
}

/// A set of instances of bounded size.
#[derive(Default)]
pub(super) struct Known {
    names: Vec<u8>,
    instances: Vec<Instance>,
    by_name: HashTable<u32>,
}

/// There is no more room.
pub(super) struct NoRoom;

impl Known {
    /// Forgets all and makes room for `instances`.
    pub fn reset(&mut self, instances: usize) {
        let instances = instances.min(u32::MAX as usize);
        *self = Known {
            names: Vec::with_capacity(instances * NAME_ROOM_BYTES),
            instances: Vec::with_capacity(instances),
            by_name: HashTable::with_capacity(instances),
        };
    }

    /// The instance of that name and identity; if it is new, `entry` is asked for its entry.
    pub fn find_or_add(
        &mut self,
        identity: u64,
        name: &[u8],
        entry: impl FnOnce() -> Option<u32>,
    ) -> Result<&mut Instance, NoRoom> {
        let hash = hash(name);
        let (names, instances) = (&self.names, &self.instances);
        let is_it = |index: &u32| {
            let instance: &Instance = &instances[*index as usize];
            instance.identity == identity && &names[instance.name_start..instance.name_end] == name
        };
        let index = match self.by_name.find(hash, is_it) {
            Some(index) => *index as usize,
            None => self.add(hash, identity, name, entry)?,
        };
        Ok(&mut self.instances[index])
    }

    /// Whether pass `pass` has met an instance of that name, whatever its identity.
    pub fn has_met(&self, name: &[u8], pass: u64) -> bool {
        let is_it = |index: &u32| {
            let instance = &self.instances[*index as usize];
            instance.pass == pass && &self.names[instance.name_start..instance.name_end] == name
        };
        self.by_name.find(hash(name), is_it).is_some()
    }

    fn add(
        &mut self,
        hash: u64,
        identity: u64,
        name: &[u8],
        entry: impl FnOnce() -> Option<u32>,
    ) -> Result<usize, NoRoom> {
        // Staying below every capacity is what keeps the sampling path from allocating.
        let full = self.instances.len() == self.instances.capacity()
            || self.names.capacity() - self.names.len() < name.len()
            || self.by_name.len() == self.by_name.capacity();
        if full {
            return Err(NoRoom);
        }
        let entry = entry().ok_or(NoRoom)?;
        let name_start = self.names.len();
        self.names.extend_from_slice(name);
        let index = self.instances.len();
        let name_end = self.names.len();
        self.instances.push(Instance { name_start, name_end, identity, entry, pass: 0 });
        // Never rehashes: there is room. The hasher is there for when there is not.
        self.by_name.insert_unique(hash, index as u32, |_| hash);
        Ok(index)
    }
}

fn hash(name: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_another_identity_is_another_instance() {
        let mut known = Known::default();
        known.reset(2);
        let entry = |known: &mut Known, identity, name: &[u8], new| {
            known.find_or_add(identity, name, || Some(new)).map(|found| found.entry).ok()
        };
        assert_eq!(entry(&mut known, 1, b"sda", 10), Some(10));
        assert_eq!(entry(&mut known, 1, b"sda", 11), Some(10));
        assert_eq!(entry(&mut known, 2, b"sda", 12), Some(12));
        for identity in 3..99 {
            let _ = entry(&mut known, identity, b"sda", 13);
        }
        assert!(known.instances.len() <= known.instances.capacity());
        assert_eq!(entry(&mut known, 1, b"sda", 14), Some(10), "what is known stays known");
        known.reset(2);
        assert_eq!(entry(&mut known, 1, b"sda", 15), Some(15));
        assert!(known.find_or_add(9, b"x", || None).is_err(), "a full dictionary");
    }
}
