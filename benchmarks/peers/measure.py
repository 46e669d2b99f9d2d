"""Other trainers and asyncq in turn on the same cores, on Pong with frame skip 4, and their speeds side by side.

`python benchmarks/peers/measure.py` installs Stable-Baselines3, envpool and Sample Factory from the package index,
each in an environment of its own under --folder. Run it with the Python of asyncq; let nothing run beside.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import ale_py
import tyro

from asyncq.bench import mean_sps, short_training
from asyncq.config import TrainConfig

HERE = Path(__file__).resolve().parent
PACKAGES = {
    "sb3": ["stable-baselines3", "gymnasium[atari]", "opencv-python-headless"],
    "envpool": ["torch", "envpool", "gymnasium", "numpy"],
    "sample-factory": ["sample-factory[atari]"],
}


@dataclass(frozen=True)
class Settings:
    folder: Path = Path(".peers")
    """Where the peers are installed."""
    seconds: float = 60.0
    """How long each is measured, after its warm-up; Sample Factory from its first frames on."""
    rounds: int = 3
    """Turns; the medians are compared."""


def install(folder: Path, name: str) -> Path:
    """The Python of peer `name`, installed if it is not yet."""
    python = folder / name / "bin" / "python"
    if not (folder / name / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True)
        if name == "sample-factory":  # its ale-py is older than the games' way into the package
            roms = Path(ale_py.__file__).parent / "roms"
            subprocess.run([python.parent / "ale-import-roms", roms], check=True, stdout=subprocess.DEVNULL)
        (folder / name / "installed").touch()
    return python


def ours(seconds: float) -> float:
    """SPS of asyncq's A3C with its defaults."""
    return mean_sps(short_training(TrainConfig(env="PongNoFrameskip-v4"), seconds))


def script(python: Path, name: str, *arguments: object) -> float:
    """SPS that a script of this folder prints."""
    command = [str(python.absolute()), str(HERE / name), *map(str, arguments)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"^SPS ([\d.]+)$", said, re.MULTILINE)
    assert found, said
    return float(found[1])


def sample_factory(python: Path, seconds: float) -> float:
    """SPS of APPO with 2 workers of 8 environments, from the frames in its log; 4 frames are an env step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python.absolute()), "-m", "sf_examples.atari.train_atari", "--algo=APPO", "--env=atari_pong"]
        command += ["--device=cpu", "--num_workers=2", "--num_envs_per_worker=8", "--async_rl=True"]
        command += ["--serial_mode=False", "--num_batches_per_epoch=8", f"--train_dir={folder}", "--experiment=pong"]
        log = Path(folder) / "log"
        with (
            open(log, "w") as file,
            subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True) as process,
        ):
            marks: list[tuple[float, int]] = []
            while not marks or marks[-1][0] - marks[0][0] < seconds:
                assert process.poll() is None, log.read_text()
                time.sleep(1)
                lines = re.findall(r"\[([-\d]+ [\d:,]+)\].*Total num frames: ([1-9]\d*)\.", log.read_text())
                marks = [(datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f").timestamp(), int(n)) for when, n in lines]
            os.killpg(process.pid, signal.SIGKILL)  # its workers outlive it otherwise
        return (marks[-1][1] - marks[0][1]) / 4 / (marks[-1][0] - marks[0][0])


def main(settings: Settings) -> None:
    seconds = settings.seconds
    pythons = {name: install(settings.folder, name) for name in PACKAGES}
    programs: dict[str, Callable[[], float]] = {
        "asyncq A3C": lambda: ours(seconds),
        "SB3 A2C, 16 envs": lambda: script(pythons["sb3"], "sb3.py", "a2c", seconds),
        "SB3 PPO, 8 envs, 4 passes": lambda: script(pythons["sb3"], "sb3.py", "ppo", seconds),
        "CleanRL's PPO, envpool, 8 envs, 4 passes": lambda: script(pythons["envpool"], "envpool_ppo.py", 8, 4, seconds),
        "the same tuned: 16 envs, 1 pass": lambda: script(pythons["envpool"], "envpool_ppo.py", 16, 1, seconds),
        "Sample Factory APPO, 2 workers x 8 envs": lambda: sample_factory(pythons["sample-factory"], seconds),
    }
    speeds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(settings.rounds):
        for name, measure in programs.items():
            speeds[name].append(measure())
            print(f"{turn + 1}/{settings.rounds} {name:42} {speeds[name][-1]:7.0f} SPS", flush=True)
    own = next(iter(speeds.values()))
    print("\nRatios are the medians of the rounds'.\n")
    print("| program | SPS, median | asyncq is faster by |\n| --- | --- | --- |")
    for name, measured in speeds.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(own, measured, strict=True))
        print(f"| {name} | {statistics.median(measured):,.0f} | {ratio:.1f}x |")


if __name__ == "__main__":
    main(tyro.cli(Settings))
