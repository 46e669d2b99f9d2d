"""n-step Q-learning (Mnih et al. 2016, algorithm S2), with the lambda-returns of PQN (Gallici et al. 2024)."""

from __future__ import annotations

from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.action_values import bootstrap_values
from asyncq.methods.batch import Batch
from asyncq.methods.returns import lambda_returns


def targets(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> Tensor:
    """lambda-returns that bootstrap from the values of the next observations, `[T, E]`."""
    following = bootstrap_values(network, target_network, batch, config.double)
    assert config.trace_lambda is not None
    return lambda_returns(batch.rewards, batch.discounts, batch.mask, following, config.trace_lambda)
