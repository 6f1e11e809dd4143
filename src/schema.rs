//! Names, order and kinds of the words of a record: what a source promises to write, what the
//! ring's header carries, and what the decoder reads by. It knows no kernel file and no byte of
//! the ring; parsing lives in `source`, layout in `ring`.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// How the 64 bits of a counter are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An unsigned integer, as the kernel prints it.
    Unsigned,
    /// Two's complement: the kernel has printed this counter with a minus sign.
    Signed,
    /// Hundredths of a unit, exactly as printed (`0.52` is 52).
    Hundredths,
}

/// One counter: its name in the output and how to read its word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Key in the output.
    pub name: String,
    /// Meaning of the word.
    pub kind: Kind,
    /// Not part of the published format: it is shown beside the source, in `{source}_extra`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extra: bool,
    /// It only grows, and wraps at so many bits. Absent for what goes up and down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_bits: Option<u32>,
}

impl Field {
    /// A value of the published format.
    pub fn new(name: &str, kind: Kind) -> Self {
        Field { name: name.to_owned(), kind, extra: false, counter_bits: None }
    }

    /// A value beyond the published format.
    pub fn extra(name: &str, kind: Kind) -> Self {
        Field { extra: true, ..Field::new(name, kind) }
    }

    /// The same as a counter that wraps at so many bits. One that was printed with a minus sign
    /// does not only grow.
    #[must_use]
    pub fn counting(self, bits: u32) -> Self {
        Field { counter_bits: (self.kind == Kind::Unsigned).then_some(bits), ..self }
    }
}

/// What the words of one source look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case")]
pub enum Shape {
    /// One word per field: `/proc/vmstat`.
    Scalars {
        /// In the kernel's order.
        fields: Vec<Field>,
    },
    /// One row per instance: `/proc/diskstats`. A row is a word that names the instance (entry
    /// of the dictionary in the low half, number of columns present in the high half) and then
    /// one word per column.
    Table {
        /// Key under which the output shows the instance's name (`device_name`).
        instance_key: String,
        /// In the kernel's order.
        columns: Vec<Field>,
    },
}

impl Shape {
    /// Fields of scalars, columns of a table.
    pub fn fields(&self) -> &[Field] {
        match self {
            Shape::Scalars { fields } => fields,
            Shape::Table { columns, .. } => columns,
        }
    }

    /// Words that one row (of a table) or the whole block (of scalars) takes.
    pub fn row_words(&self) -> usize {
        match self {
            Shape::Scalars { fields } => fields.len(),
            Shape::Table { columns, .. } => columns.len() + 1,
        }
    }
}

/// One source as this segment records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSchema {
    /// Name on the command line and key in the output (`netdev`).
    pub name: String,
    /// The file that was read (`/proc/net/dev`).
    pub path: String,
    /// Its words; absent while the file has never been readable in this segment. (Not flattened:
    /// serde would take a shape that it does not know for an absent one.)
    #[serde(default, rename = "layout", skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
}

/// All sources of a segment, in the order in which a record holds them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema {
    /// In record order, which is the order of the output too.
    pub sources: Vec<SourceSchema>,
}

/// Keys of a sample that are no source's.
const SAMPLE_KEYS: [&str; 4] = ["timestamp", "hostname", "errors", "collection"];

impl Schema {
    /// Bytes of the longest name of a source or a value.
    pub(crate) fn longest_name(&self) -> usize {
        let names = self.sources.iter().flat_map(|source| {
            let instance_key = match &source.shape {
                Some(Shape::Table { instance_key, .. }) => Some(instance_key),
                _ => None,
            };
            let fields = source.shape.iter().flat_map(Shape::fields).map(|field| &field.name);
            [&source.name].into_iter().chain(instance_key).chain(fields)
        });
        names.map(String::len).max().unwrap_or(0)
    }

    /// The first name that would be the key of two things in one object of the output, which no
    /// recorder writes.
    pub(crate) fn ambiguous_name(&self) -> Option<String> {
        let mut keys: HashSet<String> = SAMPLE_KEYS.map(str::to_owned).into();
        for SourceSchema { name, shape, .. } in &self.sources {
            for key in [name.clone(), format!("{name}_extra")] {
                if let Some(twice) = keys.replace(key) {
                    return Some(twice);
                }
            }
            let instance_key = match shape {
                Some(Shape::Table { instance_key, .. }) => Some(instance_key),
                _ => None,
            };
            let fields = shape.iter().flat_map(Shape::fields).map(|field| &field.name);
            let mut columns: HashSet<&String> = HashSet::new();
            for name in instance_key.into_iter().chain(fields) {
                if !columns.insert(name) {
                    return Some(name.clone());
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, instance_key: &str, columns: &[&str]) -> SourceSchema {
        let columns = columns.iter().map(|name| Field::new(name, Kind::Unsigned)).collect();
        let shape = Some(Shape::Table { instance_key: instance_key.into(), columns });
        SourceSchema { name: name.into(), path: "/proc/x".into(), shape }
    }

    #[test]
    fn a_name_that_would_be_two_keys_is_found() {
        let twice = |sources: &[SourceSchema]| Schema { sources: sources.into() }.ambiguous_name();
        assert_eq!(twice(&[table("a", "name", &["c", "d"]), table("b", "name", &["c"])]), None);
        assert_eq!(twice(&[table("a", "n", &[]), table("a", "n", &[])]), Some("a".into()));
        assert_eq!(
            twice(&[table("a_extra", "n", &[]), table("a", "n", &[])]),
            Some("a_extra".into())
        );
        assert_eq!(twice(&[table("errors", "n", &[])]), Some("errors".into()));
        assert_eq!(twice(&[table("a", "n", &["c", "c"])]), Some("c".into()));
        assert_eq!(twice(&[table("a", "n", &["n"])]), Some("n".into()));
    }

    #[test]
    fn a_shape_or_kind_of_a_later_version_is_an_error_and_not_absent() {
        let field = r#"{"name":"f","kind":"unsigned"}"#;
        let text = |shape: &str, field: &str| {
            format!(
                r#"[{{"name":"a","path":"p","layout":{{"shape":"{shape}","fields":[{field}]}}}}]"#
            )
        };
        let read = |text: String| serde_json::from_str::<Schema>(&text);
        assert!(read(text("scalars", field)).unwrap().sources[0].shape.is_some());
        let error = read(text("histogram", field)).unwrap_err().to_string();
        assert!(error.contains("histogram"), "{error}");
        let error = read(text("scalars", &field.replace("unsigned", "float"))).unwrap_err();
        assert!(error.to_string().contains("float"), "{error}");
    }

    #[test]
    fn json_round_trip_with_and_without_a_shape() {
        let schema = Schema {
            sources: vec![
                SourceSchema {
                    name: "vmstat".into(),
                    path: "/proc/vmstat".into(),
                    shape: Some(Shape::Scalars {
                        fields: vec![
                            Field::new("pgpgin", Kind::Unsigned).counting(64),
                            Field::extra("x", Kind::Signed).counting(64),
                        ],
                    }),
                },
                SourceSchema { name: "netdev".into(), path: "/proc/net/dev".into(), shape: None },
                SourceSchema {
                    name: "diskstats".into(),
                    path: "/proc/diskstats".into(),
                    shape: Some(Shape::Table {
                        instance_key: "device_name".into(),
                        columns: vec![],
                    }),
                },
            ],
        };
        let text = serde_json::to_string(&schema).unwrap();
        assert_eq!(serde_json::from_str::<Schema>(&text).unwrap(), schema, "{text}");
    }
}
