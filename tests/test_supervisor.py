"""Supervisor: how soon a worker that ended has a successor."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asyncq import supervisor
from asyncq.config import TrainConfig
from asyncq.status import StatusBoard, WorkerState
from asyncq.supervisor import HOPELESS, LearnerDied, RunFailed, Supervisor, WorkerPlace
from asyncq.worker import WorkerTask


@pytest.mark.parametrize(
    ("exit_code", "played", "pause"),
    [(1, 0, 1), (-signal.SIGKILL, 0, 1), (1, 10, 0), (-signal.SIGKILL, 10, 0)],
    ids=["failed", "killed", "failed after it had played", "killed after it had played"],
)
def test_only_a_worker_that_fails_before_it_plays_is_waited_for(
    exit_code: int, played: int, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = SimpleNamespace(exitcode=exit_code, kill=lambda: None, join=lambda timeout: None)
    monkeypatch.setattr(supervisor, "start_child", lambda *_, **__: process)
    status = StatusBoard(1)
    place = WorkerPlace(cast(WorkerTask, SimpleNamespace(index=0)), status)
    status.add_steps(0, played)
    before: Any = time.monotonic()
    place.clear()
    assert place._due - before == pytest.approx(pause, abs=0.5)


@pytest.mark.parametrize(("others_played", "tries"), [(0, HOPELESS), (10, 21)])
def test_a_worker_that_only_fails_ends_the_run_unless_another_has_played(
    others_played: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails, works = SimpleNamespace(exitcode=1, kill=lambda: None, join=lambda _: None), SimpleNamespace(exitcode=None)
    monkeypatch.setattr(supervisor, "start_child", lambda name, *_, **__: fails if name == "worker-0" else works)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0)
    status, said = StatusBoard(2), list[str]()
    status.add_steps(1, others_played)
    learner: Any = SimpleNamespace(status=status, config=TrainConfig(max_restarts=20))
    tasks: Any = [WorkerTask(index, *cast(Any, [None] * 5)) for index in range(2)]
    watcher = Supervisor(learner, tasks, said.append, said.append)
    with pytest.raises(RunFailed, match="20 is used up" if others_played else "the 5th time in a row, and no worker"):
        watch_forever(watcher)
    assert len(said) == tries - 1


def test_workers_that_stood_still_with_everything_else_are_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-Z."""
    monkeypatch.setattr(supervisor, "start_child", lambda *_, **__: SimpleNamespace(exitcode=None))
    now, now_ns = time.monotonic(), time.monotonic_ns()
    status, said = StatusBoard(1), list[str]()
    learner: Any = SimpleNamespace(status=status, config=TrainConfig(worker_timeout=100))
    watcher = Supervisor(learner, [WorkerTask(0, *cast(Any, [None] * 5))], said.append, said.append)
    status.set_state(0, WorkerState.PLAYING)
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000)
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns + 10**12)
    watcher.watch()
    assert not said and status.idle_seconds(0) < 100 and status.idle_seconds(status.learner) < 100


def test_a_learner_that_gives_no_sign_of_life_counts_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "start_child", lambda *_, **__: SimpleNamespace(exitcode=None))
    monkeypatch.setattr(supervisor, "LEARNER_SECONDS", 0.2)
    status = StatusBoard(1)
    learner: Any = SimpleNamespace(status=status, config=TrainConfig(worker_timeout=0.1))
    watcher = Supervisor(learner, [WorkerTask(0, *cast(Any, [None] * 5))], print, print)
    watcher.watch()
    time.sleep(0.15)
    status.touch(status.learner)
    time.sleep(0.15)
    watcher.watch()
    time.sleep(0.1)
    with pytest.raises(LearnerDied, match=r"the learner gave no sign of life for 0\.2 s"):
        watcher.watch()


def watch_forever(watcher: Supervisor) -> None:
    while True:
        watcher.watch()
