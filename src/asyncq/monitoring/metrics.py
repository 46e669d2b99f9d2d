"""Metrics: what the learner counts, and the report that it makes of it."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from asyncq.experience import Fragment

WINDOW = 100
"""Episodes that `episodic_return` is the mean of."""


@dataclass
class Mean:
    """Of values that are added and not kept."""

    total: Tensor | float = 0.0
    count: int = 0

    def add(self, value: Tensor | float, count: int = 1) -> None:
        """Count a value, or the sum of `count` values."""
        self.total = self.total + value
        self.count += count

    @property
    def mean(self) -> float:
        """0 of no values."""
        return float(self.total) / max(1, self.count)


class Metrics:
    """Counts since the last report, and the last episodes."""

    def __init__(self) -> None:
        self.started = self.reported = time.monotonic()
        self.steps_reported = 0
        self.workers_waited_before = 0.0
        self.episodes = 0
        self.skipped_updates = 0
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self.lengths: deque[int] = deque(maxlen=WINDOW)
        self.best = -np.inf
        self._clear()

    def _clear(self) -> None:
        self.losses: dict[str, Mean] = defaultdict(Mean)
        self.lag, self.longest_lag = Mean(), 0
        self.queue_fill = Mean()
        self.learner_waited = 0.0

    def add_fragment(self, fragment: Fragment, updates: int) -> None:
        """Count a fragment; its steps lag by the learner's `updates` since their weights."""
        lags = updates - fragment.weights_versions
        self.lag.add(int(lags.sum()), lags.size)
        self.longest_lag = max(self.longest_lag, int(lags.max()))
        ended = ~np.isnan(fragment.episode_returns)
        self.episodes += int(ended.sum())
        self.returns.extend(fragment.episode_returns[ended].tolist())
        self.lengths.extend(fragment.episode_lengths[ended].tolist())

    def add_losses(self, parts: dict[str, Tensor]) -> None:
        """Count the parts of one update's loss; their sums stay on their device until the report."""
        for name, value in parts.items():
            self.losses[name].add(value)

    @property
    def has_full_window(self) -> bool:
        return len(self.returns) == WINDOW

    @property
    def episodic_return(self) -> float:
        """Mean raw return of the last 100 episodes."""
        return float(np.mean(self.returns))

    @property
    def is_record(self) -> bool:
        """Whether the last 100 episodes beat `best`, which whoever saves the record sets."""
        return self.has_full_window and self.episodic_return > self.best

    def state(self) -> dict[str, Any]:
        """What has to be known to go on counting in another process."""
        return {
            "seconds": time.monotonic() - self.started,
            "episodes": self.episodes,
            "skipped_updates": self.skipped_updates,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "best": self.best,
        }

    def restore(self, state: dict[str, Any], env_steps: int) -> None:
        """Go on from `state`, which was taken at `env_steps`."""
        self.started -= state["seconds"]
        self.steps_reported = env_steps
        self.episodes, self.best, self.skipped_updates = state["episodes"], state["best"], state["skipped_updates"]
        self.returns.extend(state["returns"])
        self.lengths.extend(state["lengths"])

    def report(self, env_steps: int, updates: int, workers_waited: float = 0.0) -> dict[str, Any]:
        """One line of `metrics.jsonl`; starts counting anew. `workers_waited` is in seconds, since the run began."""
        now = time.monotonic()
        passed = max(now - self.reported, 1e-9)
        report: dict[str, Any] = {
            "env_steps": env_steps,
            "seconds": round(now - self.started, 3),
            "sps": round((env_steps - self.steps_reported) / passed, 1),
            "updates": updates,
            "skipped_updates": self.skipped_updates,
            "episodes": self.episodes,
            "episodic_return": round(self.episodic_return, 4) if self.returns else None,
            "episodic_length": round(float(np.mean(self.lengths)), 1) if self.lengths else None,
            "lag": {"mean": round(self.lag.mean, 2), "max": self.longest_lag} if self.lag.count else None,
            "queue_fill": round(self.queue_fill.mean, 3),
            "waits": {
                "learner": round(self.learner_waited / passed, 3),
                "workers": round((workers_waited - self.workers_waited_before) / passed, 3),
            },
            "losses": {name: loss.mean for name, loss in self.losses.items()},
        }
        self.reported, self.steps_reported, self.workers_waited_before = now, env_steps, workers_waited
        self._clear()
        return report
