"""What the recorders need, from Debian's packages; dool from PyPI; the floor, compiled here."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List

from recorders import DOOL_VERSION, HERE, Place, Recorder

POLICY = Path("/usr/sbin/policy-rc.d")
DPKG_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing(recorder: Recorder, place: Place) -> List[str]:
    needs = recorder.needs(place)
    return [need for need in needs if not shutil.which(need) and not Path(need).is_file()]


def compile_floor(tools: Path) -> None:
    tools.mkdir(parents=True, exist_ok=True)
    if shutil.which("cc"):
        subprocess.run(["cc", "-O2", "-o", str(tools / "floor"), str(HERE / "floor.c")], check=True)


def install(recorders: List[Recorder], place: Place) -> None:
    """Installs what is missing, and starts no daemon by it. What cannot be had is said later,
    when its recorder is skipped."""
    lacking = [recorder for recorder in recorders if missing(recorder, place)]
    if any(recorder.name == "dool" for recorder in lacking):
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
        argv += ["--target", str(place.tools / "dool"), f"dool=={DOOL_VERSION}"]
        subprocess.run(argv, check=False)
    packages = sorted({package for recorder in lacking for package in recorder.packages})
    if not shutil.which("cc"):
        packages += ["gcc", "libc6-dev"]
    if packages:
        apt(packages)
    compile_floor(place.tools)


def apt(packages: List[str]) -> None:
    own_policy = not POLICY.exists()
    with tempfile.TemporaryDirectory() as path:
        if own_policy:
            POLICY.write_text("#!/bin/sh\nexit 101\n")
            POLICY.chmod(0o755)
        try:
            options: List[str] = []
            if not Path("/run/systemd/system").exists():
                # PCP's package calls systemctl to finish, and fails where systemd does not run.
                systemctl = Path(path) / "systemctl"
                systemctl.write_text("#!/bin/sh\nexit 0\n")
                systemctl.chmod(0o755)
                options = ["-o", f"DPkg::Path={path}:{DPKG_PATH}"]
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            argv = ["apt-get", *options, "install", "-y", "-qq", "--no-install-recommends"]
            for package in packages:
                # One by one: what cannot be had must not keep the others away.
                subprocess.run([*argv, package], env=env, check=False, stdout=subprocess.DEVNULL)
        finally:
            if own_policy:
                POLICY.unlink()
