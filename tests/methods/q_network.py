"""What the tests of both Q methods share: a linear network and a batch with every kind of episode end."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods import Method
from asyncq.methods.batch import Batch

Numbers = np.ndarray[Any, np.dtype[np.float64]]
STEPS, ENVS, SIZE, ACTIONS = 5, 3, 4, 3
LEARNING_RATE = 0.1


class LinearQ(nn.Module):
    """Action values W x, and the greatest."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Linear(SIZE, ACTIONS, bias=False)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        values = self.values(observations)
        return values, values.amax(-1)


def make_batch() -> Batch:
    """Env 0 terminates at step 1, env 1 is truncated at step 2, env 2 plays on."""
    generator = torch.Generator().manual_seed(3)
    discounts, mask = torch.full((STEPS, ENVS), 0.9), torch.ones(STEPS, ENVS)
    discounts[1, 0] = 0
    mask[2, 0] = mask[3, 1] = 0
    return Batch(
        observations=torch.randn(STEPS + 1, ENVS, SIZE, generator=generator),
        actions=torch.randint(ACTIONS, (STEPS, ENVS), generator=generator),
        rewards=torch.randn(STEPS, ENVS, generator=generator),
        discounts=discounts,
        mask=mask,
        behaviour_log_probs=torch.zeros(STEPS, ENVS),
        behaviour_values=torch.zeros(STEPS + 1, ENVS),
    )


def greatest_values(network: LinearQ, batch: Batch) -> Numbers:
    """`[T+1, E]`."""
    weight = network.values.weight.detach().double().numpy()
    greatest: Numbers = (batch.observations.double().numpy() @ weight.T).max(-1)
    return greatest


def gradient(network: LinearQ, batch: Batch, targets: Numbers) -> Numbers:
    """Of 0.5 * mean (target - q(a))^2 over decisions, with the targets held fixed, `[A, SIZE]`."""
    x, weight = batch.observations.double().numpy()[:-1], network.values.weight.detach().double().numpy()
    one_hot = np.eye(ACTIONS)[batch.actions.numpy()]
    mask = batch.mask.double().numpy()
    error = targets - ((x @ weight.T) * one_hot).sum(-1)
    result: Numbers = -np.einsum("te,tea,tes->as", mask * error, one_hot, x) / mask.sum()
    return result


def total_loss(method: Method, network: LinearQ, target: LinearQ, batch: Batch, config: TrainConfig) -> Tensor:
    """The loss on every decision of the batch at once."""
    whole = dataclasses.replace(config, batch_size=1000, passes=1)
    (samples,) = method.minibatches(network, target, batch, whole)
    total, parts = method.loss(network, samples, config)
    assert float(parts["value"]) == total.item()
    return total


def check_step(network: LinearQ, total: Tensor, expected: Numbers) -> None:
    """One step of plain SGD on `total` moves the weights by exactly -learning rate x `expected`."""
    before = network.values.weight.detach().clone().numpy()
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    optimizer.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert np.abs(expected).max() > 1e-2
    moved = network.values.weight.detach().numpy() - before
    np.testing.assert_allclose(moved, -LEARNING_RATE * expected, rtol=1e-4, atol=1e-6)
