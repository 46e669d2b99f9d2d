"""Action values: what Q-learning bootstraps from, single and double."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from q_network import LinearQ, make_batch

from asyncq.config import TrainConfig
from asyncq.methods import n_step_q, one_step_q
from asyncq.methods.action_values import bootstrap_values


def test_the_target_network_values_its_own_best_action_or_with_double_the_networks() -> None:
    network, target, batch = LinearQ(), LinearQ(), make_batch()
    with torch.no_grad():
        values = target(batch.observations[1:])[0]
        best = network(batch.observations[1:])[0].argmax(-1, keepdim=True)
    assert (best.squeeze(-1) != values.argmax(-1)).any()
    torch.testing.assert_close(bootstrap_values(network, target, batch, double=False), values.amax(-1))
    torch.testing.assert_close(
        bootstrap_values(network, target, batch, double=True), values.gather(-1, best).squeeze(-1)
    )


@pytest.mark.parametrize("method", ["one-step-q", "n-step-q"])
def test_double_lowers_targets_and_never_raises_them(method: str) -> None:
    network, target, batch = LinearQ(), LinearQ(), make_batch()
    config = TrainConfig(method=method, env="CartPole-v1", target_interval=100).resolved("vector", 1)
    targets = {"one-step-q": one_step_q.targets, "n-step-q": n_step_q.targets}[method]
    single = targets(network, target, batch, config)
    double = targets(network, target, batch, dataclasses.replace(config, double=True))
    decisions = batch.mask > 0
    assert (double <= single + 1e-6)[decisions].all()
    assert (double < single - 1e-3)[decisions].any()
