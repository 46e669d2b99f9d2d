"""Environments whose observations are vectors, and the synchronous vector environment that other families share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TransformAction, TransformObservation

from asyncq.envs.spec import EnvironmentSpec


def describe(env_id: str, actions: gym.spaces.Discrete, size: int, frame_skip: int) -> EnvironmentSpec:
    return EnvironmentSpec(
        env_id=env_id,
        family="vectors",
        frame_shape=(size,),
        frame_dtype="float32",
        frame_stack=1,
        frame_skip=frame_skip,
        actions=int(actions.n),
        first_action=int(actions.start),
    )


def make(spec: EnvironmentSpec, num_envs: int, *, render: bool) -> gym.vector.VectorEnv[Any, Any, Any]:
    return make_synchronous(spec, num_envs, render, _as_float32)


def _as_float32(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    box = gym.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    return TransformObservation(env, lambda observation: np.asarray(observation, np.float32), box)


def make_synchronous(
    spec: EnvironmentSpec, num_envs: int, render: bool, prepare: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """`num_envs` environments in this process, each with `prepare`'s observations."""

    def make_one() -> gym.Env[Any, Any]:
        kwargs = {"render_mode": "rgb_array", **spec.kwargs} if render else spec.kwargs
        env = gym.make(spec.env_id, **kwargs)
        if spec.frame_skip > 1:
            env = ActionRepeat(env, spec.frame_skip)
        if spec.first_action:
            space = gym.spaces.Discrete(spec.actions)
            env = TransformAction(env, lambda action: action + spec.first_action, space)
        return prepare(env)

    return gym.vector.SyncVectorEnv([make_one] * num_envs)


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any]):
    """Repeats each action `frames` times and adds up the rewards."""

    def __init__(self, env: gym.Env[Any, Any], frames: int) -> None:
        super().__init__(env)
        self.frames = frames

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(self.frames):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info
