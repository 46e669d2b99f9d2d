"""Batch helpers: they keep the axes `[T, E]` apart and count decisions only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asyncq.methods.batch import chosen, evaluate, masked_mean


class Sums(nn.Module):
    """Gives `[sum, sum]` and `-sum` of each observation, and remembers the shape that it was given."""

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        self.shape = tuple(observations.shape)
        total = observations.flatten(1).sum(1)
        return torch.stack([total, total], 1), -total


def test_evaluate_flattens_and_restores_the_leading_axes() -> None:
    observations = torch.arange(24.0).reshape(3, 2, 4)
    network = Sums()
    first, second = evaluate(network, observations)
    assert network.shape == (6, 4)
    assert first.shape == (3, 2, 2)
    assert torch.equal(first[..., 0], observations.sum(-1))
    assert torch.equal(second, -observations.sum(-1))


def test_evaluate_gives_float32_whatever_the_network_computes_in() -> None:
    first, second = evaluate(Sums(), torch.ones(2, 2, 3, dtype=torch.bfloat16))
    assert (first.dtype, second.dtype) == (torch.float32, torch.float32)


def test_chosen_picks_each_steps_action() -> None:
    values = torch.tensor([[[1.0, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]])
    assert chosen(values, torch.tensor([[2, 0], [1, 2]])).tolist() == [[3, 4], [8, 12]]


def test_masked_mean_counts_decisions_only() -> None:
    assert float(masked_mean(torch.tensor([[1.0, 100], [3, 5]]), torch.tensor([[1.0, 0], [1, 1]]))) == 3


def test_masked_mean_of_no_decision_is_0() -> None:
    assert float(masked_mean(torch.tensor([[1.0]]), torch.zeros(1, 1))) == 0
