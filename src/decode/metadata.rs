//! The metadata file that refers to a time series: ours, or the one that the benchmark wrote
//! itself, with one key put in. Types and text; no files.

use crate::description::SystemFacts;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;

/// `timeseries_data`: what the metadata says of the time series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimeSeriesReference {
    /// File name in the same directory.
    pub file: String,
    /// Samples of all hosts.
    pub num_samples: u64,
    /// Time between two ticks, s.
    pub interval_seconds: f64,
    /// Hosts with data.
    pub hosts_collected: Vec<String>,
}

/// One `{benchmark_type}_{datetime}_metadata.json`. What is not known is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// First part of the file's name.
    pub benchmark_type: String,
    /// `run` or `record`.
    pub command: String,
    /// `YYYYMMDD_HHMMSS`, local time, as in the file's name.
    pub run_datetime: String,
    /// The directory of both files.
    pub result_dir: String,
    /// The host.
    pub system_info: SystemInfo,
    /// The time series, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeseries_data: Option<TimeSeriesReference>,
    /// From start to end, s.
    pub runtime: f64,
    /// The wrapped command, quoted for a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed_command: Option<String>,
    /// How it ended: its status, or 128 + the number of the signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// The recorder itself.
    pub ringstat: RecorderInfo,
}

/// Facts about the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SystemInfo {
    /// What the host calls itself.
    pub hostname: String,
    /// Everything else.
    #[serde(flatten)]
    pub facts: SystemFacts,
}

/// The recorder, for who wonders about the data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecorderInfo {
    /// Version of the program that wrote the file.
    pub version: String,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The files were written after the recorder had died.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// What could not be recorded, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Puts `timeseries_data` into the text of a metadata file: in the place of one that is there,
/// or before `runtime`, where the reference has it, or last. Keys keep their order and values
/// their every character. Readers take the last of several members of one name: none but this
/// one is left.
///
/// # Errors
/// If the text is not a JSON object.
pub fn merge(text: &str, reference: &TimeSeriesReference) -> Result<String, serde_json::Error> {
    const KEY: &str = "timeseries_data";
    let Members(mut members) = serde_json::from_str(text)?;
    let value = indented(reference)?;
    match members.iter().position(|(key, _)| key == KEY) {
        Some(index) => {
            members[index].1 = value;
            let mut place = 0..;
            members.retain(|(key, _)| place.next() == Some(index) || key != KEY);
        }
        None => {
            let before = members.iter().position(|(key, _)| key == "runtime");
            let index = before.unwrap_or(members.len());
            members.insert(index, (KEY.to_owned(), value));
        }
    }
    let mut merged = String::from("{");
    for (index, (key, value)) in members.iter().enumerate() {
        merged.push_str(if index == 0 { "\n  " } else { ",\n  " });
        merged.push_str(&serde_json::to_string(key)?);
        merged.push_str(": ");
        merged.push_str(value.get());
    }
    merged.push_str("\n}");
    if text.ends_with('\n') {
        merged.push('\n');
    }
    Ok(merged)
}

/// As it stands one level deep in a file that is indented by two.
fn indented(reference: &TimeSeriesReference) -> Result<Box<RawValue>, serde_json::Error> {
    let text = serde_json::to_string_pretty(reference)?.replace('\n', "\n  ");
    RawValue::from_string(text)
}

/// The members of an object in their order, values unread.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn reference() -> TimeSeriesReference {
        TimeSeriesReference {
            file: "training_20260102_030405_timeseries.json".into(),
            num_samples: 3,
            interval_seconds: 10.0,
            hosts_collected: vec!["a".into()],
        }
    }

    #[test]
    fn every_other_value_keeps_its_characters_and_its_place() {
        let text = "{\n  \"b\": 1.50,\n  \"a\": {\"x\":  [1e3, 123456789012345678901234567890]},\n  \
                    \"runtime\": 2.0,\n  \"u\": \"\\u00e9\\/\"\n}\n";
        let merged = merge(text, &reference()).unwrap();
        let expected = "{\n  \"b\": 1.50,\n  \"a\": {\"x\":  [1e3, 123456789012345678901234567890]},\n  \
                        \"timeseries_data\": {\n    \"file\": \
                        \"training_20260102_030405_timeseries.json\",\n    \"num_samples\": 3,\n    \
                        \"interval_seconds\": 10.0,\n    \"hosts_collected\": [\n      \"a\"\n    ]\n  \
                        },\n  \"runtime\": 2.0,\n  \"u\": \"\\u00e9\\/\"\n}\n";
        assert_eq!(merged, expected);
        assert_eq!(merge(&merged, &reference()).unwrap(), merged, "merging twice changes nothing");
    }

    #[test]
    fn a_reference_that_stands_there_twice_is_not_left_to_win() {
        let text = r#"{"timeseries_data": 1, "a": 2, "timeseries_data": 3, "a": 4}"#;
        let merged = merge(text, &reference()).unwrap();
        assert_eq!(merged.matches("timeseries_data").count(), 1);
        assert!(merged.starts_with("{\n  \"timeseries_data\": {\n    \"file\""), "{merged}");
        assert!(merged.ends_with("},\n  \"a\": 2,\n  \"a\": 4\n}"), "{merged}");
    }

    #[test]
    fn an_empty_object_and_other_things() {
        let merged = merge("{}", &reference()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&merged).unwrap();
        assert_eq!(value["timeseries_data"]["num_samples"], 3);
        for bad in ["", "[]", "{\"a\":}", "{} x"] {
            assert!(merge(bad, &reference()).is_err(), "{bad:?}");
        }
    }
}
