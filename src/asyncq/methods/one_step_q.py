"""1-step Q-learning (Mnih et al. 2016, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Batch, chosen, evaluate, masked_mean
from asyncq.methods.returns import one_step_targets

HEADS = "q"


def loss(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of the chosen actions' values to their 1-step targets: the scalar loss, and what to report."""
    values, _ = evaluate(network, batch.observations[:-1])
    with torch.no_grad():
        _, greatest = evaluate(target_network, batch.observations[1:])
    targets = one_step_targets(batch.rewards, batch.discounts, greatest)
    value = chosen(values, batch.actions)
    error = 0.5 * masked_mean((targets - value).square(), batch.mask)
    return error, {"value": error.detach(), "mean_q": masked_mean(value, batch.mask).detach()}
