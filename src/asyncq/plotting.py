"""Draw learning curves of one or several runs: a line for each group of runs, a panel for each environment."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from asyncq.curves import MANY, Line, Wanted, lines_of
from asyncq.errors import UsageError, install
from asyncq.flags import OpenStr, plain
from asyncq.monitoring.metrics import WINDOW
from asyncq.shared import Array
from asyncq.storage.files import refuse_unwritable, refusing_what_fails, write_whole

if TYPE_CHECKING:  # an extra, which drawing alone needs
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

X_LABELS = {"env-steps": "env steps", "seconds": "training time", "frames": "frames"}
Y_LABELS = {
    "episodic_return": f"return (mean of the last {WINDOW} episodes)",
    "episodic_length": f"env steps an episode (mean of the last {WINDOW})",
    "sps": "env steps per second",
    "lag.mean": "mean lag (updates)",
    "lag.max": "largest lag (updates)",
}
ENDINGS = (".png", ".svg", ".pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which colour-blind people tell apart; their yellow is too light for lines."""
DASHES = ("-", "--", ":", "-.")
MOST_ENDS = 6
"""Lines of a panel up to which their last values are written beside them, and their legend over them."""
LEGEND_INCHES = 4.0
"""Of a legend that stands beside the panels."""
LEGEND_WIDTH = 48
"""Characters of a line's name until it is broken."""


@dataclass(frozen=True, kw_only=True)
class PlotConfig:
    """Draw learning curves: asyncq plot RUN... Runs that differ in nothing but their seed become one line, their mean,
    in a band: min to max, or from 5 runs on the standard deviation. Each environment has a panel."""

    runs: tyro.conf.Positional[Annotated[tuple[str, ...], plain("RUN [RUN ...]")]] = ()
    """Directories of runs, which may still be training."""
    x: str = "env-steps"
    """env-steps, seconds or frames."""
    y: str = "episodic_return"
    """A metric of metrics.jsonl, such as sps, lag.mean or losses.entropy."""
    output: OpenStr = None
    """.png, .svg or .pdf file to write (default: learning-curve.png in the run's directory; of several runs
    learning-curves.png in the current one; --x and --y add to the name)."""
    smooth: int = 1
    """Draw means of so many reports, the last ones up to each."""
    title: OpenStr = None
    """Title (default: the environment)."""
    labels: Annotated[tuple[str, ...], plain("NAME [NAME ...]")] = ()
    """Names of the lines, in the order of their first runs (default: the method, and settings that differ)."""

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if not self.runs:
            where = ", before --labels, which takes all words behind it" if self.labels else ""
            raise UsageError(f"name at least one run's directory{where}: asyncq plot runs/NAME")
        if self.x not in X_LABELS:
            raise UsageError(f"--x {self.x} is unknown; choose one of: {', '.join(X_LABELS)}")
        if self.smooth < 1:
            raise UsageError(f"--smooth is {self.smooth}; it must be at least 1")
        if self.output is not None and Path(self.output).suffix.lower() not in ENDINGS:
            raise UsageError(f"--output {self.output} must be a file name that ends in .png, .svg or .pdf")

    @property
    def directories(self) -> list[Path]:
        """The runs, each once."""
        found: dict[Path, Path] = {}
        for run in map(Path, self.runs):
            found.setdefault(Path(os.path.realpath(run)), run)
        return list(found.values())

    @property
    def file(self) -> Path:
        """Where the picture goes."""
        if self.output is not None:
            return Path(self.output)
        single = len(self.directories) == 1
        name = "learning-curve" if single else "learning-curves"
        name += f"-{self.y}" * (self.y != PlotConfig.y) + f"-over-{self.x}" * (self.x != PlotConfig.x)
        return (self.directories[0] if single else Path()) / f"{name}.png"


def plot(config: PlotConfig) -> int:
    """Draw the curves, print where they end; returns the exit status. Raises UsageError."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"asyncq plot needs matplotlib: {install('plot')}") from error
    lines = lines_of(config.directories, Wanted(config.x, config.y, config.smooth), config.labels)
    refuse_unwritable(config.file)
    picture = io.BytesIO()
    draw(lines, config).savefig(picture, format=config.file.suffix[1:].lower(), dpi=200)
    with refusing_what_fails(config.file):
        write_whole(config.file, picture.getvalue())
    for line in lines:
        end = f"{config.y} {compact(line.mean[-1])} at {compact(line.x[-1])} {config.x.replace('-', ' ')}"
        spread = f" ({compact(line.low[-1])} to {compact(line.high[-1])}, {line.runs} runs)" if line.runs > 1 else ""
        print(f"{line.env}, {line.label}: {end}{spread}")
    print(config.file)
    return 0


def draw(lines: list[Line], config: PlotConfig) -> Figure:
    """A figure with a panel for each environment; times are in the unit that the axis names, all else as it is."""
    from matplotlib.figure import Figure

    envs = list(dict.fromkeys(line.env for line in lines))
    labels = list(dict.fromkeys(line.label for line in lines))
    columns, rows = min(2, len(envs)), math.ceil(len(envs) / 2)
    crowded = any(sum(line.env == env for line in lines) > MOST_ENDS for env in envs)
    width, height = (8, 4.5) if len(envs) == 1 else (10.4, 4 * rows)
    figure = Figure(figsize=(width + LEGEND_INCHES * crowded, height), layout="constrained")
    unit, x_label = 1, X_LABELS[config.x]
    if config.x == "seconds":
        unit, name = time_unit(max(line.x[-1] for line in lines))
        x_label = f"{x_label} ({name})"
    for index, env in enumerate(envs):
        axes = figure.add_subplot(rows, columns, index + 1)
        panel = [(line, line.x / unit, labels.index(line.label)) for line in lines if line.env == env]
        for line, x, style in panel:
            _draw_line(axes, line, x, style)
        axes.set_xlim(0, max(x[-1] for _, x, _ in panel) or 1)
        if len(panel) <= MOST_ENDS:
            _write_ends(axes, [(x[-1], line.mean[-1], _colour(style)) for line, x, style in panel])
        axes.set_xlabel(x_label, fontsize=11)
        if index % columns == 0:
            axes.set_ylabel(Y_LABELS.get(config.y, config.y.replace("_", " ")), fontsize=11)
        _dress(axes, env if len(envs) > 1 else config.title or env)
        if not crowded:
            _add_legend(axes, axes.get_lines(), loc="best").set_in_layout(False)
    if crowded:
        drawn = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
        _add_legend(figure, list(drawn.values()), loc="outside right upper")
    if config.title and len(envs) > 1:
        figure.suptitle(config.title, fontsize=14, fontweight="bold", parse_math=False)
    if note := note_on(lines, config.smooth):
        figure.supxlabel(note, x=0.99, ha="right", fontsize=8.5, color="#666666")
    return figure


def _colour(style: int) -> str:
    return COLOURS[style % len(COLOURS)]


def _draw_line(axes: Axes, line: Line, x: Array, style: int) -> None:
    label = line.label if line.runs == 1 else f"{line.label} ({line.runs} runs)"
    dashes, marker = DASHES[style // len(COLOURS) % len(DASHES)], "o" if len(x) == 1 else ""
    axes.plot(x, line.mean, dashes, color=_colour(style), linewidth=1.8, label=label, marker=marker, clip_on=False)
    if line.runs > 1:
        axes.fill_between(x, line.low, line.high, color=_colour(style), alpha=0.18, linewidth=0)


def _write_ends(axes: Axes, ends: list[tuple[float, float, str]]) -> None:
    """The last value beside the end of every line, moved towards the panel's middle where two would overlap."""
    (bottom, top), near = axes.get_ylim(), 0.12 * axes.get_xlim()[1]
    high = bool(sum(y for _, y, _ in ends) / len(ends) > (bottom + top) / 2)
    step = (top - bottom) * (-0.055 if high else 0.055)
    digits = 2 - math.floor(math.log10(top - bottom))  # finer than the panel, the value would only seem exact
    written: list[tuple[float, float]] = []
    for x, end, colour in sorted(ends, key=lambda each: each[1], reverse=high):
        y = end
        for other_x, other_y in written:
            if abs(other_x - x) < near and abs(other_y - y) < abs(step):
                y = other_y + step
        written.append((x, y))
        style: dict[str, Any] = {"color": colour, "fontsize": 10, "fontweight": "bold", "va": "center"}
        axes.annotate(compact(round(end, digits)), (x, y), (5, 0), textcoords="offset points", **style)


def _dress(axes: Axes, title: str) -> None:
    """Title, frame, grid and ticks."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.grid(linewidth=0.5, color="#dddddd")
    axes.set_axisbelow(True)
    axes.tick_params(color="#999999", labelsize=10)
    _dress_ticks(axes.xaxis, axes.get_xlim())
    _dress_ticks(axes.yaxis, axes.get_ylim())


def _add_legend(place: Axes | Figure, drawn: Sequence[Line2D], loc: Literal["best", "outside right upper"]) -> Legend:
    """Lines are given with their labels, or those that begin with _ would have no name."""
    labels = [fill(str(line.get_label()), LEGEND_WIDTH) for line in drawn]
    legend: Legend = place.legend(drawn, labels, loc=loc, fontsize=10, framealpha=0.85, edgecolor="none")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return legend


def _dress_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    size, suffix = unit_of(max(map(abs, limits)))
    axis.set_major_formatter(lambda value, _: f"{value / size:g}{suffix}" if value else "0")


def time_unit(seconds: float) -> tuple[int, str]:
    """The unit, in seconds, in which so long a time is best read, and its name."""
    return (3600, "hours") if seconds >= 7200 else (60, "minutes") if seconds >= 120 else (1, "seconds")


def unit_of(largest: float) -> tuple[float, str]:
    """What numbers up to `largest` are best divided by, and the suffix that says so."""
    units = ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
    return next(((size, suffix) for least, size, suffix in units if largest >= least), (1.0, ""))


def compact(value: float) -> str:
    """A number in few characters: 12.3k, 1.25M, 487, -20.2."""
    size, suffix = unit_of(abs(value))
    digits = f"{value:.0f}" if size == 1 and abs(value) >= 100 else f"{float(f'{value / size:.3g}'):g}"
    return digits + suffix


def note_on(lines: list[Line], smooth: int) -> str:
    """What lines and bands are, where they are not plainly what was reported."""
    few, many = any(1 < line.runs < MANY for line in lines), any(line.runs >= MANY for line in lines)
    from_many = f" (from {MANY} runs on)" if few else ""
    bands = ["min to max"] * few + [f"± standard deviation{from_many}"] * many
    notes = [f"line: mean of the runs, band: {' or '.join(bands)}"] if bands else []
    return "; ".join(notes + [f"every point: mean of the last {smooth} reports"] * (smooth > 1))
