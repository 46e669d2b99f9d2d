"""`asyncq/Latency-v0`: an environment that does nothing but let time pass, to see how a training scales.

Its steps take as long as they are told to, and no core meanwhile, like an environment that waits for a device or a
network. Where cores are not the limit, throughput should grow with the number of processes.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

ENV_ID = "asyncq/Latency-v0"
EPISODE_STEPS = 200


def register() -> None:
    """Make the id known to Gymnasium, once."""
    if ENV_ID not in gym.registry:
        gym.register(ENV_ID, entry_point=f"{__name__}:Latency", max_episode_steps=EPISODE_STEPS)


class Latency(gym.Env[np.ndarray[Any, Any], np.int64]):
    """Shows a bit, and pays 1 for naming it; every step lasts `seconds`."""

    def __init__(self, seconds: float = 0.005) -> None:
        if not (isinstance(seconds, int | float) and seconds >= 0):
            raise ValueError(f"seconds is {seconds}; it must be a number, at least 0")
        self.seconds = seconds
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def _observation(self) -> np.ndarray[Any, Any]:
        self._bit = int(self.np_random.integers(2))
        return np.array([self._bit], np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        time.sleep(self.seconds)
        reward = float(action == self._bit)
        return self._observation(), reward, False, False, {}
