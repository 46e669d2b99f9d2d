"""Vector environments: actions that do not begin at 0, repeated actions, and float32 observations."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np

from asyncq.envs import describe, make_env
from asyncq.envs.vectors import ActionRepeat
from tiny_envs import COUNTER, Counter


def test_actions_are_counted_from_where_the_environment_begins() -> None:
    spec = describe(COUNTER, ("tiny_envs",))
    assert (spec.actions, spec.first_action) == (2, 5)
    env: Any = make_env(spec, 2)
    env.reset(seed=1)
    observations, rewards, terminated, _, _ = env.step(np.array([0, 1]))
    env.close()
    assert observations.tolist() == [[1, 1, 5], [1, 1, 6]]
    assert observations.dtype == np.float32
    assert rewards.tolist() == [1, 11]
    assert terminated.tolist() == [False, True]


def test_a_repeated_action_adds_up_rewards() -> None:
    env = ActionRepeat(Counter(), 3)
    env.reset()
    observation, reward, terminated, truncated, _ = env.step(5)
    assert (observation.tolist(), reward, terminated, truncated) == ([1, 3, 5], 3, False, False)


def test_a_repeated_action_ends_with_the_episode() -> None:
    env = ActionRepeat(Counter(), 3)
    env.reset()
    env.step(5)
    observation, reward, terminated, truncated, _ = env.step(5)
    assert (observation.tolist(), reward, terminated, truncated) == ([1, 4, 5], 1, False, True)
    env.reset()
    _, reward, terminated, _, _ = env.step(6)
    assert (reward, terminated) == (11, True)


def test_frame_skip_of_a_spec_repeats_actions() -> None:
    env: Any = make_env(dataclasses.replace(describe(COUNTER, ("tiny_envs",)), frame_skip=2), 1)
    env.reset(seed=1)
    observations, rewards, *_ = env.step(np.array([0]))
    env.close()
    assert observations.tolist() == [[1, 2, 5]]
    assert rewards.tolist() == [2]


def test_environments_step_together_and_each_on_its_own() -> None:
    env: Any = make_env(describe("CartPole-v1"), 3)
    observations, _ = env.reset(seed=[1, 2, 3])
    assert len(np.unique(observations, axis=0)) == 3
    alone = gym.make("CartPole-v1")
    expected, _ = alone.reset(seed=2)
    assert np.array_equal(observations[1], expected)
    env.close()
    alone.close()
