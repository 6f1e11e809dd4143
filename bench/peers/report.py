"""The table, from what was measured. Ratios are taken within a piece, where both were measured
minutes apart, and then the median of them."""

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Optional, Set, Tuple

from recorders import ALL

#: Share of all CPUs that other programs may have used while a recorder was measured.
QUIET = 0.02
#: How many times ringstat's cost a recorder is to have, at least; `None`: each of the others.
GOALS = {"sadc-disk": 5, "sadc-xall": 5, "pcp-local": 5, "pcp-pmcd": 5}
CHEAPEST_GOAL = 3
NOT_PEERS = {"floor", "ringstat", "ringstat-no-mirror"}

Records = List[Dict[str, Any]]


def table(files: List[Path]) -> str:
    records: Records = []
    for file in files:
        with open(file) as lines:
            records += [json.loads(line) for line in lines]
    if not records:
        raise SystemExit("peers: nothing was measured")
    records, left_out = of_one_machine(records)
    by_name = {
        recorder.name: [record for record in records if record["recorder"] == recorder.name]
        for recorder in ALL
    }
    lines = [head(records) + left_out, "", *COLUMNS]
    rows = []
    for recorder in ALL:
        if of := by_name[recorder.name]:
            # The floor and ringstat first, then the others, the cheapest first.
            cost = 0 if recorder.name in NOT_PEERS else median_of(of, "cpu_us")
            rows.append((cost, row(recorder, of, records)))
    lines += [text for _, text in sorted(rows, key=lambda each: each[0])]
    lines += ["", *goals(by_name, records)]
    return "\n".join(lines)


def of_one_machine(records: Records) -> Tuple[Records, str]:
    """The pieces of the machine that most windows were measured on. Disks that come and go change
    what there is to read, and a piece in which that happened compares nothing."""
    pieces: Dict[str, Set[str]] = {}
    for record in records:
        pieces.setdefault(record["piece"], set()).add(record["machine"])
    machine, _ = Counter(record["machine"] for record in records).most_common(1)[0]
    kept = [record for record in records if pieces[record["piece"]] == {machine}]
    if not kept:
        raise SystemExit("peers: the machine changed in every piece (disks or interfaces came or "
                         "went); measure again")
    count = len(records) - len(kept)
    return kept, f" Left out: {count} windows of pieces with other disks or interfaces." * (count > 0)


COLUMNS = [
    "| recorder | version | CPU us per sample | / floor | / ringstat | peak RSS KiB "
    "| bytes per sample | voluntary switches | leaves out |",
    "|---|---|---|---|---|---|---|---|---|",
]


def head(records: Records) -> str:
    dates = sorted({record["date"] for record in records})
    date = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    windows = sorted({record["seconds"] for record in records})
    disturbed = sum(record["others"] > QUIET for record in records)
    most = max(record["others"] for record in records)
    text = (
        f"Measured on {date}, {records[0]['machine']}; one sample a second, windows of "
        f"{' and '.join(map(str, windows))} s without start-up, medians [least .. most]."
    )
    if disturbed:
        text += (f" In {disturbed} of {len(records)} windows other programs used more than "
                 f"{QUIET:.0%} of the machine, at most {most:.0%}.")
    return text


def median_of(records: Records, key: str) -> float:
    return median(record[key] for record in records)


def ratios(records: Records, of: Records, to: str) -> List[float]:
    """Of each record, its CPU time to that of `to` in the same piece."""
    base = {record["piece"]: record["cpu_us"] for record in records if record["recorder"] == to}
    return [
        record["cpu_us"] / base[record["piece"]] for record in of if record["piece"] in base
    ]


def ratio(records: Records, of: Records, to: str) -> Optional[float]:
    values = ratios(records, of, to)
    return median(values) if values else None


def row(recorder: Any, of: Records, records: Records) -> str:
    cpu = [record["cpu_us"] for record in of]
    shown = [ratio(records, of, to) for to in ("floor", "ringstat")]
    versions = sorted({record["version"] for record in of})
    rss = f"{median_of(of, 'peak_rss_kib'):.0f}"
    shm = median_of(of, "shm_kib")
    if shm > 1024:
        rss += f", {shm:.0f} of it shared memory"
    cells = [
        recorder.title, ", ".join(versions),
        f"{median(cpu):.0f} [{min(cpu):.0f} .. {max(cpu):.0f}], n={len(cpu)}",
        *("" if value is None else f"{value:.2f}" for value in shown),
        rss, f"{median_of(of, 'bytes'):.0f}", f"{median_of(of, 'voluntary'):.1f}",
        recorder.leaves_out,
    ]
    return f"| {' | '.join(cells)} |"


def goals(by_name: Dict[str, Records], records: Records) -> List[str]:
    """Each goal, and whether it is met."""
    costs = {
        name: ratio(records, of, "ringstat")
        for name, of in by_name.items() if of and name not in NOT_PEERS
    }
    known = {name: cost for name, cost in costs.items() if cost is not None}
    if not known:
        return []
    cheapest = min(known, key=lambda name: known[name])
    wanted = {cheapest: CHEAPEST_GOAL}
    wanted.update({name: goal for name, goal in GOALS.items() if name in known})
    return [
        f"- {name} costs {known[name]:.2f} times what ringstat costs; the goal is {goal}: "
        + ("met" if known[name] >= goal else "NOT met")
        for name, goal in wanted.items()
    ]
