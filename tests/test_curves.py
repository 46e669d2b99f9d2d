"""Curves: what metrics.jsonl says, which runs belong together, and the numbers of their mean and spread."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from asyncq.config import TrainConfig
from asyncq.curves import Line, Wanted, lines_of, reports_of, settings_of, smoothed
from asyncq.errors import UsageError
from written_runs import a_run

RETURNS = Wanted("env-steps", "episodic_return")


def labels(lines: list[Line]) -> list[tuple[str, int]]:
    return [(line.label, line.runs) for line in lines]


def test_a_single_run_is_drawn_as_it_reported(tmp_path: Path) -> None:
    (line,) = lines_of([a_run(tmp_path / "run", {100: None, 200: 5.0, 300: 7.5})], RETURNS)
    assert (line.label, line.env, line.runs) == ("a3c", "CartPole-v1", 1)
    assert line.x.tolist() == [200, 300]
    assert line.mean.tolist() == line.low.tolist() == line.high.tolist() == [5, 7.5]


def test_seeds_are_interpolated_up_to_the_shortest(tmp_path: Path) -> None:
    one = a_run(tmp_path / "one", {100: 0.0, 300: 20.0}, seed=1)
    two = a_run(tmp_path / "two", {50: 1.0, 150: 10.0, 250: 10.0, 350: 30.0, 900: 500.0}, seed=2)
    (line,) = lines_of([one, two], RETURNS)
    assert line.x.tolist() == [100, 150, 250, 300]
    np.testing.assert_allclose(line.mean, [2.75, 7.5, 12.5, 20])
    np.testing.assert_allclose(line.low, [0, 5, 10, 20])
    np.testing.assert_allclose(line.high, [5.5, 10, 15, 20])


def test_from_five_runs_on_the_spread_is_the_standard_deviation(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / str(seed), {100: float(seed), 200: 4.0}, seed=seed) for seed in range(1, 6)]
    (line,) = lines_of(runs, RETURNS)
    assert line.runs == 5
    np.testing.assert_allclose(line.mean, [3, 4])
    np.testing.assert_allclose(line.low, [3 - math.sqrt(2.5), 4])
    np.testing.assert_allclose(line.high, [3 + math.sqrt(2.5), 4])


def test_settings_that_change_what_is_learned_tell_runs_apart(tmp_path: Path) -> None:
    points = {100: 1.0, 200: 2.0}
    runs = [
        a_run(tmp_path / "a", points, seed=1, keep=1, report_interval=1.0, processes=2),
        a_run(tmp_path / "b", points, passes=4, precision="bf16"),
        a_run(tmp_path / "c", points, seed=3, keep=9, target_return=20.0, processes=4, device="cpu"),
        a_run(tmp_path / "d", points, method="n-step-q", entropy_coefficient=0.0, gamma=0.9),
    ]
    lines = lines_of(runs, RETURNS)
    assert labels(lines) == [("a3c, passes 2", 2), ("a3c, passes 4", 1), ("n-step-q", 1)]


@pytest.mark.parametrize("wanted", [Wanted("seconds", "episodic_return"), Wanted("env-steps", "sps")])
def test_the_machine_tells_runs_apart_where_speed_is_drawn(wanted: Wanted, tmp_path: Path) -> None:
    runs = [a_run(tmp_path / str(count), {100: 1.0, 200: 2.0}, processes=count) for count in (1, 2)]
    assert labels(lines_of(runs, wanted)) == [("a3c, processes 1", 1), ("a3c, processes 2", 1)]
    assert labels(lines_of(runs, RETURNS)) == [("a3c", 2)]


def test_labels_hold_as_many_settings_as_it_takes(tmp_path: Path) -> None:
    settings = [(passes, norm) for passes in (1, 2) for norm in (True, None)]
    runs = [
        a_run(tmp_path / str(index), {100: 1.0}, passes=passes, layer_norm=norm, learning_rate=1e-3 * passes)
        for index, (passes, norm) in enumerate(settings)
    ]
    assert [label for label, _ in labels(lines_of(runs, RETURNS))] == [
        "a3c, passes 1, layer-norm on",
        "a3c, passes 1, layer-norm none",
        "a3c, passes 2, layer-norm on",
        "a3c, passes 2, layer-norm none",
    ]


def test_environments_are_no_part_of_a_label(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / env, {100: 1.0}, env=env) for env in ("CartPole-v1", "Acrobot-v1")]
    assert [(line.env, line.label) for line in lines_of(runs, RETURNS)] == [
        ("CartPole-v1", "a3c"),
        ("Acrobot-v1", "a3c"),
    ]


def test_every_setting_tells_runs_apart_unless_it_is_listed() -> None:
    open_run, timed = settings_of(TrainConfig(), False), settings_of(TrainConfig(), True)
    assert set(timed) - set(open_run) == {"processes", "device"}
    assert {"total_steps", "network", "precision", "queue_size", "env_kwargs"} <= set(open_run)
    assert not {"seed", "run_dir", "resume", "quiet"} & set(timed)


def test_given_labels_name_the_lines_in_order(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / str(passes), {100: 1.0}, passes=passes) for passes in (1, 4)]
    assert [line.label for line in lines_of(runs, RETURNS, ["once", "often"])] == ["once", "often"]
    with pytest.raises(UsageError, match="--labels has 1 and needs one for each of 2: a3c, passes 1; a3c, passes 4"):
        lines_of(runs, RETURNS, ["once"])


@pytest.mark.parametrize(("x", "expected"), [("env-steps", [100, 200]), ("frames", [400, 800]), ("seconds", [10, 20])])
def test_what_x_counts(x: str, expected: list[float], tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", {100: 1.0, 200: 2.0}, frame_skip=4)
    assert lines_of([run], Wanted(x, "lag.mean"))[0].x.tolist() == expected
    assert lines_of([run], Wanted(x, "lag.mean"))[0].mean.tolist() == [1.5, 1.5]


def test_smoothing_looks_back_only() -> None:
    np.testing.assert_allclose(smoothed(np.array([1.0, 2.0, 6.0, 10.0]), 3), [1, 1.5, 3, 6])
    assert smoothed(np.array([1.0, 2.0, 6.0]), 1).tolist() == [1, 2, 6]


@pytest.mark.parametrize(
    "last", ["", "\n", '{"env_steps": 300, "sec', '{"env_steps": 300}', "12", "null", "\0\0\0", "\xff"]
)
def test_lines_that_are_no_report_are_left_out(last: str, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", {100: 1.0, 200: 2.0})
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(last.encode("latin-1"))
    assert [report["env_steps"] for report in reports_of(run)] == [100, 200]


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("episodic_retrun", "did you mean episodic_return"),
        ("lag", "did you mean lag.max or lag.mean?"),
        ("mean", "did you mean lag.mean?"),
        ("zzz", "it has: env_steps, episodic_return, lag.max, lag.mean, seconds, sps"),
    ],
)
def test_unknown_metrics_are_refused_with_those_that_are_near(metric: str, said: str, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", {100: None, 200: 2.0})
    with pytest.raises(UsageError) as refusal:
        lines_of([run], Wanted("env-steps", metric))
    assert said in str(refusal.value) and f"has no metric {metric};" in str(refusal.value)


def test_of_several_runs_those_with_nothing_to_draw_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        a_run(tmp_path / "one", {100: 1.0, 200: 2.0}),
        a_run(tmp_path / "empty", {}),
        a_run(tmp_path / "nan", {5: None}),
        tmp_path / "pong.mp4",
    ]
    runs[-1].touch()
    assert labels(lines_of(runs, RETURNS)) == [("a3c", 1)]
    said = capsys.readouterr().err
    assert said.count("asyncq: left out: ") == 3 and "pong.mp4: there is no run in it" in said
    assert "empty/metrics.jsonl holds no report yet" in said and "nan has a value of episodic_return; --y sps" in said
    with pytest.raises(UsageError, match="none of these runs has anything to draw yet"):
        lines_of(runs[1:], RETURNS)


def test_runs_with_nothing_to_draw_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent: there is no run in it; a run's directory has a config\.json"):
        lines_of([tmp_path / "absent"], RETURNS)
    with pytest.raises(UsageError, match="holds no report yet"):
        lines_of([a_run(tmp_path / "begun", {})], RETURNS)
    young = a_run(tmp_path / "young", {})
    (young / "metrics.jsonl").write_text('{"env_steps": 0, "seconds": 5, "updates": 0, "losses": {}}')
    with pytest.raises(UsageError, match="holds no report yet"):
        lines_of([young], Wanted("env-steps", "losses.policy"))
    with pytest.raises(UsageError, match="has a value of episodic_return; --y sps, for one, can be drawn"):
        lines_of([a_run(tmp_path / "early", {100: None, 200: None})], RETURNS)
    (a_run(tmp_path / "bare", {100: 1.0}) / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        lines_of([tmp_path / "bare"], RETURNS)


def test_a_run_that_ends_before_another_begins_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    young = a_run(tmp_path / "young", {100: 1.0})
    runs = [young, a_run(tmp_path / "b", {300: 1.0, 500: 2.0}, seed=2), a_run(tmp_path / "c", {200: 3.0, 400: 3.0})]
    (line,) = lines_of(runs, RETURNS)
    assert (line.runs, list(line.x), list(line.mean)) == (2, [300, 400], [2, 2.25])
    assert f"left out: {young} ends before another run of CartPole-v1, a3c begins" in capsys.readouterr().err


def test_settings_that_the_method_does_not_read_tell_no_runs_apart(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / str(frames), {100: 1.0}, epsilon_anneal_frames=frames) for frames in (10, 20)]
    assert [line.runs for line in lines_of(runs, RETURNS)] == [2]
