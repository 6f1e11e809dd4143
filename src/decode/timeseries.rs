//! The types of the time-series file, for programs that read it. They round-trip the JSON and
//! ignore keys that they do not know. The recorder itself does not build them: it streams.

use super::facts::RunSummary;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// A counter as the kernel printed it: wide enough for unsigned 64-bit ones and for negative ones.
pub type Counter = i128;

/// One `{benchmark_type}_{datetime}_timeseries.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimeSeriesData {
    /// Time between two ticks, s.
    pub collection_interval_seconds: f64,
    /// UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    pub start_time: String,
    /// UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    pub end_time: String,
    /// Of all hosts, error samples included.
    pub num_samples: u64,
    /// Host as it was requested, and its samples.
    pub samples_by_host: IndexMap<String, Vec<TimeSeriesSample>>,
    /// `local` or `ssh`.
    pub collection_method: String,
    /// Every host that was asked for, once.
    pub hosts_requested: Vec<String>,
    /// Hosts with data.
    pub hosts_collected: Vec<String>,
    /// What is known beyond the format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ringstat: Option<RunSummary>,
}

/// Everything read from one host at one tick. What is absent was not there to be read, or
/// `errors` says why not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TimeSeriesSample {
    /// UTC, `YYYY-MM-DDTHH:MM:SSZ`, before the first read.
    pub timestamp: String,
    /// What the host calls itself.
    pub hostname: String,
    /// `/proc/diskstats`, in the kernel's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diskstats: Option<Vec<DiskStats>>,
    /// `/proc/vmstat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmstat: Option<IndexMap<String, Counter>>,
    /// `/proc/meminfo`, kB, `HugePages_*` as counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meminfo: Option<IndexMap<String, Counter>>,
    /// `/proc/loadavg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loadavg: Option<LoadAvg>,
    /// `/proc/net/dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<Vec<NetDev>>,
    /// Why a source has no or not all values, by source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<IndexMap<String, String>>,
    /// How the sample was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<Collection>,
}

/// How one sample was taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// Number of its deadline: start + tick x interval.
    pub tick: u64,
    /// `CLOCK_REALTIME` before the first read.
    pub time_unix_ns: u64,
    /// `CLOCK_MONOTONIC` before the first read.
    pub monotonic_ns: u64,
    /// From the first read to the last.
    pub window_us: f64,
    /// From the deadline to the first read.
    pub lateness_us: f64,
    /// Ticks without a sample since the start.
    pub missed_ticks: u64,
    /// CPU time of the sampler's thread since it began, before this sample.
    pub cpu_us: f64,
    /// The run was stopped, and this is its last sample.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_stop: bool,
    /// Taken between two ticks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extra: bool,
}

/// One block device (`Documentation/admin-guide/iostats.rst`): sectors of 512 bytes, times in ms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DiskStats {
    pub device_name: String,
    pub reads_completed: Counter,
    pub reads_merged: Counter,
    pub sectors_read: Counter,
    pub time_reading_ms: Counter,
    pub writes_completed: Counter,
    pub writes_merged: Counter,
    pub sectors_written: Counter,
    pub time_writing_ms: Counter,
    pub ios_in_progress: Counter,
    pub time_doing_ios_ms: Counter,
    pub weighted_time_doing_ios_ms: Counter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discards_completed: Option<Counter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discards_merged: Option<Counter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sectors_discarded: Option<Counter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_discarding_ms: Option<Counter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_requests_completed: Option<Counter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_flushing_ms: Option<Counter>,
}

/// `/proc/loadavg` (`Documentation/filesystems/proc.rst`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LoadAvg {
    pub load_1min: f64,
    pub load_5min: f64,
    pub load_15min: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_processes: Option<Counter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_processes: Option<Counter>,
}

/// One network interface (`Documentation/networking/statistics.rst`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NetDev {
    pub interface_name: String,
    pub rx_bytes: Counter,
    pub rx_packets: Counter,
    pub rx_errors: Counter,
    pub rx_dropped: Counter,
    pub rx_fifo: Counter,
    pub rx_frame: Counter,
    pub rx_compressed: Counter,
    pub rx_multicast: Counter,
    pub tx_bytes: Counter,
    pub tx_packets: Counter,
    pub tx_errors: Counter,
    pub tx_dropped: Counter,
    pub tx_fifo: Counter,
    pub tx_collisions: Counter,
    pub tx_carrier: Counter,
    pub tx_compressed: Counter,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"timestamp":"2026-01-02T03:04:05Z","hostname":"h","diskstats":[{"device_name":"sda","reads_completed":1,"reads_merged":2,"sectors_read":3,"time_reading_ms":4,"writes_completed":5,"writes_merged":6,"sectors_written":7,"time_writing_ms":8,"ios_in_progress":9,"time_doing_ios_ms":10,"weighted_time_doing_ios_ms":11}],"vmstat":{"b":18446744073709551615,"a":-3},"loadavg":{"load_1min":0.0,"load_5min":0.52,"load_15min":10.0},"errors":{"netdev":"why"}}"#;

    #[test]
    fn a_sample_round_trips_to_the_byte() {
        let sample: TimeSeriesSample = serde_json::from_str(SAMPLE).unwrap();
        assert_eq!(serde_json::to_string(&sample).unwrap(), SAMPLE);
        let vmstat = sample.vmstat.unwrap();
        assert_eq!(vmstat.keys().collect::<Vec<_>>(), ["b", "a"], "the kernel's order");
        assert_eq!((vmstat["b"], vmstat["a"]), (i128::from(u64::MAX), -3));
        assert_eq!(sample.meminfo, None);
        assert_eq!(sample.loadavg.unwrap().running_processes, None);
    }

    #[test]
    fn a_float_is_read_back_as_it_was_written() {
        let times = |ns: u64| Collection { cpu_us: ns as f64 / 1000.0, ..Collection::default() };
        for ns in (0..100_000).chain((0..1000).map(|n| u64::MAX >> (n % 60) ^ n)) {
            let text = serde_json::to_string(&times(ns)).unwrap();
            assert_eq!(serde_json::from_str::<Collection>(&text).unwrap(), times(ns), "{text}");
        }
        assert_eq!(serde_json::from_str::<f64>("0.0001").unwrap(), 0.0001);
    }

    #[test]
    fn data_round_trips_and_unknown_keys_are_ignored() {
        let text = format!(
            r#"{{"collection_interval_seconds":10.0,"start_time":"a","end_time":"b","num_samples":1,"samples_by_host":{{"x":[{SAMPLE}],"y":[]}},"collection_method":"local","hosts_requested":["x","y"],"hosts_collected":["x"]}}"#
        );
        let data: TimeSeriesData = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&data).unwrap(), text);
        let more = text.replacen('{', r#"{"later":{"x":[1]},"#, 1);
        let more = more.replace(r#""hostname""#, r#""newer":null,"hostname""#);
        assert_eq!(serde_json::from_str::<TimeSeriesData>(&more).unwrap(), data);
    }
}
