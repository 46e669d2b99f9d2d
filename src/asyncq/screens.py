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
from PIL import Image

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
    """Write pictures to an .mp4 or .gif file, also those before an error. Raises UsageError if it cannot be written."""
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UsageError(f"cannot write {path}: it is no file in a directory that can be written to")
    with _gif(path, fps) if path.suffix == ".gif" else _mp4(path, fps) as show:
        yield show


@contextlib.contextmanager
def _gif(path: Path, fps: float) -> Iterator[Show]:
    pictures: list[Image.Image] = []

    def show(picture: Array) -> None:  # kept with a byte a pixel
        pictures.append(Image.fromarray(picture).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))

    try:
        yield show
    finally:
        if pictures:
            _save_gif(path, pictures, 1000 / fps)


def _save_gif(path: Path, pictures: list[Image.Image], milliseconds: float) -> None:
    try:
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def _mp4(path: Path, fps: float) -> Iterator[Show]:
    try:
        import imageio.v2 as imageio

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
