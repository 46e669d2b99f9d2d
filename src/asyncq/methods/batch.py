"""What a method learns from: a batch of fragments, and the environments or single steps that are drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from asyncq.networks import Network, Outputs
from asyncq.trunks import in_squares

CACHED_ROWS = 256
"""Observations of a batch that go through a network at once on a CPU: their activations stay in its cache."""


class Batch(NamedTuple):
    """Fragments side by side: `observations[T+1, E, S, ...]`, `behaviour_values[T+1, E]`, the rest `[T, E]`; rewards
    are scaled and clipped. Images may be in squares, `observations[T+1, E, 16 S, H / 4, W / 4]`; vectors are
    `observations[T+1, E, D]`.

    `env_steps` is how far the run has come, for what changes with it. `memories[C, E, M]`: what a network with an LSTM
    remembered as each of C sequences of T/C steps began; none without. `advantage_square` is the mean square of the
    advantages in updates before this batch, 0 if it is not known.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    discounts: Tensor
    mask: Tensor
    behaviour_log_probs: Tensor
    behaviour_values: Tensor
    env_steps: int = 0
    memories: Tensor | None = None
    advantage_square: float = 0.0


def stack_frames(frames: Tensor, mask: Tensor, frame_stack: int, squares: bool = False) -> Tensor:
    """Rebuild stacked observations from single frames.

    Args:
        frames: `[T+S, E, ...]`, oldest first; the first S are the stack of the first observation.
        mask: `[T, E]`, 0 where a step reset its environment, so that the next observation begins an episode.
        frame_stack: S. With 1 the frames, if not wanted in squares, are the observations, and no axis is added.
        squares: whether to give images `trunks.in_squares`.

    Returns:
        `[T+1, E, S, ...]`, or `[T+1, E, 16 S, H / 4, W / 4]`, in memory with that axis last, as the learner's
        convolutions want it; frames from before an episode's start are zero, as ale-py pads them.
    """
    if frame_stack == 1 and not squares:
        return frames
    pixels = (in_squares(frames.unsqueeze(2)) if squares else frames.unsqueeze(2)).movedim(2, -1)
    steps, channels = len(frames) - frame_stack, pixels.shape[-1]
    stacked = torch.cat([pixels[age : age + steps + 1] for age in range(frame_stack)], dim=-1)
    for reset, env in (mask == 0).nonzero().tolist():
        for age in range(min(frame_stack - 1, steps - reset)):
            stacked[reset + 1 + age, env, ..., : (frame_stack - 1 - age) * channels] = 0
    return stacked.movedim(-1, 2)


class Samples(NamedTuple):
    """Decisions of a batch: `observations[N, S, ...]`, `actions[N]`, and the method's `targets[N]`.

    Those of a network with an LSTM lie in whole sequences: `observations[L, B, S, ...]` with the `memories[B, M]` of
    their starts; `mask[L, B]` is 1 at the N decisions.
    """

    observations: Tensor
    actions: Tensor
    targets: Tensor
    memories: Tensor | None = None
    mask: Tensor | None = None

    def outputs(self, network: nn.Module) -> Outputs:
        """Both outputs of `network`, of N rows each."""
        if self.memories is None or self.mask is None:
            result: Outputs = network(self.observations)
            return result
        (first, second), _ = cast(Network, network).unroll(self.observations, self.memories, self.mask)
        return first[self.mask > 0], second[self.mask > 0]


def outputs(network: nn.Module, batch: Batch, steps: slice = slice(None)) -> Outputs:
    """Both outputs of `network` for the observations of `batch` at `steps` of 0 to T, `[len(steps), E, ...]`."""
    observations = batch.observations[steps]
    if batch.memories is not None:
        first, second = _unrolled(cast(Network, network), batch, batch.memories)
        return first[steps], second[steps]
    flat = observations.flatten(0, 1)
    size = CACHED_ROWS if flat.is_cpu else len(flat)
    parts: list[Outputs] = [network(part) for part in torch.split(flat, size)]
    first, second = (torch.cat(part) for part in zip(*parts, strict=True))
    leading = observations.shape[:2]
    return first.reshape(*leading, *first.shape[1:]), second.reshape(leading)


def _unrolled(network: Network, batch: Batch, memories: Tensor) -> Outputs:
    """All sequences side by side, each from its own memory; the last goes on to the observation after the fragment."""
    count, envs, _ = memories.shape
    order = torch.arange(batch.mask.numel(), device=memories.device).view(count, -1, envs).transpose(0, 1)

    def beside(of_steps: Tensor) -> Tensor:
        rows = _picked(of_steps.flatten(0, 1), order.flatten(), dim=0)
        return rows.view(-1, count * envs, *rows.shape[1:])

    mask = beside(batch.mask)
    sequences, after = network.unroll(beside(batch.observations[:-1]), memories.flatten(0, 1), mask)
    last, _ = network.step(batch.observations[-1], after[-envs:])

    def in_turn(part: Tensor, end: Tensor) -> Tensor:
        steps = part.view(-1, count, envs, *part.shape[2:]).transpose(0, 1).flatten(0, 1)
        return torch.cat([steps, end[None]])

    first, second = (in_turn(part, end) for part, end in zip(sequences, last, strict=True))
    return first, second


def chosen(values: Tensor, actions: Tensor) -> Tensor:
    """Of `values[..., A]` those of `actions[...]`."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def shuffled_environments(batch: Batch, size: int) -> Iterator[Batch]:
    """Every environment of the batch once, in random order, in parts of about `size` env steps."""
    steps, envs = batch.mask.shape
    order = torch.randperm(envs).to(batch.mask.device)
    for part in order.tensor_split(max(1, round(steps * envs / size))):
        if batch.mask[:, part].any():
            yield Batch._make(_picked(field, part) if isinstance(field, Tensor) else field for field in batch)


def shuffled_samples(batch: Batch, targets: Tensor, size: int) -> Iterator[Samples]:
    """Every decision of the batch once, in random order, in parts of about `size`; resetting steps are left out."""
    if batch.memories is not None:
        yield from _shuffled_sequences(batch, targets, size, batch.memories)
        return
    decisions = batch.mask.flatten().nonzero().squeeze(-1)
    order = decisions[torch.randperm(len(decisions)).to(decisions.device)]
    observations, actions = batch.observations[:-1].flatten(0, 1), batch.actions.flatten()
    for part in order.tensor_split(max(1, round(len(order) / size))):
        yield Samples(_picked(observations, part, dim=0), actions[part], targets.flatten()[part])


def _shuffled_sequences(batch: Batch, targets: Tensor, size: int, memories: Tensor) -> Iterator[Samples]:
    """Every sequence of the batch once, in random order, in parts of about `size` steps."""
    count, envs, _ = memories.shape
    length = len(batch.mask) // count
    order = torch.randperm(count * envs).to(memories.device)
    for part in order.tensor_split(max(1, round(batch.mask.numel() / size))):
        sequence, env = part // envs, part % envs
        steps = sequence * length + torch.arange(length, device=part.device)[:, None]
        mask = batch.mask[steps, env]
        decisions = mask > 0
        if decisions.any():
            actions, drawn = (values[steps, env][decisions] for values in (batch.actions, targets))
            yield Samples(batch.observations[steps, env], actions, drawn, memories[sequence, env], mask)


def _picked(field: Tensor, which: Tensor, dim: int = 1) -> Tensor:
    """What `which` of axis `dim` hold; images in the memory order of `stack_frames`: rows are copied, not pixels."""
    if field.ndim <= dim + 2:
        return field.index_select(dim, which)
    return field.movedim(dim + 1, -1).index_select(dim, which).movedim(-1, dim + 1)
