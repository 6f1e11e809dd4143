//! `/proc/vmstat`: paging, reclaim and NUMA counters, `name value` on each line
//! (`mm/vmstat.c`, `vmstat_show`; names in `Documentation/admin-guide/mm/` and `mm/vmstat.c`).
//! Pages, events or bytes as the name says; printed without units.

use super::SourceDef;
use super::scalars::Grammar;

pub(super) static VMSTAT: SourceDef = SourceDef {
    name: "vmstat",
    file: "vmstat",
    probe: |text| Grammar { separator: b' ', kilobytes: false }.probe(text),
};
