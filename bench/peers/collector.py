"""A collector in Python, of the kind that MLPerf Storage users have: a thread that wakes up every
interval, opens and reads the five files of /proc, parses them into dicts, keeps every sample in
memory, and writes one JSON file at the end.

collector.py INTERVAL_SECONDS OUTPUT, until SIGTERM or SIGINT.
"""

import json
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional

DISK = [
    "reads_completed", "reads_merged", "sectors_read", "time_reading_ms",
    "writes_completed", "writes_merged", "sectors_written", "time_writing_ms",
    "ios_in_progress", "time_doing_ios_ms", "weighted_time_doing_ios_ms",
    "discards_completed", "discards_merged", "sectors_discarded", "time_discarding_ms",
    "flush_requests_completed", "time_flushing_ms",
]
NETDEV = [
    "rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "rx_fifo", "rx_frame", "rx_compressed",
    "rx_multicast", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped", "tx_fifo",
    "tx_collisions", "tx_carrier", "tx_compressed",
]


def diskstats() -> List[Dict[str, Any]]:
    disks = []
    with open("/proc/diskstats") as file:
        for line in file:
            parts = line.split()
            # 14, 18 or 20 columns, by the kernel's age.
            if len(parts) >= 14:
                values = (int(part) for part in parts[3:])
                disks.append({"device_name": parts[2], **dict(zip(DISK, values))})
    return disks


def vmstat() -> Dict[str, int]:
    counters = {}
    with open("/proc/vmstat") as file:
        for line in file:
            parts = line.split()
            if len(parts) == 2:
                counters[parts[0]] = int(parts[1])
    return counters


def meminfo() -> Dict[str, int]:
    sizes = {}
    with open("/proc/meminfo") as file:
        for line in file:
            name, _, rest = line.partition(":")
            parts = rest.split()
            if parts:
                sizes[name.strip()] = int(parts[0])
    return sizes


def loadavg() -> Dict[str, Any]:
    with open("/proc/loadavg") as file:
        parts = file.read().split()
    running, total = parts[3].split("/")
    return {
        "load_1min": float(parts[0]),
        "load_5min": float(parts[1]),
        "load_15min": float(parts[2]),
        "running_processes": int(running),
        "total_processes": int(total),
    }


def netdev() -> List[Dict[str, Any]]:
    interfaces = []
    with open("/proc/net/dev") as file:
        for line in file.readlines()[2:]:
            name, _, rest = line.partition(":")
            values = (int(part) for part in rest.split())
            interfaces.append({"interface_name": name.strip(), **dict(zip(NETDEV, values))})
    return interfaces


SOURCES = {
    "diskstats": diskstats, "vmstat": vmstat, "meminfo": meminfo, "loadavg": loadavg,
    "netdev": netdev,
}


@dataclass
class Sample:
    timestamp: str
    hostname: str
    diskstats: Optional[List[Dict[str, Any]]] = None
    vmstat: Optional[Dict[str, int]] = None
    meminfo: Optional[Dict[str, int]] = None
    loadavg: Optional[Dict[str, Any]] = None
    netdev: Optional[List[Dict[str, Any]]] = None
    errors: Dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value}


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Collector:
    def __init__(self, interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self.samples: List[Sample] = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, name="collector", daemon=True)

    def run(self) -> None:
        while not self.stopped.is_set():
            sample = Sample(timestamp=now(), hostname=socket.gethostname())
            for name, collect in SOURCES.items():
                try:
                    setattr(sample, name, collect())
                except (OSError, ValueError, IndexError) as error:
                    sample.errors[name] = str(error)
            with self.lock:
                self.samples.append(sample)
            self.stopped.wait(self.interval_seconds)


def main() -> None:
    interval_seconds, output = float(sys.argv[1]), sys.argv[2]
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    collector = Collector(interval_seconds)
    start = now()
    collector.thread.start()
    signal.sigwait(stopping)
    collector.stopped.set()
    collector.thread.join()
    host = socket.gethostname()
    data = {
        "collection_interval_seconds": interval_seconds,
        "start_time": start,
        "end_time": now(),
        "num_samples": len(collector.samples),
        "samples_by_host": {host: [sample.to_dict() for sample in collector.samples]},
        "collection_method": "local",
        "hosts_requested": [host],
        "hosts_collected": [host],
    }
    with open(output, "w") as file:
        json.dump(data, file, indent=2)


if __name__ == "__main__":
    main()
