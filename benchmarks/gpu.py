"""On a machine with a GPU: the learner alone, then whole trainings with 16 processes, for four networks.

`python benchmarks/gpu.py` prints env steps a second, the GPU's busy share, the lag, and who waits for whom, on Pong.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import threading
from dataclasses import dataclass

import torch
import tyro

from asyncq.bench import mean_sps, short_training, time_parts
from asyncq.config import TrainConfig
from asyncq.machine import usable_cores
from asyncq.monitoring.diagnosis import bottleneck
from asyncq.training import settle


@dataclass(frozen=True)
class Settings:
    processes: int = 16
    """Worker processes."""
    seconds: float = 30.0
    """How long each training is measured, after its warm-up."""
    networks: tuple[str, ...] = ("small", "a3c", "nature", "impala")
    """Each takes about three minutes."""


class BusyShare:
    """Asks nvidia-smi once a second, while it is entered, how busy the GPU is; not where nvidia-smi cannot say."""

    def __enter__(self) -> BusyShare:
        self._asked: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def _ask(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError, ValueError):
            while not self._done.wait(1.0):
                self._asked.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def percent(self, seconds: float) -> str:
        """The median over the last `seconds`."""
        return f"{statistics.median(self._asked[-round(seconds) :]):.0f}%" if self._asked else "unknown"


def main(settings: Settings) -> None:
    print(f"{torch.cuda.get_device_name()}, {usable_cores()} cores, {settings.processes} processes, A3C\n")
    print("| network | precision | one core plays | learner alone | training | GPU busy | lag, mean | limit |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for network in settings.networks:
        for precision in ("float32", "bf16"):
            config, spec = settle(TrainConfig(network=network, precision=precision, processes=settings.processes))
            parts = time_parts(config, spec, "cuda", 5.0)
            plays = 1 / (1 / parts["env_sps"] + 1 / parts["inference_sps"])
            with BusyShare() as busy:
                reports = short_training(config, settings.seconds)
            waits = {side: statistics.median(r["waits"][side] for r in reports) for side in ("learner", "workers")}
            cells = [network, precision, f"{plays:,.0f} SPS", f"{parts['learner_sps']:,.0f} SPS"]
            cells += [f"{mean_sps(reports):,.0f} SPS", busy.percent(settings.seconds)]
            cells += [f"{statistics.mean(r['lag']['mean'] for r in reports if r['lag']):.1f}"]
            cells += [bottleneck(waits, settings.processes, usable_cores())]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("this needs a GPU that torch can use")
    main(tyro.cli(Settings))
