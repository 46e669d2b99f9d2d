"""1-step Q-learning (Mnih et al. 2016, algorithm 1)."""

from __future__ import annotations

from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.action_values import bootstrap_values
from asyncq.methods.batch import Batch
from asyncq.methods.returns import one_step_targets


def targets(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> Tensor:
    """Reward plus the value of the next observation, `[T, E]`."""
    following = bootstrap_values(network, target_network, batch, config.double)
    return one_step_targets(batch.rewards, batch.discounts, following)
