"""Supervisor: how soon a worker that ended has a successor."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asyncq import supervisor
from asyncq.status import StatusBoard
from asyncq.supervisor import WorkerPlace
from asyncq.worker import WorkerTask


@pytest.mark.parametrize(
    ("exit_code", "played", "pause"),
    [(1, 0, 1), (-signal.SIGABRT, 0, 1), (-signal.SIGKILL, 0, 0), (1, 10, 0)],
    ids=["failed", "aborted", "killed", "failed after it had played"],
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
