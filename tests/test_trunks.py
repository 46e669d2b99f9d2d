"""Trunks: how pixels enter them, in whatever order they lie, and the user's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from asyncq.errors import UsageError
from asyncq.networks import PolicyValueNetwork, make_network
from asyncq.trunks import ImageNorm, in_squares, own_trunk

IMAGE, VECTOR = (4, 84, 84), (6,)


@pytest.mark.parametrize(("name", "least"), [("a3c", 20), ("nature", 36), ("small", 12)])
def test_frames_that_a_network_cannot_take_are_refused(name: str, least: int) -> None:
    make_network(name, "q", (4, least, least), 6, False)
    with pytest.raises(UsageError, match="too small for this network; try --frame-size 84"):
        make_network(name, "q", (4, least - 1, least - 1), 6, False)


@pytest.mark.parametrize("gradients", [True, False])
def test_pixels_are_scaled_to_0_to_1(gradients: bool) -> None:
    """The same as a plain stack of torch's layers on observations divided by 255, with and without gradients."""
    network = make_network("a3c", "policy-value", IMAGE, 6, False)
    assert isinstance(network, PolicyValueNetwork)
    parameters = dict(network.named_parameters())
    observations = torch.randint(256, (2, *IMAGE), dtype=torch.uint8)
    with torch.set_grad_enabled(gradients):
        logits, values = network(observations)
    hidden = observations.double() / 255
    for layer, stride in ((0, 4), (1, 2)):
        weight, bias = (parameters[f"trunk.convolutions.{layer}.{part}"].double() for part in ("weight", "bias"))
        hidden = nn.functional.conv2d(hidden, weight, bias, stride).relu()
    weight, bias = (parameters[f"trunk.dense.{part}"].double() for part in ("weight", "bias"))
    hidden = nn.functional.linear(hidden.flatten(1), weight, bias).relu()
    torch.testing.assert_close(logits.double(), hidden @ network.policy.weight.double().T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values.double(), (hidden @ network.value.weight.double().T)[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_order_of_pixels_in_memory_changes_nothing(layer_norm: bool) -> None:
    network = make_network("a3c", "policy-value", IMAGE, 6, layer_norm).double()
    observations = torch.randint(256, (3, *IMAGE), dtype=torch.uint8)
    with torch.no_grad():
        expected = network(observations)
        given = network(observations.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(network(observations), expected)


@pytest.mark.parametrize(("name", "layer_norm"), [("a3c", True), ("a3c", False), ("nature", True)])
def test_a_network_learns_the_same_from_images_in_squares(name: str, layer_norm: bool) -> None:
    network = make_network(name, "policy-value", IMAGE, 6, layer_norm).double()
    observations = torch.randint(256, (3, *IMAGE), dtype=torch.uint8)
    assert network.takes_squares

    def learn(images: torch.Tensor) -> list[torch.Tensor]:
        logits, values = network(images)
        return [logits, values, *torch.autograd.grad((logits * 30).sum() + values.sum(), list(network.parameters()))]

    torch.testing.assert_close(learn(in_squares(observations)), learn(observations))


@pytest.mark.parametrize(
    ("name", "shape"), [("small", IMAGE), ("impala", IMAGE), ("a3c", (4, 86, 84)), ("mlp", VECTOR)]
)
def test_networks_that_gain_nothing_from_squares_take_images_as_they_are(name: str, shape: tuple[int, ...]) -> None:
    assert not make_network(name, "q", shape, 6, layer_norm=True).takes_squares


def test_image_norm_is_layer_norm_in_either_order_of_memory() -> None:
    norm = ImageNorm([2, 3, 5]).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    hidden = torch.randn(4, 2, 3, 5, dtype=torch.double)
    gradients = []
    for order in (torch.contiguous_format, torch.channels_last):
        ordered = hidden.contiguous(memory_format=order).requires_grad_()
        result = norm(ordered)
        torch.testing.assert_close(
            result, nn.functional.layer_norm(hidden, [2, 3, 5], norm.weight, norm.bias, norm.eps)
        )
        gradients.append(torch.autograd.grad(result.pow(3).sum(), [ordered, norm.weight, norm.bias]))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_module:Net", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("tiny_envs:Missing", "AttributeError"),
        ("tiny_envs:nothing", "RuntimeError: no network today"),
        ("tiny_envs:Wide", r"gives \[2, 7\] for 2 observations; it must give \[B, 3\]"),
    ],
)
def test_own_trunks_that_cannot_work_are_refused(path: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_network(path, "q", VECTOR, 5, False)


def test_an_own_trunk_is_tried_on_images_as_the_learner_stacks_them() -> None:
    with pytest.raises(UsageError, match=r"Use \.reshape"):
        own_trunk("tiny_envs:Viewing", (4, 8, 8), False)


def test_the_trial_of_an_own_trunk_changes_nothing_of_it() -> None:
    network = make_network("tiny_envs:Normalised", "q", VECTOR, 5, False)
    buffers = dict(network.named_buffers())
    assert buffers["trunk.layers.3.running_mean"].tolist() == [0] * 7
    assert buffers["trunk.layers.3.num_batches_tracked"] == 0
