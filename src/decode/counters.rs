//! Counters that became smaller: wrapped, or went backwards because something was reset, replaced
//! or miscounted. Differences across such a place mean nothing unless its reader knows of it.

use super::facts::{CounterDecrease, CounterDecreases, Decrease};
use crate::schema::{Field, Schema, Shape, SourceSchema};
use indexmap::IndexMap;
use std::collections::HashMap;

/// Decreases that are listed one by one, by source.
const MAX_LISTED: usize = 10;
/// Last values that are remembered, of all sources; 4 MB. 20,000 instances of 20 columns fit.
const MAX_VALUES: usize = 1 << 19;
/// In place of an instance's number: the one row of scalars.
const SCALARS: u32 = u32::MAX;

/// The last values of all counters.
#[derive(Default)]
pub(super) struct Counters {
    sources: Vec<Watched>,
    values: usize,
}

/// The counters of one source.
struct Watched {
    schema: SourceSchema,
    /// By instance, the last value of each field; 0 where there was none, which nothing is below.
    last: HashMap<u32, Box<[u64]>>,
    found: CounterDecreases,
}

impl Watched {
    fn fields(&self) -> &[Field] {
        self.schema.shape.as_ref().map_or(&[], Shape::fields)
    }
}

impl Counters {
    /// Records by `schema` follow. Fields are those of the same name before.
    pub fn begin_segment(&mut self, schema: &Schema) {
        for (index, source) in schema.sources.iter().enumerate() {
            let Some(before) = self.sources.get_mut(index) else {
                let found = CounterDecreases::default();
                self.sources.push(Watched { schema: source.clone(), last: HashMap::new(), found });
                continue;
            };
            if before.schema == *source {
                continue;
            }
            let places: HashMap<&str, usize> =
                before.fields().iter().map(|field| field.name.as_str()).zip(0..).collect();
            let fields = source.shape.as_ref().map_or(&[][..], Shape::fields);
            let places: Vec<_> =
                fields.iter().map(|field| places.get(field.name.as_str()).copied()).collect();
            for values in before.last.values_mut() {
                self.values = self.values + places.len() - values.len();
                *values =
                    places.iter().map(|place| place.map_or(0, |place| values[place])).collect();
            }
            before.schema = source.clone();
        }
    }

    /// The values of source number `source` in the record of `tick`.
    pub fn scalars(&mut self, source: u32, values: &[u64], tick: u64) {
        self.row(source, SCALARS, values, tick, || None);
    }

    /// The values of one instance.
    pub fn row(
        &mut self,
        source: u32,
        instance: u32,
        values: &[u64],
        tick: u64,
        name: impl Fn() -> Option<String>,
    ) {
        let Some(watched) = self.sources.get_mut(source as usize) else { return };
        let width = watched.fields().len();
        let Watched { schema, last, found } = watched;
        let last = match last.entry(instance) {
            std::collections::hash_map::Entry::Occupied(last) => last.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                if self.values + width > MAX_VALUES {
                    return;
                }
                self.values += width;
                place.insert(vec![0; width].into())
            }
        };
        for (at, (last, now)) in last.iter_mut().zip(values).enumerate() {
            let before = std::mem::replace(last, *now);
            if *now < before {
                let fields = schema.shape.as_ref().map_or(&[][..], Shape::fields);
                let Some(field) = fields.get(at) else { continue };
                let Some(how) = decrease(before, *now, field.counter_bits) else { continue };
                found.add(CounterDecrease {
                    tick,
                    instance: name(),
                    field: field.name.clone(),
                    from: before,
                    to: *now,
                    how,
                });
            }
        }
    }

    /// For the output: by source, where there are any.
    pub fn finish(self) -> IndexMap<String, CounterDecreases> {
        let sources = self.sources.into_iter().filter(|source| !source.found.first.is_empty());
        sources.map(|source| (source.schema.name, source.found)).collect()
    }
}

impl CounterDecreases {
    fn add(&mut self, decrease: CounterDecrease) {
        *match decrease.how {
            Decrease::WrappedAt32Bits => &mut self.wrapped_at_32_bits,
            Decrease::WrappedAt64Bits => &mut self.wrapped_at_64_bits,
            Decrease::WentBackwards => &mut self.went_backwards,
        } += 1;
        if self.first.len() < MAX_LISTED {
            self.first.push(decrease);
        }
    }
}

/// What a decrease of a counter of so many bits is; none of what is no counter. It has wrapped if
/// that is the shorter way from one value to the other.
fn decrease(before: u64, now: u64, counter_bits: Option<u32>) -> Option<Decrease> {
    let grown = now.wrapping_sub(before);
    Some(match counter_bits? {
        32 if before <= u64::from(u32::MAX) => {
            if (grown as u32) < 1 << 31 {
                Decrease::WrappedAt32Bits
            } else {
                Decrease::WentBackwards
            }
        }
        _ if grown < 1 << 63 => Decrease::WrappedAt64Bits,
        _ => Decrease::WentBackwards,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::schema::Kind;

    #[test]
    fn a_wrap_is_the_shorter_way_and_a_gauge_has_none() {
        let max = u64::from(u32::MAX);
        for (before, now, bits, expected) in [
            (max, 0, Some(32), Some(Decrease::WrappedAt32Bits)),
            (1 << 31, 0, Some(32), Some(Decrease::WentBackwards)),
            ((1 << 31) + 1, 0, Some(32), Some(Decrease::WrappedAt32Bits)),
            (max, max - 1, Some(32), Some(Decrease::WentBackwards)),
            // It was wider than it was said to be.
            (max + 1, 0, Some(32), Some(Decrease::WentBackwards)),
            (max, 0, Some(64), Some(Decrease::WentBackwards)),
            (u64::MAX, 0, Some(64), Some(Decrease::WrappedAt64Bits)),
            (u64::MAX, u64::MAX - 1, Some(64), Some(Decrease::WentBackwards)),
            (1 << 63, 0, Some(64), Some(Decrease::WentBackwards)),
            (u64::MAX, 0, None, None),
        ] {
            assert_eq!(decrease(before, now, bits), expected, "{before} {now} {bits:?}");
        }
    }

    fn schema(names: &[&str]) -> Schema {
        let fields = names.iter().map(|name| Field::new(name, Kind::Unsigned).counting(64));
        let shape = Some(Shape::Scalars { fields: fields.collect() });
        Schema { sources: vec![SourceSchema { name: "s".into(), path: "p".into(), shape }] }
    }

    #[test]
    fn fields_are_followed_by_name_into_the_next_segment() {
        let mut counters = Counters::default();
        counters.begin_segment(&schema(&["a", "b", "c"]));
        counters.scalars(0, &[10, 20, 30], 1);
        counters.begin_segment(&schema(&["new", "c", "a"]));
        counters.scalars(0, &[1, 30, 9], 2);
        assert_eq!(counters.values, 3);
        let found = counters.finish().swap_remove("s").unwrap();
        assert_eq!(found.went_backwards, 1);
        let [first] = &found.first[..] else { panic!("{found:?}") };
        assert_eq!((first.field.as_str(), first.tick, first.from, first.to), ("a", 2, 10, 9));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut counters = Counters::default();
        let names: Vec<String> = (0..1000).map(|name| name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        counters.begin_segment(&schema(&names));
        for instance in 0..2000 {
            counters.row(0, instance, &vec![7; 1000], 0, || None);
        }
        assert_eq!(counters.sources[0].last.len(), MAX_VALUES / 1000);
    }
}
