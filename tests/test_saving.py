"""Saver: when it is due, and what a full disk does to it; with a learner, in `test_learner.py`."""

from __future__ import annotations

import errno
import math
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncq.config import TrainConfig
from asyncq.envs import EnvironmentSpec
from asyncq.saving import SAVE_AGAIN_SECONDS, Saver
from asyncq.storage import sealed
from asyncq.storage.state_file import TrainingState
from asyncq.storage.weights_file import TrainedWeights, load_weights

SPEC = EnvironmentSpec("CartPole-v1", "vectors", (4,), "float32", frame_stack=1, frame_skip=1, actions=2)


def state_at(env_steps: int) -> TrainingState:
    return TrainingState({"network/weight": np.ones(2, np.float32)}, {"env_steps": env_steps})


def weights_with(**facts: float) -> TrainedWeights:
    config = TrainConfig(env="CartPole-v1").resolved("vector", 1)
    return TrainedWeights({"weight": np.ones(2, np.float32)}, config, SPEC, facts)


@pytest.fixture
def make_saver(tmp_path: Path) -> Callable[..., tuple[Saver, Any]]:
    def make(**settings: Any) -> tuple[Saver, Any]:
        reports, reports_in = multiprocessing.Pipe(duplex=False)
        return Saver(TrainConfig(save_interval=100, **settings), tmp_path, reports_in), reports

    return make


def refuse(path: Path, content: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_saves_are_due_at_multiples_of_the_interval_however_late_the_last_one_came(make_saver: Any) -> None:
    saver, _ = make_saver()
    assert [saver.is_due(env_steps) for env_steps in (99, 100, 130)] == [False, True, True]
    assert saver.save(state_at(130), weights_with())
    assert [saver.is_due(env_steps) for env_steps in (199, 200)] == [False, True]


def test_weights_that_are_no_numbers_do_not_replace_a_state(make_saver: Any, tmp_path: Path) -> None:
    saver, reports = make_saver(keep=1)
    assert saver.save(state_at(100), weights_with())
    bad = state_at(200)
    bad.arrays["network/weight"][1] = np.nan
    assert not saver.save(bad, weights_with())
    assert reports.recv() == {"warning": "the weights are no numbers any more; their state is not saved"}
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"100.h5"}


def test_a_save_that_failed_is_due_again_only_after_a_while(
    make_saver: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saver, reports = make_saver()
    now = [1000.0]
    monkeypatch.setattr("asyncq.saving.time.monotonic", lambda: now[0])
    with monkeypatch.context() as full_disk:
        full_disk.setattr(sealed, "write_whole", refuse)
        assert not saver.save(state_at(100), weights_with())
    assert reports.recv() == {"warning": f"cannot write {tmp_path / 'state'}: No space left on device"}
    now[0] += SAVE_AGAIN_SECONDS - 1
    assert not saver.is_due(150)
    now[0] += 1
    assert saver.is_due(150)


def test_the_end_of_a_run_is_tried_twice(make_saver: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saver, _ = make_saver()
    with monkeypatch.context() as full_disk:
        full_disk.setattr(sealed, "write_whole", refuse)
        full_disk.setattr("asyncq.saving.time.sleep", lambda seconds: full_disk.undo())
        assert saver.save_end(state_at(7), weights_with())
    assert sorted(path.name for path in tmp_path.rglob("*.h5")) == ["7.h5", "7.h5", "latest.h5"]


def test_a_deterministic_run_saves_states_only_where_games_begin(make_saver: Any, tmp_path: Path) -> None:
    saver, _ = make_saver(deterministic=True, processes=1, total_steps=250)
    for env_steps in (0, 40, 100, 190, 250):
        assert saver.save(state_at(env_steps), weights_with())
    assert sorted(int(path.stem) for path in (tmp_path / "state").iterdir()) == [100, 250]
    assert len(list((tmp_path / "weights").iterdir())) == 5


@pytest.mark.parametrize(
    ("facts", "known", "record"),
    [
        ({"episodes": 100, "episodic_return": 18.0}, 15.0, 18.0),
        ({"episodes": 100, "episodic_return": 18.0}, 19.0, 19.0),
        ({"episodes": 99, "episodic_return": 18.0}, -math.inf, -math.inf),
        (None, 19.0, -math.inf),
    ],
)
def test_the_record_to_beat_is_that_of_the_best_weights_in_the_run(
    make_saver: Any, facts: dict[str, float] | None, known: float, record: float, tmp_path: Path
) -> None:
    saver, _ = make_saver()
    if facts is not None:
        assert saver.save_weights(weights_with(**facts), "best.h5")
        assert load_weights(tmp_path / "best.h5").facts == facts
    assert saver.record_to_beat(known) == record
