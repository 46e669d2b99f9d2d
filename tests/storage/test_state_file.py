"""State files: what is saved comes back, the newest that can be read is found, and only a few are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asyncq.errors import UsageError
from asyncq.shared import Array
from asyncq.storage.state_file import TrainingState, load_state, newest_state, save_state


def state(env_steps: int) -> TrainingState:
    arrays: dict[str, Array] = {
        "network/trunk.dense.weight": np.arange(6, dtype=np.float32).reshape(2, 3) + env_steps,
        "optimizer/0/exp_avg": np.full(3, 0.5, np.float32),
        "optimizer/0/step": np.array(7, np.float32),
        "random": np.arange(5, dtype=np.uint8),
    }
    return TrainingState(arrays, {"env_steps": env_steps, "metrics": {"best": -np.inf, "returns": [1.5]}})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path, state(80), keep=2)
    loaded = load_state(tmp_path / "state" / "80.h5")
    assert loaded.counters == state(80).counters
    assert set(loaded.arrays) == set(state(80).arrays)
    for name, array in state(80).arrays.items():
        assert np.array_equal(loaded.arrays[name], array)
        assert loaded.arrays[name].dtype == array.dtype and loaded.arrays[name].shape == array.shape
    assert set(loaded.group("optimizer")) == {"0/exp_avg", "0/step"}


def test_the_newest_are_kept_by_their_env_steps(tmp_path: Path) -> None:
    for env_steps in (9, 80, 700, 1000):
        save_state(tmp_path, state(env_steps), keep=2)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"700.h5", "1000.h5"}
    assert newest_state(tmp_path, pytest.fail) == tmp_path / "state" / "1000.h5"


@pytest.mark.parametrize("place", [3, 40, 600, -1])
def test_a_damaged_state_is_said_and_the_one_before_it_taken(tmp_path: Path, place: int) -> None:
    save_state(tmp_path, state(80), keep=2)
    save_state(tmp_path, state(90), keep=2)
    newest = tmp_path / "state" / "90.h5"
    content = bytearray(newest.read_bytes())
    content[place] ^= 1
    newest.write_bytes(content)
    said: list[str] = []
    assert newest_state(tmp_path, said.append) == tmp_path / "state" / "80.h5"
    assert {path.name for path in newest.parent.iterdir()} == {"80.h5", "90.damaged"}
    assert len(said) == 1 and "90.h5" in said[0] and "trying the state before it" in said[0]


def test_a_run_whose_states_are_all_damaged_does_not_begin_anew(tmp_path: Path) -> None:
    save_state(tmp_path, state(80), keep=2)
    (tmp_path / "state" / "80.h5").write_bytes(b"")
    with pytest.raises(UsageError, match=r"all states in .* are damaged"):
        newest_state(tmp_path, lambda line: None)


def test_a_state_of_another_asyncq_is_kept_and_refused(tmp_path: Path) -> None:
    save_state(tmp_path, state(80), keep=2)
    save_state(tmp_path, state(90), keep=2)
    newest = tmp_path / "state" / "90.h5"
    newest.write_bytes(newest.read_bytes().replace(b"format 2", b"format 3", 1))
    with pytest.raises(UsageError, match=r"90\.h5 was written by a newer asyncq"):
        newest_state(tmp_path, pytest.fail)
    assert {path.name for path in newest.parent.iterdir()} == {"80.h5", "90.h5"}


def test_a_run_without_states_has_no_newest(tmp_path: Path) -> None:
    assert newest_state(tmp_path, pytest.fail) is None
