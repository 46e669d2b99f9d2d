"""`describe`, `make_env` and `same_task`: what is found out of an environment, and what is refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from asyncq.envs import EnvironmentSpec, describe, make_env, read_kwargs, same_task
from asyncq.errors import UsageError
from tiny_envs import CONTINUOUS, COUNTER, PIXELS, TABLE, Counter


def refusal(env_id: str, imports: tuple[str, ...] = ()) -> str:
    with pytest.raises(UsageError) as caught:
        describe(env_id, imports)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_describe_a_vector_environment() -> None:
    spec = describe("CartPole-v1")
    assert spec == EnvironmentSpec(
        env_id="CartPole-v1",
        family="vectors",
        frame_shape=(4,),
        frame_dtype="float32",
        frame_stack=1,
        frame_skip=1,
        actions=2,
    )
    assert (spec.kind, spec.observation_shape) == ("vector", (4,))


@pytest.mark.parametrize(("env_id", "sticky"), [("ALE/Pong-v5", 0.25), ("PongNoFrameskip-v4", 0.0)])
def test_describe_an_atari_game_with_its_ids_sticky_actions(env_id: str, sticky: float) -> None:
    spec = describe(env_id)
    assert (spec.family, spec.frame_shape, spec.frame_dtype) == ("atari", (84, 84), "uint8")
    assert (spec.frame_stack, spec.frame_skip, spec.actions, spec.sticky) == (4, 4, 6, sticky)
    assert spec.max_frames == 108_000
    assert (spec.kind, spec.observation_shape) == ("image", (4, 84, 84))


def test_describe_a_picture_environment() -> None:
    spec = describe(PIXELS, ("tiny_envs",))
    assert (spec.family, spec.observation_shape, spec.actions, spec.frame_skip) == ("pixels", (4, 84, 84), 3, 1)
    assert spec.imports == ("tiny_envs",)


def test_describe_takes_the_given_stack_and_skip() -> None:
    for env_id in ("ALE/Pong-v5", PIXELS):
        spec = describe(env_id, ("tiny_envs",), frame_stack=2, frame_skip=3)
        assert (spec.observation_shape, spec.frame_skip) == ((2, 84, 84), 3)


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", PIXELS])
def test_frames_of_another_size(env_id: str) -> None:
    spec = describe(env_id, ("tiny_envs",)).resized(42)
    env: Any = make_env(spec, 2)
    observations, _ = env.reset(seed=11)
    env.close()
    assert observations.shape == (2, *spec.observation_shape) == (2, 4, 42, 42)


def test_an_unknown_id_names_the_nearest() -> None:
    assert "the nearest ids are CartPole-v1" in refusal("CartPol-v1")
    assert "the nearest ids are ALE/Pong-v5" in refusal("pong")
    assert "ALE/Pong-v5" in refusal("ALE/Pnog-v5")
    assert "Pong-v4" in refusal("pong")


def test_an_id_like_no_other_has_no_neighbours() -> None:
    assert refusal("MyGrid-v0") == "environment MyGrid-v0 is unknown; a package's own need --import MODULE"


def test_actions_that_are_not_discrete_are_refused() -> None:
    assert "only Discrete actions are supported" in refusal(CONTINUOUS, ("tiny_envs",))


def test_observations_that_are_neither_image_nor_vector_are_refused() -> None:
    assert "[H, W, 3]) and vectors (Box, [D]) are supported" in refusal(TABLE, ("tiny_envs",))


def test_a_module_that_cannot_be_imported_is_refused() -> None:
    said = refusal("CartPole-v1", ("no_such_module",))
    assert said.startswith("--import no_such_module failed:") and said.endswith("or on PYTHONPATH?")


def test_a_module_that_fails_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_that_fails.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal("CartPole-v1", ("module_that_fails",)) == "--import module_that_fails failed: not today"


def test_an_environment_that_cannot_begin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(self: Counter, **_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Counter, "reset", reset)
    assert refusal(COUNTER, ("tiny_envs",)).endswith("cannot be made: RuntimeError")


@pytest.mark.parametrize("env_id", ["CartPole-v1", "ALE/Pong-v5", PIXELS, COUNTER])
def test_an_environment_gives_what_its_spec_says_and_resets_in_the_step_after_the_last(env_id: str) -> None:
    spec = describe(env_id, ("tiny_envs",))
    if spec.family == "atari":
        spec = dataclasses.replace(spec, max_frames=40)
    env: Any = make_env(spec, 2)
    observations, _ = env.reset(seed=3)
    resetting, ends = np.zeros(2, bool), 0
    for t in range(60):
        assert observations.shape == (2, *spec.observation_shape)
        assert observations.dtype == spec.frame_dtype
        observations, rewards, terminated, truncated, _ = env.step(np.full(2, t % spec.actions))
        assert not (terminated | truncated)[resetting].any()
        assert not rewards[resetting].any()
        resetting = terminated | truncated
        ends += int(resetting.sum())
    env.close()
    assert ends >= 2


@pytest.mark.parametrize("env_id", ["CartPole-v1", "PongNoFrameskip-v4", PIXELS])
def test_the_same_seed_gives_the_same_play(env_id: str) -> None:
    spec = describe(env_id, ("tiny_envs",))
    plays = []
    for _ in range(2):
        env: Any = make_env(spec, 2)
        observations = [env.reset(seed=11)[0].copy()]
        observations += [env.step(np.array([t % 2, 1]))[0].copy() for t in range(12)]
        env.close()
        plays.append(np.array(observations))
    assert np.array_equal(plays[0], plays[1])


def test_same_task() -> None:
    sticky, plain = describe("ALE/Pong-v5"), describe("PongNoFrameskip-v4")
    assert same_task(sticky, plain)
    assert not same_task(sticky, describe("ALE/Boxing-v5"))
    assert not same_task(sticky, describe("ALE/Pong-v5", (), frame_stack=2))
    cart = describe("CartPole-v1")
    assert same_task(dataclasses.replace(cart, env_id="CartPole-v0"), cart)
    assert not same_task(cart, describe("MountainCar-v0"))
    valley, village = (dataclasses.replace(cart, env_id=f"grid-{name}-v0") for name in ("valley", "village"))
    assert not same_task(valley, village)
    assert not same_task(sticky, cart)


def test_an_atari_id_that_names_no_game_is_pong() -> None:
    """As for ale-py itself."""
    gym.register("Unnamed-v0", entry_point="ale_py.env:AtariEnv", kwargs={"repeat_action_probability": 0.0})
    try:
        assert same_task(describe("Unnamed-v0"), describe("PongNoFrameskip-v4"))
        assert not same_task(describe("Unnamed-v0"), describe("BreakoutNoFrameskip-v4"))
    finally:
        del gym.registry["Unnamed-v0"]


def test_env_kwargs_are_pythons_constants_or_json_or_text() -> None:
    words = ["a=False", "b=None", "c=true", "d=0.5", "e=[1, 2]", "f=lunar", "g=x=1"]
    read = {"a": False, "b": None, "c": True, "d": 0.5, "e": [1, 2], "f": "lunar", "g": "x=1"}
    assert read_kwargs(words) == read
    with pytest.raises(UsageError, match="x is no NAME=VALUE"):
        read_kwargs(["x"])


def test_the_registry_holds_atari_without_an_import() -> None:
    describe("ALE/Pong-v5")
    assert gym.spec("ALE/Pong-v5").kwargs["game"] == "pong"
