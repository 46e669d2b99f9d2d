"""1-step SARSA: one update against the gradient in numpy; the action taken next decides the target."""

from __future__ import annotations

import numpy as np
import pytest
from q_network import STEPS, LinearQ, check_step, gradient, greatest_values, make_batch, total_loss

from asyncq.config import TrainConfig
from asyncq.methods import METHODS
from asyncq.methods.one_step_sarsa import targets

METHOD = METHODS["one-step-sarsa"]
CONFIG = TrainConfig(method="one-step-sarsa", env="CartPole-v1").resolved("vector", 1)


def by_hand(network: LinearQ, target: LinearQ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    batch = make_batch()
    rewards, discounts = batch.rewards.double().numpy(), batch.discounts.double().numpy()
    values = batch.observations.double().numpy() @ target.values.weight.detach().double().numpy().T
    following = greatest_values(target, batch)[1:]
    for t in range(STEPS - 1):
        for env, action in enumerate(batch.actions[t + 1].tolist()):
            following[t, env] = values[t + 1, env, action]
    return gradient(network, batch, rewards + discounts * following)


@pytest.mark.parametrize("with_target_network", [True, False])
def test_one_update_moves_weights_by_learning_rate_times_the_derived_gradient(with_target_network: bool) -> None:
    network = LinearQ()
    target = LinearQ() if with_target_network else network
    expected = by_hand(network, target)
    check_step(network, total_loss(METHOD, network, target, make_batch(), CONFIG), expected)


def test_another_next_action_gives_another_target_but_for_the_last_step() -> None:
    network, batch = LinearQ(), make_batch()
    other = batch._replace(actions=(batch.actions + 1) % 3)
    one, two = (targets(network, network, each, CONFIG) for each in (batch, other))
    differs = (one != two) & (batch.discounts > 0)
    assert differs[:-1].sum() == (batch.discounts[:-1] > 0).sum()
    assert not differs[-1].any()
