"""Memory of a whole training, all processes: the peak of their PSS, which counts shared pages once.

`python benchmarks/memory.py` prints it for Pong with 2 processes and with 16. Linux only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil

SECONDS = 90.0


def family(parent: int) -> list[psutil.Process]:
    """`parent` and all processes below it; none if it has ended."""
    try:
        process = psutil.Process(parent)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pss_mb(process: psutil.Process) -> float:
    """Proportional set size in MB; 0 for a process that has just ended."""
    try:
        return float(process.memory_full_info().pss) / 1e6
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


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
