"""n-step Q-learning: one update against the gradient in numpy, with and without a target network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from q_network import STEPS, LinearQ, Numbers, check_step, gradient, greatest_values, make_batch, total_loss

from asyncq.config import TrainConfig
from asyncq.methods import METHODS

METHOD = METHODS["n-step-q"]
CONFIG = TrainConfig(method="n-step-q", env="CartPole-v1").resolved("vector", 1)


def by_hand(network: LinearQ, target: LinearQ, trace_lambda: float) -> Numbers:
    batch = make_batch()
    rewards, discounts = batch.rewards.double().numpy(), batch.discounts.double().numpy()
    mask, v = batch.mask.numpy(), greatest_values(target, batch)
    returns = v.copy()  # at reset steps and at the end the return is the value itself
    for t in reversed(range(STEPS)):
        mixed = (1 - trace_lambda) * v[t + 1] + trace_lambda * returns[t + 1]
        returns[t] = np.where(mask[t] > 0, rewards[t] + discounts[t] * mixed, v[t])
    return gradient(network, batch, returns[:-1])


@pytest.mark.parametrize("trace_lambda", [0.0, 0.65, 1.0])
@pytest.mark.parametrize("with_target_network", [True, False])
def test_one_update_moves_weights_by_learning_rate_times_the_derived_gradient(
    with_target_network: bool, trace_lambda: float
) -> None:
    network = LinearQ()
    target = LinearQ() if with_target_network else network
    expected = by_hand(network, target, trace_lambda)
    config = dataclasses.replace(CONFIG, trace_lambda=trace_lambda)
    check_step(network, total_loss(METHOD, network, target, make_batch(), config), expected)


def test_the_target_network_is_used_and_not_learned() -> None:
    network, target = LinearQ(), LinearQ()
    assert np.abs(by_hand(network, target, 0.65) - by_hand(network, network, 0.65)).max() > 1e-2
    total_loss(METHOD, network, target, make_batch(), CONFIG).backward()  # type: ignore[no-untyped-call]
    assert target.values.weight.grad is None


def test_lambda_0_is_one_step_q() -> None:
    network, target = LinearQ(), LinearQ()
    config = dataclasses.replace(CONFIG, trace_lambda=0.0)
    one, other = (
        total_loss(METHODS[name], network, target, make_batch(), config) for name in ("n-step-q", "one-step-q")
    )
    assert one.item() == pytest.approx(other.item())
