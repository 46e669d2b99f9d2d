"""WeightBoard: the learner's newest weights, broadcast through shared memory without a lock.

Two flat buffers take turns. The writer marks a buffer with the number of its publication before and after it fills it;
a reader copies the newest buffer and looks at the first mark again. Publishing never waits for readers, reading never
waits for the writer, and a copy that was overtaken shows in the marks and is taken again (a seqlock, two buffers deep).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from asyncq.shared import CACHE_LINE, Array, SharedBuffer, aligned


@dataclass(frozen=True)
class Snapshot:
    """What came with a copy of the weights.

    `version`: updates the learner had made; `env_steps`: env steps it had learned from.
    """

    version: int
    env_steps: int


class WeightBoard:
    """One writer, any number of readers; holds `size` float32 numbers."""

    def __init__(self, size: int, memory: SharedBuffer | None = None) -> None:
        stride = aligned(4 * size)
        self.size = size
        self._memory = memory or SharedBuffer(3 * CACHE_LINE + 2 * stride)
        self._seen = 0
        self._published = self._memory.array((1,), np.int64)
        # per buffer: publication begun, publication finished, version, env steps
        self._marks = [self._memory.array((4,), np.int64, CACHE_LINE * (1 + b)) for b in (0, 1)]
        self._buffers = [self._memory.array((size,), np.float32, 3 * CACHE_LINE + b * stride) for b in (0, 1)]

    def __reduce__(self) -> tuple[type[WeightBoard], tuple[int, SharedBuffer]]:
        return WeightBoard, (self.size, self._memory)

    def publish(self, weights: Array, snapshot: Snapshot) -> None:
        """Broadcast `weights[size]`, float32. Only one process may call this."""
        publication = int(self._published[0]) + 1
        marks, buffer = self._marks[publication % 2], self._buffers[publication % 2]
        marks[0] = publication
        np.copyto(buffer, weights)
        marks[2], marks[3] = snapshot.version, snapshot.env_steps
        marks[1] = publication
        self._published[0] = publication

    def read_if_newer(self, copy: Callable[[Array], None]) -> Snapshot | None:
        """Call `copy` with the newest weights, `[size]` float32; None, and no call, if this reader has them already.

        If the writer overtakes `copy`, what it copied is torn, and it is called again.
        """
        while (publication := int(self._published[0])) > self._seen:
            marks, buffer = self._marks[publication % 2], self._buffers[publication % 2]
            copy(buffer)
            snapshot = Snapshot(int(marks[2]), int(marks[3]))
            if marks[1] == publication and marks[0] == publication:
                self._seen = publication
                return snapshot
        return None


def flatten_parameters(module: torch.nn.Module) -> torch.Tensor:
    """Move all parameters of `module` into one flat tensor, of which they become views; returns it, `[size]`."""
    parameters = list(module.parameters())
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat


@torch.no_grad()
def fill_parameters(module: torch.nn.Module, flat: Array) -> None:
    """Copy `flat[size]`, as `flatten_parameters` has it, into the parameters of `module`, of whatever type they are."""
    parameters: list[torch.Tensor] = list(module.parameters())
    start = 0
    parts = []
    for parameter in parameters:
        parts.append(torch.from_numpy(flat[start : start + parameter.numel()]).view_as(parameter))
        start += parameter.numel()
    torch._foreach_copy_(parameters, parts)
