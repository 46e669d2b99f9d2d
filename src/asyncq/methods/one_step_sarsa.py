"""1-step SARSA (Mnih et al. 2016, section 4.2): values of the policy that plays, not of the greedy one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Batch, chosen, outputs
from asyncq.methods.returns import one_step_targets


def targets(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> Tensor:
    """Reward plus the target network's value of the action that was taken next, `[T, E]`.

    The action after a fragment's last step is in the next fragment; there the greatest value takes its place.
    """
    values, greatest = outputs(target_network, batch, slice(1, None))
    following = torch.cat([chosen(values[:-1], batch.actions[1:]), greatest[-1:]])
    return one_step_targets(batch.rewards, batch.discounts, following)
