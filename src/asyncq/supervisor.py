"""Supervisor: starts the worker and learner processes, replaces workers that died, and stops everything in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess

from asyncq.learner import LearnerTask, run_learner
from asyncq.processes import LEARNER_ENVIRONMENT, PLAYER_ENVIRONMENT, start_child
from asyncq.status import WorkerState
from asyncq.worker import WorkerTask, run_worker

MAX_RESTARTS = 10
"""Workers replaced in one run before it is given up."""


class RunFailed(Exception):
    """The learner died, or too many workers did; the run cannot go on."""


class Supervisor:
    """Owns every process of a run. `say` is told, in one line, what happened to them."""

    def __init__(self, learner: LearnerTask, workers: list[WorkerTask], say: Callable[[str], None]) -> None:
        self._status = learner.status
        self._tasks = workers
        self._say = say
        self._restarts = 0
        self.learner = start_child("learner", LEARNER_ENVIRONMENT, run_learner, learner)
        self.workers = [_start_worker(task) for task in workers]

    def watch(self) -> None:
        """Replace workers that died. Raises RunFailed if the learner did, or workers keep dying."""
        if self.learner.exitcode not in (None, 0):
            raise RunFailed(f"the learner ended with exit code {self.learner.exitcode}")
        for index, process in enumerate(self.workers):
            if process.exitcode is not None and not self._status.stopping:
                self._replace(index, process.exitcode)

    def _replace(self, index: int, exit_code: int) -> None:
        self._status.set_state(index, WorkerState.DEAD)
        if self._restarts == MAX_RESTARTS:
            raise RunFailed(f"worker {index} ended with exit code {exit_code}, the {MAX_RESTARTS + 1}th to do so")
        self._restarts += 1
        self._say(f"worker {index} ended with exit code {exit_code}; it is replaced ({self._restarts}/{MAX_RESTARTS})")
        self._tasks[index] = replace(self._tasks[index], restarts=self._tasks[index].restarts + 1)
        self.workers[index] = _start_worker(self._tasks[index])

    def request_stop(self) -> None:
        """Let the workers end their fragments, and the learner save."""
        self._status.request_stop()

    def stop(self, patience: float, hurry: Callable[[], bool]) -> None:
        """Ask everyone to stop; kill whoever has not after `patience` seconds, or as soon as `hurry` says so."""
        self.request_stop()
        deadline = time.monotonic() + patience
        processes = [self.learner, *self.workers]
        while any(process.is_alive() for process in processes) and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
        for process in processes:
            process.kill()
            process.join()


def _start_worker(task: WorkerTask) -> BaseProcess:
    return start_child(f"worker-{task.index}", PLAYER_ENVIRONMENT, run_worker, task)
