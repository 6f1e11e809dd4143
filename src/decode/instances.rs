//! The devices and interfaces of a run: which there were and when. The same one in several
//! segments, under another entry of each dictionary, is one.

use super::facts::InstanceSummary;
use super::names::Names;
use super::survey::text;
use crate::schema::Schema;
use indexmap::IndexMap;
use std::collections::HashMap;

/// A recorder has two sources with instances, and so many are listed of all.
const SOURCES_WITH_INSTANCES: usize = 2;

/// An entry that is not in [`Instances::places`] yet.
const UNKNOWN: u32 = u32::MAX;
/// An entry whose instance is not listed.
const UNLISTED: u32 = u32::MAX - 1;

/// All instances that records have spoken of.
pub(super) struct Instances {
    /// Those that are listed one by one, by source.
    max_of_a_source: usize,
    /// Source, identity and name of each, and its first and last tick.
    listed: IndexMap<(u32, u64, Vec<u8>), (u64, u64)>,
    of_source: HashMap<u32, usize>,
    /// Where in `listed` each entry of the segment's dictionary stands.
    places: Vec<u32>,
    unlisted: u64,
}

impl Instances {
    /// None so far; lists so many of each source.
    pub fn new(max_of_a_source: usize) -> Instances {
        Instances {
            max_of_a_source,
            listed: IndexMap::new(),
            of_source: HashMap::new(),
            places: Vec::new(),
            unlisted: 0,
        }
    }

    /// The entries of another segment's dictionary follow.
    pub fn begin_segment(&mut self) {
        self.places.clear();
    }

    /// A record of `tick` has a row of `entry`: the number of its instance, if that is listed.
    pub fn meet(&mut self, names: &Names<'_>, source: u32, entry: u32, tick: u64) -> Option<u32> {
        let index = entry as usize;
        let known = self.places.get(index).copied().unwrap_or(UNKNOWN);
        let place = if known == UNKNOWN { self.add(names, source, entry, tick)? } else { known };
        let ((of, ..), ticks) = self.listed.get_index_mut(place as usize)?;
        if *of != source {
            return None;
        }
        ticks.1 = tick;
        Some(place)
    }

    #[cold]
    fn add(&mut self, names: &Names<'_>, source: u32, entry: u32, tick: u64) -> Option<u32> {
        let found = names.get(source, entry)?;
        // One that there is: its number is bounded by the largest dictionary.
        let index = entry as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, UNKNOWN);
        }
        let key = (source, found.identity, found.name.clone());
        let place = match self.listed.get_index_of(&key) {
            Some(place) => place as u32,
            None => {
                let count = self.of_source.entry(source).or_default();
                let max_of_all = SOURCES_WITH_INSTANCES * self.max_of_a_source;
                if *count >= self.max_of_a_source || self.listed.len() >= max_of_all {
                    self.unlisted += 1;
                    UNLISTED
                } else {
                    *count += 1;
                    self.listed.insert_full(key, (tick, tick)).0 as u32
                }
            }
        };
        self.places[index] = place;
        Some(place)
    }

    /// The name of instance number `place`.
    pub fn name(&self, place: u32) -> String {
        self.listed.get_index(place as usize).map_or_else(String::new, |((.., name), _)| text(name))
    }

    /// For the output: those listed, by source, and how many are not.
    pub fn finish(self, schema: &Schema) -> (IndexMap<String, Vec<InstanceSummary>>, u64) {
        let mut by_source: IndexMap<String, Vec<InstanceSummary>> = IndexMap::new();
        for ((source, identity, name), (first_tick, last_tick)) in self.listed {
            let Some(source) = schema.sources.get(source as usize) else { continue };
            let is_device = identity != 0;
            by_source.entry(source.name.clone()).or_default().push(InstanceSummary {
                name: text(&name),
                major: is_device.then_some((identity >> 32) as u32),
                minor: is_device.then_some(identity as u32),
                first_tick,
                last_tick,
            });
        }
        (by_source, self.unlisted)
    }
}
