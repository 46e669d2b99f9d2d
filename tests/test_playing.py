"""Play: videos that can be opened, with and without what the agent thinks, and runs that are followed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from asyncq import playing, screens
from asyncq.agent import Agent
from asyncq.config import TrainConfig
from asyncq.errors import UsageError
from asyncq.networks import Outputs
from asyncq.overlay import HEIGHT, PANEL
from asyncq.playing import PlayConfig, play
from asyncq.runs import open_run
from asyncq.shared import Array
from untrained import untrained


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio leaves its reader's pipe open
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_recording_can_be_opened(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imageio = pytest.importorskip("imageio.v2")
    weights = untrained(tmp_path / "w.h5", "CartPole-v1", method="n-step-q")
    video = tmp_path / f"game.{suffix}"
    play(PlayConfig(path=str(weights), record=str(video), seed=3))
    score = float(capsys.readouterr().out.split()[2])
    with imageio.get_reader(video) as reader:
        pictures = [np.asarray(picture)[..., :3] for picture in reader]
    steps = int(score) + 1  # and the start; Pillow shows pictures that do not change as one
    assert steps - 3 <= len(pictures) <= steps if suffix == "gif" else len(pictures) == steps
    assert pictures[0].shape == (400, 600, 3)
    assert any((picture != pictures[0]).any() for picture in pictures)


def test_a_recordings_name_may_hold_a_time_of_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ffmpeg a relative name is an address of the protocol `12`."""
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.chdir(tmp_path)
    with screens.video(Path("12:30.mp4"), fps=30) as show:
        for brightness in range(20):
            show(np.full((8, 8, 3), brightness, np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["12:30.mp4"]


def gif_durations(path: Path) -> list[int]:
    """How long each picture of a .gif stands, in ms."""
    with Image.open(path) as gif:
        return [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]


def test_a_gif_takes_as_long_as_the_game(tmp_path: Path) -> None:
    with screens.video(tmp_path / "game.gif", fps=15) as show:
        for brightness in range(0, 240, 8):
            show(np.full((8, 8, 3), brightness, np.uint8))
    durations = gif_durations(tmp_path / "game.gif")
    assert len(durations) == 30 and sum(durations) == 2000
    assert set(durations) == {60, 70}, "the format counts in steps of 10 ms"


def test_a_gif_ends_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "usable_memory", lambda: 8 * 5 * 8 * 8)

    def record() -> None:
        with screens.video(tmp_path / "game.gif", 15) as show:
            for brightness in range(0, 240, 8):
                show(np.full((8, 8, 3), brightness, np.uint8))

    with pytest.raises(UsageError, match=r"an \.mp4 can be longer"):
        record()
    assert len(gif_durations(tmp_path / "game.gif")) == 5


def test_a_picture_that_stands_still_for_hours_is_cut_short(tmp_path: Path) -> None:
    with screens.video(tmp_path / "game.gif", fps=0.01) as show:
        for brightness in [0] * 20 + [255] * 2:
            show(np.full((8, 8, 3), brightness, np.uint8))
    assert gif_durations(tmp_path / "game.gif") == [600_000, 200_000]


@pytest.mark.parametrize("method", ["a3c", "one-step-q"])
def test_the_overlay_stands_beside_every_picture(method: str, tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v2")
    weights, video = untrained(tmp_path / "w.h5", "CartPole-v1", method), tmp_path / "game.gif"
    play(PlayConfig(path=str(weights), record=str(video), overlay=True))
    with imageio.get_reader(video) as reader:
        pictures = [np.asarray(picture)[..., :3] for picture in reader]
    assert pictures[0].shape == (2 * 400, 2 * 600 + PANEL, 3) and pictures[0].shape[0] >= HEIGHT
    panels = [picture[:, -PANEL:] for picture in pictures]
    assert all(panel.any() for panel in panels)
    assert (panels[0] != panels[-1]).any()


def test_an_lstm_remembers_the_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memories = [torch.zeros(1, 256)]

    class Watched(Agent):
        def consider(self, observations: Array, memory: Tensor) -> tuple[Outputs, Tensor]:
            assert torch.equal(memory, memories[-1])
            outputs, after = super().consider(observations, memory)
            memories.append(after)
            return outputs, after

    monkeypatch.setattr(playing, "Agent", Watched)
    weights = untrained(tmp_path / "w.h5", "CartPole-v1", recurrent=True)
    play(PlayConfig(path=str(weights), record=str(tmp_path / "game.gif")))
    assert len(memories) > 5
    assert not torch.equal(memories[1], memories[2])


def test_without_a_screen_a_window_becomes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(playing, "has_screen", lambda: False)
    play(PlayConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1")), render=True))
    assert "no screen here" in capsys.readouterr().err
    assert Path("CartPole-v1.gif").stat().st_size > 1000


def test_a_window_that_cannot_be_opened_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    with pytest.raises(UsageError, match=r"no window can be opened: .*; use --record"), screens.window("game", 30):
        pass


def test_following_plays_the_newest_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    old = untrained(tmp_path / "weights" / "1000.h5", "CartPole-v1")
    os.utime(old, (1, 1))
    untrained(tmp_path / "best.h5", "CartPole-v1", method="n-step-q")
    methods = []

    def play_game(agent: Agent, *_: Any) -> float:
        methods.append(agent.trained.method)
        untrained(tmp_path / "latest.h5", "CartPole-v1", method="one-step-q")
        return 0.0

    monkeypatch.setattr(playing, "_play_game", play_game)
    play(PlayConfig(follow=str(tmp_path), record=str(tmp_path / "game.gif"), episodes=2))
    assert methods == ["n-step-q", "one-step-q"]


@pytest.mark.parametrize("method", ["a3c", "n-step-q"])
def test_an_environment_without_pictures_is_refused(method: str, tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "asyncq/Latency-v0", method)
    with pytest.raises(UsageError, match=r"asyncq/Latency-v0 cannot be drawn: .*render_mode"):
        play(PlayConfig(path=str(weights), record=str(tmp_path / "game.gif")))


def test_seeds_are_checked_when_a_run_is_followed_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seeds are those of training"):
        PlayConfig(follow=str(tmp_path), seed=2**31)


def test_following_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run directory"):
        play(PlayConfig(follow=str(tmp_path)))


def test_following_waits_for_first_weights_as_long_as_somebody_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(TrainConfig(env="CartPole-v1", run_dir=str(tmp_path / "run")), pytest.fail)
    naps: list[Path] = []

    def nap(_: float) -> None:
        if len(naps) == 3:
            untrained(run.directory / "best.h5", "CartPole-v1")
        naps.append(run.directory)

    monkeypatch.setattr("time.sleep", nap)
    assert playing._newest_weights(run.directory) == run.directory / "best.h5"
    assert len(naps) == 4


def test_following_a_run_that_ended_without_weights_is_refused(tmp_path: Path) -> None:
    run = open_run(TrainConfig(env="CartPole-v1", run_dir=str(tmp_path / "run")), pytest.fail)
    assert run.lock is not None
    os.close(run.lock)
    with pytest.raises(UsageError, match="has no weights, and no asyncq trains there"):
        play(PlayConfig(follow=str(run.directory)))


@pytest.mark.parametrize(("name", "said"), [("absent/game.gif", "there is no directory"), ("folder.mp4", "directory")])
def test_unwritable_recording_is_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    weights = untrained(tmp_path / "w.h5", "CartPole-v1")
    with pytest.raises(UsageError, match=said):
        play(PlayConfig(path=str(weights), record=str(tmp_path / name)))


def test_an_encoder_that_fails_leaves_the_earlier_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio_ffmpeg")
    weights, video = untrained(tmp_path / "w.h5", "CartPole-v1"), tmp_path / "game.mp4"
    video.write_bytes(b"earlier")
    monkeypatch.setattr(screens, "_frames", lambda *_: 0)  # as on a full disk
    with pytest.raises(UsageError, match="encoder failed"):
        play(PlayConfig(path=str(weights), record=str(video)))
    assert video.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["game.mp4", "w.h5"]


def test_what_was_recorded_without_a_name_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("X-v0.gif").write_text("precious")
    assert playing._free_name("X-v0") == Path("X-v0-2.gif")


def test_closing_the_window_keeps_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio_ffmpeg")

    @contextlib.contextmanager
    def closed_at_the_sixth_picture(*_: object) -> Iterator[screens.Show]:
        pictures = iter(range(5))

        def show(_: Array) -> None:
            if next(pictures, None) is None:
                raise screens.WindowClosed

        yield show

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(playing, "has_screen", lambda: True)
    monkeypatch.setattr(playing, "window", closed_at_the_sixth_picture)
    weights, video = untrained(tmp_path / "w.h5", "CartPole-v1"), tmp_path / "game.mp4"
    assert play(PlayConfig(path=str(weights), record=str(video), render=True)) == 0
    assert video.stat().st_size > 1000


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_stopping_keeps_what_was_recorded(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    choices = 0

    def choose(self: Agent, outputs: Outputs, generator: torch.Generator) -> Array:
        nonlocal choices
        choices += 1
        if choices > 5:
            time.sleep(2)  # until ffmpeg, if there is one, has begun
            for encoder in psutil.Process().children(recursive=True):  # a terminal's Ctrl-C reaches them, too
                encoder.send_signal(signal.SIGINT)
            raise KeyboardInterrupt
        return np.array([choices % 2])

    monkeypatch.setattr(Agent, "choose", choose)
    video = tmp_path / f"game.{suffix}"
    path = untrained(tmp_path / "w.h5", "CartPole-v1")
    assert play(PlayConfig(path=str(path), record=str(video))) == 130
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".h5"] == [video.name]
    assert f"stopped; what was played so far is in {video}" in capsys.readouterr().err


@pytest.mark.usefixtures("_signals_are_heard")
def test_a_stop_waits_until_its_picture_is_in_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    video = tmp_path / "game.mp4"

    def interrupted(picture: Array) -> Array:
        if picture.max() == 5:
            signal.raise_signal(signal.SIGINT)
        return picture

    monkeypatch.setattr(np, "ascontiguousarray", interrupted)
    with contextlib.suppress(KeyboardInterrupt), screens.video(video, 30) as show:
        for brightness in range(9):
            show(np.full((16, 16, 3), brightness, np.uint8))
    assert screens._frames(video, imageio_ffmpeg.get_ffmpeg_exe()) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="only there does DISPLAY name the screen")
def test_a_screen_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setenv("DISPLAY", ":7777")
    for name in ("SDL_VIDEODRIVER", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no window can be opened"), screens.window("Pong", 60):
        pass
