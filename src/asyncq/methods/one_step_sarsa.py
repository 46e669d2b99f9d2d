"""1-step SARSA (Mnih et al. 2016, section 4.2): values of the policy that plays, not of the greedy one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.action_values import squared_error
from asyncq.methods.batch import Batch, chosen, outputs
from asyncq.methods.returns import one_step_targets

HEADS = "q"
loss = squared_error


def targets(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> dict[str, Tensor]:
    """Reward plus the target network's value of the action that was taken next, `[T, E]`.

    The action after a fragment's last step is in the next fragment; there the greatest value takes its place.
    """
    values, greatest = outputs(target_network, batch, begin=1)
    following = torch.cat([chosen(values[:-1], batch.actions[1:]), greatest[-1:]])
    return {"values": one_step_targets(batch.rewards, batch.discounts, following)}
