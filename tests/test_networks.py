"""Networks: shapes and sizes of every kind, their heads and memories, and how they begin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from asyncq.networks import LSTM, QNetwork, make_network
from asyncq.optimizing import hidden_weights

IMAGE, VECTOR = (4, 84, 84), (6,)
NETWORKS = [
    ("a3c", IMAGE),
    ("nature", IMAGE),
    ("small", (4, 42, 42)),
    ("impala", (4, 42, 42)),
    ("a3c", (1, 84, 84)),
    ("mlp", VECTOR),
]


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("name", "shape"), NETWORKS)
def test_both_kinds_of_heads_have_the_shapes_of_actions_and_batch(
    name: str, shape: tuple[int, ...], layer_norm: bool
) -> None:
    dtype = torch.uint8 if len(shape) == 3 else torch.float32
    observations = torch.ones((3, *shape), dtype=dtype)
    for heads in ("policy-value", "q"):
        first, second = make_network(name, heads, shape, 5, layer_norm)(observations)
        assert first.shape == (3, 5)
        assert second.shape == (3,)
        assert first.isfinite().all()


def test_the_a3c_network_has_the_papers_size() -> None:
    # 16 filters of 8x8x4, 32 of 4x4x16, 256 units on 9x9x32, 6 logits and a value; every layer with its biases
    expected = (16 * 256 + 16) + (32 * 256 + 32) + (256 * 2592 + 256) + (6 * 256 + 6) + (256 + 1)
    assert size(make_network("a3c", "policy-value", IMAGE, 6, False)) == expected


def test_the_nature_network_has_the_papers_size() -> None:
    expected = (32 * 256 + 32) + (64 * 512 + 64) + (64 * 576 + 64) + (512 * 3136 + 512) + (6 * 512 + 6)
    assert size(make_network("nature", "q", IMAGE, 6, False)) == expected


def test_the_impala_network_has_its_papers_layers() -> None:
    # fifteen 3x3 convolutions in sections of 16, 32 and 32 filters, each section halving the side: 84, 42, 21, 11
    convolutions = (4 + 4 * 16) * 16 * 9 + (16 + 4 * 32) * 32 * 9 + (32 + 4 * 32) * 32 * 9 + 5 * (16 + 32 + 32)
    expected = convolutions + (256 * 32 * 11 * 11 + 256) + (6 * 256 + 6) + (256 + 1)
    assert size(make_network("impala", "policy-value", IMAGE, 6, False)) == expected


def test_layer_norm_normalises_every_hidden_layer() -> None:
    plain, normed = (make_network("a3c", "q", IMAGE, 6, layer_norm) for layer_norm in (False, True))
    assert size(normed) - size(plain) == 2 * (16 * 20 * 20 + 32 * 9 * 9 + 256)
    plain, normed = (make_network("mlp", "q", VECTOR, 6, layer_norm) for layer_norm in (False, True))
    assert size(normed) - size(plain) == 2 * (64 + 64)


def test_a_new_policy_is_nearly_uniform() -> None:
    network = make_network("a3c", "policy-value", IMAGE, 6, False)
    logits, _ = network(torch.randint(256, (8, *IMAGE), dtype=torch.uint8))
    assert (logits.softmax(-1) - 1 / 6).abs().max() < 0.02


def test_a_q_networks_second_output_is_the_greatest_action_value() -> None:
    network = make_network("mlp", "q", VECTOR, 5, True)
    assert isinstance(network, QNetwork)
    values, greatest = network(torch.randn(7, 6))
    assert torch.equal(greatest, values.max(-1).values)


def test_every_parameter_learns() -> None:
    for name, shape in (("a3c", IMAGE), ("impala", (4, 42, 42)), ("mlp", VECTOR)):
        network = make_network(name, "policy-value", shape, 3, True)
        logits, values = network(torch.randint(256, (4, *shape)).float())
        (logits.square().sum() + values.square().sum()).backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_a_dueling_network_adds_advantages_of_mean_zero_to_a_state_value() -> None:
    torch.manual_seed(1)
    network = make_network("mlp", "q", VECTOR, 5, True, dueling=True)
    assert isinstance(network, QNetwork) and network.state_value is not None
    observations = torch.randn(7, *VECTOR)
    values, greatest = network(observations)
    state_value = network.state_value(network.trunk(observations))
    assert torch.allclose(values.mean(-1, keepdim=True), state_value, atol=1e-6)
    assert torch.equal(values.amax(-1), greatest)
    assert values.std() > 0.1


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("heads", ["policy-value", "q"])
def test_heads_are_in_float32_under_autocast(heads: str, recurrent: bool) -> None:
    network = make_network("a3c", heads, IMAGE, 5, True, recurrent=recurrent)
    observations = torch.randint(256, (64, *IMAGE), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (first, second), _ = network.step(observations, torch.zeros(64, network.memory_size))
    for values in (first, second):
        assert values.dtype == torch.float32
        assert not torch.equal(values, values.bfloat16().float())


@pytest.mark.parametrize("shape", [IMAGE, VECTOR])
@pytest.mark.parametrize("heads", ["policy-value", "q"])
def test_a_users_own_trunk_gets_the_heads_of_the_method(shape: tuple[int, ...], heads: str) -> None:
    network = make_network("tiny_envs:Flat", heads, shape, 5, False)
    observations = torch.zeros(3, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32)
    first, second = network(observations)
    assert (first.shape, second.shape) == ((3, 5), (3,))
    assert [weight.shape for weight in hidden_weights(network)] == [(7, math.prod(shape))]


def test_the_lstm_computes_what_torchs_does() -> None:
    ours, theirs = LSTM(5), nn.LSTM(5, 5)

    def in_torchs_order(gates: Tensor) -> Tensor:
        write, forget, read, content = gates.chunk(4)
        return torch.cat([write, forget, content, read])

    weights = {
        "weight_ih_l0": in_torchs_order(ours.inputs.weight),
        "weight_hh_l0": in_torchs_order(ours.recurrence.weight),
        "bias_ih_l0": in_torchs_order(ours.inputs.bias),
        "bias_hh_l0": torch.zeros(20),
    }
    theirs.load_state_dict(weights)
    features, memory = torch.randn(7, 3, 5), torch.randn(3, 10)
    found, after = ours(features, memory, torch.ones(7, 3))
    expected, (hidden, cell) = theirs(features, tuple(part[None].contiguous() for part in memory.chunk(2, -1)))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(after, torch.cat([hidden[0], cell[0]], -1))


@pytest.mark.parametrize("heads", ["policy-value", "q"])
def test_a_sequence_is_its_steps_one_by_one_and_forgets_where_the_mask_is_0(heads: str) -> None:
    network = make_network("mlp", heads, VECTOR, 5, True, recurrent=True)
    observations, memory, mask = torch.randn(6, 2, *VECTOR), torch.randn(2, network.memory_size), torch.ones(6, 2)
    mask[2, 0] = mask[5, 1] = 0
    (first, second), after = network.unroll(observations, memory, mask)
    for t in range(6):
        (one, other), memory = network.step(observations[t], memory)
        torch.testing.assert_close(first[t], one)
        torch.testing.assert_close(second[t], other)
        memory = memory * mask[t, :, None]
    torch.testing.assert_close(after, memory)
    assert not after[1].any()
    alone, _ = network.unroll(observations[3:, :1], torch.zeros(1, network.memory_size), mask[3:, :1])
    torch.testing.assert_close(alone[0], first[3:, :1])


@pytest.mark.parametrize("recurrent", [False, True])
def test_values_of_vectors_teach_the_policy_nothing(recurrent: bool) -> None:
    network = make_network("mlp", "policy-value", VECTOR, 5, True, recurrent=recurrent)
    (_, values), _ = network.step(torch.randn(3, *VECTOR), torch.randn(3, network.memory_size))
    values.sum().backward()  # type: ignore[no-untyped-call]
    taught = {name.partition(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert taught == {"value_trunk", "value"} | ({"value_lstm"} if recurrent else set())


def test_what_is_no_number_is_forgotten_too() -> None:
    lstm = LSTM(3)
    _, memory = lstm(torch.zeros(1, 2, 3), torch.full((2, 6), math.nan), torch.tensor([[0.0, 1.0]]))
    assert not memory[0].any()
    assert memory[1].isnan().all()


def test_a_network_without_memory_steps_as_it_computes() -> None:
    network = make_network("mlp", "q", VECTOR, 5, True)
    observations = torch.randn(3, *VECTOR)
    (values, _), memory = network.step(observations, torch.zeros(3, network.memory_size))
    assert torch.equal(values, network(observations)[0])
    assert memory.shape == (3, 0)
