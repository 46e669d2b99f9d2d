"""n-step Q-learning (Mnih et al. 2016, algorithm S2), with the lambda-returns of PQN (Gallici et al. 2024)."""

from __future__ import annotations

from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.action_values import squared_error
from asyncq.methods.batch import Batch, outputs
from asyncq.methods.returns import lambda_returns

HEADS = "q"
loss = squared_error


def targets(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> dict[str, Tensor]:
    """lambda-returns that bootstrap from the target network's greatest action value, `[T, E]`."""
    _, greatest = outputs(target_network, batch.observations[1:])
    assert config.trace_lambda is not None
    return {"values": lambda_returns(batch.rewards, batch.discounts, batch.mask, greatest, config.trace_lambda)}
