//! A reader of the two output files that knows nothing but the published format's table, and
//! refuses whatever is not in it: a key too many or too few, in another order or written in
//! another way. Every file that any test here produces goes through it.

use super::json::{Value, as_python_writes_it, parse};
use chrono::{DateTime, NaiveDateTime};

const TOP: [&str; 8] = [
    "collection_interval_seconds",
    "start_time",
    "end_time",
    "num_samples",
    "samples_by_host",
    "collection_method",
    "hosts_requested",
    "hosts_collected",
];
const SAMPLE: [&str; 8] =
    ["timestamp", "hostname", "diskstats", "vmstat", "meminfo", "loadavg", "netdev", "errors"];
pub const SOURCES: [&str; 5] = ["diskstats", "vmstat", "meminfo", "loadavg", "netdev"];
pub const DISK: [&str; 12] = [
    "device_name",
    "reads_completed",
    "reads_merged",
    "sectors_read",
    "time_reading_ms",
    "writes_completed",
    "writes_merged",
    "sectors_written",
    "time_writing_ms",
    "ios_in_progress",
    "time_doing_ios_ms",
    "weighted_time_doing_ios_ms",
];
pub const DISCARDS: [&str; 4] =
    ["discards_completed", "discards_merged", "sectors_discarded", "time_discarding_ms"];
pub const FLUSHES: [&str; 2] = ["flush_requests_completed", "time_flushing_ms"];
pub const LOADS: [&str; 5] =
    ["load_1min", "load_5min", "load_15min", "running_processes", "total_processes"];
pub const NET: [&str; 17] = [
    "interface_name",
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "rx_fifo",
    "rx_frame",
    "rx_compressed",
    "rx_multicast",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_fifo",
    "tx_collisions",
    "tx_carrier",
    "tx_compressed",
];
const COLLECTION: [&str; 7] =
    ["tick", "time_unix_ns", "monotonic_ns", "window_us", "lateness_us", "missed_ticks", "cpu_us"];
const HOST_ERRORS: [&str; 3] = ["ssh", "collection", "json"];
const METADATA: [&str; 10] = [
    "benchmark_type",
    "command",
    "run_datetime",
    "result_dir",
    "system_info",
    "timeseries_data",
    "runtime",
    "executed_command",
    "exit_status",
    "ringstat",
];
const REFERENCE: [&str; 4] = ["file", "num_samples", "interval_seconds", "hosts_collected"];

/// What is wrong with a file, in a sentence.
pub type Wrong = String;

macro_rules! check {
    ($is_right:expr, $($what:tt)+) => {
        // Not `if !`: a float may be NaN.
        if $is_right {
        } else {
            return Err(format!($($what)+));
        }
    };
}

/// Reads a time series.
pub fn timeseries(text: &str) -> Result<Value, Wrong> {
    let file = parse(text)?;
    check!(!file.has_null(), "there is a null");
    layout(text, !text.starts_with("{\n"))?;
    let keys = file.keys();
    check!(keys.len() >= TOP.len() && keys[..TOP.len()] == TOP, "top level has {keys:?}");
    check!(keys[TOP.len()..] == ["ringstat"], "unknown keys {:?}", &keys[TOP.len()..]);
    let interval = float(&file, "collection_interval_seconds")?;
    check!(interval > 0.0, "an interval of {interval}");
    let (start, end) = (timestamp(&file, "start_time")?, timestamp(&file, "end_time")?);
    // A wall clock that was set back is shown as it was, and said.
    let hosts = &file["ringstat"]["hosts"];
    let is_stepped =
        hosts.entries().iter().any(|(_, host)| host["clock_steps_total"] != Value::Int(0));
    check!(is_stepped || start <= end, "it starts at {start} and ends at {end}");
    check!(
        matches!(string(&file, "collection_method")?, "local" | "ssh"),
        "unknown collection method"
    );
    let requested = strings(&file, "hosts_requested")?;
    let hosts = &file["samples_by_host"];
    check!(matches!(hosts, Value::Object(_)), "samples_by_host is no object");
    check!(hosts.keys() == requested, "hosts {:?}, requested {requested:?}", hosts.keys());
    let mut count = 0;
    let mut with_data = Vec::new();
    for (host, samples) in hosts.entries() {
        let samples = items(samples, host)?;
        count += samples.len() as i128;
        let mut before: Option<&Value> = None;
        for (index, sample) in samples.iter().enumerate() {
            let in_sample = |wrong| format!("sample {index} of {host}: {wrong}");
            check_sample(sample).map_err(in_sample)?;
            let at = sample["timestamp"].str();
            check!(
                is_stepped || (start <= at && at <= end),
                "sample {index} at {at}: before {start} or after {end}"
            );
            if is_record(sample) {
                check_order(before, &sample["collection"]).map_err(in_sample)?;
                before = Some(&sample["collection"]);
            }
        }
        if samples.iter().any(|sample| SOURCES.iter().any(|source| sample.has(source))) {
            with_data.push(host.as_str());
        }
    }
    check!(file["num_samples"] == Value::Int(count), "there are {count} samples");
    let collected = strings(&file, "hosts_collected")?;
    check!(collected == with_data, "collected {collected:?}, with data {with_data:?}");
    check_summary(&file)?;
    Ok(file)
}

/// Whether a sample is from a ring, and does not only say what went wrong with its host.
fn is_record(sample: &Value) -> bool {
    sample.has("collection")
}

/// The samples of the one host of a file.
pub fn samples(file: &Value) -> &[Value] {
    let [(_, samples)] = file["samples_by_host"].entries() else { panic!("not one host") };
    samples.list()
}

/// What the file says of its one host beyond the format.
pub fn summary(file: &Value) -> &Value {
    let [(_, summary)] = file["ringstat"]["hosts"].entries() else { panic!("not one host") };
    summary
}

fn check_sample(sample: &Value) -> Result<(), Wrong> {
    let keys = sample.keys();
    let known: Vec<&str> = keys.iter().copied().filter(|key| SAMPLE.contains(key)).collect();
    let in_order: Vec<&str> = SAMPLE.into_iter().filter(|key| keys.contains(key)).collect();
    check!(keys.starts_with(&in_order) && known == in_order, "keys {keys:?}");
    check!(keys.starts_with(&SAMPLE[..2]), "no timestamp or hostname");
    if !is_record(sample) {
        return check_error_sample(sample);
    }
    let beyond = &keys[known.len()..];
    let is_extra =
        |key: &&str| key.strip_suffix("_extra").is_some_and(|source| SOURCES.contains(&source));
    check!(
        beyond.first() == Some(&"collection") && beyond[1..].iter().all(is_extra),
        "unknown keys {beyond:?}"
    );
    let at = timestamp(sample, "timestamp")?;
    check!(!string(sample, "hostname")?.is_empty(), "no hostname");
    for disk in table(sample, "diskstats")? {
        let mut expected = DISK.to_vec();
        let has = |key: &str| disk.has(key);
        expected.extend(DISCARDS.iter().filter(|_| DISCARDS.iter().any(|key| has(key))));
        expected.extend(FLUSHES.iter().filter(|_| FLUSHES.iter().any(|key| has(key))));
        check!(!has(FLUSHES[0]) || has(DISCARDS[0]), "flushes without discards");
        row(disk, &expected)?;
    }
    for interface in table(sample, "netdev")? {
        row(interface, &NET)?;
    }
    for source in ["vmstat", "meminfo"] {
        let Some(values) = sample.get(source) else { continue };
        check!(!values.entries().is_empty(), "{source} is no object with values");
        for (key, value) in values.entries() {
            check!(matches!(value, Value::Int(_)), "{source} {key} is {value:?}");
        }
    }
    if let Some(loads) = sample.get("loadavg") {
        check!(loads.keys() == LOADS, "loadavg has {:?}", loads.keys());
        LOADS[..3].iter().try_for_each(|key| float(loads, key).map(|_| ()))?;
        LOADS[3..].iter().try_for_each(|key| count_of(loads, key).map(|_| ()))?;
    }
    if let Some(errors) = sample.get("errors") {
        check!(!errors.entries().is_empty(), "errors are empty");
        for (source, _) in errors.entries() {
            let is_known = SOURCES.contains(&source.as_str())
                || ["ssh", "json", "collection"].contains(&source.as_str());
            check!(is_known, "an error of {source:?}");
            check!(!string(errors, source)?.is_empty(), "{source} has an empty error");
        }
    }
    check_collection(&sample["collection"], at)
}

/// One that stands for a host that failed.
fn check_error_sample(sample: &Value) -> Result<(), Wrong> {
    check!(sample.keys() == ["timestamp", "hostname", "errors"], "keys {:?}", sample.keys());
    timestamp(sample, "timestamp")?;
    check!(!string(sample, "hostname")?.is_empty(), "no hostname");
    let [(kind, _)] = sample["errors"].entries() else { return Err("not one error".to_owned()) };
    check!(HOST_ERRORS.contains(&kind.as_str()), "a host's error of {kind:?}");
    check!(!string(&sample["errors"], kind)?.is_empty(), "{kind} has an empty error");
    Ok(())
}

fn check_collection(collection: &Value, at: &str) -> Result<(), Wrong> {
    let keys = collection.keys();
    check!(keys.starts_with(&COLLECTION), "collection has {keys:?}");
    let flags = &keys[COLLECTION.len()..];
    let are_known = [&[][..], &["at_stop"], &["extra"], &["at_stop", "extra"]].contains(&flags);
    check!(are_known, "collection has the flags {flags:?}");
    for flag in flags {
        check!(collection[flag] == Value::Bool(true), "{flag} is there and not true");
    }
    for key in ["tick", "time_unix_ns", "monotonic_ns", "missed_ticks"] {
        count_of(collection, key)?;
    }
    for key in ["window_us", "lateness_us", "cpu_us"] {
        check!(float(collection, key)? >= 0.0, "{key} is negative");
    }
    let precise = seconds_of(collection["time_unix_ns"].int());
    check!(precise.as_deref() == Some(at), "timestamp {at}, collection at {precise:?}");
    Ok(())
}

fn seconds_of(time_unix_ns: u64) -> Option<String> {
    let time = DateTime::from_timestamp((time_unix_ns / 1_000_000_000) as i64, 0)?;
    Some(time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Each sample has a tick of its own and is later, but for those taken between two ticks.
fn check_order(before: Option<&Value>, now: &Value) -> Result<(), Wrong> {
    let Some(before) = before else { return Ok(()) };
    let (tick, last) = (now["tick"].int(), before["tick"].int());
    check!(tick > last || (tick == last && now.has("extra")), "tick {tick} after tick {last}");
    for key in ["monotonic_ns", "missed_ticks"] {
        check!(now[key].int() >= before[key].int(), "{key} went back");
    }
    check!(!before.has("at_stop"), "a sample after the last");
    Ok(())
}

fn check_summary(file: &Value) -> Result<(), Wrong> {
    let ringstat = &file["ringstat"];
    for key in ["version", "run_id"] {
        string(ringstat, key)?;
    }
    let hosts = &ringstat["hosts"];
    check!(hosts.keys() == file["samples_by_host"].keys(), "ringstat has other hosts");
    for (index, (host, summary)) in hosts.entries().iter().enumerate() {
        let samples = file["samples_by_host"][host.as_str()].list();
        let (records, errors): (Vec<Value>, Vec<Value>) =
            samples.iter().cloned().partition(is_record);
        check_host_errors(summary, &errors).map_err(|wrong| format!("{host}: {wrong}"))?;
        check_clock(summary).map_err(|wrong| format!("{host}: {wrong}"))?;
        if summary.has("same_as") {
            let earlier = string(summary, "same_as")?;
            check!(hosts.keys()[..index].contains(&earlier), "{host} is the same as {earlier}");
            check!(records.is_empty(), "{host} has samples of {earlier}");
        }
        let kept = records.len() as u64;
        let number = |key| count_of(summary, key);
        check!(number("samples_kept")? == kept, "samples_kept is not {kept}");
        let all = kept + number("samples_overwritten")? + number("samples_lost")?;
        check!(number("samples_taken")? == all, "samples_taken is not {all}");
        check!(number("ticks_inconsistent")? == 0, "ticks do not add up");
        check!(matches!(summary["ended_cleanly"], Value::Bool(_)), "ended_cleanly");
        ticks_add_up(summary, &records)?;
        check_steps(summary)?;
        check_decreases(&summary["counter_decreases"])?;
        number("instances_unlisted")?;
    }
    Ok(())
}

/// What went wrong with a host stands there twice: as samples, and beside them.
fn check_host_errors(summary: &Value, samples: &[Value]) -> Result<(), Wrong> {
    let none = Value::List(Vec::new());
    let listed = items(summary.get("host_errors").unwrap_or(&none), "host_errors")?;
    check!(listed.is_empty() != summary.has("host_errors"), "no host_errors are left out");
    let count =
        summary.get("error_samples").map_or(Ok(0), |_| count_of(summary, "error_samples"))?;
    check!(count == samples.len() as u64, "{count} error_samples, and there are {}", samples.len());
    check!(listed.len() == samples.len(), "{} host_errors", listed.len());
    for (error, sample) in listed.iter().zip(samples) {
        check!(error.keys() == ["kind", "time_unix_ns", "message"], "an error {:?}", error.keys());
        let [(kind, message)] = sample["errors"].entries() else { panic!("it was checked") };
        check!(string(error, "kind")? == kind, "{error:?} is {kind} in its sample");
        check!(&error["message"] == message, "{error:?} is {message:?} in its sample");
        let at = seconds_of(count_of(error, "time_unix_ns")?);
        check!(at.as_deref() == Some(sample["timestamp"].str()), "{error:?} at another time");
    }
    for kind in HOST_ERRORS {
        let count = listed.iter().filter(|error| error["kind"].str() == kind).count() as i128;
        let counted = summary["errors"].get(kind).cloned().unwrap_or(Value::Int(0));
        check!(counted == Value::Int(count), "{counted:?} errors of {kind}, not {count}");
    }
    Ok(())
}

fn check_clock(summary: &Value) -> Result<(), Wrong> {
    for key in ["clock_offset_ms", "clock_uncertainty_ms", "clock_drift_ppm"] {
        if summary.has(key) {
            float(summary, key)?;
        }
    }
    let synchronised = summary.get("clock_synchronised");
    check!(synchronised.is_none_or(|is| matches!(is, Value::Bool(_))), "{synchronised:?}");
    Ok(())
}

/// Every tick has a sample of its own or is counted as missed, every sample says how many were
/// missed until then, and gaps are what is missed.
pub fn ticks_add_up(summary: &Value, samples: &[Value]) -> Result<(), Wrong> {
    let number = |key| count_of(summary, key);
    let Some(last) = samples.last() else { return Ok(()) };
    let missed = number("ticks_missed")?;
    check!(last["collection"]["missed_ticks"].int() == missed, "ticks_missed is not {missed}");
    let overwritten = number("samples_overwritten")?;
    let (mut next, mut lost) = (overwritten, 0);
    for sample in samples {
        let collection = &sample["collection"];
        let (tick, missed) = (collection["tick"].int(), collection["missed_ticks"].int());
        // Before it, so many samples took a tick each; an additional one takes none.
        let extra = u64::from(collection.has("extra"));
        let (Some(seq), true) = ((tick + extra).checked_sub(missed), tick + extra >= next + missed)
        else {
            return Err(format!("sample {next}: tick {tick} with {missed} missed"));
        };
        lost += seq - next;
        next = seq + 1;
    }
    // A newer segment tells of samples behind the last that is there.
    let taken = number("samples_taken")?;
    check!(taken >= next, "sample {next} of {taken}");
    lost += taken - next;
    let elapsed = last["collection"]["tick"].int() + 1 + taken - next;
    check!(number("ticks_elapsed")? == elapsed, "ticks_elapsed is not {elapsed}");
    check!(lost == number("samples_lost")?, "{lost} samples are not there");
    let extra = u64::from(last["collection"].has("extra"));
    let taken = taken - extra;
    check!(taken + missed == elapsed, "{taken} taken and {missed} missed of {elapsed} ticks");
    let gaps = items(&summary["gaps"], "gaps")?;
    if overwritten == 0 && lost == 0 && gaps.len() as u64 == number("gaps_total")? {
        let in_gaps: u64 = gaps.iter().map(|gap| gap["ticks"].int()).sum();
        check!(in_gaps == missed, "{in_gaps} ticks in gaps, {missed} missed");
    }
    Ok(())
}

fn check_steps(summary: &Value) -> Result<(), Wrong> {
    let steps = items(&summary["clock_steps"], "clock_steps")?;
    check!(count_of(summary, "clock_steps_total")? >= steps.len() as u64, "clock_steps_total");
    for step in steps {
        check!(step.keys() == ["tick", "seconds"], "a clock step has {:?}", step.keys());
        count_of(step, "tick")?;
        float(step, "seconds")?;
    }
    Ok(())
}

fn check_decreases(decreases: &Value) -> Result<(), Wrong> {
    const WAYS: [&str; 3] = ["wrapped_at_32_bits", "wrapped_at_64_bits", "went_backwards"];
    for (source, decreases) in decreases.entries() {
        check!(SOURCES.contains(&source.as_str()), "decreases of {source:?}");
        check!(decreases.keys() == [&WAYS[..], &["first"]].concat(), "{:?}", decreases.keys());
        let counts: Vec<u64> =
            WAYS.iter().map(|way| count_of(decreases, way)).collect::<Result<_, _>>()?;
        let first = items(&decreases["first"], "first")?;
        let total: u64 = counts.iter().sum();
        check!(first.len() as u64 == total.min(10), "{} listed of {total}", first.len());
        for one in first {
            let keys: Vec<&str> = one.keys().into_iter().filter(|key| *key != "instance").collect();
            check!(keys == ["tick", "field", "from", "to", "how"], "a decrease has {keys:?}");
            check!(WAYS.contains(&string(one, "how")?), "it happened {:?}", one["how"]);
            check!(count_of(one, "to")? < count_of(one, "from")?, "no decrease: {one:?}");
        }
    }
    Ok(())
}

/// Reads a metadata file of ours.
pub fn metadata(text: &str) -> Result<Value, Wrong> {
    let file = parse(text)?;
    check!(!file.has_null(), "there is a null");
    layout(text, false)?;
    let keys = file.keys();
    let in_order: Vec<&str> = METADATA.into_iter().filter(|key| keys.contains(key)).collect();
    check!(keys == in_order, "keys {keys:?}");
    for key in ["benchmark_type", "command", "run_datetime", "result_dir"] {
        string(&file, key)?;
    }
    check!(is_datetime(string(&file, "run_datetime")?), "run_datetime");
    check!(float(&file, "runtime")? >= 0.0, "a negative runtime");
    string(&file["system_info"], "hostname")?;
    string(&file["ringstat"], "version")?;
    if let Some(status) = file.get("exit_status") {
        check!(matches!(status, Value::Int(0..=255)), "exit status {status:?}");
    }
    if let Some(data) = file.get("timeseries_data") {
        reference(data)?;
        let name = format!(
            "{}_{}_timeseries.json",
            file["benchmark_type"].str(),
            file["run_datetime"].str()
        );
        check!(string(data, "file")? == name, "refers to {:?}, not to {name}", data["file"]);
    }
    Ok(file)
}

/// Checks `timeseries_data`, in whoever's metadata.
pub fn reference(data: &Value) -> Result<(), Wrong> {
    check!(data.keys() == REFERENCE, "timeseries_data has {:?}", data.keys());
    check!(!string(data, "file")?.contains('/'), "a file with a directory");
    check!(count_of(data, "num_samples")? > 0, "refers to no data");
    float(data, "interval_seconds")?;
    strings(data, "hosts_collected").map(|_| ())
}

/// `YYYYMMDD_HHMMSS`.
pub fn is_datetime(text: &str) -> bool {
    text.len() == 15 && NaiveDateTime::parse_from_str(text, "%Y%m%d_%H%M%S").is_ok()
}

fn layout(text: &str, compact: bool) -> Result<(), Wrong> {
    let Some(expected) = as_python_writes_it(text, compact) else {
        super::say_skipped("comparing the layout with Python's", "python3");
        return Ok(());
    };
    let separator = if compact { ',' } else { '\n' };
    let pairs = text.split(separator).zip(expected.split(separator)).enumerate();
    for (line, (found, expected)) in pairs {
        let is_right = found == expected || is_the_same_small_number(found, expected);
        check!(is_right, "line {}: {found:?}, Python writes {expected:?}", line + 1);
    }
    let lines = |text: &str| text.split(separator).count();
    check!(lines(text) == lines(&expected), "the end is not Python's");
    Ok(())
}

/// Below 0.0001 Python writes `2.5e-05` and Rust `0.000025`; every reader takes both.
fn is_the_same_small_number(found: &str, expected: &str) -> bool {
    let number = |line: &str| {
        let (_, number) = line.trim_end_matches([',', '}', ']']).rsplit_once(':')?;
        number.trim().parse::<f64>().ok().filter(|number| number.abs() < 1e-4)
    };
    number(found).is_some() && number(found) == number(expected)
}

fn table<'a>(sample: &'a Value, source: &str) -> Result<&'a [Value], Wrong> {
    sample.get(source).map_or(Ok(&[]), |rows| items(rows, source))
}

/// A name and counters, under these keys.
fn row(row: &Value, keys: &[&str]) -> Result<(), Wrong> {
    check!(row.keys() == keys, "{:?} instead of {keys:?}", row.keys());
    check!(!string(row, keys[0])?.is_empty(), "no {}", keys[0]);
    keys[1..].iter().try_for_each(|key| count_of(row, key).map(|_| ()))
}

fn items<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], Wrong> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(format!("{what} is no list: {other:?}")),
    }
}

fn strings<'a>(object: &'a Value, key: &str) -> Result<Vec<&'a str>, Wrong> {
    let item = |item: &'a Value| match item {
        Value::Text(text) => Ok(text.as_str()),
        other => Err(format!("{key} has {other:?}")),
    };
    let list: Vec<&str> = items(&object[key], key)?.iter().map(item).collect::<Result<_, _>>()?;
    check!((1..list.len()).all(|at| !list[..at].contains(&list[at])), "{key} has one twice");
    Ok(list)
}

fn float(object: &Value, key: &str) -> Result<f64, Wrong> {
    match object.get(key) {
        Some(Value::Float(number)) => Ok(*number),
        other => Err(format!("{key} is no float: {other:?}")),
    }
}

/// An integer that is not negative.
fn count_of(object: &Value, key: &str) -> Result<u64, Wrong> {
    match object.get(key) {
        Some(Value::Int(number)) if *number >= 0 => Ok(*number as u64),
        other => Err(format!("{key} is no count: {other:?}")),
    }
}

fn string<'a>(object: &'a Value, key: &str) -> Result<&'a str, Wrong> {
    match object.get(key) {
        Some(Value::Text(text)) => Ok(text),
        other => Err(format!("{key} is no string: {other:?}")),
    }
}

fn timestamp<'a>(object: &'a Value, key: &str) -> Result<&'a str, Wrong> {
    let text = string(object, key)?;
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%SZ");
    check!(text.len() == 20 && time.is_ok(), "{key} is {text:?}");
    Ok(text)
}
