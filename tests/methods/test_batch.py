"""Batch helpers: axes `[T, E]` are restored, samples hold every decision once, stacks are rebuilt from single frames.

Two environments check the stacks: ale-py's own vector environment, and a pixel environment with random episode ends.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asyncq.envs import EnvironmentSpec, describe, make_env
from asyncq.methods.batch import (
    CACHED_ROWS,
    Batch,
    chosen,
    outputs,
    shuffled_environments,
    shuffled_samples,
    stack_frames,
)
from asyncq.networks import Network, make_network
from asyncq.shared import Array
from tiny_envs import PIXELS


class Sums(nn.Module):
    """Gives `[sum, sum]` and `-sum` of each observation, and remembers the shape that it was given."""

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        self.shape = tuple(observations.shape)
        total = observations.flatten(1).sum(1)
        return torch.stack([total, total], 1), -total


class Pair(nn.Module):
    """Two outputs of one layer."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        values = self.layer(observations)
        return values, values.amax(-1)


def batch_of(observations: Tensor) -> Batch:
    table = torch.ones(len(observations) - 1, observations.shape[1])
    return Batch(observations, table.long(), table, table, table, table, observations[..., 0])


def test_outputs_flattens_and_restores_the_leading_axes() -> None:
    observations = torch.arange(24.0).reshape(3, 2, 4)
    network = Sums()
    first, second = outputs(network, batch_of(observations))
    assert network.shape == (6, 4)
    assert first.shape == (3, 2, 2)
    assert torch.equal(first[..., 0], observations.sum(-1))
    assert torch.equal(second, -observations.sum(-1))


@pytest.mark.parametrize("steps", [slice(1, None), slice(-1)])
def test_outputs_of_some_steps_are_those_of_all(steps: slice) -> None:
    network, batch = Pair(nn.Linear(3, 2)), batch_of(torch.randn(4, 2, 3))
    for found, whole in zip(outputs(network, batch, steps), outputs(network, batch), strict=True):
        torch.testing.assert_close(found, whole[steps])


def test_chosen_picks_each_steps_action() -> None:
    values = torch.tensor([[[1.0, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]])
    assert chosen(values, torch.tensor([[2, 0], [1, 2]])).tolist() == [[3, 4], [8, 12]]


def numbered_batch(steps: int, envs: int) -> Batch:
    """Every field tells its step and env: 100 t + e; env 0 resets in step 1."""
    table = 100 * torch.arange(steps + 1)[:, None] + torch.arange(envs)
    observations = table[:, :, None].repeat(1, 1, 3)
    mask = torch.ones(steps, envs)
    mask[1, 0] = 0
    numbers = table[:-1]
    return Batch(observations, numbers, numbers, numbers, mask, numbers, table, env_steps=7)


@pytest.mark.parametrize(("envs", "size", "parts"), [(8, 13, 3), (8, 10, 4), (5, 1, 24), (8, 39, 1), (8, 1000, 1)])
def test_samples_hold_every_decision_once_with_all_that_belongs_to_it(envs: int, size: int, parts: int) -> None:
    batch = numbered_batch(5, envs)
    numbers = batch.actions.float()
    found = list(shuffled_samples(batch, -numbers, size))
    assert len(found) == parts
    sizes = [len(samples.actions) for samples in found]
    assert max(sizes) - min(sizes) <= 1
    for samples in found:
        assert torch.equal(samples.observations, samples.actions[:, None].repeat(1, 3))
        assert torch.equal(samples.targets, -samples.actions.float())
    seen = torch.cat([samples.actions for samples in found]).tolist()
    assert sorted(seen) == [100 * t + e for t in range(5) for e in range(envs) if (t, e) != (1, 0)]


def test_samples_keep_the_order_of_memory() -> None:
    observations = torch.zeros(5, 3, 6, 7, 4).movedim(-1, 2)
    table = torch.ones(4, 3)
    batch = Batch(observations, table.long(), table, table, table, table, torch.ones(5, 3))
    (samples,) = shuffled_samples(batch, table, size=12)
    assert samples.observations.is_contiguous(memory_format=torch.channels_last)


def test_samples_are_shuffled_anew_every_time() -> None:
    batch = numbered_batch(5, 64)
    one, other = (next(shuffled_samples(batch, batch.rewards, 160)).actions.tolist() for _ in range(2))
    assert one != other
    assert one != sorted(one)


def test_outputs_are_those_of_the_whole_batch_at_once() -> None:
    network = make_network("mlp", "policy-value", (3,), 5, True)
    observations = torch.randn(CACHED_ROWS, 2, 3)
    logits, values = outputs(network, batch_of(observations))
    expected_logits, expected_values = network(observations.flatten(0, 1))
    assert torch.allclose(logits, expected_logits.reshape(CACHED_ROWS, 2, 5), atol=1e-6)
    assert torch.allclose(values, expected_values.reshape(CACHED_ROWS, 2), atol=1e-6)


def remembered_batch(steps: int = 6, envs: int = 3, sequences: int = 2) -> tuple[Network, Batch]:
    """Env 0 resets in step 1; memories are random numbers."""
    network = make_network("mlp", "policy-value", (3,), 5, True, recurrent=True)
    table = 100.0 * torch.arange(steps)[:, None] + torch.arange(envs)
    mask = torch.ones(steps, envs)
    mask[1, 0] = 0
    memories = torch.randn(sequences, envs, network.memory_size)
    observations = torch.randn(steps + 1, envs, 3)
    return network, Batch(observations, table.long(), table, table, mask, table, observations[..., 0], 7, memories)


def test_outputs_unroll_each_sequence_from_its_own_memory() -> None:
    network, batch = remembered_batch()
    assert batch.memories is not None
    found = outputs(network, batch)
    assert (found[0].shape, found[1].shape) == ((7, 3, 5), (7, 3))
    early, _ = network.unroll(batch.observations[:3], batch.memories[0], batch.mask[:3])
    late, _ = network.unroll(batch.observations[3:], batch.memories[1], torch.ones(4, 3))
    for which in (0, 1):
        torch.testing.assert_close(found[which], torch.cat([early[which], late[which]]))


@pytest.mark.parametrize(("size", "parts"), [(4, 4), (6, 3), (10, 2), (1000, 1)])
def test_parts_hold_every_environment_once_with_all_that_belongs_to_it(size: int, parts: int) -> None:
    batch = numbered_batch(5, 4)
    found = list(shuffled_environments(batch, size))
    assert len(found) == parts
    for part in found:
        assert part.env_steps == 7
        assert torch.equal(part.observations[:, :, 0], part.behaviour_values)
        assert torch.equal(part.actions, part.behaviour_values[:-1])
        assert torch.equal(part.mask == 0, part.actions == 100)
    orders = {
        tuple(torch.cat([part.actions[0] for part in shuffled_environments(batch, size)]).tolist()) for _ in range(20)
    }
    assert len(orders) > 1
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)


def test_parts_keep_memories_with_their_environments_and_the_order_of_memory() -> None:
    _, batch = remembered_batch()
    batch = batch._replace(observations=torch.randn(7, 3, 6, 7, 4).movedim(-1, 2))
    assert batch.memories is not None
    for part in shuffled_environments(batch, 6):
        env = int(part.actions[0, 0])
        assert part.memories is not None
        assert torch.equal(part.memories[:, 0], batch.memories[:, env])
        assert torch.equal(part.observations[:, 0], batch.observations[:, env])
        assert part.observations.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_environments_without_a_decision_are_left_out() -> None:
    batch = numbered_batch(5, 3)
    batch.mask[:, 1] = 0
    assert [part.actions[0].tolist() for part in shuffled_environments(batch, 5)].count([1]) == 0


@pytest.mark.parametrize("size", [3, 6, 100])
def test_sequences_hold_every_decision_once_and_compute_what_outputs_does(size: int) -> None:
    network, batch = remembered_batch()
    _, values = outputs(network, batch)
    found = list(shuffled_samples(batch, values[:-1].detach(), size))
    assert len(found) == max(1, 18 // size)
    for samples in found:
        assert samples.observations.shape[0] == 3
        torch.testing.assert_close(samples.outputs(network)[1].detach(), samples.targets)
    seen = torch.cat([samples.actions for samples in found]).tolist()
    assert sorted(seen) == [100 * t + e for t in range(6) for e in range(3) if (t, e) != (1, 0)]


def test_gradients_go_back_through_a_sequence() -> None:
    network, batch = remembered_batch()
    samples = next(shuffled_samples(batch, batch.rewards, 3))
    samples.observations.requires_grad_()
    samples.outputs(network)[1][-1].backward()  # type: ignore[no-untyped-call]
    assert samples.observations.grad is not None
    assert samples.observations.grad[0].any()


def record(spec: EnvironmentSpec, steps: int, envs: int, seed: int) -> tuple[Array, Array, Array]:
    """Play as a worker does: single frames `[T+S, E, ...]`, mask `[T, E]`, and the stacks `[T+1, E, ...]`."""
    generator = np.random.default_rng(seed)
    env: Any = make_env(spec, envs)
    seeds = generator.integers(2**30, size=envs)
    observations, _ = env.reset(seed=seeds if spec.family == "atari" else seeds.tolist())
    frames, stacked, mask = [*spec.stacks(observations)], [observations.copy()], []
    resetting = np.zeros(envs, bool)
    for _ in range(steps):
        observations, _, terminated, truncated, _ = env.step(generator.integers(spec.actions, size=envs))
        frames.append(spec.latest_frames(observations).copy())
        stacked.append(observations.copy())
        mask.append(~resetting)
        resetting = terminated | truncated
    env.close()
    return np.array(frames), np.array(mask, np.float32), np.array(stacked)


def rebuilt(frames: Array, mask: Array, frame_stack: int) -> Array:
    return np.asarray(stack_frames(torch.from_numpy(frames), torch.from_numpy(mask), frame_stack))


def check_fragments(spec: EnvironmentSpec, steps_per_fragment: int) -> None:
    """The stacks of every fragment, wherever it begins, equal those that the environment gave."""
    stack = spec.frame_stack
    frames, mask, stacked = record(spec, steps=60, envs=3, seed=5)
    assert (mask == 0).sum() >= 6
    for start in range(0, 60 - steps_per_fragment + 1):
        first = np.moveaxis(stacked[start], 1, 0)
        window = np.concatenate([first, frames[start + stack : start + stack + steps_per_fragment]])
        result = rebuilt(window, mask[start : start + steps_per_fragment], stack)
        expected = stacked[start : start + steps_per_fragment + 1]
        assert np.array_equal(result.reshape(expected.shape), expected), f"fragment from step {start}"


@pytest.mark.parametrize("frame_stack", [1, 2, 4])
@pytest.mark.parametrize("steps", [1, 2, 16])
def test_stacks_of_a_pixel_environment_are_rebuilt(steps: int, frame_stack: int) -> None:
    check_fragments(describe(PIXELS, ("tiny_envs",), frame_stack), steps)


@pytest.mark.parametrize("frame_stack", [1, 4])
def test_stacks_of_ale_pys_environment_are_rebuilt(frame_stack: int) -> None:
    spec = dataclasses.replace(describe("ALE/Pong-v5", (), frame_stack), max_frames=40)
    check_fragments(spec, 16)


def test_stack_frames_by_hand() -> None:
    # one env, frames 1 to 6 with a stack of 3; step 1 resets, so observation 2 (frame 5 newest) begins an episode
    frames = torch.arange(1, 7)[:, None, None]
    stacked = stack_frames(frames, torch.tensor([[1.0], [0.0], [1.0]]), 3)
    assert stacked[:, 0, :, 0].tolist() == [[1, 2, 3], [2, 3, 4], [0, 0, 5], [0, 5, 6]]


def test_stack_frames_leaves_the_frames_as_they_were() -> None:
    frames = torch.arange(1, 7)[:, None, None]
    stack_frames(frames, torch.zeros(3, 1), 3)
    assert frames.flatten().tolist() == [1, 2, 3, 4, 5, 6]


def test_stacks_lie_in_memory_with_their_frames_last() -> None:
    stacked = stack_frames(torch.zeros(7, 2, 5, 6), torch.ones(4, 2), 3)
    assert stacked.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("frame_stack", [1, 4])
def test_stacks_in_squares_are_the_stacks_with_the_pixels_of_each_square_as_channels(frame_stack: int) -> None:
    frames = torch.randint(256, (8 + frame_stack, 3, 12, 20), dtype=torch.uint8)
    mask = torch.ones(8, 3)
    mask[2, 1] = mask[7, 0] = mask[5, 2] = 0
    stacked = stack_frames(frames, mask, frame_stack, squares=True)
    plain = stack_frames(frames, mask, frame_stack).reshape(9, 3, frame_stack, 12, 20)
    assert torch.equal(stacked, torch.nn.functional.pixel_unshuffle(plain, 4))
    assert stacked.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_stack_frames_of_vectors_are_the_vectors() -> None:
    frames = torch.randn(4, 2, 3)
    assert stack_frames(frames, torch.ones(3, 2), 1) is frames
