"""n-step Q-learning (Mnih et al. 2016, algorithm S2), with the lambda-returns of PQN (Gallici et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Batch, chosen, evaluate, masked_mean
from asyncq.methods.returns import lambda_returns

HEADS = "q"


def loss(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of the chosen actions' values to their lambda-returns: the scalar loss, and what to report."""
    values, greatest = evaluate(network, batch.observations)
    if target_network is not network:
        with torch.no_grad():
            _, greatest = evaluate(target_network, batch.observations)
    assert config.trace_lambda is not None
    targets = lambda_returns(
        batch.rewards, batch.discounts, batch.mask, greatest[1:].detach(), config.trace_lambda
    )
    value = chosen(values[:-1], batch.actions)
    error = 0.5 * masked_mean((targets - value).square(), batch.mask)
    return error, {"value": error.detach(), "mean_q": masked_mean(value, batch.mask).detach()}
