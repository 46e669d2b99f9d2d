"""Metrics: episodes are counted from fragments, reports start anew, and a record needs 100 episodes."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from asyncq.experience import Fragment, FragmentLayout
from asyncq.monitoring.metrics import WINDOW, Metrics


def fragment(returns: list[float], lengths: list[int] | None = None) -> Fragment:
    """One env in which an episode ended with every second step."""
    steps = 2 * len(returns)
    layout = FragmentLayout(steps, 1, (2,), "float32", 1)
    arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.fields().items()}
    arrays["episode_returns"][:] = np.nan
    arrays["episode_returns"][1::2, 0] = returns
    arrays["episode_lengths"][1::2, 0] = lengths or [1] * len(returns)
    return Fragment(**arrays)


def test_only_ended_episodes_count() -> None:
    metrics = Metrics()
    metrics.add_fragment(fragment([10.0, -4.0], [30, 50]), updates=0)
    metrics.add_fragment(fragment([0.0], [10]), updates=0)
    report = metrics.report(env_steps=90, updates=3)
    assert report["episodes"] == 3
    assert report["episodic_return"] == 2
    assert report["episodic_length"] == 30


def test_the_return_is_the_mean_of_the_last_100_episodes() -> None:
    metrics = Metrics()
    metrics.add_fragment(fragment([1000.0] * 50), updates=0)
    assert not metrics.has_full_window
    metrics.add_fragment(fragment([1.0] * 60 + [3.0] * 40), updates=0)
    assert metrics.has_full_window
    assert metrics.episodic_return == pytest.approx(1.8)
    assert metrics.episodes == 150


def test_a_report_before_the_first_episode_has_no_return() -> None:
    report = Metrics().report(env_steps=0, updates=0)
    assert (report["episodic_return"], report["episodic_length"], report["lag"]) == (None, None, None)
    assert report["losses"] == {}


def test_lags_and_fill_and_losses_start_anew_with_every_report() -> None:
    metrics = Metrics()
    for lag in (1, 2, 6):
        metrics.add_fragment(fragment([5.0]), updates=lag)
    for fill in (0.5, 1.0):
        metrics.queue_fill.add(fill)
    metrics.add_losses({"value": torch.tensor(1.0), "policy": torch.tensor(-1.0)})
    metrics.add_losses({"value": torch.tensor(4.0), "policy": torch.tensor(-2.0)})
    first, second = metrics.report(10, 1), metrics.report(20, 2)
    assert first["lag"] == {"mean": 3, "max": 6}
    assert first["queue_fill"] == 0.75
    assert first["losses"] == {"value": 2.5, "policy": -1.5}
    assert (second["lag"], second["queue_fill"], second["losses"]) == (None, 0, {})
    assert (second["episodes"], second["episodic_return"]) == (3, 5)


def test_what_was_counted_is_not_kept() -> None:
    metrics = Metrics()
    sizes = []
    for _ in range(3):
        for _ in range(WINDOW):
            metrics.add_fragment(fragment([5.0]), updates=1)
            metrics.queue_fill.add(0.5)
            metrics.add_losses({"value": torch.tensor(1.0)})
        sizes.append(len(pickle.dumps(vars(metrics))))
    assert sizes[1] <= sizes[0] + 10
    assert sizes[2] <= sizes[0] + 10


def test_speed_is_env_steps_since_the_last_report(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 114.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    metrics = Metrics()
    first, second = metrics.report(env_steps=500, updates=1), metrics.report(env_steps=900, updates=2)
    assert (first["seconds"], first["sps"]) == (10, 50)
    assert (second["seconds"], second["sps"]) == (14, 100)


def test_waits_are_shares_of_the_time_since_the_last_report(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 114.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    metrics = Metrics()
    metrics.learner_waited += 2.5
    first = metrics.report(env_steps=500, updates=1, workers_waited=4.0)
    second = metrics.report(env_steps=900, updates=2, workers_waited=5.0)
    assert first["waits"] == {"learner": 0.25, "workers": 0.4}
    assert second["waits"] == {"learner": 0.0, "workers": 0.25}


def test_a_report_can_be_written_as_json() -> None:
    metrics = Metrics()
    metrics.add_fragment(fragment([5.0]), 1)
    metrics.add_losses({"value": torch.tensor(1.0)})
    report = metrics.report(10, 1)
    assert json.loads(json.dumps(report)) == report


def test_a_record_needs_a_full_window_and_must_beat_the_one_before() -> None:
    metrics = Metrics()
    metrics.add_fragment(fragment([50.0] * (WINDOW - 1)), 0)
    assert not metrics.is_record
    metrics.add_fragment(fragment([50.0]), 0)
    assert metrics.is_record
    metrics.best = metrics.episodic_return
    assert not metrics.is_record
    metrics.add_fragment(fragment([40.0]), 0)
    assert not metrics.is_record
    metrics.add_fragment(fragment([70.0]), 0)
    assert metrics.is_record


def test_a_restored_count_goes_on_where_it_was() -> None:
    first, second = Metrics(), Metrics()
    first.add_fragment(fragment([5.0] * WINDOW, [7] * WINDOW), updates=0)
    first.skipped_updates = 3
    second.restore(json.loads(json.dumps(first.state())), env_steps=900)
    one, other = first.report(900, 4), second.report(900, 4)
    for name in ("episodes", "skipped_updates", "episodic_return", "episodic_length"):
        assert one[name] == other[name]
    assert second.has_full_window
    assert other["sps"] == 0
