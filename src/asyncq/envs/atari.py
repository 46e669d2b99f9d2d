"""Atari 2600 on ale-py's own C++ vector environment, with the usual preprocessing.

Maximum of the last two frames, grey, resized to a square, stacked; up to 30 no-ops and FIRE at the start of a game
(Machado et al. 2018). Sticky actions are those of the id: 0.25 for `ALE/X-v5`, none for `XNoFrameskip-v4`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from ale_py.env import AtariEnv
from ale_py.vector_env import AtariVectorEnv
from gymnasium.envs.registration import EnvSpec

from asyncq.envs.spec import FRAME_SHAPE, EnvironmentSpec
from asyncq.errors import UsageError

DEFAULTS = {
    "game": "pong", "repeat_action_probability": 0.25, "full_action_space": False,
    "max_num_frames_per_episode": 108_000,
}  # fmt: skip
"""What an id stands for that does not say; ale-py's."""


def is_atari(registered: EnvSpec) -> bool:
    return registered.entry_point == "ale_py.env:AtariEnv" and registered.kwargs.get("obs_type", "rgb") != "ram"


def action_names(registered: EnvSpec) -> list[str]:
    env = AtariEnv(**registered.kwargs)
    names: list[str] = env.get_action_meanings()
    env.close()
    return names


def settings_of(registered: EnvSpec) -> dict[str, Any]:
    """What the id stands for. Raises UsageError for variants of the game that cannot be played."""
    settings = {**DEFAULTS, **{name: value for name, value in registered.kwargs.items() if value is not None}}
    wrapping = [name for name in ("max_episode_steps", "additional_wrappers") if getattr(registered, name)]
    if unknown := sorted(set(settings) - {"obs_type", "frameskip", *DEFAULTS}) + wrapping:
        raise UsageError(
            f"{registered.id} is registered with {', '.join(unknown)}, which ale-py's vector environment does not take"
        )
    return settings


def describe(registered: EnvSpec, frame_stack: int, frame_skip: int) -> EnvironmentSpec:
    settings = settings_of(registered)
    env = AtariVectorEnv(settings["game"], 1, num_threads=1, full_action_space=settings["full_action_space"])
    assert isinstance(env.single_action_space, gym.spaces.Discrete)
    actions = int(env.single_action_space.n)
    env.close()
    return EnvironmentSpec(
        env_id=registered.id,
        family="atari",
        frame_shape=FRAME_SHAPE,
        frame_dtype="uint8",
        frame_stack=frame_stack,
        frame_skip=frame_skip,
        actions=actions,
        sticky=settings["repeat_action_probability"],
        max_frames=settings["max_num_frames_per_episode"],
    )


def make(spec: EnvironmentSpec, num_envs: int, *, render: bool) -> gym.vector.VectorEnv[Any, Any, Any]:
    env = _make(spec, num_envs)
    if not render:
        return env
    twin = _make(spec, num_envs, grayscale=False, img_height=210, img_width=160, stack_num=1)
    return WithPicture(env, twin)


def _make(spec: EnvironmentSpec, num_envs: int, **picture: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
    settings = settings_of(gym.spec(spec.env_id))
    assert spec.max_frames is not None
    height, width = spec.frame_shape
    shape = {"img_height": height, "img_width": width, "stack_num": spec.frame_stack}
    return AtariVectorEnv(
        settings["game"],
        num_envs,
        num_threads=1,
        max_num_frames_per_episode=spec.max_frames,
        repeat_action_probability=spec.sticky,
        full_action_space=settings["full_action_space"],
        frameskip=spec.frame_skip,
        reward_clipping=False,
        **{**shape, **picture},
    )


class WithPicture(gym.vector.VectorWrapper):
    """Steps a twin with the same seeds and actions, whose observations are the full RGB screen."""

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], twin: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self.twin = twin

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is None:
            raise ValueError("two games that stay in step need a seed")
        self._screen, _ = self.twin.reset(seed=seed, options=options)
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._screen, *_ = self.twin.step(actions)
        return self.env.step(actions)

    def render(self) -> tuple[Any, ...]:
        return tuple(self._screen[:, 0])

    def close(self, **kwargs: Any) -> None:
        self.twin.close(**kwargs)
        self.env.close(**kwargs)
