"""Memory and descriptors of a long training: neither may grow.

`python benchmarks/soak.py --minutes 30` trains Pong, looks at every process each 10 s, and prints for each the slope of
its PSS (shared pages count in parts) and its open descriptors after a warm-up. What follows `--` are flags of the
training: `python benchmarks/soak.py --run-dir runs/long -- --env PongNoFrameskip-v4`. Ends with status 1 if a process
grew by more than 1 MB a minute, or kept descriptors. Linux only.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tyro

from memory import family, pss_mb

EVERY_SECONDS = 10
MOST_GROWTH = 1.0
"""MB a minute."""


@dataclass(frozen=True)
class Settings:
    minutes: float = 30.0
    """How long to train, if the run does not end before."""
    warm_up: float = 5.0
    """Minutes at the start that do not count."""
    run_dir: str | None = None
    """Directory of the run (default: a temporary one)."""


def watch(training: subprocess.Popen[bytes], settings: Settings) -> dict[int, list[tuple[float, float, int]]]:
    """Of every process: minutes since the start, PSS in MB, open descriptors."""
    seen: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    begin = time.monotonic()
    while training.poll() is None and (minutes := (time.monotonic() - begin) / 60) < settings.minutes:
        for process in family(training.pid):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                descriptors = process.num_fds()
                if minutes >= settings.warm_up and (memory := pss_mb(process)):
                    seen[process.pid].append((minutes, memory, descriptors))
        time.sleep(EVERY_SECONDS)
    return seen


def main(settings: Settings, flags: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = settings.run_dir or str(Path(folder) / "run")
        training = subprocess.Popen([sys.executable, "-m", "asyncq", "train", "--run-dir", run_dir, *flags])
        seen = watch(training, settings)
        training.send_signal(signal.SIGINT)
        status = training.wait()
    if status not in (0, 130) or not seen:
        print(f"the training ended with status {status}; processes watched after the warm-up: {len(seen)}")
        return 1
    worst = 0
    for process, rows in seen.items():
        minutes, memory, descriptors = np.array(rows).T
        slope = np.polyfit(minutes, memory, 1)[0] if len(rows) > 2 else 0.0  # it began just now
        kept = descriptors[-len(rows) // 4 :].min() - descriptors[: len(rows) // 4 + 1].max()
        print(
            f"process {process}: {minutes[-1] - minutes[0]:.1f} min, PSS {memory[0]:.0f} MB, then {memory[-1]:.0f} MB, "
            f"{slope:+.2f} MB a minute; descriptors {descriptors.min():.0f} to {descriptors.max():.0f}"
        )
        worst = max(worst, int(slope > MOST_GROWTH or kept > 0))
    return worst


if __name__ == "__main__":
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    sys.exit(main(tyro.cli(Settings, args=given[:end]), given[end + 1 :]))
