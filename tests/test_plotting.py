"""Plotting: the figure holds the lines, bands, labels and panels; what cannot be drawn or written is refused."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from asyncq.cli import run
from asyncq.curves import Line
from asyncq.errors import UsageError
from asyncq.plotting import COLOURS, MOST_ENDS, PlotConfig, compact, draw, note_on, plot, time_unit
from written_runs import a_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

pytest.importorskip("matplotlib")


def a_line(label: str = "a3c", env: str = "CartPole-v1", runs: int = 1, end: float = 490.0, last: float = 2e6) -> Line:
    x, mean = np.array([last / 4, last / 2, last]), np.array([20.0, 200.0, end])
    return Line(label, env, runs, x, mean, mean - 10 * (runs > 1), mean + 10 * (runs > 1))


def panels(*lines: Line, **settings: str) -> list[Axes]:
    figure = draw(list(lines), PlotConfig(runs=("run",), **settings))  # type: ignore[arg-type]
    figure.canvas.draw()
    return figure.axes


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_a_line_is_drawn_where_its_numbers_are() -> None:
    line = a_line("a3c, passes 2", runs=3)
    (axes,) = panels(line)
    (drawn,) = axes.get_lines()
    np.testing.assert_array_equal(np.asarray(drawn.get_xdata()), line.x)
    np.testing.assert_array_equal(np.asarray(drawn.get_ydata()), line.mean)
    (band,) = axes.collections
    assert band.get_datalim(axes.transData).bounds == (5e5, 10, 1.5e6, 490)
    assert legend_of(axes) == ["a3c, passes 2 (3 runs)"]
    assert [text.get_text() for text in axes.texts] == ["490"]
    assert axes.get_title(loc="left") == "CartPole-v1"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("env steps", "return (mean of the last 100 episodes)")
    assert [tick.get_text() for tick in axes.get_xticklabels()][:3] == ["0", "0.25M", "0.5M"]


def test_a_single_run_has_no_band() -> None:
    (axes,) = panels(a_line())
    assert not axes.collections
    assert legend_of(axes) == ["a3c"]


def test_a_panel_for_each_environment_with_the_same_colours() -> None:
    lines = [a_line("a3c", "Pong"), a_line("n-step-q", "Pong"), a_line("n-step-q", "Breakout"), a_line("a3c", "Qbert")]
    axes = panels(*lines, title="Atari")
    assert [each.get_title(loc="left") for each in axes] == ["Pong", "Breakout", "Qbert"]
    colours = [[line.get_color() for line in each.get_lines()] for each in axes]
    assert colours == [[COLOURS[0], COLOURS[1]], [COLOURS[1]], [COLOURS[0]]]
    assert axes[0].figure.get_suptitle() == "Atari"


def test_more_lines_than_colours_differ_in_their_dashes() -> None:
    (axes,) = panels(*[a_line(f"line {index}") for index in range(2 * len(COLOURS))])
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}) == 2 * len(COLOURS)
    assert not axes.texts


@pytest.mark.parametrize("end", [-490.0, 490.0])
def test_last_values_stand_apart_within_the_panel(end: float) -> None:
    (axes,) = panels(*[a_line(f"line {index}", end=end + index) for index in range(MOST_ENDS)])
    bottom, top = axes.get_ylim()
    heights = sorted(text.xy[1] for text in axes.texts)  # type: ignore[attr-defined]
    assert min(np.diff(heights)) > 0.05 * (top - bottom)
    assert bottom < heights[0] and heights[-1] < top
    assert {text.get_text() for text in axes.texts} == {f"{end + index:.0f}" for index in range(MOST_ENDS)}


def test_lines_that_end_far_apart_keep_their_values_at_their_ends() -> None:
    (axes,) = panels(a_line("short", last=1e6), a_line("long", last=2e6))
    assert {text.xy for text in axes.texts} == {(1e6, 490), (2e6, 490)}  # type: ignore[attr-defined]


def test_times_are_drawn_in_the_unit_that_is_named() -> None:
    (axes,) = panels(a_line(last=7200.0), x="seconds")
    assert axes.get_xlabel() == "training time (hours)"
    assert np.asarray(axes.get_lines()[0].get_xdata())[-1] == 2
    assert [time_unit(seconds)[1] for seconds in (119, 120, 7199, 7200)] == ["seconds", "minutes", "minutes", "hours"]


def test_words_of_the_user_are_no_markup() -> None:
    (axes,) = panels(a_line("$x_ and $"), a_line("_mine"), a_line("three words " * 20), title="for $5 or $^")
    assert axes.get_title(loc="left") == "for $5 or $^"
    names = legend_of(axes)
    assert names[:2] == ["$x_ and $", "_mine"]
    assert names[2].split() == ["three", "words"] * 20 and max(map(len, names[2].splitlines())) <= 48


@pytest.mark.parametrize("envs", [("CartPole-v1",), ("CartPole-v1", "LunarLander-v3")])
def test_a_legend_of_many_lines_stands_beside_them(envs: tuple[str, ...]) -> None:
    names = [f"line {index}, {'three words ' * 3}" for index in range(3 * MOST_ENDS)]
    figure = draw([a_line(name, env) for env in envs for name in names], PlotConfig(runs=("run",)))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text().split() for text in legend.get_texts()] == [name.split() for name in names]
    box = legend.get_window_extent()
    assert all(axes.get_legend() is None for axes in figure.axes)
    assert all(box.x0 > axes.get_window_extent().x1 for axes in figure.axes)
    assert box.y0 >= 0 and box.x1 <= figure.bbox.x1
    assert all(axes.get_window_extent().width > 3 * figure.dpi for axes in figure.axes)


def test_a_run_with_one_report_is_a_dot() -> None:
    one = np.array([3.0])
    (axes,) = panels(Line("a3c", "CartPole-v1", 1, 0 * one, one, one, one))
    assert axes.get_lines()[0].get_marker() == "o"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (-20.23, "-20.2"),
        (487.4, "487"),
        (9999, "9999"),
        (12345, "12.3k"),
        (1.25e6, "1.25M"),
        (7e-4, "0.0007"),
    ],
)
def test_numbers_in_few_characters(value: float, said: str) -> None:
    assert compact(value) == said


def test_the_note_says_what_bands_are() -> None:
    assert note_on([a_line()], 1) == ""
    assert note_on([a_line(runs=4), a_line()], 1) == "line: mean of the runs, band: min to max"
    assert note_on([a_line(runs=5)], 1) == "line: mean of the runs, band: ± standard deviation"
    assert note_on([a_line(runs=2), a_line(runs=5)], 3) == (
        "line: mean of the runs, band: min to max or ± standard deviation (from 5 runs on); "
        "every point: mean of the last 3 reports"
    )


def test_a_png_beside_the_metrics_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = a_run(tmp_path / "run", {100: 20.0, 200: 30.0})
    assert run(["plot", str(directory), f"{directory}/../run"]) == 0
    with Image.open(directory / "learning-curve.png") as image:
        assert image.size == (1600, 900)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert (0x00, 0x72, 0xB2) in colours
    assert capsys.readouterr().out.splitlines() == [
        "CartPole-v1, a3c: episodic_return 30 at 200 env steps",
        str(directory / "learning-curve.png"),
    ]


def test_pictures_of_other_metrics_lie_beside_the_curve(tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run", {100: 20.0, 200: 30.0})
    assert run(["plot", str(directory), "--x", "seconds", "--y", "env_steps"]) == 0
    assert (directory / "learning-curve-env_steps-over-seconds.png").exists()
    assert not (directory / "learning-curve.png").exists()


def test_several_runs_go_into_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        a_run(tmp_path / str(seed), {100: 20.0, 200: 30.0 + seed}, seed=seed)
    monkeypatch.chdir(tmp_path)
    assert run(["plot", "1", "2", "--labels", "mine"]) == 0
    assert (tmp_path / "learning-curves.png").exists()
    assert "CartPole-v1, mine: episodic_return 31.5 at 200 env steps (31 to 32, 2 runs)" in capsys.readouterr().out


def test_an_svg_holds_the_lines_and_a_pdf_is_one(tmp_path: Path) -> None:
    runs = [str(a_run(tmp_path / str(passes), {100: 20.0, 200: 30.0}, passes=passes)) for passes in (1, 2)]
    assert run(["plot", *runs, "--output", str(tmp_path / "x.svg")]) == 0
    paths = [
        path.get("style", "") for path in ElementTree.parse(tmp_path / "x.svg").iter("{http://www.w3.org/2000/svg}path")
    ]
    for colour in COLOURS[:2]:
        assert any(f"stroke: {colour}; stroke-width: 1.8" in style for style in paths)
    assert run(["plot", *runs, "--output", str(tmp_path / "x.PDF")]) == 0
    assert (tmp_path / "x.PDF").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output", "x.jpg"], "ends in .png, .svg or .pdf"),
        (["--output", "absent/x.png"], "there is no directory absent"),
        (["--x", "steps"], "choose one of: env-steps, seconds, frames"),
        (["--y", "entropy"], "has no metric entropy; it has"),
        (["--smooth", "0"], "at least 1"),
        (["--labels", "a", "b"], "--labels has 2 and needs one for each of 1: a3c"),
    ],
)
def test_refusals_name_the_reason_and_write_nothing(flags: list[str], said: str, tmp_path: Path) -> None:
    directory = a_run(tmp_path / "run", {100: 20.0})
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UsageError) as refusal:
        run(["plot", str(directory), *flags])
    assert said in str(refusal.value) and "\n" not in str(refusal.value)
    assert set(tmp_path.rglob("*")) == before


def test_runs_count_once_in_the_order_they_are_named() -> None:
    assert PlotConfig(runs=("b", "a", "./b", "c/../a")).directories == [Path("b"), Path("a")]


def test_a_run_is_needed() -> None:
    with pytest.raises(UsageError, match="name at least one run's directory"):
        run(["plot"])


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("asyncq.plotting.write_whole", full)
    with pytest.raises(UsageError, match=r"cannot write .*learning-curve\.png: No space left on device"):
        plot(PlotConfig(runs=(str(a_run(tmp_path / "run", {100: 20.0})),)))


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'asyncq\[plot\]'"):
        plot(PlotConfig(runs=(str(tmp_path),)))


def test_pyplot_stays_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert plot(PlotConfig(runs=(str(a_run(tmp_path / "run", {100: 20.0})),))) == 0
