"""How fast this machine trains, how fast it could, and what keeps it from that.

Every env step has to be emulated, inferred and learned once. Each of the three is timed alone, on one core, with the
very worker and learner of a training; C cores that did nothing else would train at C / (sum of the three times).
"""

from __future__ import annotations

import itertools
import json
import math
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from asyncq.config import TrainConfig
from asyncq.devices import choose_device
from asyncq.envs import EnvironmentSpec
from asyncq.errors import UsageError
from asyncq.experience import Lane
from asyncq.flags import Assignments, AutoStr, Imports, alias
from asyncq.learner import Learner
from asyncq.machine import usable_cores
from asyncq.methods import network_for
from asyncq.monitoring.diagnosis import dearest_part
from asyncq.processes import LEARNER_ENVIRONMENT, PLAYER_ENVIRONMENT, start_child
from asyncq.runs import Run
from asyncq.training import Shared, settle, tasks
from asyncq.worker import Worker

WARM_UP_SECONDS = 15.0
"""Of a training, until all processes run at their pace."""
END_SECONDS = 20.0
"""That a training may take to end in order."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measure how fast this machine trains, how fast it could, and what keeps it from that. Let nothing run beside."""

    env: Annotated[str, alias("--game")] = "ALE/Pong-v5"
    """Gymnasium id."""
    imports: Imports = ()
    """Modules to import first, such as those that register environments."""
    env_kwargs: Assignments = ()
    """Arguments of the environment's constructor, as NAME=VALUE, for environments other than Atari."""
    method: str = "a3c"
    """one-step-q, one-step-sarsa, n-step-q or a3c."""
    network: AutoStr = None
    """a3c, nature, impala, small or mlp; or your own, as MODULE:CLASS (default: by method)."""
    recurrent: bool = False
    """With an LSTM."""
    device: str = "auto"
    """The learner's device: auto, cpu or cuda."""
    precision: AutoStr = None
    """The arithmetic of learning and acting: float32 or bf16 (default: as a training chooses it)."""
    seconds: float = 5.0
    """How long each part is timed; the training six times as long."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"--seconds is {self.seconds}; it must be greater than 0, and finite")

    def training(self) -> TrainConfig:
        return TrainConfig(
            env=self.env,
            imports=self.imports,
            env_kwargs=self.env_kwargs,
            method=self.method,
            network=self.network,
            recurrent=self.recurrent,
            device=self.device,
            precision=self.precision,
        )


def bench(config: BenchConfig) -> int:
    """Measure, print; returns the exit status."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that its training ends with it
    training, spec = settle(config.training())
    network_for(training, spec)  # refuses what the children could not build
    device = choose_device(training.device)
    announce("emulation, inference and learning, each alone", 3 * config.seconds)
    result: dict[str, Any] = dict(time_parts(training, spec, device, config.seconds))
    announce("the queue", config.seconds)
    result |= time_queue(training, spec, config.seconds)
    result["ideal_sps"] = ideal_sps(result, usable_cores(), device)
    announce("a training, once it is warm", WARM_UP_SECONDS + 6 * config.seconds)
    result["train_sps"] = mean_sps(short_training(training, 6 * config.seconds))
    result["efficiency"] = result["train_sps"] / result["ideal_sps"]
    result |= {"cores": usable_cores(), "device": device}
    result["limit"] = limit(result)
    print(json.dumps(result) if config.json else table(result, training))
    return 0


def announce(part: str, seconds: float) -> None:
    """Say on stderr what is timed now, and about how long that takes."""
    print(f"timing {part}: {seconds:.0f} s", file=sys.stderr, flush=True)


def time_parts(config: TrainConfig, spec: EnvironmentSpec, device: str, seconds: float) -> dict[str, float]:
    """Env steps a second of emulation, inference and learning, each alone on one core (learning: on its device).

    In a process whose memory is managed as the learner's. Raises UsageError if that fails.
    """
    result, sender = Pipe(duplex=False)
    process = start_child("bench", LEARNER_ENVIRONMENT, _send_rates, sender, config, spec, device, seconds)
    sender.close()
    try:
        rates: dict[str, float] = result.recv()
    except EOFError:
        raise UsageError("the parts cannot be timed; what went wrong stands above") from None
    finally:
        process.kill()
        process.join()
    return rates


def _send_rates(sender: Connection, config: TrainConfig, spec: EnvironmentSpec, device: str, seconds: float) -> None:
    torch.set_num_threads(1)
    alone = replace(config, processes=1, queue_size=-(-(config.batch_size or 1) // _steps(config)))
    shared = Shared.make(alone, spec)
    _, reports = Pipe()
    learner_task, (worker_task,) = tasks(alone, spec, shared, device, Run(Path()), reports)
    learner, worker = Learner(learner_task), Worker(worker_task)
    learner.publish()
    actions = itertools.cycle(np.random.default_rng(1).integers(spec.actions, size=(64, worker.envs)))

    fragments = []
    for _ in range(alone.queue_size):
        fragment = worker_task.lane.reserve(0)
        assert fragment is not None
        worker.fill(fragment)
        worker_task.lane.commit()
        fragments.append(shared.queue.take(0))

    def learn() -> None:
        learner.learn_from(learner.to_device([fragment for fragment in fragments if fragment]))
        if device == "cuda":
            torch.cuda.synchronize()

    sender.send(
        {
            "env_sps": worker.envs * rate(lambda: worker.env.step(next(actions)), seconds),
            "inference_sps": worker.envs * rate(worker.choose, seconds),
            "learner_sps": alone.queue_size * _steps(config) * rate(learn, seconds),
        }
    )
    worker.env.close()


def _steps(config: TrainConfig) -> int:
    assert config.n_step and config.envs_per_process
    return config.n_step * config.envs_per_process


def rate(run: Callable[[], object], seconds: float) -> float:
    """Calls a second: the median over ten stretches of a tenth of `seconds` each, after one to warm up."""
    rates = []
    for _ in range(11):
        begin, calls = time.perf_counter(), 0
        while (passed := time.perf_counter() - begin) < seconds / 10 or calls == 0:
            run()
            calls += 1
        rates.append(calls / passed)
    return statistics.median(rates[1:])


def time_queue(config: TrainConfig, spec: EnvironmentSpec, seconds: float) -> dict[str, float]:
    """Bytes of fragments a second through one lane, copied once on either side, and how long a fragment lies there."""
    shared = Shared.make(replace(config, processes=1, queue_size=2), spec)
    lane = shared.queue.lanes[0]
    process = start_child("bench", PLAYER_ENVIRONMENT, _write_fragments, lane)
    waits, copied, begin = [], 0, 0.0
    try:
        while process.is_alive() and (not begin or time.perf_counter() - begin < seconds):
            fragment = shared.queue.take(1.0)
            if fragment is None:
                continue
            begin = begin or time.perf_counter()
            waits.append(time.monotonic_ns() - fragment.finished_ns[0])
            copied += fragment.frames.copy().nbytes
            shared.queue.release()
        passed = time.perf_counter() - begin
    finally:
        process.kill()
        process.join()
    if not waits:
        raise UsageError("the queue cannot be timed; what went wrong stands above")
    return {"queue_gb_s": copied / passed / 1e9, "hand_off_ms": statistics.median(waits) / 1e6}


def _write_fragments(lane: Lane) -> None:
    frames = None
    while True:
        fragment = lane.reserve(1.0)
        if fragment is not None:
            frames = np.ones_like(fragment.frames) if frames is None else frames
            fragment.frames[:] = frames
            lane.commit()


def ideal_sps(result: dict[str, float], cores: int, device: str) -> float:
    """What `cores` could train if they did nothing but the three parts; a GPU learns while they play."""
    playing = 1 / result["env_sps"] + 1 / result["inference_sps"]
    if device == "cuda":
        return min(cores / playing, result["learner_sps"])
    return cores / (playing + 1 / result["learner_sps"])


def short_training(config: TrainConfig, seconds: float) -> list[dict[str, Any]]:
    """Run a real training; its reports, one a second, from WARM_UP_SECONDS after the first on, for `seconds`."""
    with tempfile.TemporaryDirectory(prefix="asyncq-bench-", ignore_cleanup_errors=True) as folder:
        settings, run_dir = Path(folder) / "settings.json", Path(folder) / "run"
        endless = replace(config, total_steps=10**9, report_interval=1.0)
        settings.write_text(json.dumps(endless.to_json()))
        command = [sys.executable, "-m", "asyncq", "train", "--config", str(settings), "--run-dir", str(run_dir)]
        with subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                reports = _reports_of(process, run_dir / "metrics.jsonl", seconds)
            finally:
                end(process)
    return [report for report in reports if report["seconds"] >= reports[0]["seconds"] + WARM_UP_SECONDS]


def end(training: subprocess.Popen[bytes]) -> None:
    """Stop it in order, or, if it takes too long, at once."""
    training.send_signal(signal.SIGINT)
    try:
        training.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        training.kill()


def mean_sps(reports: list[dict[str, Any]]) -> float:
    """Env steps a second from the first report to the last."""
    first, last = reports[0], reports[-1]
    return float((last["env_steps"] - first["env_steps"]) / (last["seconds"] - first["seconds"]))


def _reports_of(process: subprocess.Popen[bytes], metrics: Path, seconds: float) -> list[dict[str, Any]]:
    """All reports of a training, the last two of them when its warm-up is `seconds` past."""
    reports: list[dict[str, Any]] = []
    while len(reports) < 3 or reports[-2]["seconds"] - reports[0]["seconds"] < WARM_UP_SECONDS + seconds:
        if process.poll() is not None:
            raise UsageError("the training ended by itself; asyncq train says why")
        time.sleep(0.5)
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        reports = [report for report in map(json.loads, lines) if report["env_steps"]]
    return reports


def limit(result: dict[str, Any]) -> str:
    """What costs most, and what would help; a GPU learns while the cores play."""
    playing = {"emulation": 1 / result["env_sps"], "inference": 1 / result["inference_sps"]}
    learning = {"learning": 1 / result["learner_sps"]}
    if result["device"] == "cpu":
        return dearest_part(playing | learning)
    return dearest_part(learning if learning["learning"] > sum(playing.values()) / result["cores"] else playing)


def table(result: dict[str, Any], config: TrainConfig) -> str:
    """The result for people."""
    total = sum(1 / result[name] for name in ("env_sps", "inference_sps", "learner_sps"))

    def part(text: str, name: str) -> str:
        microseconds, share = 1e6 / result[name], 100 / result[name] / total
        return f"{text:24} {result[name]:9,.0f} SPS   {microseconds:6,.0f} us a step   {share:3.0f}%"

    cores = f"ideal, {result['cores']} cores"
    where = "one core" if result["device"] == "cpu" else result["device"]
    return "\n".join(
        [
            f"{config.method} on {config.env}, network {config.network}, {config.passes} passes, {config.precision}",
            part("emulation, one core", "env_sps"),
            part("inference, one core", "inference_sps"),
            part(f"learning, {where}", "learner_sps"),
            f"{'queue':24} {result['queue_gb_s']:9.2f} GB/s  {1000 * result['hand_off_ms']:6,.0f} us to hand over",
            f"{cores:24} {result['ideal_sps']:9,.0f} SPS",
            f"{'training':24} {result['train_sps']:9,.0f} SPS   {100 * result['efficiency']:.0f}% of the ideal",
            result["limit"],
        ]
    )
