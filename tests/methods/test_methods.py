"""The table of methods agrees with the names that the configuration accepts."""

from __future__ import annotations

import pytest

from asyncq import checks
from asyncq.config import TrainConfig
from asyncq.envs import describe
from asyncq.methods import METHODS, network_for


def test_every_method_of_the_configuration_exists() -> None:
    assert set(METHODS) == set(checks.METHODS) == set(checks.UNREAD)


def test_every_method_names_its_heads() -> None:
    assert {name: method.HEADS for name, method in METHODS.items()} == {
        "a3c": "policy-value",
        "n-step-q": "q",
        "one-step-q": "q",
        "one-step-sarsa": "q",
    }


@pytest.mark.parametrize("method", METHODS)
def test_networks_are_in_evaluation_mode(method: str) -> None:
    spec = describe("CartPole-v1")
    network = network_for(TrainConfig(method=method, env=spec.env_id).resolved(spec.kind, 1), spec)
    assert not any(module.training for module in network.modules())
