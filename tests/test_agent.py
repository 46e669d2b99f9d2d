"""Agents: weights find their environment and policy, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asyncq.agent import Agent, AgentConfig
from asyncq.errors import UsageError
from untrained import untrained


def test_sticky_setting_follows_the_id(tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "ALE/Pong-v5")
    assert Agent(AgentConfig(path=str(weights))).spec.sticky == 0.25
    assert Agent(AgentConfig(path=str(weights), env="PongNoFrameskip-v4")).spec.sticky == 0.0


def test_weights_for_another_environment_are_refused(tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "ALE/Pong-v5")
    for other in ("ALE/Breakout-v5", "ALE/Asterix-v5", "CartPole-v1"):
        with pytest.raises(UsageError, match="trained on ALE/Pong-v5"):
            Agent(AgentConfig(path=str(weights), env=other))


@pytest.mark.parametrize(
    ("method", "settings", "name"),
    [
        ("a3c", {}, "sampled"),
        ("a3c", {"sample": True}, "sampled"),
        ("a3c", {"greedy": True}, "greedy"),
        ("n-step-q", {}, "epsilon-greedy 0.001"),
        ("n-step-q", {"greedy": True}, "greedy"),
        ("n-step-q", {"epsilon": 0.0}, "greedy"),
    ],
)
def test_policies_go_by_method_and_flags(method: str, settings: dict[str, Any], name: str, tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1", method)
    agent = Agent(AgentConfig(path=str(weights), **settings))
    assert agent.policy_name == name
    outputs, _ = agent.consider(np.zeros((3, 4), np.float32), agent.no_memory(3))
    actions = agent.choose(outputs, torch.Generator())
    preferences = agent.preferences(outputs)
    assert preferences.shape == (3, 2)
    assert (method == "a3c") == bool(abs(float(preferences[0].sum()) - 1) < 1e-6)
    if name == "greedy":
        assert (actions == preferences.argmax(-1).numpy()).all()


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("n-step-q", {"sample": True}, "--sample is for a3c"),
        ("a3c", {"epsilon": 0.1}, "--epsilon is for the Q methods"),
        ("a3c", {"keras_backend": "theano"}, "is for Keras files"),
    ],
)
def test_flags_of_other_weights_are_refused(
    method: str, settings: dict[str, object], said: str, tmp_path: Path
) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1", method)
    with pytest.raises(UsageError, match=said):
        Agent(AgentConfig(path=str(weights), **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "name a weights file"),
        ({"path": "a.h5", "weights": "b.h5"}, "two weights files"),
        ({"path": "a.h5", "greedy": True, "epsilon": 0.1}, "leave --epsilon out"),
        ({"path": "a.h5", "epsilon": -1.0}, "between 0 and 1"),
        ({"path": "a.h5", "greedy": True, "sample": True}, "exclude each other"),
        ({"path": "a.h5", "seed": -1}, "--seed is -1"),
        ({"path": "a.h5", "seed": 2**31}, "seeds are those of training"),
        ({"path": "a.h5", "epsilon": 2.0}, "between 0 and 1"),
        ({"path": "a.h5", "keras_backend": "jax"}, "theano, tensorflow"),
        ({"path": "a.h5", "keras_data_format": "th"}, "channels_first, channels_last"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        AgentConfig(**settings)  # type: ignore[arg-type]


def test_a_network_of_the_users_own_runs_only_if_its_module_is_trusted(tmp_path: Path) -> None:
    path = str(untrained(tmp_path / "w.h5", "CartPole-v1", network="tiny_envs:Flat"))
    with pytest.raises(UsageError, match="add --import tiny_envs if you trust it"):
        Agent(AgentConfig(path=path))
    agent = Agent(AgentConfig(path=path, imports=("tiny_envs",)))
    assert agent.consider(np.zeros((3, 4), np.float32), agent.no_memory(3))[0][0].shape == (3, 2)


@pytest.mark.parametrize(
    ("method", "settings", "share"),
    [("a3c", {}, 0.731), ("a3c", {"greedy": True}, 1), ("n-step-q", {"epsilon": 0.4}, 0.8), ("n-step-q", {}, 0.9995)],
)
def test_actions_are_chosen_as_is_said(method: str, settings: dict[str, Any], share: float, tmp_path: Path) -> None:
    """One of two actions is better by 1: its probability where the policy is sampled is 1 / (1 + exp(-1))."""
    agent = Agent(AgentConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1", method)), **settings))
    outputs = torch.tensor([[0.0, 1.0]]).repeat(10_000, 1), torch.zeros(10_000)
    actions = agent.choose(outputs, torch.Generator().manual_seed(1))
    assert actions.mean() == pytest.approx(share, abs=0.02)
    assert agent.policy_name != "epsilon-greedy 0.001" or not actions.all()
