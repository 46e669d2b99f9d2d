"""Checks of a training's settings: each refuses what cannot work, and says why and what would."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from asyncq.defaults import FRAME_SIZES, PRESETS
from asyncq.errors import UsageError

if TYPE_CHECKING:
    from asyncq.config import TrainConfig

METHODS = ("one-step-q", "one-step-sarsa", "n-step-q", "a3c")
CHOICES: dict[str, tuple[str, ...]] = {
    "method": METHODS,
    "preset": PRESETS,
    "learning_rate_schedule": ("linear", "exponential"),
    "optimizer": ("rmsprop", "adam", "radam", "muon"),
    "correction": ("vtrace", "none"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("float32", "bf16"),
}
AT_LEAST_1 = (
    "total_steps", "queue_size", "publish_interval", "save_interval", "keep", "processes", "envs_per_process", "n_step",
    "batch_size", "passes", "sequence_length", "frame_stack", "frame_size", "frame_skip", "learning_rate_anneal_steps",
    "entropy_anneal_steps",
)  # fmt: skip
AT_LEAST_0 = (
    "seed", "value_coefficient", "max_restarts", "max_learner_restarts", "max_grad_norm", "reward_clip",
    "target_interval", "entropy_coefficient", "final_entropy_coefficient", "final_learning_rate",
    "epsilon_anneal_frames", "policy_clip",
)  # fmt: skip
AT_MOST = {"total_steps": 10**15, "frame_size": 1024, "frame_stack": 1024, "frame_skip": 1000}
ABOVE_0 = ("learning_rate", "optimizer_epsilon", "reward_scale", "report_interval", "worker_timeout")
SHARES = ("gamma", "trace_lambda", "epsilon_initial")
OF_A3C = (
    "value_coefficient", "normalise_advantages", "policy_clip", "correction", "entropy_anneal_steps",
    "exploration_persistence",
)  # fmt: skip
UNREAD = {
    "a3c": ("epsilon_initial", "epsilon_final", "epsilon_probabilities", "epsilon_anneal_frames"),
    "n-step-q": OF_A3C,
    "one-step-q": (*OF_A3C, "trace_lambda"),
    "one-step-sarsa": (*OF_A3C, "trace_lambda"),
}
"""Settings that a method ignores; `config.json` may hold them, but nobody should try to change them."""


def check(config: TrainConfig) -> None:
    """Raises UsageError with the reason if `config` cannot work; settings that are still open pass."""
    _check_choices(config)
    _check_numbers(config)
    _check_epsilons(config)
    _check_persistence(config)
    _check_combinations(config)


def check_kind(config: TrainConfig, kind: str) -> None:
    """Raises UsageError if `config` asks for what there is not for observations of `kind` "image" or "vector"."""
    if kind == "vector" and config.network in FRAME_SIZES:
        raise UsageError(f"--network {config.network} takes images, but {config.env} gives vectors; use --network mlp")
    if kind == "image" and config.network == "mlp":
        raise UsageError(
            f"--network mlp takes vectors, but {config.env} gives images; use --network small, a3c, nature or impala"
        )
    for name in ("frame_stack", "frame_size"):
        if kind == "vector" and (getattr(config, name) or 1) > 1:
            given = f"{flag(name)} {getattr(config, name)}"
            raise UsageError(f"{given} is for images, but {config.env} gives vectors; leave it out, or give it as auto")


def check_settled(config: TrainConfig) -> None:
    """Raises UsageError if the settled `config` asks for batches, or for saves, that can never be."""
    assert config.batch_size and config.n_step and config.envs_per_process
    fragment = config.n_step * config.envs_per_process
    if config.deterministic and config.save_interval < fragment:
        games = f"games begin anew at each of them, and a fragment of theirs is {fragment} env steps"
        raise UsageError(f"--save-interval {config.save_interval} is too short with --deterministic: {games}")
    if config.batch_size > config.queue_steps:
        lanes = -(-config.batch_size * config.queue_size // config.queue_steps)
        room = "a longer --n-step or more --envs-per-process" if config.deterministic else f"--queue-size {lanes}"
        raise UsageError(
            f"--batch-size {config.batch_size} is more than the {config.queue_steps} env steps that the queue holds; "
            f"make it smaller, or give {room}"
        )


def refuse_unread(config: TrainConfig, base: TrainConfig) -> None:
    """Raises UsageError if `config` was made from `base` by changing a setting that its method ignores."""
    for name in UNREAD.get(config.method, ()):
        if getattr(config, name) != getattr(base, name):
            raise UsageError(f"{flag(name)} is nothing that {config.method} reads; leave it out")


def flag(name: str) -> str:
    """How the setting `name` is spelled on the command line."""
    return "--import" if name == "imports" else "--" + name.replace("_", "-")


def _check_choices(config: TrainConfig) -> None:
    for name, known in CHOICES.items():
        value = getattr(config, name)
        if value is not None:
            _choice(flag(name), value, known)
    if config.network is not None and ":" not in config.network:
        _choice("--network", config.network, (*FRAME_SIZES, "mlp", "MODULE:CLASS"))


def _choice(name: str, value: str, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        near = difflib.get_close_matches(value.lower(), known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{name} {value} is unknown; choose one of: {', '.join(known)}{hint}")


def _check_numbers(config: TrainConfig) -> None:
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if value is None:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag(name)} is {value}; it must be a finite number")
        if name in AT_LEAST_1 and not value >= 1:
            raise UsageError(f"{flag(name)} is {value}; it must be at least 1")
        if name in AT_LEAST_0 and not value >= 0:
            raise UsageError(f"{flag(name)} is {value}; it must be at least 0")
        if name in AT_MOST and value > AT_MOST[name]:
            raise UsageError(f"{flag(name)} is {value}; it must be at most {AT_MOST[name]}")
        if name in SHARES and not 0 <= value <= 1:
            raise UsageError(f"{flag(name)} is {value}; it must lie between 0 and 1")
        if name in ABOVE_0 and not value > 0:
            raise UsageError(f"{flag(name)} is {value}; it must be greater than 0")
    if config.seed >= 2**63:
        raise UsageError(f"--seed is {config.seed}; it must be less than 2**63")


def _check_epsilons(config: TrainConfig) -> None:
    finals, probabilities = config.epsilon_final, config.epsilon_probabilities
    if finals is not None and any(not 0 <= epsilon <= 1 for epsilon in finals):
        raise UsageError(f"--epsilon-final {finals} must lie between 0 and 1")
    if finals == ():
        raise UsageError("--epsilon-final has no numbers; give at least one")
    if finals is not None and probabilities is not None and len(finals) != len(probabilities):
        raise UsageError(
            f"--epsilon-final and --epsilon-probabilities are {len(finals)} and {len(probabilities)} numbers; "
            "give one probability for each epsilon"
        )
    if probabilities is not None and (any(p < 0 for p in probabilities) or not abs(sum(probabilities) - 1) < 1e-6):
        raise UsageError(f"--epsilon-probabilities {probabilities} must not be negative, and add up to 1")


def _check_persistence(config: TrainConfig) -> None:
    steps = config.exploration_persistence
    if steps is not None and not (steps and all(1 <= single < math.inf for single in steps)):
        raise UsageError(f"--exploration-persistence {steps} must be one number or several, each at least 1")


def _check_combinations(config: TrainConfig) -> None:
    if config.method == "a3c" and config.target_interval:
        raise UsageError("--target-interval is for the Q methods; a3c has no target network, so leave it out")
    if config.method == "a3c" and (config.double or config.dueling):
        raise UsageError("--double and --dueling are for the Q methods; a3c has no action values, so leave them out")
    if config.double and config.method == "one-step-sarsa":
        raise UsageError("--double is for Q-learning; one-step-sarsa learns of the action taken, so leave it out")
    if config.double and config.target_interval == 0:
        raise UsageError("--double needs a target network; give --target-interval, such as 10000")
    if config.method != "a3c" and (config.entropy_coefficient or config.final_entropy_coefficient):
        raise UsageError("--entropy-coefficient (--beta) is for a3c; Q methods explore with --epsilon-final instead")
    if config.deterministic and (config.processes or 1) > 1:
        raise UsageError(f"--deterministic needs --processes 1, not {config.processes}: many finish in any order")
    if config.deterministic and config.queue_size > 1:
        raise UsageError(
            f"--deterministic needs --queue-size 1, not {config.queue_size}: worker and learner take turns"
        )
    if config.deterministic and config.publish_interval > 1:
        given = f"not {config.publish_interval}"
        raise UsageError(f"--deterministic needs --publish-interval 1, {given}: the worker waits for new weights")
    if config.sequence_length and not config.recurrent:
        raise UsageError("--sequence-length is for networks with an LSTM; add --recurrent, or give it as auto")
    if config.sequence_length and config.n_step and config.n_step % config.sequence_length:
        given = f"--sequence-length {config.sequence_length}"
        raise UsageError(f"{given} must divide --n-step {config.n_step}; change one of them, or give it as auto")
    if config.learning_rate_schedule == "exponential" and config.final_learning_rate == 0:
        raise UsageError(
            "--learning-rate-schedule exponential never comes to 0; give --final-learning-rate, such as 1e-4, or linear"
        )
    if config.run_dir == "":
        raise UsageError("--run-dir is empty; give it a directory, or leave it out")
    for directory in (config.run_dir, config.resume):
        if directory and directory.encode(errors="ignore").decode() != directory:
            raise UsageError(f"the name of the run's directory, {directory}, is not UTF-8; give it another")
    for name in ("learning_rate", "entropy_coefficient"):
        start, end = getattr(config, name), getattr(config, f"final_{name}")
        if start is not None and end is not None and end > start:
            raise UsageError(f"{flag(f'final_{name}')} {end} is above {flag(name)} {start}; it only falls")
