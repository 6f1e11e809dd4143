"""One recorder in a cgroup of its own, and what it used over a window in which it only samples.
Whatever happens, nothing of it stays: no process, no cgroup, no file."""

import http.client
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from recorders import EXPORTER_ADDRESS, Place, Process, Recorder

INTERVAL_S = 1.0
#: Start-up, not measured.
SETTLE_S = 3.0
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 10.0
PREFIX = "ringstat-peers-"
SHM = Path("/dev/shm")


class Failed(Exception):
    """A recorder that could not be measured; the others can."""


class Cgroup:
    """A cgroup v2; no controller is needed for `cpu.stat`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    @staticmethod
    def root() -> Path:
        """Where cgroup v2 is mounted; beside v1, that is not /sys/fs/cgroup itself."""
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            if after.split()[0] == "cgroup2":
                return Path(before.split()[4])
        raise SystemExit("peers: no cgroup2 in /proc/self/mountinfo; "
                         "mount -t cgroup2 none /sys/fs/cgroup/unified")

    def pids(self) -> List[int]:
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]

    def usage_us(self) -> int:
        for line in (self.path / "cpu.stat").read_text().splitlines():
            name, value = line.split()
            if name == "usage_usec":
                return int(value)
        raise Failed(f"{self.path}/cpu.stat has no usage_usec")

    def remove(self) -> None:
        """Asks the processes to end, then ends them, then removes the cgroup."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        if not wait_for(lambda: not self.pids(), STOP_DEADLINE_S):
            (self.path / "cgroup.kill").write_text("1")
            wait_for(lambda: not self.pids(), STOP_DEADLINE_S)
        # The last process may be gone from the list a moment before the cgroup is free.
        if not wait_for(lambda: removed(self.path), STOP_DEADLINE_S):
            raise SystemExit(f"peers: {self.path} could not be removed")


def removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return not path.exists()
    return True


def wait_for(condition: Any, deadline_s: float) -> bool:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def sweep(disk: Path) -> None:
    """Removes what a run left that was killed with SIGKILL: nothing else can leave anything."""
    for where in (Cgroup.root(), SHM, disk):
        for path in where.glob(PREFIX + "*"):
            pid = path.name[len(PREFIX):].split("-")[0]
            if not pid.isdigit() or Path(f"/proc/{pid}").exists():
                continue
            if (path / "cgroup.procs").exists():
                left = object.__new__(Cgroup)
                left.path = path
                left.remove()
            else:
                shutil.rmtree(path, ignore_errors=True)


class Scraper(threading.Thread):
    """Asks the exporter once an interval over one connection, as Prometheus does, from outside
    its cgroup."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.bytes, self.last = 0, b""
        self.failed: Optional[str] = None

    def run(self) -> None:
        connection = http.client.HTTPConnection(*EXPORTER_ADDRESS, timeout=5)
        due = time.monotonic()
        try:
            while not self.done.wait(max(0.0, due - time.monotonic())):
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                self.last = answer.read()
                self.bytes += len(self.last)
                if answer.status != 200:
                    self.failed = f"HTTP status {answer.status}"
                due += INTERVAL_S
        except (OSError, http.client.HTTPException) as error:
            self.failed = repr(error)
        finally:
            connection.close()


def status(pid: int, thread: bool = False) -> Iterator[Dict[str, str]]:
    """`status` of the process, or of each of its threads; none if it has ended."""
    paths = Path(f"/proc/{pid}/task").glob("*/status") if thread else [Path(f"/proc/{pid}/status")]
    try:
        for path in paths:
            parts = (line.partition(":") for line in path.read_text().splitlines())
            yield {name: value.strip() for name, _, value in parts}
    except (FileNotFoundError, ProcessLookupError):
        return


def kib(pids: List[int], key: str) -> int:
    return sum(int(state.get(key, "0 kB").split()[0]) for pid in pids for state in status(pid))


def switches(pids: List[int], kind: str) -> int:
    states = (state for pid in pids for state in status(pid, thread=True))
    return sum(int(state[kind]) for state in states)


def written_bytes(pids: List[int]) -> int:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                total += int(line.split()[1])
    return total


def file_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def machine_busy_us() -> float:
    """CPU time of all that ran on this machine, idle and waiting for disks left out."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    ticks = [int(field) for field in fields]
    busy = sum(ticks[:3]) + sum(ticks[5:8])
    return busy * 1e6 / os.sysconf("SC_CLK_TCK")


class Run:
    """A recorder that is running."""

    def __init__(self, recorder: Recorder, tools: Path, ringstat: Path, disk: Path,
                 keep: Optional[Path] = None) -> None:
        self.recorder, self.kept = recorder, keep
        self.children: List[subprocess.Popen] = []
        self.scraper: Optional[Scraper] = None
        name = f"{PREFIX}{os.getpid()}-{recorder.name}"
        self.cgroup = Cgroup(Cgroup.root() / name)
        self.place = Place(tools, disk / name, SHM / name, ringstat)

    def __enter__(self) -> "Run":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        # Made anew, for this user alone.
        self.place.out.mkdir(mode=0o700)
        self.place.shm.mkdir(mode=0o700)
        for process in self.recorder.start(self.place):
            self.spawn(process)
            if process.ready and not wait_for(Path(process.ready).exists, START_DEADLINE_S):
                raise Failed(f"{process.argv[0]} made no {process.ready}: {self.said()}")

    def spawn(self, process: Process) -> None:
        # The shell enters the cgroup and becomes the recorder; its time is before the window.
        procs = str(self.cgroup.path / "cgroup.procs")
        argv = ["/bin/sh", "-c", 'echo 0 >"$0" && exec "$@"', procs]
        with open(self.place.out / "stderr", "ab") as said:
            self.children.append(subprocess.Popen(
                argv + process.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=said, cwd=self.place.out, env={**os.environ, **process.env},
            ))

    def said(self) -> str:
        return (self.place.out / "stderr").read_text(errors="replace").strip()[-400:] or "(nothing)"

    def __exit__(self, *_: Any) -> None:
        if self.scraper:
            self.scraper.done.set()
            self.scraper.join()
        self.cgroup.remove()
        for child in self.children:
            child.wait()
        if self.kept:
            self.keep(self.kept / self.recorder.name)
        for path in (self.place.out, self.place.shm):
            shutil.rmtree(path, ignore_errors=True)

    def keep(self, where: Path) -> None:
        """Copies what was recorded, for a look at it."""
        shutil.copytree(self.place.out, where, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("*.socket"))
        if self.scraper:
            (where / "metrics").write_bytes(self.scraper.last)

    def between_samples(self) -> None:
        """Sleeps until half an interval after a sample, so that a window of n intervals holds
        n samples. A sample is when the CPU time grows most."""
        usage, growth = self.cgroup.usage_us(), []
        end = time.monotonic() + 1.5 * INTERVAL_S
        while (now := time.monotonic()) < end:
            time.sleep(0.02)
            before, usage = usage, self.cgroup.usage_us()
            growth.append((usage - before, now))
        sampled = max(growth)[1]
        while (due := sampled + INTERVAL_S / 2) < time.monotonic():
            sampled += INTERVAL_S
        time.sleep(due - time.monotonic())

    def output_bytes(self) -> int:
        if self.recorder.output == "written":
            return written_bytes(self.cgroup.pids())
        if self.recorder.output == "scraped" and self.scraper:
            return self.scraper.bytes
        return file_bytes(self.place.out)

    def figures(self) -> Dict[str, float]:
        pids = self.cgroup.pids()
        if not pids:
            raise Failed(f"{self.recorder.name} has ended: {self.said()}")
        return {
            "cpu_us": self.cgroup.usage_us(),
            "voluntary": switches(pids, "voluntary_ctxt_switches"),
            "nonvoluntary": switches(pids, "nonvoluntary_ctxt_switches"),
            "bytes": self.output_bytes(),
            "busy_us": machine_busy_us(),
            "at_s": time.monotonic(),
        }

    def window(self, seconds: int) -> Dict[str, Any]:
        """What was used over `seconds`, per sample."""
        time.sleep(SETTLE_S)
        if self.recorder.output == "scraped":
            self.scraper = Scraper()
            self.scraper.start()
            time.sleep(SETTLE_S)
        seconds = -(-seconds // self.recorder.every_s) * self.recorder.every_s
        self.between_samples()
        before = self.figures()
        time.sleep(seconds)
        after = self.figures()
        pids = self.cgroup.pids()
        used = {name: after[name] - before[name] for name in before}
        samples = round(seconds / INTERVAL_S)
        if self.scraper and self.scraper.failed:
            raise Failed(f"{self.recorder.name} does not answer: {self.scraper.failed}")
        if used["voluntary"] < samples - 1:
            raise Failed(f"{self.recorder.name} woke up only {used['voluntary']:.0f} times in "
                         f"{seconds} s: {self.said()}")
        if self.recorder.output in ("files", "scraped") and not used["bytes"]:
            raise Failed(f"{self.recorder.name} wrote nothing in {seconds} s: {self.said()}")
        return {
            "seconds": seconds,
            "samples": samples,
            "cpu_us": used["cpu_us"] / samples,
            "voluntary": used["voluntary"] / samples,
            "nonvoluntary": used["nonvoluntary"] / samples,
            "bytes": used["bytes"] / samples,
            "processes": len(pids),
            "peak_rss_kib": kib(pids, "VmHWM"),
            "shm_kib": kib(pids, "RssShmem"),
            # What else ran, of all CPUs: where it is much, the figure is not worth much.
            "others": max(0.0, used["busy_us"] - used["cpu_us"])
            / (used["at_s"] * 1e6 * (os.cpu_count() or 1)),
        }
