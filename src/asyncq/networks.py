"""Networks: a trunk that turns observations into features, and the heads that a method asks for."""

from __future__ import annotations

import copy
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from asyncq.devices import has_amx
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

Outputs = tuple[Tensor, Tensor]
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
            self.convolutions.append(_orthogonal(nn.Conv2d(channels, filters, size, stride)))
            channels, height, width = filters, (height - size) // stride + 1, (width - size) // stride + 1
            self.norms.append(ImageNorm([channels, height, width]) if layer_norm else nn.Identity())
        self.dense = _orthogonal(nn.Linear(channels * height * width, features))
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
            self.entries.append(_orthogonal(nn.Conv2d(channels, wanted, 3, padding=1)))
            for _ in range(4):
                self.blocks.append(_orthogonal(nn.Conv2d(wanted, wanted, 3, padding=1)))
            channels, height, width = wanted, (height + 1) // 2, (width + 1) // 2
            self.norms.append(ImageNorm([channels, height, width]) if layer_norm else nn.Identity())
        self.dense = _orthogonal(nn.Linear(channels * height * width, features))
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
                _orthogonal(nn.Linear(inputs, features)),
                nn.LayerNorm(features) if layer_norm else nn.Identity(),
            ]
            layers += [nn.ReLU() if layer_norm else nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, observations: Tensor) -> Tensor:
        features: Tensor = self.layers(observations.flatten(1).float())
        return features


Trunk = ConvolutionalTrunk | ResidualTrunk | DenseTrunk


class LSTM(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget bias 1), `[T, B, F]` -> `[T, B, F]`.

    A memory `[B, 2 F]` is the hidden state beside the cell's. torch's own LSTM cannot forget within a sequence.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.memory_size = 2 * features
        self.inputs = _orthogonal(nn.Linear(features, 4 * features), gain=1.0)
        self.recurrence = _orthogonal(nn.Linear(features, 4 * features, bias=False), gain=1.0)
        nn.init.ones_(self.inputs.bias[features : 2 * features])

    def forward(self, features: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What comes out of each step, and the memory after the last; `mask[t, B]` 0 forgets after step t."""
        hidden, cell = memory.chunk(2, -1)
        outputs = []
        for given, keeps in zip(self.inputs(features), mask.unsqueeze(-1) > 0, strict=True):
            gates = (given + self.recurrence(hidden)).to(memory.dtype)
            write, forget, read, content = gates.chunk(4, -1)
            cell = forget.sigmoid() * cell + write.sigmoid() * content.tanh()
            hidden = read.sigmoid() * cell.tanh()
            outputs.append(hidden)
            hidden, cell = hidden.where(keeps, 0), cell.where(keeps, 0)  # 0 times infinity would stay in it
        return torch.stack(outputs), torch.cat([hidden, cell], -1)


class Stream(NamedTuple):
    """The way from observations to one set of features."""

    trunk: Trunk
    lstm: LSTM | None

    def features(self, observations: Tensor) -> Tensor:
        """What the trunk makes of `observations[B, ...]`: `[B, F]`, in float32 where it computes in bfloat16."""
        features: Tensor = self.trunk(observations)
        return features.float() if features.dtype == torch.bfloat16 else features


class Network(nn.Module, ABC):
    """Two heads on the features of one or two streams."""

    @property
    @abstractmethod
    def streams(self) -> list[Stream]:
        """All of them have an LSTM, or none has."""

    def acting_in_bfloat16(self) -> Self:
        """A copy that acts faster: its convolutions and what follows them in bfloat16, LSTM and heads in float32.

        AMX's convolutions want channels last, others are faster with images as environments give them.
        """
        order = torch.channels_last if has_amx() else torch.contiguous_format
        acting = copy.deepcopy(self)
        for stream in acting.streams:
            if isinstance(stream.trunk, ConvolutionalTrunk | ResidualTrunk):
                stream.trunk.to(torch.bfloat16, memory_format=order)  # type: ignore[call-overload]
        return acting

    @property
    def takes_squares(self) -> bool:
        """Whether it learns faster from images `in_squares`."""
        trunk = self.streams[0].trunk
        return type(trunk) is ConvolutionalTrunk and trunk.takes_squares

    @abstractmethod
    def heads(self, *features: Tensor) -> Outputs:
        """What the method asked for, from the features `[B, F]` of each stream."""

    @property
    def memory_size(self) -> int:
        """Numbers that the network remembers of a game; 0 without an LSTM."""
        return sum(stream.lstm.memory_size for stream in self.streams if stream.lstm)

    def forward(self, observations: Tensor) -> Outputs:
        """For `observations[B, ...]`, without a memory."""
        streams = self.streams
        assert streams[0].lstm is None, "a network with an LSTM needs step or unroll"
        return self.heads(*(stream.features(observations) for stream in streams))

    def step(self, observations: Tensor, memory: Tensor) -> tuple[Outputs, Tensor]:
        """For `observations[B, ...]` after the `memory[B, M]` of what came before; and the memory after them."""
        if memory.shape[-1] == 0:
            return self(observations), memory
        (first, second), memory = self.unroll(observations[None], memory, mask=torch.ones_like(memory[None, :, 0]))
        return (first[0], second[0]), memory

    def unroll(self, observations: Tensor, memory: Tensor, mask: Tensor) -> tuple[Outputs, Tensor]:
        """For `observations[T, B, ...]`, `[T, B, ...]`; whoever has `mask[t, B]` 0 forgets all after step t."""
        leading, flat = observations.shape[:2], observations.flatten(0, 1)
        features, memories = [], []
        for stream, before in zip(self.streams, memory.chunk(len(self.streams), -1), strict=True):
            assert stream.lstm is not None
            remembering, after = stream.lstm(stream.features(flat).reshape(*leading, -1), before, mask)
            features.append(remembering.flatten(0, 1))
            memories.append(after)
        first, second = self.heads(*features)
        return (first.reshape(*leading, -1), second.reshape(leading)), torch.cat(memories, -1)


class PolicyValueNetwork(Network):
    """Logits `[B, A]` and state value `[B]`, of one shared stream or of one each."""

    def __init__(self, trunk: Trunk, actions: int, value_trunk: Trunk | None = None, recurrent: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.value_trunk = value_trunk
        self.lstm = LSTM(trunk.features) if recurrent else None
        self.value_lstm = LSTM(value_trunk.features) if recurrent and value_trunk else None
        self.policy = _orthogonal(nn.Linear(trunk.features, actions), gain=0.01)
        self.value = _orthogonal(nn.Linear(trunk.features, 1), gain=1.0)

    @property
    def streams(self) -> list[Stream]:
        policy = Stream(self.trunk, self.lstm)
        return [policy, Stream(self.value_trunk, self.value_lstm)] if self.value_trunk else [policy]

    def heads(self, *features: Tensor) -> Outputs:
        return self.policy(features[0]), self.value(features[-1]).squeeze(-1)


class QNetwork(Network):
    """Action values `[B, A]`, and the greedy one's value `[B]`.

    With `dueling` they are a state value plus what each action is better than their mean (Wang et al. 2016, eq. 9).
    """

    def __init__(self, trunk: Trunk, actions: int, dueling: bool = False, recurrent: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.lstm = LSTM(trunk.features) if recurrent else None
        self.action_values = _orthogonal(nn.Linear(trunk.features, actions), gain=1.0)
        self.state_value = _orthogonal(nn.Linear(trunk.features, 1), gain=1.0) if dueling else None

    @property
    def streams(self) -> list[Stream]:
        return [Stream(self.trunk, self.lstm)]

    def heads(self, *features: Tensor) -> Outputs:
        values = self.action_values(features[0])
        if self.state_value is not None:
            values = self.state_value(features[0]) + values - values.mean(-1, keepdim=True)
        return values, values.amax(-1)


def make_network(
    name: str,
    heads: str,
    observation_shape: Sequence[int],
    actions: int,
    layer_norm: bool,
    dueling: bool = False,
    recurrent: bool = False,
) -> PolicyValueNetwork | QNetwork:
    """Build network `name` for stacked observations of `observation_shape`, with heads "policy-value" or "q".

    Raises UsageError if frames are too small for it, or if `name` is `MODULE:CLASS` and that is no network.
    """
    trunk, value_trunk = _trunk(name, observation_shape, layer_norm), None
    if heads == "q":
        return QNetwork(trunk, actions, dueling, recurrent)
    if name == "mlp":  # values of hundreds would drown the policy
        value_trunk = _trunk(name, observation_shape, layer_norm)
    return PolicyValueNetwork(trunk, actions, value_trunk, recurrent)


def _trunk(name: str, shape: Sequence[int], layer_norm: bool) -> Trunk:
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
    try:
        trunk = getattr(importlib.import_module(module), name)(tuple(shape), layer_norm)
        with torch.no_grad():
            if isinstance(trunk, nn.Module):
                trunk.eval()  # a BatchNorm must not learn from the trial
            found = trunk(torch.zeros(2, *shape, dtype=torch.uint8 if len(shape) > 1 else torch.float32)).shape
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


def _orthogonal(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
