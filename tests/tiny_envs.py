"""What users bring, for the tests to name: tiny environments (pictures, vectors counted from action 5, actions and
observations that cannot be learned, what can be learned soon, one that fails) and networks."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor, nn

PIXELS = "AsyncqTest/Pixels-v0"
COUNTER = "AsyncqTest/Counter-v0"
CONTINUOUS = "AsyncqTest/Continuous-v0"
TABLE = "AsyncqTest/Table-v0"
FAILING = "AsyncqTest/Failing-v0"
RECALL = "AsyncqTest/Recall-v0"
LIVES = "AsyncqTest/Lives-v0"
BRIGHT = "AsyncqTest/Bright-v0"


class Pixels(gym.Env[np.ndarray[Any, Any], np.int64]):
    """Random 20x30 RGB pictures; an episode terminates with probability 1/4 a step, or is truncated after 6."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 255, (20, 30, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(3)

    def _picture(self) -> np.ndarray[Any, Any]:
        self._shown = self.np_random.integers(1, 256, (20, 30, 3)).astype(np.uint8)
        return self._shown

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._step = 0
        return self._picture(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        self._step += 1
        terminated = bool(self.np_random.random() < 0.25)
        return self._picture(), float(action), terminated, not terminated and self._step == 6, {}

    def render(self) -> np.ndarray[Any, Any]:
        return self._shown


class Counter(gym.Env[np.ndarray[Any, Any], np.int64]):
    """Shows `[episode, step, last action]`; actions are 5 and 6; action 6 terminates, and step 4 truncates.

    The reward is 1 a step, and 10 more for action 6.
    """

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1e6, 1e6, (3,), np.float64)
        self.action_space = gym.spaces.Discrete(2, start=5)
        self._episode = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._episode, self._step = self._episode + 1, 0
        return np.array([self._episode, 0.0, 0.0]), {}

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        assert action in (5, 6), action
        self._step += 1
        terminated = bool(action == 6)
        reward = 11.0 if terminated else 1.0
        truncated = not terminated and self._step == 4
        return np.array([self._episode, float(self._step), float(action)]), reward, terminated, truncated, {}


class Recall(gym.Env[np.ndarray[Any, Any], np.int64]):
    """Shows 1 or -1, then 0 three times; whoever then acts 1 for 1, and 0 for -1, gets the reward 1."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._step, self._cue = 0, int(self.np_random.integers(2))
        return np.array([2 * self._cue - 1], np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        self._step += 1
        last = self._step == 4
        return np.zeros(1, np.float32), float(last and action == self._cue), last, False, {}


class Bright(Pixels):
    """One half of the picture is bright; whoever acts 0 for the left, 1 for the right gets 1 in each of 8 steps."""

    def _picture(self) -> np.ndarray[Any, Any]:
        super()._picture()
        self._side = int(self.np_random.integers(2))
        self._shown[:, 15 * (1 - self._side) :][:, :15] //= 4
        return self._shown

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        self._step += 1
        reward = float(action == self._side)
        return self._picture(), reward, self._step == 8, False, {}


class Lives(Counter):
    """Has 3 lives, loses one every second step, and terminates with the last of them, whatever is done."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        observation, _ = super().reset(seed=seed, options=options)
        return observation, {"lives": 3}

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        observation, *_ = super().step(action)
        lives = 3 - self._step // 2
        return observation, 1.0, lives == 0, False, {"lives": lives}


class Failing(Counter):
    """In its every 40th step it raises an error, or sleeps for so many seconds."""

    def __init__(self, sleep: float = 0.0) -> None:
        super().__init__()
        self._sleep = sleep
        self._steps = 0

    def step(self, action: np.int64) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps % 40 == 0:
            if not self._sleep:
                raise ValueError("the cable is loose")
            time.sleep(self._sleep)
        return super().step(action)


class Continuous(Counter):
    """Actions are a Box: nothing that can be learned here."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)  # type: ignore[assignment]


class Table(Counter):
    """Observations are a 2-dimensional table of numbers: neither image nor vector."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Box(0, 1, (2, 2), np.float32)


for _name, _class in (
    (PIXELS, Pixels),
    (COUNTER, Counter),
    (CONTINUOUS, Continuous),
    (TABLE, Table),
    (FAILING, Failing),
    (RECALL, Recall),
    (LIVES, Lives),
    (BRIGHT, Bright),
):
    if _name not in gym.registry:
        gym.register(_name, entry_point=f"{__name__}:{_class.__name__}", disable_env_checker=True)


class Flat(nn.Module):
    """One hidden layer over whatever is observed."""

    features = 7

    def __init__(self, shape: tuple[int, ...], layer_norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 7), nn.Tanh())

    def forward(self, observations: Tensor) -> Tensor:
        features: Tensor = self.layers(observations.float())
        return features


class Undecided(Flat):
    """What it computes depends on what it sees."""

    def forward(self, observations: Tensor) -> Tensor:
        return super().forward(observations * 2 if observations.sum() > 0 else observations)


class Viewing(Flat):
    """Works only where observations are contiguous."""

    def forward(self, observations: Tensor) -> Tensor:
        return super().forward(observations.view(len(observations), -1))


class Wide(Flat):
    """Says that it gives fewer features than it does."""

    features = 3


class Normalised(Flat):
    """With a BatchNorm."""

    def __init__(self, shape: tuple[int, ...], layer_norm: bool) -> None:
        super().__init__(shape, layer_norm)
        self.layers.append(nn.BatchNorm1d(7))


def nothing(shape: tuple[int, ...], layer_norm: bool) -> Tensor:
    raise RuntimeError("no network\ntoday")
