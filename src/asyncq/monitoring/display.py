"""Display: what a person sees in the terminal while a training runs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from asyncq.checks import flag
from asyncq.config import TrainConfig
from asyncq.machine import usable_cores
from asyncq.monitoring.diagnosis import bottleneck
from asyncq.status import StatusBoard, WorkerState

STATE_STYLES = {
    WorkerState.STARTING: "dim",
    WorkerState.PLAYING: "green",
    WorkerState.WAITING: "yellow",
    WorkerState.STOPPED: "dim",
    WorkerState.DEAD: "bold red",
}


NARROW = 80
"""Columns of a terminal, below which the times need the room that a bar would take."""
REDRAW_SECONDS = 0.5
"""Between two pictures of the live view, if no report comes; one costs 3 ms of a core."""


@contextlib.contextmanager
def unseen(console: Console | None = None) -> Iterator[None]:
    """Lets a training go on that nobody can watch any more: the disk of its output is full, its terminal is gone.

    That the reader of a pipe is gone ends it.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        if console:
            console.quiet = True  # or it would keep all that was ever drawn, to draw it again


class Display(Protocol):
    """Takes reports and single lines."""

    def report(self, report: dict[str, Any]) -> None: ...

    def say(self, line: str) -> None: ...

    def refresh(self) -> None: ...


@contextlib.contextmanager
def make_display(config: TrainConfig, status: StatusBoard, run_dir: Path, device: str) -> Iterator[Display]:
    """A live view in a terminal, plain lines elsewhere, nothing but warnings if the run is to be quiet."""
    if config.quiet:
        yield PlainDisplay(interval=float("inf"))
    elif not sys.stdout.isatty():
        print(f"asyncq: {config.method} on {config.env}, learner on {device}, in {run_dir}", flush=True)
        print(f"asyncq: {speed_settings(config)}", flush=True)
        yield PlainDisplay(interval=10.0)
    else:
        display = LiveDisplay(config, status, run_dir, device)
        display.live.start()
        try:
            yield display
        finally:
            with unseen(display.live.console):
                display.live.stop()


def speed_settings(config: TrainConfig) -> str:
    """The settings that make a training fast or slow, as flags: what was given, and what was chosen."""
    names = ["processes", "envs_per_process", "n_step", "batch_size", "passes", "network", "precision"]
    names += ["sequence_length"] if config.recurrent else []
    return " ".join(f"{flag(name)} {getattr(config, name)}" for name in names)


class PlainDisplay:
    """A line now and then."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = 0.0

    @unseen()
    def report(self, report: dict[str, Any]) -> None:
        if self._interval == float("inf") or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._interval
        lag = report["lag"]["mean"] if report["lag"] else 0
        score = _number(report["episodic_return"])
        print(
            f"{report['env_steps']:>11,} env steps  {report['sps']:>7,.0f} SPS  return {score}"
            f"  episodes {report['episodes']}  lag {lag}  queue {report['queue_fill']:.0%}"
            f"  waits: learner {report['waits']['learner']:.0%}, workers {report['waits']['workers']:.0%}",
            flush=True,
        )

    @unseen()
    def say(self, line: str) -> None:
        print(f"asyncq: {line}", file=sys.stderr, flush=True)

    def refresh(self) -> None:
        pass


class LiveDisplay:
    """Progress, the newest figures, and each worker's state, redrawn in place."""

    def __init__(self, config: TrainConfig, status: StatusBoard, run_dir: Path, device: str) -> None:
        self._config, self._status = config, status
        self._title = f"{config.method} · {config.env} · learner on {device}"
        self._chosen = speed_settings(config)
        self._run_dir = run_dir
        console = Console()
        bar = [BarColumn(None), TaskProgressColumn()] if console.width >= NARROW else []
        self._progress = Progress(
            TextColumn("[bold]{task.completed:,.0f}[/] / {task.total:,.0f} env steps"),
            *bar,
            TimeElapsedColumn(),
            TextColumn("·"),
            TimeRemainingColumn(),
            TextColumn("left"),
            expand=True,
            speed_estimate_period=120,
        )
        self._bar = self._progress.add_task("train", total=config.total_steps)
        self._report: dict[str, Any] = {}
        self._next = 0.0
        self.live = Live(self._render(), console=console, auto_refresh=False, transient=False)

    def report(self, report: dict[str, Any]) -> None:
        self._report = report
        self._next = 0.0
        self._progress.update(self._bar, completed=report["env_steps"])

    def say(self, line: str) -> None:
        with unseen(self.live.console):
            self.live.console.print(Text(line))

    def refresh(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REDRAW_SECONDS
        with unseen(self.live.console):
            self.live.update(self._render(), refresh=True)

    def _render(self) -> Panel:
        return Panel(
            Group(self._progress, self._figures(), self._workers(), self._limit(), f"[dim]{self._chosen}[/]"),
            title=self._title,
            subtitle=Text(str(self._run_dir)),
        )

    def _figures(self) -> Group:
        report = self._report
        lag = report.get("lag") or {"mean": 0, "max": 0}
        target = "" if self._config.target_return is None else f" (until {self._config.target_return:g})"
        figures = [
            f"[bold]{report.get('sps', 0):,.0f}[/] SPS",
            f"return [bold]{_number(report.get('episodic_return'))}[/]{target}",
            f"{report.get('episodes', 0):,} episodes",
            f"lag {lag['mean']:g} (max {lag['max']})",
            f"queue {report.get('queue_fill', 0):.0%}",
        ]
        losses = [f"{name} {value:.3g}" for name, value in report.get("losses", {}).items()]
        return Group(side_by_side(figures), side_by_side(losses))

    def _limit(self) -> str:
        waits = self._report.get("waits")
        assert self._config.processes
        return f"[dim]{bottleneck(waits, self._config.processes, usable_cores())}[/]" if waits else ""

    def _workers(self) -> Columns:
        cells = []
        for worker in range(self._status.workers):
            state = self._status.state(worker)
            style = STATE_STYLES[state]
            cells.append(f"worker {worker} [{style}]{state.name.lower()}[/] {self._status.env_steps(worker):,}")
        return side_by_side(cells)


def side_by_side(cells: list[str]) -> Columns:
    """As many in a row as fit."""
    return Columns(cells, padding=(0, 2), equal=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
