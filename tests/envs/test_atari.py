"""Atari: the settings of an id reach the game, and the twin that draws pictures stays in step with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.transform import resize

from asyncq.envs import describe, make_env
from asyncq.envs.atari import WithPicture
from asyncq.errors import UsageError


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "PongNoFrameskip-v4"])
def test_the_twin_stays_in_step_through_episode_ends(env_id: str) -> None:
    """Its picture, made grey and small, is the newest frame that the agent sees; a game out of step is not."""
    spec = dataclasses.replace(describe(env_id), max_frames=120)
    env: Any = make_env(spec, 2, render=True)
    observations, _ = env.reset(seed=np.array([5, 6]))
    generator, ends = np.random.default_rng(1), 0
    for _ in range(65):
        observations, _, terminated, truncated, _ = env.step(generator.integers(spec.actions, size=2))
        ends += int((terminated | truncated).sum())
        pictures = env.render()
        assert [picture.shape for picture in pictures] == [(210, 160, 3)] * 2
        for picture, frame in zip(pictures, observations[:, -1], strict=True):
            small = 255 * resize(rgb2gray(picture), (84, 84), anti_aliasing=True)  # type: ignore[no-untyped-call]
            # another resize, so edges differ a little; one step out of step, a ball or a paddle differs by far more
            assert np.abs(small - frame).max() < 30
    env.close()
    assert ends >= 4


def test_watching_changes_nothing_of_the_game() -> None:
    spec = dataclasses.replace(describe("ALE/Pong-v5"), max_frames=120)
    plays = []
    for render in (False, True):
        env: Any = make_env(spec, 2, render=render)
        env.reset(seed=np.array([5, 6]))
        plays.append(np.array([env.step(np.array([t % 6, 2]))[0].copy() for t in range(50)]))
        env.close()
    assert np.array_equal(plays[0], plays[1])


def test_a_picture_needs_a_seed() -> None:
    env: Any = make_env(describe("ALE/Pong-v5"), 1, render=True)
    with pytest.raises(ValueError, match="need a seed"):
        env.reset()
    env.close()


def test_an_episode_is_truncated_after_max_frames() -> None:
    env: Any = make_env(dataclasses.replace(describe("ALE/Pong-v5"), max_frames=80), 1)
    _, info = env.reset(seed=np.array([1]))
    steps, done = 0, False
    while not done:
        _, _, terminated, truncated, info = env.step(np.array([0]))
        steps, done = steps + 1, bool(truncated[0])
        assert not terminated[0]
    env.close()
    assert int(info["episode_frame_number"][0]) >= 80
    assert 1 <= steps <= 20


def test_rewards_are_not_clipped() -> None:
    """Q*bert pays 25 points for a cube, and random play finds one soon."""
    env: Any = make_env(describe("ALE/Qbert-v5"), 4)
    env.reset(seed=np.arange(4))
    generator, greatest = np.random.default_rng(1), 0.0
    for _ in range(200):
        greatest = max(greatest, float(env.step(generator.integers(6, size=4))[1].max()))
        if greatest >= 25:
            break
    env.close()
    assert greatest >= 25


def test_pictures_are_drawn_by_a_wrapper_only_when_asked_for() -> None:
    spec = describe("ALE/Pong-v5")
    for render in (False, True):
        env: Any = make_env(spec, 1, render=render)
        assert isinstance(env, gym.vector.VectorEnv)
        assert isinstance(env, WithPicture) == render
        env.close()


def test_sticky_actions_and_frame_skip_reach_the_game() -> None:
    sticky, plays = dataclasses.replace(describe("ALE/Pong-v5"), frame_skip=3), []
    for spec in (sticky, dataclasses.replace(sticky, sticky=0.0)):
        env: Any = make_env(spec, 1)
        before = int(env.reset(seed=np.array([5]))[1]["episode_frame_number"][0])
        assert int(env.step(np.array([0]))[4]["episode_frame_number"][0]) == before + 3
        plays.append(np.array([env.step(np.array([2 + t % 2]))[0].copy() for t in range(60)]))
        env.close()
    assert not np.array_equal(plays[0], plays[1])


def test_ids_of_ones_own_are_played_with_ale_pys_defaults_or_refused() -> None:
    for name, kwargs in (("Plain-v0", {"game": "pong"}), ("Hard-v0", {"game": "pong", "difficulty": 1})):
        gym.register(f"AsyncqTest/{name}", entry_point="ale_py.env:AtariEnv", kwargs=kwargs)
    spec = describe("AsyncqTest/Plain-v0")
    assert (spec.sticky, spec.max_frames, spec.actions) == (0.25, 108_000, 6)
    env = make_env(spec, 1)
    env.reset(seed=np.array([1]))  # type: ignore[arg-type]
    env.close()
    with pytest.raises(UsageError, match="AsyncqTest/Hard-v0 is registered with difficulty, which"):
        describe("AsyncqTest/Hard-v0")


def test_ids_of_ones_own_with_what_surrounds_the_game_are_refused() -> None:
    entry = {"entry_point": "ale_py.env:AtariEnv", "kwargs": {"game": "pong"}}
    gym.register("AsyncqTest/Short-v0", max_episode_steps=500, **entry)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="AsyncqTest/Short-v0 is registered with max_episode_steps, which"):
        describe("AsyncqTest/Short-v0")
