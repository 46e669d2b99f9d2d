"""Any other environment that shows images: grey, a square with scikit-image's antialiased resize, stacked."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FrameStackObservation, TransformObservation

from asyncq.envs.spec import FRAME_SHAPE, EnvironmentSpec
from asyncq.envs.vectors import make_synchronous


def is_image(space: gym.spaces.Box) -> bool:
    return space.dtype == np.uint8 and (len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[-1] in (1, 3)))


def describe(env_id: str, actions: gym.spaces.Discrete, frame_stack: int, frame_skip: int) -> EnvironmentSpec:
    return EnvironmentSpec(
        env_id=env_id,
        family="pixels",
        frame_shape=FRAME_SHAPE,
        frame_dtype="uint8",
        frame_stack=frame_stack,
        frame_skip=frame_skip,
        actions=int(actions.n),
        first_action=int(actions.start),
    )


def make(spec: EnvironmentSpec, num_envs: int, *, render: bool) -> gym.vector.VectorEnv[Any, Any, Any]:
    return make_synchronous(spec, num_envs, render, lambda env: _stacked(env, spec))


def _stacked(env: gym.Env[Any, Any], spec: EnvironmentSpec) -> gym.Env[Any, Any]:
    shape = spec.frame_shape
    box = gym.spaces.Box(0, 255, shape, np.uint8)
    grey = TransformObservation(env, lambda picture: grey_frame(picture, shape), box)
    return FrameStackObservation(grey, spec.frame_stack, padding_type="zero")


def grey_frame(picture: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """`picture[H, W]`, `[H, W, 1]` or `[H, W, 3]` uint8 -> grey uint8 of `shape`."""
    from skimage.color import rgb2gray  # half a second, which workers of other families need not spend
    from skimage.transform import resize

    grey = rgb2gray(picture) if picture.shape[-1] == 3 and picture.ndim == 3 else picture.squeeze() / 255.0
    resized: np.ndarray[Any, Any] = resize(grey, shape, anti_aliasing=True)  # type: ignore[no-untyped-call]
    frame: np.ndarray[Any, Any] = np.rint(255 * resized).astype(np.uint8)
    return frame
