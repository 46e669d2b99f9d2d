"""How Keras lays the tensors of the networks of 2016 out, against how asyncq does: pure functions, both ways.

Theano convolves where everyone else correlates, so its kernels are turned by 180 degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from asyncq.envs.spec import FRAME_SHAPE
from asyncq.networks import make_network
from asyncq.shared import Array

BACKENDS = ("theano", "tensorflow")
DATA_FORMATS = ("channels_first", "channels_last")


@dataclass(frozen=True)
class KerasFormat:
    """Who wrote a file."""

    version: int = 2
    """1, or 2 for every later Keras, which lay out alike."""
    backend: str = "tensorflow"
    """One of BACKENDS; all others of Keras correlate as TensorFlow does."""
    data_format: str = "channels_first"
    """One of DATA_FORMATS: the order in which the dense layer counts its inputs."""

    @property
    def kernels_out_first(self) -> bool:
        """Whether kernels are `[out, in, h, w]`, else `[h, w, in, out]`."""
        return self.version == 1 and self.data_format == "channels_first"


@dataclass(frozen=True)
class Layer:
    kernel: Array
    bias: Array


def from_keras(layers: list[Layer], form: KerasFormat) -> dict[str, Array]:
    """Parameters with asyncq's names and shapes, each layer told by its shape. Raises ValueError for other networks."""
    convolutions = [Layer(_kernel_from(layer.kernel, form), layer.bias) for layer in layers if layer.kernel.ndim == 4]
    convolutions.sort(key=lambda layer: -layer.kernel.shape[-1])  # they get smaller from layer to layer
    dense = sorted((layer for layer in layers if layer.kernel.ndim == 2), key=lambda layer: -len(layer.kernel))
    heads = sorted(dense[1:], key=lambda layer: len(layer.bias))
    if not convolutions or len(heads) not in (1, 2):
        raise ValueError("no convolutions, or neither one head nor two")
    named = {f"trunk.convolutions.{index}": layer for index, layer in enumerate(convolutions)}
    kernel = _flattened_from(dense[0].kernel, len(convolutions[-1].bias), form)
    named["trunk.dense"] = Layer(kernel.T, dense[0].bias)
    for name, head in zip(["action_values"] if len(heads) == 1 else ["value", "policy"], heads, strict=True):
        named[name] = Layer(head.kernel.T, head.bias)
    parameters: dict[str, Array] = {}
    for name, layer in named.items():
        parameters |= {f"{name}.weight": np.ascontiguousarray(layer.kernel), f"{name}.bias": layer.bias}
    return parameters


def to_keras(parameters: dict[str, Array], form: KerasFormat) -> dict[str, Layer | None]:
    """Layers by the names of 2016, in the model's order; None for those without weights. Undoes `from_keras`."""

    def layer(name: str) -> Layer:
        return Layer(parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    layers: dict[str, Layer | None] = {"input_1": None}
    count = sum(name.startswith("trunk.convolutions.") for name in parameters) // 2
    for index in range(count):
        convolution = layer(f"trunk.convolutions.{index}")
        name = f"convolution2d_{index + 1}" if form.version == 1 else f"conv2d_{index + 1}"
        layers[name] = Layer(_kernel_to(convolution.kernel, form), convolution.bias)
    layers["flatten_1"] = None
    dense = layer("trunk.dense")
    layers["dense_1"] = Layer(_flattened_to(dense.kernel.T, len(convolution.bias), form), dense.bias)
    heads = {"value": "value", "policy": "policy"} if "policy.bias" in parameters else {"dense_2": "action_values"}
    for keras_name, name in heads.items():
        layers[keras_name] = Layer(layer(name).kernel.T, layer(name).bias)
    return layers


def recognise(parameters: dict[str, Array]) -> str | None:
    """The name of the network that has just these parameters, on frames of the usual size, without LayerNorm."""
    found = {name: value.shape for name, value in parameters.items()}
    heads, head = ("policy-value", "policy.bias") if "policy.bias" in found else ("q", "action_values.bias")
    if head not in found or "trunk.convolutions.0.weight" not in found:
        return None
    shape = (found["trunk.convolutions.0.weight"][1], *FRAME_SHAPE)
    for name in ("a3c", "nature"):
        with torch.device("meta"):  # shapes without numbers
            expected = make_network(name, heads, shape, found[head][0], layer_norm=False).state_dict()
        if {key: tuple(value.shape) for key, value in expected.items()} == found:
            return name
    return None


def _kernel_from(kernel: Array, form: KerasFormat) -> Array:
    """A convolution's kernel -> `[out, in, h, w]` for correlation."""
    return _turned(kernel if form.kernels_out_first else kernel.transpose(3, 2, 0, 1), form)


def _kernel_to(kernel: Array, form: KerasFormat) -> Array:
    kernel = _turned(kernel, form)
    return kernel if form.kernels_out_first else kernel.transpose(2, 3, 1, 0)


def _turned(kernel: Array, form: KerasFormat) -> Array:
    return kernel[:, :, ::-1, ::-1] if form.backend == "theano" else kernel


def _flattened_from(kernel: Array, channels: int, form: KerasFormat) -> Array:
    """The dense layer's kernel -> `[inputs, features]` with its inputs counted by `[C, H, W]`."""
    if form.data_format == "channels_first":
        return kernel
    side = math.isqrt(len(kernel) // channels)
    return kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)


def _flattened_to(kernel: Array, channels: int, form: KerasFormat) -> Array:
    if form.data_format == "channels_first":
        return kernel
    side = math.isqrt(len(kernel) // channels)
    return kernel.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
