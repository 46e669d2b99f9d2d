"""A3C: advantage actor-critic on fragments (Mnih et al. 2016, algorithm S3), with V-trace for those that are stale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Batch, chosen, evaluate, masked_mean
from asyncq.methods.returns import vtrace

HEADS = "policy-value"


def loss(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy gradient, value error and entropy bonus: the scalar loss, and its parts for the report."""
    logits, values = evaluate(network, batch.observations)
    log_probs = logits[:-1].log_softmax(-1)
    log_prob = chosen(log_probs, batch.actions)
    log_ratios = (log_prob - batch.behaviour_log_probs).detach()
    if config.correction == "none":
        log_ratios = torch.zeros_like(log_ratios)
    assert config.trace_lambda is not None
    targets, advantages = vtrace(
        values.detach(), batch.rewards, batch.discounts, batch.mask, log_ratios, config.trace_lambda
    )
    policy_loss = -masked_mean(advantages * log_prob, batch.mask)
    value_loss = 0.5 * masked_mean((targets - values[:-1]).square(), batch.mask)
    entropy = masked_mean(-(log_probs.exp() * log_probs).sum(-1), batch.mask)
    total = policy_loss + config.value_coefficient * value_loss - (config.entropy_coefficient or 0) * entropy
    return total, {
        "policy": policy_loss.detach(),
        "value": value_loss.detach(),
        "entropy": entropy.detach(),
        "ratio": masked_mean(log_ratios.exp(), batch.mask),
    }
