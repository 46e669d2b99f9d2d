"""Display: plain lines now and then, silence when asked for, and a live view that can draw any report."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from asyncq.config import TrainConfig
from asyncq.monitoring.display import LiveDisplay, PlainDisplay, make_display
from asyncq.status import StatusBoard, WorkerState

CONFIG = TrainConfig(processes=2, total_steps=5000, target_return=18.0).resolved("image", 4)
REPORT: dict[str, Any] = {
    "env_steps": 1234,
    "sps": 987.0,
    "episodes": 3,
    "episodic_return": -20.54,
    "lag": {"mean": 1.5, "max": 4},
    "queue_fill": 0.25,
    "waits": {"learner": 0.01, "workers": 0.4},
    "losses": {"value": 0.5},
}


def test_a_plain_line_holds_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    PlainDisplay(interval=0).report(REPORT)
    line = capsys.readouterr().out
    assert " ".join(line.split()) == "1,234 env steps 987 SPS return -20.5 episodes 3 lag 1.5 queue 25% " + (
        "waits: learner 1%, workers 40%"
    )


def test_a_plain_line_without_episodes_or_lag(capsys: pytest.CaptureFixture[str]) -> None:
    PlainDisplay(interval=0).report({**REPORT, "episodic_return": None, "lag": None})
    assert "return – " in capsys.readouterr().out


def test_plain_lines_come_no_oftener_than_their_interval(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay(interval=60)
    display.report(REPORT)
    display.report(REPORT)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_quiet_run_prints_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = dataclasses.replace(CONFIG, quiet=True)
    with make_display(quiet, StatusBoard(2), Path("runs/x"), "cpu") as display:
        display.report(REPORT)
        display.refresh()
        display.say("worker 1 is replaced")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "asyncq: worker 1 is replaced\n"


def test_without_a_terminal_the_run_introduces_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with make_display(CONFIG, StatusBoard(2), Path("runs/x"), "cpu") as display:
        assert isinstance(display, PlainDisplay)
    said = capsys.readouterr().out
    assert "a3c on ALE/Pong-v5, learner on cpu" in said
    assert "--processes 2 --envs-per-process 16" in said


def test_a_training_goes_on_when_its_output_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveDisplay(CONFIG, StatusBoard(2), Path("runs/x"), "cpu")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", full)
        live.live.console.file = full
        for display in (PlainDisplay(interval=0.0), live):
            display.report(REPORT)
            display.say("a warning")
            display.refresh()
        assert live.live.console.quiet
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()


def test_a_training_whose_output_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError), open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError):
            PlainDisplay(interval=0.0).report(REPORT)
        monkeypatch.undo()


def test_the_live_view_is_redrawn_now_and_then_and_for_every_report(monkeypatch: pytest.MonkeyPatch) -> None:
    display = LiveDisplay(CONFIG, StatusBoard(2), Path("runs/x"), "cpu")
    drawn = Mock()
    monkeypatch.setattr(display.live, "update", drawn)
    for _ in range(10):
        display.refresh()
    assert drawn.call_count == 1
    display.report(REPORT)
    display.refresh()
    assert drawn.call_count == 2


def test_the_live_view_tells_the_time_that_is_left_in_a_narrow_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    display = LiveDisplay(dataclasses.replace(CONFIG, total_steps=10_000_000), StatusBoard(2), Path("runs/x"), "cpu")
    console = Console(record=True, file=io.StringIO())
    display.report({**REPORT, "env_steps": 1_234_567})
    console.print(display._render())
    assert "1,234,567 / 10,000,000 env steps  0:00:00 · -:--:-- left" in console.export_text()


@pytest.mark.parametrize("report", [None, REPORT, {**REPORT, "lag": None, "losses": {}}])
def test_the_live_view_shows_figures_and_workers(report: dict[str, Any] | None) -> None:
    status = StatusBoard(6)
    status.set_state(4, WorkerState.DEAD)
    status.add_steps(5, 4321)
    display = LiveDisplay(CONFIG, status, Path("runs/x"), "cpu")
    console = Console(width=140, record=True, file=io.StringIO())
    if report is not None:
        display.report(report)
    console.print(display._render())
    text = console.export_text()
    assert "worker 4 dead" in text
    assert "worker 5 starting 4,321" in text
    assert "until 18" in text
    if report is not None:
        assert "1,234 / 5,000 env steps" in text
        assert "return -20.5" in text
        assert "the learner limits, workers wait 40% of the time" in text
