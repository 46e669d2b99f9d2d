"""Saving: when a run's states and weights are due, and writing them to a disk that may be full."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from asyncq.config import TrainConfig
from asyncq.errors import UsageError
from asyncq.monitoring.metrics import WINDOW
from asyncq.storage.state_file import TrainingState, save_state
from asyncq.storage.weights_file import TrainedWeights, load_weights, save_weights

SAVE_AGAIN_SECONDS = 30.0
"""After a file could not be written."""
LAST_TRY_SECONDS = 2.0
"""Before a run gives up saving its end."""


class Saver:
    """Writes what a learner has learned into its run directory. What cannot be written is warned about, no more."""

    def __init__(self, config: TrainConfig, run_dir: Path, reports: Connection) -> None:
        self.config, self.run_dir, self.reports = config, run_dir, reports
        self.not_before = 0.0
        self.plan(0)

    def plan(self, env_steps: int) -> None:
        """The next save is at the next multiple of the interval."""
        interval = self.config.save_interval
        self.next_save = (env_steps // interval + 1) * interval

    def is_due(self, env_steps: int) -> bool:
        return env_steps >= self.next_save and time.monotonic() >= self.not_before

    def save(self, state: TrainingState, weights: TrainedWeights) -> bool:
        """Whether both are written; where not, training can go on, and the next try comes soon."""
        env_steps = state.counters["env_steps"]
        saved = self.save_state(state) and self.save_weights(weights, f"weights/{env_steps}.h5", "latest.h5")
        if saved or self.config.deterministic:
            self.plan(env_steps)
        else:
            self.not_before = time.monotonic() + SAVE_AGAIN_SECONDS
        return saved

    def save_end(self, state: TrainingState, weights: TrainedWeights) -> bool:
        """As `save`, but nothing comes later: what fails is tried once more."""
        if self.save(state, weights):
            return True
        time.sleep(LAST_TRY_SECONDS)
        return self.save(state, weights)

    def save_state(self, state: TrainingState) -> bool:
        """Whether nothing is left to write. A deterministic run can go on only from where games begin, so that between
        two multiples of the interval it writes none.

        One whose weights are no numbers any more is not saved: nobody could go on from it, and it would replace others.
        """
        env_steps = state.counters["env_steps"]
        games_begin = not env_steps or env_steps >= min(self.next_save, self.config.total_steps)
        if self.config.deterministic and not games_begin:
            return True
        if not all(np.isfinite(array).all() for array in state.group("network").values()):
            self.reports.send({"warning": "the weights are no numbers any more; their state is not saved"})
            return False
        return self.write(self.run_dir / "state", partial(save_state, self.run_dir, state, self.config.keep))

    def save_weights(self, weights: TrainedWeights, *names: str) -> bool:
        """Write the weights under each of these names; whether all were written."""
        paths = [self.run_dir / name for name in names]
        return all(self.write(path, partial(save_weights, path, weights)) for path in paths)

    def write(self, path: Path, how: Callable[[], object]) -> bool:
        """Whether `how` wrote `path`; a warning if not."""
        try:
            how()
        except OSError as error:
            self.reports.send({"warning": f"cannot write {path}: {error.strerror}"})
            return False
        return True

    def record_to_beat(self, known: float) -> float:
        """The return of `best.h5`, which may be newer than the state with the `known` one; -inf without it."""
        try:
            facts = load_weights(self.run_dir / "best.h5").facts
        except UsageError:  # there is none, or none that can be read
            return -math.inf
        return max(known, facts["episodic_return"] if facts.get("episodes", 0) >= WINDOW else -math.inf)
