"""Files whole or not at all: written beside their place and then moved there; read, or refused with the reason."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from asyncq.errors import Damaged, UsageError


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, synced to disk; what was there stays until all of it is. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def refuse_unwritable(path: Path) -> None:
    """Raises UsageError with the reason if no file can be written at `path`; before the work whose result it is."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a directory; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no directory {path.parent}; create it first")
    if path.exists() and not path.is_file():
        raise UsageError(f"cannot write {path}: it is no ordinary file; name another one")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UsageError(f"cannot write {path}: permission denied; name a file elsewhere")


@contextlib.contextmanager
def refusing_what_fails(path: Path) -> Iterator[None]:
    """Raises UsageError with the reason where `path` turns out not to be writable inside."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def read_weights_bytes(path: Path) -> bytes:
    """The bytes of a weights file. Raises UsageError if there is none that can be read, Damaged if it is empty."""
    if path.is_dir():
        folder = path.parent if path.name == "state" else path
        example = min(folder.glob("*.h5"), default=folder / "best.h5")
        raise UsageError(f"{path} is a directory; give the weights file in it, such as {example}")
    if not path.exists():
        raise UsageError(f"there is no weights file {path}")
    if not path.is_file():
        raise UsageError(f"{path} is no ordinary file, and so no weights file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"weights file {path} cannot be read: {error.strerror}") from error
    if not content:
        raise Damaged(f"{path} is empty, and so no readable weights file")
    return content
