"""Where pictures go: a window or a video file."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from asyncq.errors import UsageError
from asyncq.shared import Array

Show = Callable[[Array], None]
"""Takes one RGB picture, `[H, W, 3]` uint8."""


class WindowClosed(Exception):
    """The person closed the window."""


def has_screen() -> bool:
    """Whether a window can be opened here."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def video(path: Path, fps: float) -> Iterator[Show]:
    """Write pictures to an .mp4 or .gif file. Raises UsageError if it cannot be written."""
    import imageio.v2 as imageio

    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"cannot write {path}: {path.parent} is no directory that can be written to")
    try:
        if path.suffix == ".gif":
            writer = imageio.get_writer(path, mode="I", duration=1000 / fps, loop=0)
        else:
            writer = imageio.get_writer(path, fps=fps, macro_block_size=2)
    except (ImportError, ValueError, OSError) as error:
        hint = "pip install asyncq[video] brings a video encoder, and .gif needs none"
        raise UsageError(f"cannot record {path}: {' '.join(str(error).split())}; {hint}") from error
    with writer:
        yield lambda picture: writer.append_data(np.ascontiguousarray(picture))


@contextlib.contextmanager
def window(title: str, fps: float) -> Iterator[Show]:
    """Show pictures in a window. Raises UsageError without pygame, and WindowClosed when it is closed."""
    try:
        import pygame
    except ImportError as error:
        raise UsageError("a window needs pygame: pip install asyncq[window], or use --record FILE.gif") from error
    pygame.display.init()
    clock = pygame.time.Clock()
    screen: list[Any] = []

    def show(picture: Array) -> None:
        height, width = picture.shape[:2]
        scale = max(1, math.floor(600 / height))
        if not screen:
            pygame.display.set_caption(title)
            screen.append(pygame.display.set_mode((width * scale, height * scale)))
        if any(event.type == pygame.QUIT for event in pygame.event.get()):
            raise WindowClosed
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        screen[0].blit(pygame.transform.scale(surface, (width * scale, height * scale)), (0, 0))
        pygame.display.flip()
        clock.tick(fps)

    try:
        yield show
    finally:
        pygame.display.quit()
