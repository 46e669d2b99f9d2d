"""Memory of a whole training, all processes: the peak of their PSS, which counts shared pages once.

`python benchmarks/memory.py` prints it for Pong with 2 processes and with 16. Linux only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 90.0


def family(parent: int) -> list[int]:
    """`parent` and all processes below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
        except OSError:
            continue
        children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(folder.name))
    found = [parent]
    for process in found:
        found += children.get(process, [])
    return found


def pss_mb(process: int) -> float:
    """Proportional set size in MB; 0 for a process that has just ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1000 if found else 0.0


def peak(processes: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "asyncq", "train", "--env", "ALE/Pong-v5", "--quiet"]
        command += ["--processes", str(processes), "--run-dir", os.path.join(folder, "run")]
        training = subprocess.Popen(command)
        highest, end = 0.0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            highest = max(highest, sum(map(pss_mb, family(training.pid))))
            time.sleep(1)
        training.send_signal(signal.SIGINT)
        training.wait()
    return highest


if __name__ == "__main__":
    for processes in (2, 16):
        print(f"--processes {processes}: at most {peak(processes):,.0f} MB", flush=True)
