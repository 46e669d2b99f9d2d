"""Networks: one or two trunks, each with an LSTM if it shall remember, and the heads that a method asks for."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from asyncq.devices import has_amx
from asyncq.trunks import ConvolutionalTrunk, ResidualTrunk, Trunk, make_trunk, orthogonal

Outputs = tuple[Tensor, Tensor]
"""Logits or action values, `[B, A]`, and the observations' values, `[B]`: of action values the greatest."""


class LSTM(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget bias 1), `[T, B, F]` -> `[T, B, F]`.

    A memory `[B, 2 F]` is the hidden state beside the cell's. torch's own LSTM cannot forget within a sequence.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.memory_size = 2 * features
        self.inputs = orthogonal(nn.Linear(features, 4 * features), gain=1.0)
        self.recurrence = orthogonal(nn.Linear(features, 4 * features, bias=False), gain=1.0)
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


class Head(nn.Linear):
    """In float32 under autocast, too: in bfloat16 actions of nearly the same value would be equal."""

    def forward(self, features: Tensor) -> Tensor:
        device = features.device.type
        if not torch.is_autocast_enabled(device):
            return super().forward(features)
        with torch.autocast(device, enabled=False):
            return super().forward(features)


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
        self.policy = orthogonal(Head(trunk.features, actions), gain=0.01)
        self.value = orthogonal(Head(trunk.features, 1), gain=1.0)

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
        self.action_values = orthogonal(Head(trunk.features, actions), gain=1.0)
        self.state_value = orthogonal(Head(trunk.features, 1), gain=1.0) if dueling else None

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
    trunk, value_trunk = make_trunk(name, observation_shape, layer_norm), None
    if heads == "q":
        return QNetwork(trunk, actions, dueling, recurrent)
    if name == "mlp":  # values of hundreds would drown the policy
        value_trunk = make_trunk(name, observation_shape, layer_norm)
    return PolicyValueNetwork(trunk, actions, value_trunk, recurrent)
