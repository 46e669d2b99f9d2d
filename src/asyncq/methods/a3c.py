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
    log_ratios = log_prob - batch.behaviour_log_probs
    if config.correction == "none":
        log_ratios = log_prob - log_prob.detach()
    assert config.trace_lambda is not None
    trace = vtrace(values.detach(), batch.rewards, batch.discounts, batch.mask, log_ratios.detach(), config.trace_lambda)
    advantages = normalised(trace.advantages, batch.mask) if config.normalise_advantages else trace.advantages
    if config.policy_clip:
        policy_loss = -masked_mean(clipped_objective(log_ratios, advantages, config.policy_clip), batch.mask)
    else:
        policy_loss = -masked_mean(trace.ratios * advantages * log_prob, batch.mask)
    value_loss = 0.5 * masked_mean((trace.targets - values[:-1]).square(), batch.mask)
    entropy = masked_mean(-(log_probs.exp() * log_probs).sum(-1), batch.mask)
    total = policy_loss + config.value_coefficient * value_loss - (config.entropy_coefficient or 0) * entropy
    return total, {
        "policy": policy_loss.detach(),
        "value": value_loss.detach(),
        "entropy": entropy.detach(),
        "ratio": masked_mean(log_ratios.detach().exp(), batch.mask),
    }


def clipped_objective(log_ratios: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """min(ratio * A, clamp(ratio, 1 - clip, 1 + clip) * A): PPO's objective (Schulman et al. 2017, eq. 7), `[T, E]`."""
    ratios = log_ratios.exp()
    return torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)


def normalised(advantages: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale `advantages[T, E]` to mean 0 and standard deviation 1 over the steps that were decisions."""
    centred = advantages - masked_mean(advantages, mask)
    return centred / (masked_mean(centred.square(), mask).sqrt() + 1e-8)
