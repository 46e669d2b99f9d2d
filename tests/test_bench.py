"""The bench: its arithmetic, and every part of it once on a real environment."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncq import bench
from asyncq.bench import BenchConfig, ideal_sps, limit, rate
from asyncq.cli import parse, run
from asyncq.errors import UsageError
from asyncq.training import settle

PARTS = {"env_sps": 4000.0, "inference_sps": 8000.0, "learner_sps": 2000.0}


def test_the_ideal_does_each_part_once_a_step() -> None:
    a_step = 250e-6 + 125e-6 + 500e-6
    assert ideal_sps(PARTS, 2, "cpu") == pytest.approx(2 / a_step)


def test_a_gpu_learns_while_the_cores_play() -> None:
    assert ideal_sps(PARTS, 2, "cuda") == 2000
    assert ideal_sps({**PARTS, "learner_sps": 1e6}, 2, "cuda") == pytest.approx(2 / 375e-6)


@pytest.mark.parametrize(
    ("slow", "said"), [("env_sps", "emulation"), ("inference_sps", "inference"), ("learner_sps", "learning")]
)
def test_the_slowest_part_is_the_limit(slow: str, said: str) -> None:
    assert limit({**PARTS, "cores": 2, "device": "cpu", slow: 100.0}).startswith(said)


@pytest.mark.parametrize(("cores", "said"), [(2, "emulation"), (16, "learning")])
def test_a_gpus_learning_is_the_limit_only_where_the_cores_play_faster(cores: int, said: str) -> None:
    parts = {"env_sps": 4e3, "inference_sps": 20e3, "learner_sps": 20e3}
    assert limit({**parts, "cores": cores, "device": "cuda"}).startswith(said)


def test_a_rate_is_calls_a_second_and_a_pause_of_the_machine_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()
    now = 0.0

    def run() -> None:
        nonlocal now
        now += 1.0 if next(calls) == 20 else 1 / 128

    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: now))
    assert rate(run, 0.625) == 128


def test_reports_are_read_until_two_are_past_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = tmp_path / "metrics.jsonl"
    seconds = itertools.count(0, 10)

    def train(_: float) -> None:
        now = next(seconds)
        with open(metrics, "a") as file:
            file.write(json.dumps({"env_steps": 1 + 70 * now, "seconds": now}) + "\n")

    monkeypatch.setattr(bench, "time", SimpleNamespace(sleep=train))
    running: Any = SimpleNamespace(poll=lambda: None)
    reports = bench._reports_of(running, metrics, 0.6)
    assert [report["seconds"] for report in reports] == [0, 10, 20, 30]
    assert bench.mean_sps(reports[2:]) == 70


def test_a_bench_takes_environments_and_networks_of_ones_own(capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--env", "asyncq/Latency-v0", "--env-kwargs", "seconds=0.5", "--import", "tiny_envs"]
    training, spec = settle(parse(BenchConfig, "bench", flags).training())
    assert (training.imports, spec.kwargs) == (("tiny_envs",), {"seconds": 0.5})
    with pytest.raises(UsageError, match="no_such_module"):
        run(["bench", "--env", "CartPole-v1", "--network", "no_such_module:Net"])
    assert capfd.readouterr().err == ""


def test_a_bench_measures_every_part(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "WARM_UP_SECONDS", 2.0)
    run(["bench", "--env", "CartPole-v1", "--method", "n-step-q", "--seconds", "0.5", "--json"])
    said = capsys.readouterr()
    assert [line.partition(",")[0] for line in said.err.splitlines()] == [
        "timing emulation", "timing the queue: 0 s", "timing a training",
    ]  # fmt: skip
    result = json.loads(said.out)
    for name in ("env_sps", "inference_sps", "learner_sps", "queue_gb_s", "hand_off_ms", "ideal_sps", "train_sps"):
        assert result[name] > 0
    assert result["efficiency"] == pytest.approx(result["train_sps"] / result["ideal_sps"])
    assert result["limit"]
