"""Runs: new ones never overwrite, and one that goes on is the same run."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncq.config import TrainConfig
from asyncq.errors import UsageError
from asyncq.runs import Run, directory_to_resume, open_run
from asyncq.storage.state_file import TrainingState, save_state


def settled(run_dir: Path | None, **settings: Any) -> TrainConfig:
    place = None if run_dir is None else str(run_dir)
    config = TrainConfig(env="CartPole-v1", processes=2, run_dir=place, **settings)
    return dataclasses.replace(config.resolved("vector", 1), precision="float32")


def released(run: Run) -> Run:
    """As if its process had ended."""
    assert run.lock is not None
    os.close(run.lock)
    return run


def begin(run_dir: Path, *env_steps: int) -> None:
    released(open_run(settled(run_dir), pytest.fail))
    for steps in env_steps:
        save_state(run_dir, TrainingState({"random": np.zeros(1)}, {"env_steps": steps}), keep=9)


def test_a_new_run_has_its_configuration_and_no_state(tmp_path: Path) -> None:
    run = open_run(settled(tmp_path / "a" / "b", resume="auto"), pytest.fail)
    assert run == Run(tmp_path / "a" / "b", None, None)
    saved = json.loads((run.directory / "config.json").read_text())
    assert (saved["run_dir"], saved["resume"], saved["processes"]) == (None, None, 2)


def test_runs_that_begin_in_the_same_second_have_their_own_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda _: "20301231-235959")
    names = [open_run(TrainConfig(env="CartPole-v1"), pytest.fail).directory.name for _ in range(3)]
    first = "CartPole-v1__a3c__1__20301231-235959"
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_a_run_is_never_begun_twice(tmp_path: Path) -> None:
    begin(tmp_path, 90)
    with pytest.raises(UsageError, match=f"go on with it: --resume {tmp_path}"):
        open_run(settled(tmp_path), pytest.fail)


@pytest.mark.parametrize("by", ["name", "auto"])
def test_a_run_goes_on_from_its_newest_state(tmp_path: Path, by: str) -> None:
    begin(tmp_path, 90, 1000)
    flags: dict[str, Any] = {"run_dir": None, "resume": str(tmp_path)} if by == "name" else {"run_dir": tmp_path}
    config = settled(**{"resume": "auto", **flags}, total_steps=7777)
    assert open_run(config, pytest.fail) == Run(tmp_path, tmp_path / "state" / "1000.h5", 1000)
    assert json.loads((tmp_path / "config.json").read_text())["total_steps"] == 7777


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("env", "CartPole-v0"), ("env_kwargs", ("x=1",)), ("network", "tiny_envs:Flat"), ("layer_norm", False),
        ("recurrent", True), ("frame_stack", 4), ("frame_size", 42), ("frame_skip", 2), ("optimizer", "rmsprop"),
    ],
)  # fmt: skip
def test_what_the_state_depends_on_cannot_change(tmp_path: Path, name: str, value: Any) -> None:
    begin(tmp_path, 90)
    before = settled(tmp_path, resume="auto")
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} cannot change .* it is {getattr(before, name)}"):
        open_run(dataclasses.replace(before, **{name: value}), pytest.fail)


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    begin(tmp_path, 90)
    left = [tmp_path / name for name in (".best.h5.17", ".metrics.jsonl.17", ".config.json.17", "state/.90.h5.17")]
    for path in left:
        path.write_text("half")
    open_run(settled(tmp_path, resume="auto"), pytest.fail)
    assert not any(path.exists() for path in left)
    assert (tmp_path / "config.json").exists() and (tmp_path / "state" / "90.h5").exists()


def test_a_run_that_saved_nothing_begins_anew_only_by_auto(tmp_path: Path) -> None:
    begin(tmp_path)
    assert released(open_run(settled(tmp_path, resume="auto"), pytest.fail)) == Run(tmp_path, None, 0)
    with pytest.raises(UsageError, match="before its first state was saved"):
        open_run(settled(None, resume=str(tmp_path)), pytest.fail)


def test_a_run_without_results_gives_way_to_a_new_one(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    assert released(open_run(settled(tmp_path, total_steps=7), pytest.fail)) == Run(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["total_steps"] == 7
    (tmp_path / "metrics.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="already holds a run"):
        open_run(settled(tmp_path), pytest.fail)


@pytest.mark.parametrize("kept", ["best.h5", "state/90.h5"])
def test_what_a_run_kept_is_safe_also_without_its_configuration(kept: str, tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / kept).parent.mkdir(exist_ok=True)
    (tmp_path / kept).touch()
    with pytest.raises(UsageError, match=r"already holds a run; choose another --run-dir$"):
        open_run(settled(tmp_path), pytest.fail)


def test_weights_are_never_overwritten_because_the_states_are_gone(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "weights" / "90.h5").touch()
    with pytest.raises(UsageError, match="its states are gone; put them back"):
        open_run(settled(tmp_path, resume="auto"), pytest.fail)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"resume": "absent"}, "there is no run in it"),
        ({"resume": "auto"}, "needs --run-dir"),
    ],
)
def test_runs_that_cannot_be_found_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        directory_to_resume(settings["resume"], None)


@pytest.mark.parametrize("part", ["best.h5", "state", "state/90.h5", "config.json"])
def test_whoever_names_a_part_of_a_run_is_told_the_run(part: str, tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(UsageError, match=f"did you mean {tmp_path}\\?"):
        directory_to_resume(str(tmp_path / part), None)


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UsageError, match="cannot be locked: No locks available; choose a --run-dir on another"):
        open_run(settled(tmp_path / "run"), pytest.fail)


def test_two_cannot_train_in_one_directory(tmp_path: Path) -> None:
    run = open_run(settled(tmp_path), pytest.fail)
    with pytest.raises(UsageError, match="another asyncq trains in"):
        open_run(settled(tmp_path, resume="auto"), pytest.fail)
    released(run)
    assert open_run(settled(tmp_path, resume="auto"), pytest.fail) == Run(tmp_path, None, 0)


def test_who_asks_whether_a_run_trains_keeps_none_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(open_run(settled(tmp_path), pytest.fail))
    with open(tmp_path / ".lock") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        monkeypatch.setattr("asyncq.runs.time.sleep", lambda _: asking.close())
        assert open_run(settled(tmp_path, resume="auto"), pytest.fail) == Run(tmp_path, None, 0)


def test_a_run_that_has_all_its_steps_is_left_as_it_is(tmp_path: Path) -> None:
    begin(tmp_path, 90)
    before = (tmp_path / "config.json").read_text()
    assert open_run(settled(tmp_path, resume="auto", total_steps=90), pytest.fail).resumed_at == 90
    assert (tmp_path / "config.json").read_text() == before


def test_a_run_goes_on_in_its_own_directory(tmp_path: Path) -> None:
    begin(tmp_path, 90)
    with pytest.raises(UsageError, match="leave --run-dir out"):
        directory_to_resume(str(tmp_path), "elsewhere")
