"""Status board: every worker has its own row, and the word to stop reaches all."""

from __future__ import annotations

import multiprocessing
import time

import pytest

from asyncq.status import StatusBoard, WorkerState

SPAWN = multiprocessing.get_context("spawn")


def play_until_stopped(board: StatusBoard) -> None:
    board.set_state(1, WorkerState.PLAYING)
    board.add_steps(1, 30)
    while not board.stopping:
        time.sleep(0.01)
    board.set_state(1, WorkerState.STOPPED)


def test_a_new_board_is_all_zero() -> None:
    board = StatusBoard(2)
    assert not board.stopping
    assert [board.state(worker) for worker in (0, 1)] == [WorkerState.STARTING] * 2
    assert [board.env_steps(worker) for worker in (0, 1)] == [0, 0]


def test_every_worker_has_its_own_row() -> None:
    board = StatusBoard(3)
    board.set_state(1, WorkerState.WAITING)
    board.add_steps(1, 5)
    board.add_steps(1, 7)
    board.add_steps(2, 1)
    assert [board.state(worker).name for worker in range(3)] == ["STARTING", "WAITING", "STARTING"]
    assert [board.env_steps(worker) for worker in range(3)] == [0, 12, 1]


def test_a_child_reports_and_hears_the_word_to_stop() -> None:
    board = StatusBoard(2)
    child = SPAWN.Process(target=play_until_stopped, args=(board,))
    child.start()
    while board.env_steps(1) < 30 and child.is_alive():
        time.sleep(0.01)
    assert board.state(1) == WorkerState.PLAYING
    board.request_stop()
    child.join(60)
    assert child.exitcode == 0
    assert board.state(1) == WorkerState.STOPPED


def test_idle_seconds_count_from_the_last_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5_000_000_000
    monkeypatch.setattr("time.monotonic_ns", lambda: now)
    status = StatusBoard(2)
    status.touch(1)
    now = 7_500_000_000
    assert status.idle_seconds(1) == 2.5
    status.set_state(1, WorkerState.WAITING)
    assert status.idle_seconds(1) == 0
