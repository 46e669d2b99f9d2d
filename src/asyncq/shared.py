"""Anonymous shared memory and wake-up bells: the two things processes share here.

Neither has a name in the file system, so nothing stays behind when a process is killed, and a container's small
/dev/shm does not matter. Neither holds a lock, so a process killed at any moment blocks nobody.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import tempfile
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

CACHE_LINE = 64


class SharedBuffer:
    """Zero-filled bytes that several processes map; it reaches a child by being an argument of its process.

    Only as an argument of a `multiprocessing.Process` that is being started can it be pickled.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._map(_anonymous_file(size))

    def _map(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._bytes = mmap.mmap(descriptor, self.size)

    def array(self, shape: Sequence[int], dtype: DTypeLike, offset: int = 0) -> Array:
        """View `shape` items of `dtype` that begin `offset` bytes into the buffer."""
        return np.ndarray(tuple(shape), dtype=dtype, buffer=self._bytes, offset=offset)

    def __getstate__(self) -> tuple[int, Any]:
        return self.size, DupFd(self._descriptor)

    def __setstate__(self, state: tuple[int, Any]) -> None:
        self.size, descriptor = state
        self._map(descriptor.detach())

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("asyncq")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def aligned(size: int) -> int:
    """Round `size` bytes up to whole cache lines."""
    return -(-size // CACHE_LINE) * CACHE_LINE


class Bell:
    """Wakes one sleeping process; any number of others may ring. Rings that nobody waits for are kept, as one."""

    def __init__(self) -> None:
        self._ringer, self._sleeper = socket.socketpair()
        self._ringer.setblocking(False)
        self._sleeper.setblocking(False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # enough rings are waiting already
            self._ringer.send(b"!")

    def wait(self, timeout: float) -> None:
        """Sleep until someone rings, `timeout` seconds at most."""
        poll = select.poll()
        poll.register(self._sleeper, select.POLLIN)
        if poll.poll(1000 * timeout):
            self._sleeper.recv(4096)

    def __del__(self) -> None:
        for end in vars(self).values():
            end.close()
