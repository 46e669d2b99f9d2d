"""Keras' layouts: there and back without a bit lost, and what a layer computes stays what it was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from asyncq.networks import make_network
from asyncq.shared import Array
from asyncq.storage.keras_layout import BACKENDS, DATA_FORMATS, KerasFormat, Layer, from_keras, recognise, to_keras

FORMATS = [KerasFormat(*choice) for choice in itertools.product((1, 2), BACKENDS, DATA_FORMATS)]


def parameters(network: str = "a3c", heads: str = "policy-value", stack: int = 3) -> dict[str, Array]:
    module = make_network(network, heads, (stack, 84, 84), 4, layer_norm=False)
    return {name: torch.randn(value.shape).numpy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("network", "heads"), [*itertools.product(("a3c", "nature"), ("policy-value", "q"))])
def test_there_and_back_is_bit_equal(form: KerasFormat, network: str, heads: str) -> None:
    before = parameters(network, heads)
    layers = [layer for layer in to_keras(before, form).values() if layer]
    np.random.default_rng(1).shuffle(layers)
    after = from_keras(layers, form)
    assert recognise(after) == network
    assert set(after) == set(before)
    assert all(np.array_equal(after[name], value) for name, value in before.items())


def test_layers_have_the_names_and_order_of_2016() -> None:
    first = list(to_keras(parameters(), KerasFormat(1, "theano")))
    assert first == ["input_1", "convolution2d_1", "convolution2d_2", "flatten_1", "dense_1", "value", "policy"]
    assert list(to_keras(parameters(heads="q"), KerasFormat(1, "theano")))[-2:] == ["dense_1", "dense_2"]


def test_theano_convolves() -> None:
    """Its convolution is the sum over products with the kernel turned around, here written out."""
    before = parameters()
    layer = to_keras(before, KerasFormat(1, "theano"))["convolution2d_1"]
    assert layer is not None and layer.kernel.shape == (16, 3, 8, 8)
    image = np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32)
    convolved = sum(
        image[c, y, x] * layer.kernel[:, c, 7 - y, 7 - x] for c, y, x in itertools.product(range(3), range(8), range(8))
    )
    ours = functional.conv2d(torch.as_tensor(image)[None], torch.as_tensor(before["trunk.convolutions.0.weight"]))
    assert np.allclose(convolved, ours[0, :, 0, 0].numpy(), atol=1e-4)


def test_channels_last_counts_pixels_before_channels() -> None:
    before = parameters()
    layer = to_keras(before, KerasFormat(2, "tensorflow", "channels_last"))["dense_1"]
    assert layer is not None
    activations = np.random.default_rng(1).normal(size=(32, 9, 9)).astype(np.float32)
    keras = activations.transpose(1, 2, 0).ravel() @ layer.kernel
    ours = before["trunk.dense.weight"] @ activations.ravel()
    assert np.allclose(keras, ours, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[:1],
        lambda layers: layers[:2],
        lambda layers: [layer for layer in layers if layer.kernel.ndim == 2],
        lambda layers: [*layers, layers[-1], layers[-1]],
    ],
)
def test_other_networks_are_no_network_of_2016(change: object) -> None:
    layers = [layer for layer in to_keras(parameters(), KerasFormat()).values() if layer]
    with pytest.raises(ValueError, match="head"):
        from_keras(change(layers), KerasFormat())  # type: ignore[operator]


def test_other_sizes_are_not_recognised() -> None:
    layers = [layer for layer in to_keras(parameters(), KerasFormat()).values() if layer]
    wider = [Layer(np.zeros((2592, 300), np.float32), np.zeros(300, np.float32)), *layers[3:]]
    assert recognise(from_keras([*layers[:2], *wider], KerasFormat())) is None
    assert recognise(parameters("small")) is None
    assert recognise({}) is None
