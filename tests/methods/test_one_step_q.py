"""1-step Q-learning: one update against the gradient in numpy, with and without a target network."""

from __future__ import annotations

import numpy as np
import pytest
from q_network import LinearQ, check_step, gradient, greatest_values, make_batch, total_loss

from asyncq.config import TrainConfig
from asyncq.methods import METHODS

METHOD = METHODS["one-step-q"]
CONFIG = TrainConfig(method="one-step-q", env="CartPole-v1").resolved("vector", 1)


def by_hand(network: LinearQ, target: LinearQ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    batch = make_batch()
    rewards, discounts = batch.rewards.double().numpy(), batch.discounts.double().numpy()
    return gradient(network, batch, rewards + discounts * greatest_values(target, batch)[1:])


@pytest.mark.parametrize("with_target_network", [True, False])
def test_one_update_moves_weights_by_learning_rate_times_the_derived_gradient(with_target_network: bool) -> None:
    network = LinearQ()
    target = LinearQ() if with_target_network else network
    expected = by_hand(network, target)
    check_step(network, total_loss(METHOD, network, target, make_batch(), CONFIG), expected)


def test_the_target_network_is_used_and_not_learned() -> None:
    network, target = LinearQ(), LinearQ()
    assert np.abs(by_hand(network, target) - by_hand(network, network)).max() > 1e-2
    total_loss(METHOD, network, target, make_batch(), CONFIG).backward()  # type: ignore[no-untyped-call]
    assert target.values.weight.grad is None


def test_what_a_reset_step_holds_teaches_nothing() -> None:
    network, batch = LinearQ(), make_batch()
    other = batch._replace(rewards=batch.rewards.masked_fill(batch.mask == 0, 1e4))
    one, two = (total_loss(METHOD, network, network, each, CONFIG).item() for each in (batch, other))
    assert one == pytest.approx(two)
