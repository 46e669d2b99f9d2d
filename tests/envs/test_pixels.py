"""Pixel environments: what counts as an image, how it becomes a grey frame, and how frames are stacked."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from asyncq.envs import describe, make_env
from asyncq.envs.pixels import grey_frame, is_image
from tiny_envs import PIXELS, Pixels


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((20, 30, 3), np.uint8, True),
        ((20, 30, 1), np.uint8, True),
        ((20, 30), np.uint8, True),
        ((20, 30, 4), np.uint8, False),
        ((20, 30, 3), np.float32, False),
        ((128,), np.uint8, False),
    ],
)
def test_an_image_is_a_uint8_picture_in_grey_or_rgb(shape: tuple[int, ...], dtype: type, expected: bool) -> None:
    assert is_image(gym.spaces.Box(0, 255, shape, dtype)) is expected


@pytest.mark.parametrize("shape", [(20, 30, 3), (200, 100, 3), (20, 30, 1), (20, 30), (84, 84)])
def test_a_picture_of_one_grey_stays_that_grey(shape: tuple[int, ...]) -> None:
    for grey in (0, 100, 255):
        frame = grey_frame(np.full(shape, grey, np.uint8), (84, 84))
        assert (frame.shape, frame.dtype) == ((84, 84), np.uint8)
        assert (frame == grey).all()


def test_colours_weigh_as_they_look() -> None:
    # 0.2125 R + 0.7154 G + 0.0721 B
    for channel, grey in enumerate((54, 182, 18)):
        picture = np.zeros((20, 30, 3), np.uint8)
        picture[..., channel] = 255
        assert (grey_frame(picture, (84, 84)) == grey).all()


def test_what_is_left_stays_left_and_what_is_up_stays_up() -> None:
    picture = np.zeros((168, 168), np.uint8)
    picture[:84, :40] = 200
    frame = grey_frame(picture, (84, 84))
    assert (frame[:40, :18] == 200).all()
    assert not frame[44:].any()
    assert not frame[:, 22:].any()


def test_the_newest_frame_is_the_last_of_the_stack_and_stacks_begin_with_zeros() -> None:
    env: Any = make_env(describe(PIXELS, ("tiny_envs",)), 1, render=True)
    observations, _ = env.reset(seed=1)
    assert not observations[0, :3].any()
    ended = False
    for _ in range(12):
        before = observations.copy()
        pictures = env.render()
        assert np.array_equal(observations[0, -1], grey_frame(pictures[0], (84, 84)))
        observations, _, terminated, truncated, _ = env.step(np.array([0]))
        if ended:
            assert not observations[0, :3].any()
        else:
            assert np.array_equal(observations[0, :3], before[0, 1:])
        ended = bool((terminated | truncated)[0])
    env.close()


def test_the_tiny_environment_shows_random_pictures() -> None:
    env = Pixels()
    one, _ = env.reset(seed=1)
    other, *_ = env.step(np.int64(0))
    assert not np.array_equal(one, other)
