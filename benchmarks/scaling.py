"""How throughput grows with worker processes where cores are not the limit: asyncq/Latency-v0, whose steps only wait.

`python benchmarks/scaling.py` prints the table beside the speed-ups of Mnih et al. 2016, table 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from asyncq.bench import mean_sps, short_training
from asyncq.config import TrainConfig

PAPER = {1: 1.0, 2: 2.1, 4: 3.7, 8: 6.9, 16: 12.5}
"""A3C's speed-ups by threads: time to a reference score, seven Atari games."""


@dataclass(frozen=True)
class Settings:
    step_seconds: float = 0.005
    """How long an env step lasts."""
    seconds: float = 30.0
    """How long each is measured, after its warm-up."""


def main(settings: Settings) -> None:
    print(f"env steps of {1000 * settings.step_seconds:g} ms, 8 environments a process, A3C\n")
    print("| processes | SPS | speed-up | the paper's A3C |\n| --- | --- | --- | --- |", flush=True)
    alone = 0.0
    for processes, published in PAPER.items():
        kwargs = (f"seconds={settings.step_seconds}",)
        config = TrainConfig(env="asyncq/Latency-v0", env_kwargs=kwargs, processes=processes)
        sps = mean_sps(short_training(config, settings.seconds))
        alone = alone or sps
        print(f"| {processes} | {sps:,.0f} | {sps / alone:.1f} | {published} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
