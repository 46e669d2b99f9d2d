"""Where pictures go: a window or a video file."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from asyncq.errors import UsageError, install, one_line
from asyncq.machine import usable_memory
from asyncq.shared import Array
from asyncq.storage.files import refuse_unwritable, refusing_what_fails, write_whole

Show = Callable[[Array], None]
"""Takes one RGB picture, `[H, W, 3]` uint8."""
LONGEST_STILL = 600.0
"""Seconds that a picture of a .gif may stand still; the format knows none beyond 655."""
GIF_SHARE = 1 / 8
"""Of the memory, for the pictures of a .gif: all are kept until it is written, which takes as much again."""


class WindowClosed(Exception):
    """The person closed the window."""


def has_screen() -> bool:
    """Whether a window can be opened here."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def video(path: Path, fps: float) -> Iterator[Show]:
    """Write pictures to an .mp4 or .gif file; those before Ctrl-C, too, and to a .gif those before any error.

    Raises UsageError if it cannot be written.
    """
    refuse_unwritable(path)
    with _gif(path, fps) if path.suffix.lower() == ".gif" else _mp4(path, fps) as show:
        yield show


@contextlib.contextmanager
def _gif(path: Path, fps: float) -> Iterator[Show]:
    pictures: list[Image.Image] = []
    begins: list[float] = []  # each picture's, in seconds
    ends, most = 0.0, GIF_SHARE * usable_memory()

    def show(picture: Array) -> None:  # kept with a byte a pixel
        nonlocal ends
        image = Image.fromarray(picture).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        if not pictures or image != pictures[-1]:
            if (len(pictures) + 1) * image.width * image.height > most:
                raise UsageError(f"{path} ends here, or its pictures would not fit in memory; an .mp4 can be longer")
            pictures.append(image)
            begins.append(ends)
        ends = min(ends + 1 / fps, begins[-1] + LONGEST_STILL)

    try:
        yield show
    finally:
        if pictures:
            ticks = [round(100 * begin) for begin in (*begins, ends)]
            _save_gif(path, pictures, [10 * max(2, after - before) for before, after in pairwise(ticks)])


def _save_gif(path: Path, pictures: list[Image.Image], milliseconds: list[int]) -> None:
    content = io.BytesIO()
    pictures[0].save(content, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    with refusing_what_fails(path):
        write_whole(path, content.getvalue())


@contextlib.contextmanager
def _mp4(path: Path, fps: float) -> Iterator[Show]:
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg

        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        hint = f"{install('video')} brings a video encoder, and .gif needs none"
        raise UsageError(f"cannot record {path}: {one_line(error)}; {hint}") from error
    temporary = path.absolute().with_name(f".{path.stem}.{os.getpid()}.mp4")
    shown = 0
    interrupted = False
    try:
        writer: Any
        with imageio.get_writer(temporary, fps=fps, macro_block_size=2, ffmpeg_log_level="quiet") as writer:

            def show(picture: Array) -> None:
                nonlocal shown
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # half a picture ends the encoder
                try:
                    writer.append_data(np.ascontiguousarray(picture))
                    shown += 1
                except OSError as error:
                    raise UsageError(f"cannot write {path}: the video encoder ended") from error
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)

            try:
                yield show
            except KeyboardInterrupt:
                interrupted = True
        written = _frames(temporary, ffmpeg)
        if written < shown and not interrupted:  # the encoder does not say that it failed; Ctrl-C reaches it, too
            raise UsageError(f"cannot write {path}: the video encoder failed; is the disk full?")
        if written:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if interrupted:
        raise KeyboardInterrupt


def _frames(path: Path, ffmpeg: str) -> int:
    """Pictures in the video file at the absolute `path`; 0 if it is none.

    Not by imageio-ffmpeg, whose ffmpeg reads the terminal: it would stop a job in the background.
    """
    command = [ffmpeg, "-nostdin", "-i", str(path), "-map", "0:v:0", "-c", "copy", "-f", "null", "-"]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace").stderr
    counts: list[str] = re.findall(r"frame= *(\d+)", said)
    return int(counts[-1]) if counts else 0


@contextlib.contextmanager
def window(title: str, fps: float) -> Iterator[Show]:
    """Show pictures in a window. Raises UsageError if none can be opened, and WindowClosed when it is closed."""
    try:
        import pygame
    except ImportError as error:
        raise UsageError(f"a window needs pygame: {install('window')}, or use --record FILE.gif") from error
    try:
        pygame.display.init()
        if pygame.display.get_driver() == "offscreen":  # what SDL takes when no screen answers
            pygame.display.quit()
            raise pygame.error("the screen of DISPLAY or WAYLAND_DISPLAY does not answer")
    except pygame.error as error:
        raise UsageError(f"no window can be opened: {one_line(error)}; use --record FILE.gif") from error
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
