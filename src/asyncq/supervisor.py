"""Supervisor: starts the worker and learner processes, replaces workers that died or hang, and stops all in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from asyncq.learner import LearnerTask, run_learner
from asyncq.processes import LEARNER_ENVIRONMENT, PLAYER_ENVIRONMENT, start_child
from asyncq.status import StatusBoard, WorkerState
from asyncq.worker import WorkerTask, run_worker

START_SECONDS = 600.0
"""What a worker may take to start, if --worker-timeout is less: 16 at once import torch for minutes on two busy cores,
and if they were replaced for it, none would ever play."""
LEARNER_SECONDS = 600.0
"""What the learner may take, if --worker-timeout is less, without a sign of life: it gives none while it starts, makes
an update, which of a large network is slow, or saves, to a disk that may be."""
ASLEEP_SECONDS = 5.0
"""Between two looks at the workers, which otherwise come ten times a second."""
LONGEST_PAUSE = 10.0
"""Seconds before the next try with a worker that keeps failing before it has played anything."""


HOPELESS = 5
"""Times in a row that a worker may fail while nobody has played anything."""


class RunFailed(Exception):
    """The learner died or hangs, or too many workers did; the run cannot go on."""


class LearnerDied(RunFailed):
    """Only the learner's end ended the run: another learner could go on."""


class Supervisor:
    """Owns every process of a run. `say` is told, in one line, what happened to them; `log` the tracebacks."""

    def __init__(
        self, learner: LearnerTask, workers: list[WorkerTask], say: Callable[[str], None], log: Callable[[str], None]
    ) -> None:
        self._status, self._config = learner.status, learner.config
        self._say, self._log = say, log
        self._restarts = 0
        self._watched = time.monotonic()
        self._status.touch_all()
        self._learner_errors, errors = Pipe(duplex=False)
        self.learner = start_child("learner", LEARNER_ENVIRONMENT, run_learner, learner, errors=errors)
        errors.close()
        self.workers = [WorkerPlace(task, self._status) for task in workers]

    def watch(self) -> None:
        """Replace workers that died or hang. Raises RunFailed if too many did, LearnerDied if the learner did."""
        if self.learner.exitcode not in (None, 0):
            cause = self._last_line(self._learner_errors)
            raise LearnerDied(f"the learner ended with exit code {self.learner.exitcode}{cause}")
        if self._status.stopping:
            return
        if self._was_asleep():
            self._status.touch_all()
            return
        limit = max(self._config.worker_timeout, LEARNER_SECONDS)
        if self._status.idle_seconds(self._status.learner) > limit:
            raise LearnerDied(f"the learner gave no sign of life for {limit:g} s")
        for place in self.workers:
            if place.vacant:
                place.fill_when_due()
            elif place.process.exitcode is not None:
                code = place.process.exitcode
                cause = ": killed; is memory short?" if code == -signal.SIGKILL else self._last_line(place.errors)
                self._replace(place, f"ended with exit code {code}{cause}")
            elif self._status.idle_seconds(place.task.index) > (limit := self._patience(place)):
                why = "--worker-timeout" if limit == self._config.worker_timeout else "it was starting"
                self._replace(place, f"did nothing for {limit:g} s ({why})")

    def _patience(self, place: WorkerPlace) -> float:
        """Seconds of silence that are allowed; importing torch and making environments gives no sign of life."""
        starting = self._status.state(place.task.index) is WorkerState.STARTING
        return max(self._config.worker_timeout, START_SECONDS if starting else 0.0)

    def _was_asleep(self) -> bool:
        """Whether this process itself stood still, as by Ctrl-Z: then the workers may have, too."""
        before, self._watched = self._watched, time.monotonic()
        return self._watched - before > ASLEEP_SECONDS

    def _replace(self, place: WorkerPlace, why: str) -> None:
        why = f"worker {place.task.index} {why}"
        place.clear()
        if self._config.deterministic:
            raise RunFailed(f"{why}; with --deterministic it is not replaced, as another would play other games")
        if self._restarts == self._config.max_restarts:
            raise RunFailed(f"{why}, and --max-restarts {self._config.max_restarts} is used up")
        if place.failures == HOPELESS and not any(self._status.env_steps(each.task.index) for each in self.workers):
            raise RunFailed(f"{why}, the {HOPELESS}th time in a row, and no worker has played anything")
        self._restarts += 1
        self._say(f"{why}; it is replaced ({self._restarts}/{self._config.max_restarts})")

    def _last_line(self, errors: Connection) -> str:
        """Log the traceback that a dead child left; returns what it says, as the end of a sentence."""
        try:
            text = str(errors.recv()) if errors.poll() else ""
        except (EOFError, OSError):  # nothing, or cut off
            text = ""
        if not text:
            return ""
        self._log(text)
        return f": {text.strip().splitlines()[-1]}"

    def request_stop(self) -> None:
        """Let the workers end their fragments, and the learner save."""
        self._status.request_stop()

    def stop(self, patience: float, hurry: Callable[[], bool]) -> None:
        """Ask everyone to stop; kill whoever has not after `patience` seconds, or as soon as `hurry` says so."""
        self.request_stop()
        deadline = time.monotonic() + patience
        processes = [self.learner, *(place.process for place in self.workers)]
        while any(process.is_alive() for process in processes) and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
        for process in processes:
            process.kill()
            process.join()


class WorkerPlace:
    """One worker of the run, whichever process it is at the moment."""

    def __init__(self, task: WorkerTask, status: StatusBoard) -> None:
        self.task, self._status = task, status
        self.failures = 0
        """In a row, before it had played anything."""
        self.process, self.errors = self._start()

    def _start(self) -> tuple[BaseProcess, Connection]:
        self._due = float("inf")
        self._played = self._status.env_steps(self.task.index)
        self._status.set_state(self.task.index, WorkerState.STARTING)
        errors, errors_in = Pipe(duplex=False)
        name = f"worker-{self.task.index}"
        process = start_child(name, PLAYER_ENVIRONMENT, run_worker, self.task, errors=errors_in)
        errors_in.close()
        return process, errors

    @property
    def vacant(self) -> bool:
        """Whether the next process is yet to start."""
        return self._due < float("inf")

    def clear(self) -> None:
        """End the process, and let the next be due: after a pause if it keeps failing before it plays, else at once."""
        self.process.kill()
        self.process.join(LONGEST_PAUSE)  # one that a broken disk or driver holds in the kernel dies later
        self.errors.close()
        self._status.set_state(self.task.index, WorkerState.DEAD)
        has_played = self._status.env_steps(self.task.index) > self._played
        self.failures = 0 if has_played else self.failures + 1
        self._due = time.monotonic() + min(LONGEST_PAUSE, 2.0 ** min(self.failures, 10) - 1)

    def fill_when_due(self) -> None:
        """Start the next process once its pause is over."""
        if time.monotonic() >= self._due:
            self.task = replace(self.task, restarts=self.task.restarts + 1)
            try:
                self.process, self.errors = self._start()
            except OSError as error:
                raise RunFailed(f"worker {self.task.index} cannot be started: {error.strerror}") from error
