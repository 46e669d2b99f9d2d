"""Atari 2600 as the Keras agents of 2016 saw it; nothing is trained on it any more, but their weights play on it.

Pillow's antialiased bilinear resize of the RGB screen to a square, then grey, unrounded; the newest frame of each step
alone, no maximum of two, no no-ops; frame skip and sticky actions as the id has them. What was `Breakout-v0` then, 2
to 4 frames at random and no sticky actions, is `Breakout-v4` in today's Gymnasium.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ale_py.env import AtariEnv
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import FrameStackObservation, TransformObservation
from PIL import Image

from asyncq.envs import atari
from asyncq.envs.spec import FRAME_SHAPE, EnvironmentSpec

LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)
"""Shares of red, green and blue in grey, those of scikit-image's rgb2gray, which takes five times as long."""


def describe(registered: EnvSpec, frame_stack: int) -> EnvironmentSpec:
    settings = _settings_of(registered)
    env = AtariEnv(**settings)
    assert isinstance(env.action_space, gym.spaces.Discrete)
    actions, skip = int(env.action_space.n), settings["frameskip"]
    env.close()
    return EnvironmentSpec(
        env_id=registered.id,
        family="atari-2016",
        frame_shape=FRAME_SHAPE,
        frame_dtype="float32",
        frame_stack=frame_stack,
        frame_skip=skip if isinstance(skip, int) else sum(skip) // 2,
        random_frame_skip=None if isinstance(skip, int) else (skip[0], skip[1] - 1),
        actions=actions,
        sticky=settings["repeat_action_probability"],
        max_frames=settings["max_num_frames_per_episode"],
    )


def _settings_of(registered: EnvSpec) -> dict[str, Any]:
    return {"frameskip": 4, **atari.settings_of(registered), "obs_type": "rgb"}


def make(spec: EnvironmentSpec, num_envs: int, *, render: bool) -> gym.vector.VectorEnv[Any, Any, Any]:
    return gym.vector.SyncVectorEnv([lambda: _make_one(spec)] * num_envs)


def _make_one(spec: EnvironmentSpec) -> gym.Env[Any, Any]:
    env = AtariEnv(**_settings_of(gym.spec(spec.env_id)), render_mode="rgb_array")
    box = gym.spaces.Box(0, 255, spec.frame_shape, np.float32)
    grey = TransformObservation(env, lambda screen: grey_frame(screen, spec.frame_shape), box)
    return FrameStackObservation(grey, spec.frame_stack, padding_type="reset")


def grey_frame(screen: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """`screen[H, W, 3]` uint8 -> grey float32 of `shape`, 0 to 255 as every network here takes its pixels."""
    height, width = shape
    small = Image.fromarray(screen).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32) @ LUMINANCE
