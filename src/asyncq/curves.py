"""What the metrics of runs say, as lines to draw: runs of the same settings become their mean and its spread.

Settings that cannot change what is drawn do not tell runs apart: where nothing is drawn that depends on speed, the
machine's neither. A line ends with the shortest of its runs; beyond that it would be the mean of other runs.
"""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asyncq.checks import UNREAD
from asyncq.config import TrainConfig
from asyncq.errors import UsageError
from asyncq.runs import no_run_in, read_config
from asyncq.shared import Array

SAME = {
    "seed", "run_dir", "resume", "target_return", "save_interval", "keep", "worker_timeout", "max_restarts",
    "max_learner_restarts", "report_interval", "quiet",
}  # fmt: skip
"""Settings that never tell runs apart."""
MACHINE = {"processes", "device"}
SPEEDS = ("seconds", "sps", "waits", "lag", "queue_fill")
"""Metrics that depend on MACHINE; so does everything over seconds."""
MANY = 5
"""Runs from which on the spread is the standard deviation; for fewer it is min to max."""


class NothingToDraw(UsageError):
    """A run that has hardly begun, or stopped before it could report; or no run."""


@dataclass(frozen=True)
class Wanted:
    """What to read of every run."""

    x: str
    """env-steps, seconds or frames."""
    y: str
    """Dotted name of a metric."""
    smooth: int = 1
    """Reports that each value is the mean of, the last ones up to it."""


@dataclass(frozen=True)
class Curve:
    """One run: the metric was `y[points]` at `x[points]`; x rises."""

    run: Path
    config: TrainConfig
    x: Array
    y: Array


@dataclass(frozen=True)
class Line:
    """The mean of one or several runs at `x[points]`, in env steps, seconds or frames."""

    label: str
    env: str
    runs: int
    x: Array
    mean: Array
    low: Array
    """Lower edge of the spread; of a single run it is the mean itself."""
    high: Array


def lines_of(runs: list[Path], wanted: Wanted, labels: Sequence[str] = ()) -> list[Line]:
    """The lines in the order of their first runs. Raises UsageError if a run cannot be drawn, or labels do not fit."""
    timed = wanted.x == "seconds" or wanted.y.split(".")[0] in SPEEDS
    groups: dict[tuple[Any, ...], list[Curve]] = {}
    for curve in curves_of(runs, wanted):
        groups.setdefault(tuple(settings_of(curve.config, timed).values()), []).append(curve)
    found = labels_of([settings_of(curves[0].config, timed) for curves in groups.values()])
    if labels and len(labels) != len(found):
        raise UsageError(f"--labels has {len(labels)} and needs one for each of {len(found)}: {'; '.join(found)}")
    return [combine(label, curves) for label, curves in zip(labels or found, groups.values(), strict=True)]


def curves_of(runs: list[Path], wanted: Wanted) -> list[Curve]:
    """The curves of those runs that have one, and a line on stderr about each that has none yet. Raises UsageError."""
    curves = []
    for run in runs:
        try:
            curves.append(curve_of(run, wanted))
        except NothingToDraw as nothing:
            if len(runs) == 1:
                raise
            print(f"asyncq: left out: {nothing}", file=sys.stderr)
    if not curves:
        raise UsageError("none of these runs has anything to draw yet")
    return curves


def curve_of(run: Path, wanted: Wanted) -> Curve:
    """The curve of one run. Raises NothingToDraw if it has none yet, and UsageError."""
    reports = [report for report in reports_of(run) if report.get("updates") != 0]
    if not reports:
        raise NothingToDraw(f"{run / 'metrics.jsonl'} holds no report yet")
    config = read_config(run / "config.json", f"{run / 'config.json'}")
    check_metric(wanted.y, {name for report in reports for name in report}, run)
    along = "seconds" if wanted.x == "seconds" else "env_steps"
    points = {report[along]: report[wanted.y] for report in reports if math.isfinite(report.get(wanted.y, math.nan))}
    if not points:
        raise NothingToDraw(f"no report of {run} has a value of {wanted.y}; --y sps, for one, can be drawn")
    x, y = np.array(sorted(points.items()), dtype=float).T
    return Curve(run, config, x * (config.frame_skip or 1) if wanted.x == "frames" else x, smoothed(y, wanted.smooth))


def reports_of(run: Path) -> Iterator[dict[str, float]]:
    """The reports in `metrics.jsonl`, each metric by its dotted name.

    Raises NothingToDraw if there is no such file, and UsageError if there is no `run`.
    """
    file = run / "metrics.jsonl"
    try:
        lines = file.read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError) as error:
        if (run / "config.json").exists():
            raise NothingToDraw(f"{run} has reported nothing yet") from error
        kind = NothingToDraw if run.exists() else UsageError
        raise kind(f"{run}: {no_run_in(run)}") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    for line in lines:
        try:
            report = dict(numbers_of(json.loads(line)))
        except (ValueError, AttributeError):  # cut: the run is writing it, was killed, or its disk was full
            continue
        if math.isfinite(report.get("env_steps", math.nan)) and math.isfinite(report.get("seconds", math.nan)):
            yield report


def numbers_of(report: dict[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in a report, by dotted name; NaN for those that were not known yet."""
    for name, value in report.items():
        if isinstance(value, dict):
            yield from numbers_of(value, f"{above}{name}.")
        elif value is None or isinstance(value, int | float):
            yield above + name, math.nan if value is None else value


def check_metric(name: str, names: set[str], run: Path) -> None:
    """Raises UsageError, with names that are near, if `name` is none of the `names` in a run's reports."""
    known = sorted(each for each in names if not any(other.startswith(f"{each}.") for other in names))
    if name not in known:
        parts = [each for each in known if name in each.split(".")]
        near = parts or difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known)}"
        raise UsageError(f"{run} has no metric {name}; {hint}")


def smoothed(y: Array, reports: int) -> Array:
    """Mean of each value and the `reports` - 1 before it, or as many as there are; `[points]`."""
    return np.array([y[max(0, end - reports) : end].mean() for end in range(1, len(y) + 1)])


def settings_of(config: TrainConfig, timed: bool) -> dict[str, Any]:
    """The settings that tell runs apart; `timed` if what is drawn depends on speed."""
    same = {*SAME, *UNREAD[config.method], *(() if timed else MACHINE)}
    return {name: value for name, value in asdict(config).items() if name not in same}


def labels_of(settings: list[dict[str, Any]]) -> list[str]:
    """A name for each group: its method, and what tells it from the groups with that method and environment."""
    labels = []
    for own in settings:
        rivals = [other for other in settings if (other["env"], other["method"]) == (own["env"], own["method"])]
        values = [f"{name.replace('_', '-')} {_said(own[name])}" for name in telling(rivals)]
        labels.append(", ".join([own["method"], *values]))
    return labels


def telling(rivals: list[dict[str, Any]]) -> list[str]:
    """Few and short names of settings that together differ between all `rivals`, the most telling first."""

    def kinds(names: list[str]) -> int:
        return len({tuple(rival[name] for name in names) for rival in rivals})

    names: list[str] = []
    while kinds(names) < len(rivals):
        names.append(min(rivals[0], key=lambda name: (-kinds([*names, name]), len(name))))
    return names


def _said(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return " ".join(map(_said, value)) if isinstance(value, tuple) else str(value)


def combine(label: str, curves: list[Curve]) -> Line:
    """The line of `curves`, with a point at every report of any of them that all have reached.

    Without those, named on stderr, that end before another of them begins.
    """
    env = curves[0].config.env
    start = max(curve.x[0] for curve in curves)
    for curve in curves:
        if curve.x[-1] < start:
            print(f"asyncq: left out: {curve.run} ends before another run of {env}, {label} begins", file=sys.stderr)
    curves = [curve for curve in curves if curve.x[-1] >= start]
    end = min(curve.x[-1] for curve in curves)
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    x = x[(x >= start) & (x <= end)]
    y = np.stack([np.interp(x, curve.x, curve.y) for curve in curves])  # [runs, points]
    mean, low, high = y.mean(0), y.min(0), y.max(0)
    if len(curves) >= MANY:
        low, high = mean - y.std(0, ddof=1), mean + y.std(0, ddof=1)
    return Line(label, env, len(curves), x, mean, low, high)
