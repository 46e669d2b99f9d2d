"""Atari as in 2016: Pillow's resize before the grey, the id's own frame skip, stacks that begin with copies."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from asyncq.envs import action_names, describe_2016, make_env, reset_with_seeds
from asyncq.envs.atari_2016 import grey_frame
from asyncq.errors import UsageError


def test_a_frame_is_resized_in_colour_and_then_made_grey() -> None:
    screen = np.random.default_rng(1).integers(256, size=(210, 160, 3), dtype=np.uint8)
    small = np.asarray(Image.fromarray(screen).resize((84, 84), Image.Resampling.BILINEAR), np.float64)
    expected = small @ [0.2125, 0.7154, 0.0721]
    frame = grey_frame(screen, (84, 84))
    assert frame.dtype == np.float32
    assert np.abs(frame - expected).max() < 1e-3
    assert (frame != np.rint(frame)).any(), "unrounded"


@pytest.mark.parametrize(
    ("env_id", "skip", "random_skip", "sticky"),
    [
        ("Breakout-v4", 3, (2, 4), 0.0),
        ("Breakout-v0", 3, (2, 4), 0.25),
        ("BreakoutNoFrameskip-v4", 1, None, 0.0),
        ("ALE/Breakout-v5", 4, None, 0.25),
    ],
)
def test_frame_skip_and_sticky_actions_are_the_ids(
    env_id: str, skip: int, random_skip: tuple[int, int] | None, sticky: float
) -> None:
    spec = describe_2016(env_id, 3)
    assert (spec.frame_skip, spec.random_frame_skip, spec.sticky) == (skip, random_skip, sticky)
    assert (spec.observation_shape, spec.frame_dtype, spec.actions) == ((3, 84, 84), "float32", 4)
    assert action_names(spec) == ["NOOP", "FIRE", "RIGHT", "LEFT"]


def test_an_id_of_ones_own_is_played_with_ale_pys_defaults_in_colour() -> None:
    kwargs = {"game": "breakout", "obs_type": "grayscale"}
    gym.register("AsyncqTest/Grey-v0", entry_point="ale_py.env:AtariEnv", kwargs=kwargs)
    spec = describe_2016("AsyncqTest/Grey-v0", 3)
    assert (spec.frame_skip, spec.random_frame_skip, spec.sticky, spec.max_frames) == (4, None, 0.25, 108_000)
    env = make_env(spec, 1)
    observations, _ = reset_with_seeds(env, [1])
    env.close()
    assert observations.shape == (1, 3, 84, 84)


def test_actions_last_two_to_four_frames() -> None:
    env: Any = make_env(describe_2016("Breakout-v4", 3), 1)
    reset_with_seeds(env, [7])
    game, lasted = env.envs[0].unwrapped, []
    for _ in range(60):
        before = game.ale.getEpisodeFrameNumber()
        env.step(np.array([0]))
        lasted.append(game.ale.getEpisodeFrameNumber() - before)
    env.close()
    assert set(lasted) == {2, 3, 4}


def test_the_first_stack_holds_the_first_frame_three_times_and_the_newest_is_last() -> None:
    env: Any = make_env(describe_2016("Breakout-v4", 3), 2, render=True)
    observations, _ = reset_with_seeds(env, [1, 2])
    assert observations.shape == (2, 3, 84, 84)
    assert (observations == observations[:, -1:]).all() and observations.max() > 100
    for _ in range(5):
        before = observations
        observations, *_ = env.step(np.array([1, 2]))
        assert (observations[:, :-1] == before[:, 1:]).all()
        for screen, stack in zip(env.render(), observations, strict=True):
            assert screen.shape == (210, 160, 3)
            assert (grey_frame(screen, (84, 84)) == stack[-1]).all()
    env.close()


def test_what_is_no_atari_game_is_refused() -> None:
    with pytest.raises(UsageError, match="Atari"):
        describe_2016("CartPole-v1", 3)
