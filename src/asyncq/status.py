"""Status board: what every worker is doing, whether the learner lives, and the word to stop, in shared memory."""

from __future__ import annotations

import enum
import time

import numpy as np

from asyncq.shared import CACHE_LINE, Array, SharedBuffer


class WorkerState(enum.IntEnum):
    STARTING = 0
    PLAYING = 1
    WAITING = 2
    """The lane is full: the learner is the slower side."""
    STOPPED = 3
    DEAD = 4


class StatusBoard:
    """A row for each worker, written by it and by whoever starts and replaces it; only the main process says stop.

    One row more is the learner's, which has signs of life only.
    """

    def __init__(self, workers: int, memory: SharedBuffer | None = None) -> None:
        self.workers = workers
        self._memory = memory or SharedBuffer(CACHE_LINE * (2 + workers))
        self._stop = self._memory.array((1,), np.int64)
        # a row: state, env steps, last sign of life in ns, ns that it has waited
        self._rows: list[Array] = [
            self._memory.array((4,), np.int64, CACHE_LINE * (1 + worker)) for worker in range(workers + 1)
        ]
        self.learner = workers

    def __reduce__(self) -> tuple[type[StatusBoard], tuple[int, SharedBuffer]]:
        return StatusBoard, (self.workers, self._memory)

    def request_stop(self) -> None:
        self._stop[0] = 1

    @property
    def stopping(self) -> bool:
        return bool(self._stop[0])

    def touch(self, worker: int) -> None:
        """Say that this worker, or `learner`, is alive."""
        self._rows[worker][2] = time.monotonic_ns()

    def touch_all(self) -> None:
        """Count everyone as alive now."""
        for row in range(len(self._rows)):
            self.touch(row)

    def idle_seconds(self, worker: int) -> float:
        """Since this worker, or `learner`, last gave a sign of life."""
        return (time.monotonic_ns() - int(self._rows[worker][2])) / 1e9

    def set_state(self, worker: int, state: WorkerState) -> None:
        self._rows[worker][0] = state
        self.touch(worker)

    def add_steps(self, worker: int, env_steps: int) -> None:
        self._rows[worker][1] += env_steps

    def add_wait(self, worker: int, seconds: float) -> None:
        self._rows[worker][3] += int(1e9 * seconds)

    @property
    def waited(self) -> float:
        """Seconds that the workers have waited for the learner, one with another."""
        return float(np.mean([row[3] for row in self._rows[: self.workers]])) / 1e9

    def state(self, worker: int) -> WorkerState:
        return WorkerState(int(self._rows[worker][0]))

    def env_steps(self, worker: int) -> int:
        """Env steps that this worker has played."""
        return int(self._rows[worker][1])
