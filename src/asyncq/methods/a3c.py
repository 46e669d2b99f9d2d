"""A3C: advantage actor-critic on fragments (Mnih et al. 2016, algorithm S3).

Fragments that are stale are corrected by V-trace. A fragment may be learned from more than once: the policy's step is
then bounded around the policy that the targets were computed with, as in PPO.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Batch, Samples, chosen, outputs
from asyncq.methods.returns import vtrace

HEADS = "policy-value"


def targets(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> dict[str, Tensor]:
    """Value targets, weighted advantages, and the log pi(a|x) that the policy's step is bounded around, all `[T, E]`.

    With V-trace by the network as it is now; without, by what the worker's network said when it played: GAE(lambda).
    """
    assert config.trace_lambda is not None
    if config.correction == "none":
        values, log_prob = batch.behaviour_values, batch.behaviour_log_probs
    else:
        logits, values = outputs(network, batch)
        log_prob = chosen(logits[:-1].log_softmax(-1), batch.actions)
    log_ratios = log_prob - batch.behaviour_log_probs
    trace = vtrace(values, batch.rewards, batch.discounts, batch.mask, log_ratios, config.trace_lambda)
    advantages = normalised(trace.advantages, batch.mask) if config.normalise_advantages else trace.advantages
    return {"values": trace.targets, "advantages": trace.ratios * advantages, "log_probs": log_prob}


def loss(network: nn.Module, samples: Samples, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy gradient, value error and entropy bonus: the scalar loss, and its parts for the report."""
    assert config.policy_clip is not None
    logits, values = samples.outputs(network)
    log_probs = logits.float().log_softmax(-1)
    log_ratios = chosen(log_probs, samples.actions) - samples.targets["log_probs"]
    policy_loss = -clipped_objective(log_ratios, samples.targets["advantages"], config.policy_clip).mean()
    value_loss = 0.5 * (samples.targets["values"] - values.float()).square().mean()
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    bonus = config.entropy_coefficient_at(samples.env_steps) * entropy
    total = policy_loss + config.value_coefficient * value_loss - bonus
    return total, {"policy": policy_loss.detach(), "value": value_loss.detach(), "entropy": entropy.detach()}


def clipped_objective(log_ratios: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """min(ratio * A, clamp(ratio, 1 - clip, 1 + clip) * A): PPO's objective (Schulman et al. 2017, eq. 7).

    The first update on a batch, where all ratios are 1, is the plain policy gradient. `clip` 0 stands for no bound.
    """
    ratios = log_ratios.exp()
    if not clip:
        return ratios * advantages
    return torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)


def normalised(advantages: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale `advantages[T, E]` to mean 0 and standard deviation 1 over the steps that were decisions."""
    decisions = advantages[mask > 0]
    return (advantages - decisions.mean()) / (decisions.std(correction=0) + 1e-8)
