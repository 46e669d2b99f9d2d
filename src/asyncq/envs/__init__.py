"""Environments: every family gives a Gymnasium vector environment whose observations are stacked frames or vectors.

All of them reset in the step after an episode's last (`AutoresetMode.NEXT_STEP`), so an episode's last observation is
always there to bootstrap from. Whoever adds a family writes one file with `describe` and `make`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import ale_py
import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.envs.registration import EnvSpec

from asyncq.envs import atari, atari_2016, latency, pixels, vectors
from asyncq.envs.spec import EnvironmentSpec
from asyncq.errors import UsageError, one_line

__all__ = [
    "TRAINING_SEEDS",
    "EnvironmentSpec",
    "action_names",
    "describe",
    "describe_2016",
    "import_modules",
    "make_env",
    "read_kwargs",
    "refuse_unplayable",
    "reset_with_seeds",
    "same_task",
]


TRAINING_SEEDS = 2**30
"""Environments are seeded from here up in training; lower seeds are free for evaluation."""


class Family(Protocol):
    """A module that makes environments of one family."""

    def make(self, spec: EnvironmentSpec, num_envs: int, *, render: bool) -> gym.vector.VectorEnv[Any, Any, Any]: ...


FAMILIES: dict[str, Family] = {"atari": atari, "atari-2016": atari_2016, "pixels": pixels, "vectors": vectors}


def describe(
    env_id: str,
    imports: tuple[str, ...] = (),
    frame_stack: int | None = None,
    frame_skip: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> EnvironmentSpec:
    """Find out what `env_id` is. Raises UsageError if it is unknown or of a kind that cannot be learned here."""
    registered, kwargs = _find(env_id, imports), dict(kwargs or {})
    if atari.is_atari(registered):
        if kwargs:
            raise UsageError(f"{env_id} takes no --env-kwargs; its id and --frame-skip say how an Atari game is played")
        spec = atari.describe(registered, frame_stack or 4, frame_skip or 4)
    else:
        try:
            env = gym.make(env_id, **kwargs)
            env.reset(seed=0)
        except Exception as error:  # somebody else's code may raise anything
            raise UsageError(f"environment {env_id} cannot be made: {one_line(error)}") from error
        try:
            spec = _describe_spaces(env, env_id, frame_stack, frame_skip)
        finally:
            env.close()
    return dataclasses.replace(spec, imports=imports, kwargs=kwargs)


PYTHON_CONSTANTS = {"True": True, "False": False, "None": None}


def read_kwargs(words: Iterable[str]) -> dict[str, Any]:
    """Turn words `NAME=VALUE` into arguments; values are Python's True, False and None, or JSON, or else text.

    Raises UsageError for a word of another form.
    """
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name.isidentifier()):
            raise UsageError(f"--env-kwargs {word} is no NAME=VALUE")
        try:
            kwargs[name] = PYTHON_CONSTANTS[value] if value in PYTHON_CONSTANTS else json.loads(value)
        except ValueError:
            kwargs[name] = value
    return kwargs


def describe_2016(env_id: str, frame_stack: int) -> EnvironmentSpec:
    """The Atari game `env_id` with the preprocessing of 2016. Raises UsageError if it is none."""
    registered = _find(env_id, ())
    if not atari.is_atari(registered):
        raise UsageError(f"weights of 2016 play Atari games, and {env_id} is none; use an id such as Breakout-v4")
    return atari_2016.describe(registered, frame_stack)


def _describe_spaces(
    env: gym.Env[Any, Any], env_id: str, frame_stack: int | None, frame_skip: int | None
) -> EnvironmentSpec:
    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, gym.spaces.Discrete):
        raise UsageError(f"the actions of {env_id} are {actions}; only Discrete actions are supported")
    if isinstance(observations, gym.spaces.Box) and pixels.is_image(observations):
        return pixels.describe(env_id, actions, frame_stack or 4, frame_skip or 1)
    if isinstance(observations, gym.spaces.Box) and len(observations.shape) == 1:
        return vectors.describe(env_id, actions, observations.shape[0], frame_skip or 1)
    supported = "only images (Box of uint8, [H, W], [H, W, 1] or [H, W, 3]) and vectors (Box, [D]) are supported"
    raise UsageError(f"the observations of {env_id} are {observations}; {supported}")


def make_env(spec: EnvironmentSpec, num_envs: int, *, render: bool = False) -> gym.vector.VectorEnv[Any, Any, Any]:
    """`num_envs` environments that step together; `render` makes `env.render()` return one RGB picture each."""
    _find(spec.env_id, spec.imports)
    return FAMILIES[spec.family].make(spec, num_envs, render=render)


def refuse_unplayable(spec: EnvironmentSpec) -> None:
    """Raises UsageError if the environment, which another machine may have trained on, cannot be made on this one."""
    try:
        make_env(spec, 1).close()
    except UsageError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise UsageError(f"environment {spec.env_id} cannot be made: {one_line(error)}") from error


def reset_with_seeds(env: gym.vector.VectorEnv[Any, Any, Any], seeds: Sequence[int]) -> tuple[Any, dict[str, Any]]:
    """Begin all episodes anew, each environment with its own seed."""
    # ale-py takes an array where Gymnasium takes a list
    taken: Any = np.array(seeds) if isinstance(env.unwrapped, AtariVectorEnv) else list(seeds)
    return env.reset(seed=taken)


def action_names(spec: EnvironmentSpec) -> list[str]:
    """What people call the actions: Atari's joystick positions, numbers elsewhere."""
    if spec.family.startswith("atari"):
        return atari.action_names(_find(spec.env_id, spec.imports))
    return [f"action {action}" for action in range(spec.actions)]


def same_task(one: EnvironmentSpec, other: EnvironmentSpec) -> bool:
    """Whether weights trained on `other` can play `one`: the same game, seen and acted on in the same way."""
    if (one.family, one.observation_shape, one.actions) != (other.family, other.observation_shape, other.actions):
        return False
    if one.family.startswith("atari"):
        games = [atari.settings_of(gym.spec(spec.env_id))["game"] for spec in (one, other)]
        return bool(games[0] == games[1])
    return _without_version(one.env_id) == _without_version(other.env_id)


def _without_version(env_id: str) -> str:
    return re.sub(r"-v\d+$", "", env_id)


def import_modules(modules: Iterable[str]) -> None:
    """Import what registers third-party environments. Raises UsageError if that fails."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # somebody else's code may raise anything
            hint = "; is it installed, or on PYTHONPATH?" if isinstance(error, ModuleNotFoundError) else ""
            raise UsageError(f"--import {module} failed: {one_line(error)}{hint}") from error


def _find(env_id: str, imports: Iterable[str]) -> EnvSpec:
    gym.register_envs(ale_py)
    latency.register()
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # or it greets on stderr
    import_modules(imports)
    try:
        return gym.spec(env_id)
    except gym.error.Error as error:
        known = {name.rpartition("/")[2].lower(): name for name in gym.registry if "/" in name}
        known |= {name.lower(): name for name in gym.registry}
        near = [known[name] for name in difflib.get_close_matches(env_id.lower(), known, 3, cutoff=0.7)]
        hint = f"the nearest ids are {', '.join(near)}; " if near else ""
        raise UsageError(f"environment {env_id} is unknown; {hint}a package's own need --import MODULE") from error
