"""Trainings that are hurt on purpose, and what becomes of them. Linux only.

`python benchmarks/chaos.py workers` kills a random worker every 3 s and stops one (SIGSTOP) every 30 s; the run has to
end by itself at its --total-steps, exactly, and leave no process behind. `python benchmarks/chaos.py everything` kills
the whole process group at random moments, again and again; each time `--resume auto` has to go on from a state that is
at most one save interval old.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import tyro

SAVE_INTERVAL = 5_000


@dataclass(frozen=True)
class Settings:
    what: Annotated[str, tyro.conf.Positional]
    """workers or everything."""
    env: str = "CartPole-v1"
    """Gymnasium id."""
    total_steps: int = 1_000_000
    """Env steps of the run whose workers are hurt."""
    kills: int = 50
    """How often everything is killed."""
    processes: int = 2
    """Worker processes."""


def start(settings: Settings, run_dir: Path, *flags: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "asyncq", "train", "--env", settings.env, "--run-dir", run_dir, "--quiet"]
    command += ["--processes", settings.processes, "--report-interval", 1, *flags]
    return subprocess.Popen(list(map(str, command)), start_new_session=True, stderr=subprocess.DEVNULL)


def group(leader: int) -> list[psutil.Process]:
    """Living processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def workers(leader: int) -> list[psutil.Process]:
    """The group's processes that see no GPU: the workers."""
    found = []
    for process in group(leader):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("CUDA_VISIBLE_DEVICES") == "" and "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def hurt_workers(settings: Settings, run_dir: Path) -> bool:
    """Whether the run ended as it should have."""
    flags = ["--total-steps", settings.total_steps, "--worker-timeout", 10, "--max-restarts", 100_000]
    training = start(settings, run_dir, *flags)
    faults: Counter[str] = Counter()
    begin, turn = time.monotonic(), 0
    while training.poll() is None:
        time.sleep(3)
        turn += 1
        if victims := workers(training.pid):
            number = signal.SIGSTOP if turn % 10 == 0 else signal.SIGKILL
            random.choice(victims).send_signal(number)
            faults[number.name] += 1
    left = group(training.pid)
    recoveries = Counter(
        "hung" if "did nothing" in line else "died"
        for line in (run_dir / "log.txt").read_text().splitlines()
        if re.search(r"it is replaced \(\d+/", line)
    )
    summary = json.loads((run_dir / "summary.json").read_text())
    print(f"{(time.monotonic() - begin) / 60:.1f} min, exit status {training.returncode}, {summary['outcome']}")
    print(f"faults: {dict(faults)}; recoveries: {dict(recoveries)}; processes left: {left}")
    print(f"{summary['env_steps']:,} of {settings.total_steps:,} env steps, return {summary['episodic_return']}")
    return training.returncode == 0 and not left and summary["env_steps"] == settings.total_steps


def kill_everything(settings: Settings, run_dir: Path) -> bool:
    """Whether each time no more was lost than may be."""
    lost, unreadable = [0], 0
    for kill in range(settings.kills):
        before = newest_state(run_dir)
        training = start(settings, run_dir, "--resume", "auto", "--save-interval", SAVE_INTERVAL)
        while newest_state(run_dir) == before and training.poll() is None:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 2))
        os.killpg(training.pid, signal.SIGKILL)
        training.wait()
        reports = (run_dir / "metrics.jsonl").read_text().splitlines()
        reached = json.loads(reports[-1])["env_steps"] if reports else newest_state(run_dir)
        lost.append(reached - newest_state(run_dir))
        unreadable = (run_dir / "log.txt").read_text().count("trying the state before it")
        print(
            f"kill {kill + 1}: {reached:,} reported, state of {newest_state(run_dir):,}, {unreadable} unreadable so far"
        )
    print(f"at most {max(lost):,} reported env steps lost; the save interval is {SAVE_INTERVAL:,}")
    return max(lost) <= SAVE_INTERVAL and not unreadable


def newest_state(run_dir: Path) -> int:
    return max((int(path.stem) for path in (run_dir / "state").glob("[0-9]*.h5")), default=0)


if __name__ == "__main__":
    given = tyro.cli(Settings)
    with tempfile.TemporaryDirectory() as folder:
        hurt = {"workers": hurt_workers, "everything": kill_everything}[given.what]
        sys.exit(not hurt(given, Path(folder) / "run"))
