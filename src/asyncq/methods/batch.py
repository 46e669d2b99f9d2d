"""What a method learns from: a batch of fragments, and the single steps that are drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asyncq.networks import Outputs

CACHED_ROWS = 256
"""Observations that go through a network at once where no gradient is wanted: their activations stay in the cache."""


class Batch(NamedTuple):
    """Fragments side by side: `observations[T+1, E, S, ...]`, the rest `[T, E]`; rewards are scaled and clipped.

    `env_steps` is how far the run has come, for what changes with it.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    discounts: Tensor
    mask: Tensor
    behaviour_log_probs: Tensor
    env_steps: int = 0


class Samples(NamedTuple):
    """Single steps of a batch: `observations[N, S, ...]`, `actions[N]`, and the method's targets, `[N]` each."""

    observations: Tensor
    actions: Tensor
    targets: dict[str, Tensor]
    env_steps: int = 0


def outputs(network: nn.Module, observations: Tensor) -> Outputs:
    """Both outputs of `network` for `observations[T, E, ...]`, with the leading axes `[T, E]` restored; no gradient."""
    with torch.no_grad():
        parts: list[Outputs] = [network(part) for part in torch.split(observations.flatten(0, 1), CACHED_ROWS)]
    first, second = (torch.cat(part).float() for part in zip(*parts, strict=True))
    leading = observations.shape[:2]
    return first.reshape(*leading, *first.shape[1:]), second.reshape(leading)


def chosen(values: Tensor, actions: Tensor) -> Tensor:
    """Of `values[..., A]` those of `actions[...]`."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def shuffled_samples(batch: Batch, targets: dict[str, Tensor], size: int) -> Iterator[Samples]:
    """Every decision of the batch once, in random order, in parts of about `size`; resetting steps are left out."""
    decisions = batch.mask.flatten().nonzero().squeeze(-1)
    order = decisions[torch.randperm(len(decisions)).to(decisions.device)]
    observations, actions = batch.observations[:-1].flatten(0, 1), batch.actions.flatten()
    flat = {name: values.flatten() for name, values in targets.items()}
    for part in order.tensor_split(max(1, round(len(order) / size))):
        drawn = {name: values[part] for name, values in flat.items()}
        yield Samples(_rows(observations, part), actions[part], drawn, batch.env_steps)


def _rows(observations: Tensor, which: Tensor) -> Tensor:
    """`observations[which]` in the memory order of `stack_frames`: whole rows are copied, not single pixels."""
    return observations.movedim(1, -1).index_select(0, which).movedim(-1, 1)
