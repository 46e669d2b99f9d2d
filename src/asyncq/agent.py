"""An agent that plays: weights of any kind, the network and policy they belong to, and the environment they know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor

from asyncq.envs import TRAINING_SEEDS, EnvironmentSpec, describe, describe_2016, import_modules, same_task
from asyncq.errors import UsageError
from asyncq.flags import Imports, OpenFloat, OpenStr, Switch, alias, plain
from asyncq.methods import METHODS, network_for
from asyncq.networks import Outputs, PolicyValueNetwork, QNetwork
from asyncq.policies import EpsilonGreedyPolicy, GreedyPolicy, Policy, SoftmaxPolicy
from asyncq.shared import Array
from asyncq.storage.files import read_weights_bytes
from asyncq.storage.keras_file import is_keras_file, load_keras
from asyncq.storage.keras_layout import BACKENDS, DATA_FORMATS
from asyncq.storage.state_file import SEAL as STATE_SEAL
from asyncq.storage.weights_file import TrainedWeights, load_weights

EPSILON = 0.001
"""Share of random actions with which action values are played, unless said otherwise."""


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Which weights, of whichever program."""

    path: tyro.conf.Positional[Annotated[str | None, plain("FILE")]] = None
    """Weights file (.h5): asyncq's own, or a Keras one of the networks of 2016."""
    weights: OpenStr = None
    """The same, as a flag."""
    env: Annotated[OpenStr, alias("--game")] = None
    """Another id of the same task, say with other sticky actions (default: the one trained on; Keras files: the
    Breakout-v0 of 2016, which is today's Breakout-v4)."""
    imports: Imports = ()
    """Modules that register third-party environments, or hold the network."""
    keras_backend: OpenStr = None
    """Keras files: the backend that trained them, theano or tensorflow (default: what the file says; Keras 1 does not
    say, and is taken for theano)."""
    keras_data_format: OpenStr = None
    """Keras files: channels_first or channels_last (default: what the file says, else channels_first)."""

    def __post_init__(self) -> None:
        if self.path and self.weights:
            raise UsageError(f"two weights files are named, {self.path} and {self.weights}; name one")
        if not self.path and not self.weights:
            where = ", before --import, which takes all words behind it" if self.imports else ""
            raise UsageError(f"name a weights file, such as runs/NAME/best.h5{where}")
        for flag, value, known in (
            ("--keras-backend", self.keras_backend, BACKENDS),
            ("--keras-data-format", self.keras_data_format, DATA_FORMATS),
        ):
            if value is not None and value not in known:
                raise UsageError(f"{flag} {value} is unknown; choose one of: {', '.join(known)}")

    @property
    def file(self) -> Path:
        return Path(self.path or self.weights or "")


def read_weights(config: WeightsConfig) -> TrainedWeights:
    """The weights that `config` names, whoever wrote them. Raises UsageError if they cannot be read."""
    if config.file.suffix in (".safetensors", ".onnx"):
        raise UsageError(f"{config.file} can be written but not read; use the .h5 that it was made from")
    import_modules(config.imports)
    content = read_weights_bytes(config.file)
    if STATE_SEAL.is_on(content):
        raise UsageError(f"{config.file} is the state of a training; its weights are in the run's latest.h5, best.h5")
    if is_keras_file(content):
        return load_keras(config.file, config.env, config.keras_backend, config.keras_data_format)
    for flag, value in (("--keras-backend", config.keras_backend), ("--keras-data-format", config.keras_data_format)):
        if value is not None:
            raise UsageError(f"{flag} is for Keras files, and {config.file} is none; leave it out")
    return load_weights(config.file)


@dataclass(frozen=True, kw_only=True)
class AgentConfig(WeightsConfig):
    """Which weights, and how they choose actions."""

    seed: int = 1000
    """Seed of the first game; the following games count up from it."""
    greedy: Switch = False
    """Always take the best action (default: a3c samples its policy, the Q methods use --epsilon)."""
    sample: Switch = False
    """a3c: sample from the policy, as it does by default."""
    epsilon: OpenFloat = None
    """Q methods: share of random actions (default: 0.001)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_play()

    def check_play(self) -> None:
        """Raises UsageError if the seed or the choice of actions cannot be."""
        if self.epsilon is not None and not 0 <= self.epsilon <= 1:
            raise UsageError(f"--epsilon is {self.epsilon}; it must lie between 0 and 1")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}; it must be at least 0")
        if self.seed >= TRAINING_SEEDS:
            raise UsageError(f"--seed is {self.seed}; from {TRAINING_SEEDS} on, seeds are those of training")
        if self.greedy and self.sample:
            raise UsageError("--greedy and --sample exclude each other; give one of them")
        if self.greedy and self.epsilon:
            raise UsageError("--greedy takes no random actions, so leave --epsilon out")


class Agent:
    """A trained network, its policy and its environment."""

    def __init__(self, config: AgentConfig, weights: TrainedWeights | None = None) -> None:
        """`weights`: those that `config` names, if they have been read. Raises UsageError."""
        weights = weights or read_weights(config)
        self.trained, self.facts = weights.config, weights.facts
        self.spec = playing_spec(weights.spec, config.env, config.imports)
        self.heads = METHODS[weights.config.method].HEADS
        self.network = network_of(weights, config.file, config.imports)
        self.policy, self.policy_name = _policy(self.heads, config)

    def no_memory(self, games: int) -> Tensor:
        """What the network remembers, `[games, M]`, before any of them has begun."""
        return torch.zeros(games, self.network.memory_size)

    @torch.inference_mode()
    def consider(self, observations: Array, memory: Tensor) -> tuple[Outputs, Tensor]:
        """The network's outputs for stacked `observations[B, ...]` after `memory[B, M]`, and the memory after them."""
        return self.network.step(torch.as_tensor(observations), memory)

    def choose(self, outputs: Outputs, generator: torch.Generator) -> Array:
        """Actions `[B]` by the network's outputs."""
        actions, _ = self.policy.act(outputs, generator)
        return actions.numpy()

    def preferences(self, outputs: Outputs) -> Tensor:
        """How much of each action `[B, A]`: its probability under a policy, or its value."""
        return outputs[0].softmax(-1) if self.heads == "policy-value" else outputs[0]


def network_of(weights: TrainedWeights, file: Path, imports: tuple[str, ...] = ()) -> PolicyValueNetwork | QNetwork:
    """The network with its trained parameters. Raises UsageError if they are another's, or the module's not trusted."""
    module, colon, _ = (weights.config.network or "").partition(":")
    if colon and module not in imports:  # a file alone must not make us run code
        raise UsageError(f"{file} has a network from {module}; add --import {module} if you trust it")
    network = network_for(weights.config, weights.spec)
    try:
        network.load_state_dict({name: torch.as_tensor(value) for name, value in weights.parameters.items()})
    except RuntimeError as error:
        raise UsageError(f"the tensors in {file} do not fit its network {weights.config.network}") from error
    return network


def playing_spec(trained: EnvironmentSpec, env_id: str | None, imports: tuple[str, ...]) -> EnvironmentSpec:
    """The environment to play `env_id` in, seen as in training. Raises UsageError if it is another task."""
    if missing := sorted(set(trained.imports) - set(imports)):  # a file alone must not make us run code
        flags = " ".join(["--import", *missing])
        raise UsageError(f"{trained.env_id} comes from {', '.join(missing)}; add {flags} if you trust it")
    if env_id is None or env_id == trained.env_id:
        return trained
    if trained.family == "atari-2016":
        spec = describe_2016(env_id, trained.frame_stack)
    else:
        spec = describe(env_id, imports, trained.frame_stack, trained.frame_skip, trained.kwargs)
        spec = spec.resized(trained.frame_shape[0])
    if not same_task(spec, trained):
        raise UsageError(f"these weights were trained on {trained.env_id}; they cannot play {env_id}")
    return spec


def _policy(heads: str, config: AgentConfig) -> tuple[Policy, str]:
    if config.greedy:
        return GreedyPolicy(), "greedy"
    if heads == "policy-value":
        if config.epsilon is not None:
            raise UsageError("--epsilon is for the Q methods; a3c samples its policy, or is --greedy")
        return SoftmaxPolicy(), "sampled"
    if config.sample:
        raise UsageError("--sample is for a3c; action values are played with --greedy or --epsilon")
    epsilon = EPSILON if config.epsilon is None else config.epsilon
    if epsilon == 0:
        return GreedyPolicy(), "greedy"
    return EpsilonGreedyPolicy(np.array([epsilon])), f"epsilon-greedy {epsilon:g}"
