//! `/proc/vmstat`: paging, reclaim and NUMA counters, `name value` on each line
//! (`mm/vmstat.c`, `vmstat_show`; names in `Documentation/admin-guide/mm/` and `mm/vmstat.c`).
//! Pages, events or bytes as the name says; printed without units.

use super::SourceDef;
use super::scalars::Grammar;
use super::text::Records;

pub(super) static VMSTAT: SourceDef = SourceDef {
    name: "vmstat",
    file: "vmstat",
    // The names are those of a table that the kernel was built with (`vmstat_text`).
    records: Records::Fixed,
    probe: |text| Grammar { separator: b' ', kilobytes: false, is_counter }.probe(text),
};

/// Of the names that begin with `nr_`, which are numbers of pages otherwise, those of events.
const EVENTS: [&str; 6] =
    ["nr_dirtied", "nr_written", "nr_throttled_written", "nr_vmscan_", "nr_foll_pin_", "nr_tlb_"];

fn is_counter(name: &str) -> bool {
    let is_gauge = name.starts_with("nr_") || name == "workingset_nodes";
    !is_gauge || EVENTS.iter().any(|event| name.starts_with(event))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_pages_go_up_and_down_and_events_only_up() {
        let gauges = ["nr_free_pages", "nr_dirty", "nr_dirty_threshold", "workingset_nodes"];
        let counters = ["pgpgin", "nr_dirtied", "nr_vmscan_write", "numa_hit", "oom_kill"];
        assert!(gauges.iter().all(|name| !is_counter(name)));
        assert!(counters.iter().all(|name| is_counter(name)));
    }
}
