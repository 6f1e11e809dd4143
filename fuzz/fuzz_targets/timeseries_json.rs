//! Any text as a time series and as a metadata file, read through the types that the library gives
//! to programs which read these files.
//!
//! Beyond "no panic": what was read is written so that it is read again as the same, and written
//! again to the same bytes; nothing is there that was not in the text, and of a text in the
//! published form, whose every key is known, nothing is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringstat::TimeSeriesData;
use ringstat::metadata::{Metadata, TimeSeriesReference, merge};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(series) = round_trip::<TimeSeriesData>(text) {
        let of_hosts: usize = series.samples_by_host.values().map(Vec::len).sum();
        let reference = TimeSeriesReference {
            file: "training_20260102_030405_timeseries.json".to_owned(),
            num_samples: of_hosts as u64,
            interval_seconds: series.collection_interval_seconds,
            hosts_collected: series.hosts_collected,
        };
        let merged = merge("{}", &reference).expect("an object");
        let read: Value = serde_json::from_str(&merged).expect("JSON");
        let read: TimeSeriesReference =
            serde_json::from_value(read["timeseries_data"].clone()).expect("a reference");
        assert_eq!(read, reference);
    }
    round_trip::<Metadata>(text);
});

fn round_trip<T: DeserializeOwned + Serialize + PartialEq + Debug>(text: &str) -> Option<T> {
    let data: T = serde_json::from_str(text).ok()?;
    let written = serde_json::to_string(&data).expect("what was read can be written");
    let read: T = serde_json::from_str(&written).expect("what was written can be read");
    assert_eq!(read, data, "{written}");
    assert_eq!(serde_json::to_string(&read).expect("written"), written);
    // The reader of the text takes the last of several members of one name, as this one does.
    let (Ok(before), Ok(after)) = (serde_json::from_str(text), serde_json::from_str(&written))
    else {
        return Some(data);
    };
    stands_in(&after, &before, "");
    Some(data)
}

/// Every member and item of `after` is in `before`, but for those that have a default.
fn stands_in(after: &Value, before: &Value, at: &str) {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            for (key, value) in after {
                match before.get(key) {
                    Some(was) => stands_in(value, was, &format!("{at}.{key}")),
                    None => assert!(is_default(value), "{at}.{key} is {value}, from nowhere"),
                }
            }
        }
        (Value::Array(after), Value::Array(before)) => {
            assert_eq!(after.len(), before.len(), "{at}");
            for (index, (value, was)) in after.iter().zip(before).enumerate() {
                stands_in(value, was, &format!("{at}[{index}]"));
            }
        }
        // A struct that was written as a list of its fields; serde takes both.
        (Value::Object(_), Value::Array(_)) => {}
        (Value::Number(after), Value::Number(before)) => {
            assert_eq!(after.as_f64(), before.as_f64(), "{at}");
        }
        (after, before) => assert_eq!(after, before, "{at}"),
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_default),
    }
}
