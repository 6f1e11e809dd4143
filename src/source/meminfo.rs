//! `/proc/meminfo`: `Name:  value kB` on each line, `HugePages_*` without a unit, as counts
//! (`Documentation/filesystems/proc.rst`, "meminfo"; `fs/proc/meminfo.c`).

use super::SourceDef;
use super::scalars::Grammar;
use super::text::Records;

pub(super) static MEMINFO: SourceDef = SourceDef {
    name: "meminfo",
    file: "meminfo",
    records: Records::One,
    probe: |text| Grammar { separator: b':', kilobytes: true, is_counter: |_| false }.probe(text),
};
