"""Trunks: what turns observations into features, by name or of the user's own."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyncq.errors import UsageError, one_line

CONVOLUTIONS: dict[str, tuple[list[tuple[int, int, int]], int]] = {
    "a3c": ([(16, 8, 4), (32, 4, 2)], 256),
    "nature": ([(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512),
    "small": ([(16, 6, 3), (32, 3, 2)], 256),
}
"""Filters, kernel size and stride of each convolution, and the features of the layer after them (a3c: Mnih et al. 2016;
nature: Mnih et al. 2015; small: for frames of half the side, less than a third of a3c's work)."""

SQUARE = 4
"""Side of the squares of pixels that `in_squares` makes channels, and stride of the convolutions that gain by it."""

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class ImageNorm(nn.LayerNorm):
    """LayerNorm over `[C, H, W]` that takes channels-last activations as they are; its parent would transpose them."""

    def forward(self, hidden: Tensor) -> Tensor:
        if not hidden.is_contiguous(memory_format=torch.channels_last):
            return super().forward(hidden)
        weight, bias = (parameter.permute(1, 2, 0).contiguous() for parameter in (self.weight, self.bias))
        last = functional.layer_norm(hidden.permute(0, 2, 3, 1), weight.shape, weight, bias, self.eps)
        return last.permute(0, 3, 1, 2)


class ConvolutionalTrunk(nn.Module):
    """Convolutions and one fully connected layer over stacked grey frames, uint8 `[B, S, H, W]` -> `[B, features]`.

    Where `takes_squares` is true, they may also come `in_squares`, `[B, 16 S, H / 4, W / 4]`: the backward pass of the
    first convolution then takes less than half the time.
    """

    def __init__(
        self, shape: Sequence[int], layers: Sequence[tuple[int, int, int]], features: int, layer_norm: bool
    ) -> None:
        super().__init__()
        self.features = features
        self.takes_squares = layers[0][1:] == (2 * SQUARE, SQUARE) and shape[1] % SQUARE == shape[2] % SQUARE == 0
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        channels, height, width = shape
        for filters, size, stride in layers:
            if min(height, width) < size:
                raise UsageError(f"frames of {shape[1]}x{shape[2]} are too small for this network; try --frame-size 84")
            self.convolutions.append(orthogonal(nn.Conv2d(channels, filters, size, stride)))
            channels, height, width = filters, (height - size) // stride + 1, (width - size) // stride + 1
            self.norms.append(ImageNorm([channels, height, width]) if layer_norm else nn.Identity())
        self.dense = orthogonal(nn.Linear(channels * height * width, features))
        self.dense_norm = nn.LayerNorm(features) if layer_norm else nn.Identity()

    def forward(self, observations: Tensor) -> Tensor:
        hidden = _in_fastest_order(_as_numbers(observations, self.dense.weight.dtype))
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            assert isinstance(convolution, nn.Conv2d)
            weight, stride = convolution.weight, convolution.stride
            if layer == 0:
                weight = weight / 255  # pixels are scaled to 0..1 by way of the few weights, not of the many pixels
            else:
                hidden = functional.relu(hidden)
            if hidden.shape[1] != weight.shape[1]:
                weight, stride = functional.pixel_unshuffle(weight, SQUARE), (1, 1)
            hidden = norm(functional.conv2d(hidden, weight, convolution.bias, stride))
        # only then ReLU: its gradient comes in the dense layer's order of memory
        return functional.relu(self.dense_norm(self.dense(functional.relu(hidden.flatten(1)))))


class ResidualTrunk(nn.Module):
    """IMPALA's deep trunk (Espeholt et al. 2018, figure 3) over stacked grey frames, uint8 `[B, S, H, W]`.

    Three sections of a convolution, a maximum over 3x3 pixels with stride 2, and two residual blocks of two
    convolutions; then 256 features. With `layer_norm` each section's sum and the features are normalised.
    """

    def __init__(self, shape: Sequence[int], filters: Sequence[int], features: int, layer_norm: bool) -> None:
        super().__init__()
        self.features = features
        self.entries, self.blocks, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels, height, width = shape
        for wanted in filters:
            self.entries.append(orthogonal(nn.Conv2d(channels, wanted, 3, padding=1)))
            for _ in range(4):
                self.blocks.append(orthogonal(nn.Conv2d(wanted, wanted, 3, padding=1)))
            channels, height, width = wanted, (height + 1) // 2, (width + 1) // 2
            self.norms.append(ImageNorm([channels, height, width]) if layer_norm else nn.Identity())
        self.dense = orthogonal(nn.Linear(channels * height * width, features))
        self.dense_norm = nn.LayerNorm(features) if layer_norm else nn.Identity()

    def forward(self, observations: Tensor) -> Tensor:
        hidden = _in_fastest_order(_as_numbers(observations, self.dense.weight.dtype) / 255)
        for section, (entry, norm) in enumerate(zip(self.entries, self.norms, strict=True)):
            hidden = functional.max_pool2d(entry(hidden), 3, stride=2, padding=1)
            for block in (0, 2):
                inner = self.blocks[4 * section + block](functional.relu(hidden))
                hidden = hidden + self.blocks[4 * section + block + 1](functional.relu(inner))
            hidden = norm(hidden)
        return functional.relu(self.dense_norm(self.dense(functional.relu(hidden).flatten(1))))


class DenseTrunk(nn.Module):
    """Two hidden layers over vectors, float32 `[B, D]` -> `[B, features]`."""

    def __init__(self, shape: Sequence[int], features: int, layer_norm: bool) -> None:
        super().__init__()
        self.features = features
        layers: list[nn.Module] = []
        for inputs in (math.prod(shape), features):
            layers += [
                orthogonal(nn.Linear(inputs, features)),
                nn.LayerNorm(features) if layer_norm else nn.Identity(),
            ]
            layers += [nn.ReLU() if layer_norm else nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, observations: Tensor) -> Tensor:
        features: Tensor = self.layers(observations.flatten(1).float())
        return features


Trunk = ConvolutionalTrunk | ResidualTrunk | DenseTrunk


def make_trunk(name: str, shape: Sequence[int], layer_norm: bool) -> Trunk:
    """Trunk `name` for observations `[B, *shape]`. Raises UsageError if they are too small, or the user's own fails."""
    if ":" in name:
        return own_trunk(name, shape, layer_norm)
    if name == "mlp":
        return DenseTrunk(shape, 64, layer_norm)
    if name == "impala":
        return ResidualTrunk(shape, (16, 32, 32), 256, layer_norm)
    layers, features = CONVOLUTIONS[name]
    return ConvolutionalTrunk(shape, layers, features, layer_norm)


def own_trunk(path: str, shape: Sequence[int], layer_norm: bool) -> Trunk:
    """The user's trunk `MODULE:CLASS`, made as `CLASS(shape, layer_norm)`. Raises UsageError if it is none.

    It takes observations `[B, *shape]`, uint8 if they are images, float32 if vectors, and gives float `[B, features]`,
    with that number in its attribute `features`.
    """
    module, _, name = path.partition(":")
    if len(shape) > 1:  # in memory the channels are last, as where the learner stacks frames: `view` may fail
        observations = torch.zeros(2, *shape[1:], shape[0], dtype=torch.uint8).movedim(-1, 1)
    else:
        observations = torch.zeros(2, *shape)
    try:
        trunk = getattr(importlib.import_module(module), name)(tuple(shape), layer_norm)
        with torch.no_grad():
            if isinstance(trunk, nn.Module):
                trunk.eval()  # a BatchNorm must not learn from the trial
            found = trunk(observations).shape
    except Exception as error:  # it is the user's code: anything may go wrong
        raise UsageError(f"the network {path} fails: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(trunk, nn.Module) or list(found) != [2, getattr(trunk, "features", None)]:
        wanted = f"[B, {getattr(trunk, 'features', 'features')}]"
        raise UsageError(
            f"the network {path} gives {list(found)} for 2 observations; it must give {wanted}, a torch module"
        )
    return trunk  # type: ignore[return-value]


def in_squares(images: Tensor) -> Tensor:
    """The pixels of each square as channels: contiguous uint8 `[..., S, H, W]` -> `[..., 16 S, H / 4, W / 4]`.

    That is torch's pixel_unshuffle with channels last in memory; the four pixels of a row are moved as one word.
    """
    height, width = (length // SQUARE for length in images.shape[-2:])
    words = images.view(torch.int32).view(*images.shape[:-2], height, SQUARE, width)
    squares = words.movedim((-4, -2), (-2, -1)).contiguous().view(torch.uint8)
    return squares.flatten(-2).movedim(-1, -3)


def _as_numbers(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """`pixels` as what the next layer computes in, `dtype` or autocast's; bfloat16 knows all of 0 to 255."""
    device = pixels.device.type
    return pixels.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype)


def _in_fastest_order(images: Tensor) -> Tensor:
    """Channels last for a backward pass, which is 2 to 3 times as fast; else as they are."""
    return images.contiguous(memory_format=torch.channels_last) if torch.is_grad_enabled() else images


def orthogonal(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    """`layer`, its weights orthogonal (Saxe et al. 2014) and its biases 0."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
