"""A3C: one update against gradients that are written out by hand, and the parts of its loss on their own.

The network is two linear layers without a trunk, so that the gradient of every weight is a sum of four lines of maths:
with p = softmax(logits), d log p(a) / d logits = onehot(a) - p and d H / d logits = -p * (log p + H).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.a3c import clipped_objective, loss, minibatches
from asyncq.methods.batch import Batch

Numbers = np.ndarray[Any, np.dtype[np.float64]]
STEPS, ENVS, SIZE, ACTIONS = 5, 3, 4, 3
LEARNING_RATE = 0.1
CONFIG = dataclasses.replace(
    TrainConfig(method="a3c", env="CartPole-v1").resolved("vector", 1),
    correction="vtrace",
    normalise_advantages=False,
    trace_lambda=0.8,
    value_coefficient=0.7,
    entropy_coefficient=0.05,
)


class Linear(nn.Module):
    """Logits W x and value w x, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Linear(SIZE, ACTIONS, bias=False)
        self.value = nn.Linear(SIZE, 1, bias=False)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(observations), self.value(observations).squeeze(-1)


def make_batch(network: Linear, staleness: float = 0.4) -> Batch:
    """Env 0 terminates at step 1, env 1 is truncated at step 2, env 2 plays on; the worker's outputs are noisy."""
    generator = torch.Generator().manual_seed(3)
    discounts, mask = torch.full((STEPS, ENVS), 0.9), torch.ones(STEPS, ENVS)
    discounts[1, 0] = 0
    mask[2, 0] = mask[3, 1] = 0
    observations = torch.randn(STEPS + 1, ENVS, SIZE, generator=generator)
    actions = torch.randint(ACTIONS, (STEPS, ENVS), generator=generator)
    logits, values = network(observations)
    log_probs = logits[:-1].log_softmax(-1).gather(-1, actions[..., None])[..., 0].detach()
    return Batch(
        observations=observations,
        actions=actions,
        rewards=torch.randn(STEPS, ENVS, generator=generator),
        discounts=discounts,
        mask=mask,
        behaviour_log_probs=log_probs + staleness * torch.randn(STEPS, ENVS, generator=generator),
        behaviour_values=values.detach() + staleness * torch.randn(STEPS + 1, ENVS, generator=generator),
    )


def log_softmax(logits: Numbers) -> Numbers:
    result: Numbers = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return result


def by_hand(network: Linear, batch: Batch, config: TrainConfig) -> tuple[Numbers, Numbers]:
    """The gradients of both weights in numpy."""
    fields = (np.asarray(field.numpy(), np.float64) for field in batch if isinstance(field, Tensor))
    x, a, r, d, m, log_mu, v_mu = fields
    one_hot = np.eye(ACTIONS)[a.astype(int)]
    policy, value = (weight.detach().double().numpy() for weight in network.parameters())
    v, log_p = (x @ value.T)[..., 0], log_softmax(x[:-1] @ policy.T)
    ratio = np.exp((log_p * one_hot).sum(-1) - log_mu)
    rho, known = (np.minimum(1, ratio), v) if config.correction == "vtrace" else (np.ones_like(ratio), v_mu)
    lam = config.trace_lambda
    assert lam is not None
    correction = np.zeros((STEPS + 1, ENVS))
    for t in reversed(range(STEPS)):
        delta = rho[t] * (r[t] + d[t] * known[t + 1] - known[t])
        correction[t] = m[t] * (delta + d[t] * lam * rho[t] * correction[t + 1])
    target = known[:-1] + correction[:-1]
    advantage = r + d * (known[1:] + lam * correction[1:]) - known[:-1]
    if config.normalise_advantages:
        advantage = advantage / np.sqrt(batch.advantage_square or (advantage[m > 0] ** 2).mean())

    clip = config.policy_clip  # a clipped step has no gradient; else d ratio = ratio * d log p
    if clip:
        clipped = ((advantage > 0) & (ratio > 1 + clip)) | ((advantage < 0) & (ratio < 1 - clip))
        weight = np.where(clipped, 0, ratio)
    else:
        weight = np.minimum(1, ratio)
    p = np.exp(log_p)
    policy_part = (weight * advantage)[..., None] * (one_hot - p)
    entropy_part = -p * (log_p - (p * log_p).sum(-1, keepdims=True))
    d_logits = -m[..., None] * (policy_part + (config.entropy_coefficient or 0) * entropy_part) / m.sum()
    d_value = -config.value_coefficient * m * (target - v[:-1]) / m.sum()
    return np.einsum("tea,tes->as", d_logits, x[:-1]), np.einsum("te,tes->s", d_value, x[:-1])[None]


@pytest.mark.parametrize("staleness", [0.0, 0.4])
@pytest.mark.parametrize("policy_clip", [0.0, 0.2])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("correction", ["vtrace", "none"])
def test_one_update_moves_weights_by_learning_rate_times_the_derived_gradient(
    correction: str, normalise: bool, policy_clip: float, staleness: float
) -> None:
    config = dataclasses.replace(CONFIG, correction=correction, normalise_advantages=normalise, policy_clip=policy_clip)
    network = Linear()
    batch = make_batch(network, staleness)
    expected = by_hand(network, batch, config)
    before = [weight.detach().clone().numpy() for weight in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    loss(network, batch, config)[0].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    for weight, old, gradient in zip(network.parameters(), before, expected, strict=True):
        assert np.abs(gradient).max() > 1e-3
        np.testing.assert_allclose(weight.detach().numpy() - old, -LEARNING_RATE * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("setting", [{"policy_clip": 0.0}, {"correction": "none"}])
def test_the_update_test_reaches_the_clip_and_the_correction(setting: dict[str, Any]) -> None:
    network = Linear()
    batch = make_batch(network)
    other = by_hand(network, batch, dataclasses.replace(CONFIG, **setting))[0]
    assert np.abs(by_hand(network, batch, CONFIG)[0] - other).max() > 1e-3


def test_on_policy_neither_correction_nor_clip_makes_a_difference() -> None:
    network = Linear()
    batch = make_batch(network, staleness=0.0)
    gradients = []
    for setting in ({"correction": "vtrace"}, {"correction": "none"}, {"policy_clip": 0.0}):
        total, _ = loss(network, batch, dataclasses.replace(CONFIG, **setting))
        gradients.append(torch.autograd.grad(total, list(network.parameters())))
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_minibatches_are_whole_fragments_of_environments_once_a_pass() -> None:
    network = Linear()
    batch = make_batch(network)
    config = dataclasses.replace(CONFIG, batch_size=STEPS, passes=2)
    found = list(minibatches(network, network, batch, config))
    assert [minibatch.mask.shape for minibatch in found] == [(STEPS, 1)] * ENVS * 2
    for part in (found[:ENVS], found[ENVS:]):
        rewards = sorted(minibatch.rewards[:, 0].tolist() for minibatch in part)
        assert rewards == sorted(batch.rewards.T.tolist())


def test_the_loss_is_its_parts_with_their_coefficients() -> None:
    network = Linear()
    total, parts = loss(network, make_batch(network), CONFIG)
    expected = parts["policy"] + 0.7 * parts["value"] - 0.05 * parts["entropy"]
    assert total.item() == pytest.approx(float(expected))


def test_the_entropy_of_equal_logits_is_that_of_a_fair_die() -> None:
    network = Linear()
    nn.init.zeros_(network.policy.weight)
    _, parts = loss(network, make_batch(network), CONFIG)
    assert float(parts["entropy"]) == pytest.approx(np.log(ACTIONS))


def test_what_a_reset_step_holds_teaches_nothing() -> None:
    network = Linear()
    batch = make_batch(network)
    resets = batch.mask == 0
    other = batch._replace(
        rewards=batch.rewards.masked_fill(resets, 1e4),
        actions=batch.actions.masked_fill(resets, 0),
        behaviour_log_probs=batch.behaviour_log_probs.masked_fill(resets, -9.0),
    )
    one, two = (
        torch.autograd.grad(loss(network, each, CONFIG)[0], list(network.parameters())) for each in (batch, other)
    )
    torch.testing.assert_close(one, two)


def test_clipped_objective_by_hand() -> None:
    # ratio, advantage, clip 0.2 -> min(ratio * A, clamp(ratio, 0.8, 1.2) * A)
    table = [
        (1.0, 3.0, 3.0),
        (1.5, 2.0, 2.4),  # better already: no more than 1.2 * 2
        (0.5, 2.0, 1.0),  # became less likely though good: the whole way back counts
        (1.5, -2.0, -3.0),  # became likelier though bad: the whole way back counts
        (0.5, -2.0, -1.6),  # avoided already: no more than 0.8 * -2
        (1.1, -2.0, -2.2),
    ]
    ratios, advantages, expected = (torch.tensor(column, dtype=torch.float64) for column in zip(*table, strict=True))
    torch.testing.assert_close(clipped_objective(ratios.log(), advantages, 0.2), expected)


def test_the_clipped_objective_has_no_slope_beyond_the_clip() -> None:
    log_ratios = torch.tensor([1.5, 0.5, 1.1]).log().requires_grad_()
    clipped_objective(log_ratios, torch.tensor([2.0, -2.0, 2.0]), 0.2).sum().backward()  # type: ignore[no-untyped-call]
    assert log_ratios.grad is not None
    assert log_ratios.grad.tolist() == pytest.approx([0, 0, 2.2])


def test_without_a_clip_the_slope_is_the_ratio_at_most_1_times_the_advantage() -> None:
    log_ratios = torch.tensor([3.0, 0.1]).log().requires_grad_()
    clipped_objective(log_ratios, torch.tensor([2.0, -2.0]), 0).sum().backward()  # type: ignore[no-untyped-call]
    assert log_ratios.grad is not None
    assert log_ratios.grad.tolist() == pytest.approx([2.0, -0.2])


def test_advantages_count_in_units_of_what_they_were_in_the_updates_before() -> None:
    network = Linear()
    batch = make_batch(network, staleness=0.0)
    raw = loss(network, batch, CONFIG)[1]
    config = dataclasses.replace(CONFIG, normalise_advantages=True)
    own = loss(network, batch, config)[1]
    known = loss(network, batch._replace(advantage_square=4.0), config)[1]
    assert own["advantage_square"] == known["advantage_square"] == raw["advantage_square"] > 0
    assert float(own["policy"]) == pytest.approx(float(raw["policy"]) / math.sqrt(float(raw["advantage_square"])))
    assert float(known["policy"]) == pytest.approx(float(raw["policy"]) / 2)


def test_advantages_that_are_all_0_stay_0() -> None:
    network = Linear()
    batch = make_batch(network)
    still = batch._replace(rewards=torch.zeros_like(batch.rewards), discounts=torch.zeros_like(batch.discounts))
    config = dataclasses.replace(CONFIG, correction="none", normalise_advantages=True)
    parts = loss(network, still._replace(behaviour_values=torch.zeros_like(still.behaviour_values)), config)[1]
    assert float(parts["policy"]) == float(parts["advantage_square"]) == 0


def test_the_entropy_bonus_is_that_of_the_moment() -> None:
    network = Linear()
    config = dataclasses.replace(CONFIG, final_entropy_coefficient=0.0, entropy_anneal_steps=100)
    total, parts = loss(network, make_batch(network)._replace(env_steps=50), config)
    expected = parts["policy"] + 0.7 * parts["value"] - 0.025 * parts["entropy"]
    assert total.item() == pytest.approx(expected.item())
