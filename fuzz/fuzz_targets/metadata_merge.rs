//! Any text as a metadata file that `timeseries_data` is put into. What comes out is JSON, has the
//! reference once, and every other member in its order and to the character.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringstat::metadata::{TimeSeriesReference, merge};
use ringstat_fuzz::json::Members;
use serde_json::value::RawValue;

const KEY: &str = "timeseries_data";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let reference = TimeSeriesReference {
        file: "training_20260102_030405_timeseries.json".to_owned(),
        num_samples: 3,
        interval_seconds: 0.25,
        hosts_collected: vec!["a\n\"b\"".to_owned()],
    };
    let before: Result<Members, _> = serde_json::from_str(text);
    let merged = merge(text, &reference);
    assert_eq!(merged.is_ok(), before.is_ok(), "{merged:?}");
    let (Ok(Members(before)), Ok(merged)) = (before, merged) else { return };
    let Members(after) = serde_json::from_str(&merged).expect("an object");
    let others = |members: &[(String, Box<RawValue>)]| -> Vec<(String, String)> {
        let others = members.iter().filter(|(key, _)| key != KEY);
        others.map(|(key, value)| (key.clone(), value.get().to_owned())).collect()
    };
    assert_eq!(others(&before), others(&after));
    let found: Vec<_> = after.iter().filter(|(key, _)| key == KEY).collect();
    let [(_, value)] = found[..] else { panic!("{} references", found.len()) };
    let read: TimeSeriesReference = serde_json::from_str(value.get()).expect("a reference");
    assert_eq!(read, reference);
    assert_eq!(merge(&merged, &reference).expect("merged again"), merged);
});
