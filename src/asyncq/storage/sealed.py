"""Sealed HDF5: in front stands a user block of one line, what the file is and the SHA-256 of all that follows.

Nothing of a file is interpreted before that fits, so a damaged one is refused wherever the damage lies.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from asyncq.errors import Damaged, UsageError
from asyncq.storage.files import write_whole

USER_BLOCK = 512
"""Bytes in front of the HDF5; the smallest that the format allows."""


@dataclass(frozen=True)
class Seal:
    """What a kind of file begins with: `magic`, and the newest version of its format."""

    magic: bytes
    format: int

    def apply(self, content: bytes) -> bytes:
        """`content` with its user block filled in."""
        body = content[USER_BLOCK:]
        line = self.magic + f"{self.format}, sha256 {hashlib.sha256(body).hexdigest()}\n".encode()
        return line.ljust(USER_BLOCK, b"\0") + body

    def is_on(self, content: bytes) -> bool:
        return content.startswith(self.magic)

    @contextmanager
    def write(self, path: Path) -> Iterator[h5py.File]:
        """A file to fill, that is at `path` afterwards, whole or not at all. Raises OSError."""
        body = io.BytesIO()
        with h5py.File(body, "w", userblock_size=USER_BLOCK) as file:
            yield file
        write_whole(path, self.apply(body.getvalue()))

    def open(self, path: Path, content: bytes) -> h5py.File:
        """The HDF5 in `content`, read from `path`. Raises Damaged, UsageError if it is of another format."""
        said_version = content[len(self.magic) : USER_BLOCK].split(b",")[0]
        if said_version.isdigit() and int(said_version) > self.format:
            raise UsageError(f"{path} was written by a newer asyncq; update asyncq to read it")
        if said_version.isdigit() and int(said_version) < self.format:
            raise UsageError(f"{path} was written by an older asyncq; install that one to read it")
        if content != self.apply(content):
            raise Damaged(f"{path} is damaged: its contents do not fit its checksum")
        return h5py.File(io.BytesIO(content), "r")
