"""What a method learns from: one batch of fragments, as tensors on the learner's device."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from asyncq.networks import Outputs


class Batch(NamedTuple):
    """`observations[T+1, E, S, ...]`, the rest `[T, E]`; rewards are scaled and clipped."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    discounts: Tensor
    mask: Tensor
    behaviour_log_probs: Tensor


def evaluate(network: nn.Module, observations: Tensor) -> Outputs:
    """Both outputs of `network` for `observations[T, E, ...]`, with the leading axes `[T, E]` restored."""
    leading = observations.shape[:2]
    first, second = network(observations.flatten(0, 1))
    return first.float().unflatten(0, leading), second.float().unflatten(0, leading)


def chosen(values: Tensor, actions: Tensor) -> Tensor:
    """Of `values[T, E, A]` those of `actions[T, E]`."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values[T, E]` over the steps that were decisions."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
