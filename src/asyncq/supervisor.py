"""Supervisor: starts the worker and learner processes, replaces workers that died, and stops everything in order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from asyncq.learner import LearnerTask, run_learner
from asyncq.status import WorkerState
from asyncq.worker import WorkerTask, run_worker

MAX_RESTARTS = 10
"""Workers replaced in one run before it is given up."""

CHILD_ENVIRONMENT = {
    # large tensors come from the heap and stay there, instead of being mapped and faulted in anew at every step
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 24),
    "MALLOC_ARENA_MAX": "2",
}
WORKER_ENVIRONMENT = {**CHILD_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM}
"""They reach the whole process group, but the main process decides: children begin, and stay, with them blocked."""


class RunFailed(Exception):
    """The learner died, or too many workers did; the run cannot go on."""


class Supervisor:
    """Owns every process of a run. `say` is told, in one line, what happened to them."""

    def __init__(self, learner: LearnerTask, workers: list[WorkerTask], say: Callable[[str], None]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._status = learner.status
        self._tasks = workers
        self._say = say
        self._restarts = 0
        with _environment(CHILD_ENVIRONMENT):
            self.learner = self._start("learner", run_learner, learner)
        with _environment(WORKER_ENVIRONMENT):
            self.workers = [self._start(f"worker-{task.index}", run_worker, task) for task in workers]

    def _start(self, name: str, run: Callable[[Any], None], task: object) -> BaseProcess:
        process = self._context.Process(target=_child_main, args=(run, task), name=f"asyncq-{name}", daemon=True)
        resource_tracker.ensure_running()  # or the first start would start it, which lifts the block
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

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
        with _environment(WORKER_ENVIRONMENT):
            self.workers[index] = self._start(f"worker-{index}", run_worker, self._tasks[index])

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


def _child_main(run: Callable[[Any], None], task: object) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run(task)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
