"""A3C: advantage actor-critic on fragments (Mnih et al. 2016, algorithm S3).

With V-trace for stale ones, as in IMPALA (Espeholt et al. 2018), one forward pass over whole fragments gives both what
is learned and what it is learned from; without, that is from the values that the workers' networks gave. A fragment may
be learned from more than once: the policy's step is then bounded, as in PPO.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Batch, chosen, outputs, shuffled_environments
from asyncq.methods.returns import vtrace

HEADS = "policy-value"


def minibatches(network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig) -> Iterator[Batch]:
    """Fragments of a few environments each, in random order."""
    assert config.batch_size and config.passes
    for _ in range(config.passes):
        yield from shuffled_environments(batch, config.batch_size)


def loss(network: nn.Module, batch: Batch, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy gradient, value error and entropy bonus: the scalar loss, and its parts for the report.

    Targets and advantages are by the network as it is now, with V-trace; without, by what the worker's network said
    when it played: GAE(lambda). Normalised advantages are in units of `batch.advantage_square`'s root.
    """
    assert config.trace_lambda is not None and config.policy_clip is not None
    corrected = config.correction == "vtrace"
    logits, values = outputs(network, batch, slice(None) if corrected else slice(-1))
    log_probs = logits[: len(batch.actions)].log_softmax(-1)
    log_ratios = chosen(log_probs, batch.actions) - batch.behaviour_log_probs
    known, stale = (values, log_ratios) if corrected else (batch.behaviour_values, torch.zeros_like(log_ratios))
    with torch.no_grad():
        trace = vtrace(known, batch.rewards, batch.discounts, batch.mask, stale, config.trace_lambda)

    def mean(of_steps: Tensor) -> Tensor:
        return (of_steps * batch.mask).sum() / batch.mask.sum()

    advantages, square = trace.advantages, mean(trace.advantages.square())
    if config.normalise_advantages:
        advantages = advantages / (math.sqrt(batch.advantage_square or square) + 1e-8)
    policy_loss = -mean(clipped_objective(log_ratios, advantages, config.policy_clip))
    value_loss = 0.5 * mean((trace.targets - values[: len(batch.actions)]).square())
    entropy = -mean((log_probs.exp() * log_probs).sum(-1))
    bonus = config.entropy_coefficient_at(batch.env_steps) * entropy
    total = policy_loss + config.value_coefficient * value_loss - bonus
    parts = {"policy": policy_loss, "value": value_loss, "entropy": entropy, "advantage_square": square}
    return total, {name: part.detach() for name, part in parts.items()}


def clipped_objective(log_ratios: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """min(ratio * A, clamp(ratio, 1 - clip, 1 + clip) * A): PPO's objective (Schulman et al. 2017, eq. 7).

    `clip` 0 stands for V-trace's policy gradient, whose weight is the ratio, at most 1.
    """
    ratios = log_ratios.exp()
    if not clip:
        return ratios.detach().clamp(max=1) * log_ratios * advantages
    return torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)
