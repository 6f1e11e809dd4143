"""The recorders: how each is started so that it records at 1 s the nearest it can to the five
files, which Debian packages it needs, how it says its version, and what it leaves out. A new
recorder is one function and one entry here."""

import hashlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, List, Tuple

HERE = Path(__file__).resolve().parent
#: Debian's own, so that no other Python on the PATH is measured.
PYTHON = "/usr/bin/python3"
DOOL_VERSION = "1.3.8"
EXPORTER_ADDRESS = ("127.0.0.1", 19117)
PCP_LINUX = "/var/lib/pcp/pmdas/linux/pmda_linux.so,linux_init"
PMCD = "/usr/lib/pcp/bin/pmcd"
SADC = "/usr/lib/sysstat/sadc"

# What each leaves out was seen in its output (`run --keep DIR`), and which files it reads with
# strace, on Linux 6.18: 192 vmstat counters, 54 meminfo lines, ten disks of which two had done
# I/O, one of them a loop device, and four interfaces of which two had carried packets.
NMON = ("170 of 192 vmstat counters, 44 of 54 meminfo lines, load averages, disks that have done "
        "nothing; rates, not counters; reads stat too")
PCP = "61 of 192 vmstat counters, 13 of 54 meminfo lines, loop and zram devices"
SADC_LEFT = ("182 of 192 vmstat counters, 33 of 54 meminfo lines, disks that have done nothing, "
             "reads apart from writes in requests and merges")


@dataclass(frozen=True)
class Place:
    """Where a recorder finds its tools and may put its files."""

    #: What outlives a run: the compiled floor, dool.
    tools: Path
    #: This recorder's output, on a disk.
    out: Path
    #: This recorder's directory in shared memory.
    shm: Path
    ringstat: Path


@dataclass(frozen=True)
class Process:
    argv: List[str]
    env: Dict[str, str] = field(default_factory=dict)
    #: The next process starts when this path is there.
    ready: str = ""


@dataclass(frozen=True)
class Recorder:
    name: str
    title: str
    start: Callable[[Place], List[Process]]
    version: Callable[[Place], str]
    #: What must be there to start it; a path, or a name on the PATH.
    needs: Callable[[Place], List[str]]
    leaves_out: str
    packages: Tuple[str, ...] = ()
    #: `files` that grow, `written` (by write(2), /proc/PID/io), `scraped`, or `none` while it runs.
    output: str = "files"
    #: The window is a multiple of this: how often it does what it does not do at every sample.
    every_s: int = 1


def debian(package: str) -> Callable[[Place], str]:
    def version(_: Place) -> str:
        query = ["dpkg-query", "-W", "-f", "${Version}", package]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        return answer.stdout.strip() or "not from Debian"

    return version


def floor(place: Place) -> List[Process]:
    return [Process([str(place.tools / "floor")])]


def compiler(_: Place) -> str:
    answer = subprocess.run(["cc", "-dumpfullversion"], capture_output=True, text=True, check=False)
    return f"cc {answer.stdout.strip()} -O2"


def ringstat(*options: str) -> Callable[[Place], List[Process]]:
    def start(place: Place) -> List[Process]:
        argv = [str(place.ringstat), "record", "--interval", "1", "--quiet"]
        argv += ["--ring-dir", str(place.shm), "--results-dir", str(place.out), *options]
        if "--no-mirror" not in options:
            argv += ["--mirror-dir", str(place.out / "mirror")]
        return [Process(argv)]

    return start


def ringstat_version(place: Place) -> str:
    argv = [str(place.ringstat), "--version"]
    version = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[-1]
    # Two builds of one version are two recorders.
    return f"{version}, sha256 {hashlib.sha256(place.ringstat.read_bytes()).hexdigest()[:8]}"


def sadc(activities: str) -> Callable[[Place], List[Process]]:
    return lambda place: [Process([SADC, "-S", activities, "1", str(place.out / "sa")])]


def nmon(*options: str) -> Callable[[Place], List[Process]]:
    def start(place: Place) -> List[Process]:
        # Goes into the background by itself.
        argv = ["nmon", "-F", str(place.out / "nmon"), "-s", "1", "-c", "100000", *options]
        return [Process(argv)]

    return start


def collectl(place: Place) -> List[Process]:
    # -F0: written at every sample, as the others do; by default it is held back for long.
    return [Process(["collectl", "-scdmn", "-i1", "-F0", "-f", str(place.out / "collectl")])]


def atop(place: Place) -> List[Process]:
    # Without process accounting, which it would switch on for the whole machine.
    return [Process(["atop", "-w", str(place.out / "atop"), "1"], {"ATOPACCT": ""})]


def pmns(place: Place) -> str:
    """The names of the two agents' metrics; the package builds its own only when pmcd is started
    by its init script."""
    names = str(place.out / "pmns")
    parts = ["/var/lib/pcp/pmns/root_linux", "/var/lib/pcp/pmns/root_pmcd"]
    argv = ["/usr/lib/pcp/bin/pmnsmerge", "-f", *parts, names]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return names


def pmlogger(place: Place, *source: str) -> List[str]:
    argv = ["pmlogger", "-U", "root", *source, "-n", pmns(place), "-c", str(HERE / "pmlogger.conf")]
    return [*argv, "-l", str(place.out / "log"), "-t", "1", "-L", str(place.out / "archive")]


def pmlogger_local(place: Place) -> List[Process]:
    local = ["-o", "-K", "clear", "-K", f"add,60,{PCP_LINUX}"]
    return [Process(pmlogger(place, *local))]


def pmlogger_pmcd(place: Place) -> List[Process]:
    socket = str(place.out / "pmcd.socket")
    env = {"PCP_RUN_DIR": str(place.out), "PMCD_SOCKET": socket}
    argv = [PMCD, "-f", "-A", "-U", "root", "-i", "127.0.0.1", "-p", "44399", "-s", socket]
    argv += ["-n", pmns(place), "-c", str(HERE / "pmcd.conf"), "-l", str(place.out / "pmcd.log")]
    logger = pmlogger(place, "-h", f"unix:/{socket}")
    return [Process(argv, env, ready=socket), Process(logger, env)]


def exporter(place: Place) -> List[Process]:
    argv = ["prometheus-node-exporter", "--collector.disable-defaults"]
    names = ("diskstats", "vmstat", "meminfo", "loadavg", "netdev")
    argv += [f"--collector.{name}" for name in names]
    argv += ["--collector.diskstats.device-exclude=^$", "--collector.netdev.device-exclude=^$"]
    argv += ["--collector.vmstat.fields=.*", "--web.disable-exporter-metrics"]
    argv += ["--web.listen-address=%s:%d" % EXPORTER_ADDRESS, "--log.level=error"]
    return [Process(argv)]


def dool(place: Place) -> List[Process]:
    disks = [line.split()[2] for line in Path("/proc/diskstats").read_text().splitlines()]
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    nets = [line.split(":")[0].strip() for line in lines]
    argv = [PYTHON, "-m", "dool", "--load", "--disk", "--io", "-D", ",".join(disks)]
    argv += ["--mem", "--mem-adv", "--swap", "--page", "--vm", "--vm-adv", "--net"]
    argv += ["-N", ",".join(nets), "--bytes", "--noupdate", "--output", str(place.out / "csv"), "1"]
    return [Process(argv, {"PYTHONPATH": str(place.tools / "dool")})]


def python(place: Place) -> List[Process]:
    return [Process([PYTHON, str(HERE / "collector.py"), "1", str(place.out / "json")])]


def python_version(_: Place) -> str:
    answer = subprocess.run([PYTHON, "-V"], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


ALL = [
    Recorder(
        "floor", "floor: the five files read, thrown away", floor, compiler,
        lambda place: [str(place.tools / "floor")], "everything", output="none",
    ),
    Recorder(
        "ringstat", "**ringstat**", ringstat(), ringstat_version,
        lambda place: [str(place.ringstat)], "nothing", output="written",
        every_s=30,
    ),
    Recorder(
        "ringstat-no-mirror", "ringstat --no-mirror", ringstat("--no-mirror"), ringstat_version,
        lambda place: [str(place.ringstat)], "nothing; no copy on a disk",
        output="written",
    ),
    Recorder(
        "nmon", "nmon -J (no file systems)", nmon("-J"), debian("nmon"), lambda _: ["nmon"],
        NMON, ("nmon",),
    ),
    Recorder(
        "nmon-default", "nmon, as it comes", nmon(), debian("nmon"), lambda _: ["nmon"],
        NMON, ("nmon",),
    ),
    Recorder(
        "pcp-local", "PCP pmlogger, linux agent in process", pmlogger_local, debian("pcp"),
        lambda _: ["pmlogger", PMCD], PCP, ("pcp",),
    ),
    Recorder(
        "pcp-pmcd", "PCP pmcd, linux agent, pmlogger", pmlogger_pmcd, debian("pcp"),
        lambda _: ["pmlogger", PMCD], PCP, ("pcp",),
    ),
    Recorder(
        "sadc-disk", "sysstat sadc -S DISK", sadc("DISK"), debian("sysstat"), lambda _: [SADC],
        SADC_LEFT + "; records CPUs, pressure, sockets, NFS too", ("sysstat",),
    ),
    Recorder(
        "sadc-xall", "sysstat sadc -S XALL", sadc("XALL"), debian("sysstat"), lambda _: [SADC],
        SADC_LEFT + "; records interrupts, file systems, SNMP and more too", ("sysstat",),
    ),
    Recorder(
        "python", "Python collector of the reference's kind", python, python_version,
        lambda _: [PYTHON], "nothing, but all is lost when killed; memory grows with each sample",
        ("python3",), output="none",
    ),
    Recorder(
        "collectl", "collectl -scdmn -F0", collectl, debian("collectl"), lambda _: ["collectl"],
        "148 of 192 vmstat counters, loop and zram devices; keeps the kernel's lines, compressed; "
        "reads stat too", ("collectl",),
    ),
    Recorder(
        "dool", "dool", dool, lambda _: f"{DOOL_VERSION} (PyPI)",
        lambda place: [str(place.tools / "dool" / "dool" / "__main__.py"), PYTHON],
        "181 of 192 vmstat counters, 46 of 54 meminfo lines, disks and interfaces that have done "
        "nothing, all of a disk but reads, writes and their bytes, all of an interface but bytes; "
        "rates, not counters", ("python3",),
    ),
    Recorder(
        "node-exporter", "prometheus-node-exporter, all fields", exporter,
        debian("prometheus-node-exporter"), lambda _: ["prometheus-node-exporter"],
        "the two process counts of loadavg; keeps nothing itself; its scraper is not counted",
        ("prometheus-node-exporter",), output="scraped",
    ),
    Recorder(
        "atop", "atop -w", atop, debian("atop"), lambda _: ["atop"],
        "most vmstat counters, loop and zram devices; records every process too (150 here)",
        ("atop",),
    ),
]
