"""Recorder: every report is a line of metrics.jsonl and a set of TensorBoard values, and the last is the summary."""

from __future__ import annotations

import json
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from asyncq.curves import numbers_of
from asyncq.monitoring.recorder import Recorder, tagged

REPORT: dict[str, Any] = {
    "env_steps": 1000,
    "seconds": 4.0,
    "sps": 300.0,
    "updates": 7,
    "skipped_updates": 1,
    "episodes": 3,
    "episodic_return": -20.5,
    "episodic_length": 800.0,
    "lag": {"mean": 1.5, "max": 4},
    "queue_fill": 0.25,
    "waits": {"learner": 0.0, "workers": 0.375},
    "losses": {"value": 0.5, "policy": -0.25},
    "learning_rate": 0.001,
    "epsilon": 0.1,
}
TAGS = {
    "charts/episodic_return": -20.5,
    "charts/episodic_length": 800.0,
    "charts/SPS": 300.0,
    "charts/learning_rate": 0.001,
    "charts/epsilon": 0.1,
    "charts/updates": 7,
    "charts/skipped_updates": 1,
    "charts/episodes": 3,
    "queue/fill": 0.25,
    "losses/value": 0.5,
    "losses/policy": -0.25,
    "lag/mean": 1.5,
    "lag/max": 4,
    "waits/learner": 0.0,
    "waits/workers": 0.375,
}
EARLY = {**REPORT, "env_steps": 10, "episodic_return": None, "episodic_length": None, "lag": None, "losses": {}}


def test_tagged_gives_every_number_a_tag() -> None:
    """But for `env_steps` and `seconds`, which TensorBoard has as step and time."""
    assert dict(tagged(REPORT)) == TAGS
    assert len(TAGS) == len(dict(numbers_of(REPORT))) - 2


def test_tagged_leaves_out_what_is_not_known_yet() -> None:
    assert set(dict(tagged(EARLY))) == {
        "charts/SPS",
        "charts/learning_rate",
        "charts/epsilon",
        "charts/updates",
        "charts/skipped_updates",
        "charts/episodes",
        "queue/fill",
        "waits/learner",
        "waits/workers",
    }


def test_every_report_is_written_at_once_as_a_line_of_json(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.record(EARLY)
        recorder.record(REPORT)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [EARLY, REPORT]


def test_every_report_reaches_tensorboard_at_its_env_steps(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.record(EARLY)
        recorder.record(REPORT)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    values: dict[int, dict[str, float]] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            number = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
            values.setdefault(event.step, {})[value.tag] = number
    assert set(values) == {10, 1000}
    assert values[1000] == pytest.approx(TAGS)


def test_the_summary_is_the_last_report_the_outcome_and_the_speed_of_the_whole_run(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.record(EARLY)
        recorder.record(REPORT)
        assert recorder.env_steps == 1000
        recorder.finish("total-steps")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {**REPORT, "outcome": "total-steps", "sps": 250}


def test_a_run_that_ended_before_its_first_report_has_a_summary_too(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        assert recorder.env_steps == 0
        recorder.finish("stopped")
    assert json.loads((tmp_path / "summary.json").read_text()) == {"outcome": "stopped"}


def test_log_lines_are_dated_and_earlier_ones_stay(tmp_path: Path) -> None:
    for line in ("one", "two"):
        with Recorder(tmp_path) as recorder:
            recorder.log(line)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in lines] == ["one", "two"]
    assert all(len(line) > 20 for line in lines)


def test_a_run_that_goes_on_forgets_what_came_after_its_state(tmp_path: Path) -> None:
    later = {**REPORT, "env_steps": 3000}
    with Recorder(tmp_path) as recorder:
        recorder.record(REPORT)
        recorder.record({**REPORT, "env_steps": 2000})
        recorder.record(later)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 35')
    with Recorder(tmp_path, resumed_at=2000) as recorder:
        recorder.record({**later, "sps": 111.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in lines] == [1000, 2000, 3000]
    assert lines[-1]["sps"] == 111
    accumulator = EventAccumulator(str(tmp_path), purge_orphaned_data=True)
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("charts/SPS")] == [1000, 2000, 3000]


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        for name in ("_metrics", "_log"):
            getattr(recorder, name).close()
            setattr(recorder, name, open("/dev/full", "w", buffering=1))  # noqa: SIM115
        recorder.log("one")
        recorder.record(REPORT)
        recorder.finish("total-steps")
    assert recorder.env_steps == 1000
    assert (tmp_path / "metrics.jsonl").read_text() == (tmp_path / "log.txt").read_text() == ""


def test_a_disk_that_fills_up_is_no_reason_to_complain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asyncq.monitoring.recorder.EVENTS_AGAIN_SECONDS", 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Recorder(tmp_path) as recorder:
        recorder.record(REPORT)
        recorder.finish("stopped")
        summary = (tmp_path / "summary.json").read_text()
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
        try:
            for env_steps in range(2000, 20_000, 1000):
                recorder.record({**REPORT, "env_steps": env_steps})
                time.sleep(0.02)  # for the events' own thread
            recorder.finish("total-steps")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert recorder.env_steps == 19_000
    assert (tmp_path / "summary.json").read_text() == summary
    assert capfd.readouterr() == ("", "")


def test_a_run_that_is_where_it_went_on_from_keeps_its_files(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.record(REPORT)
        recorder.finish("target-return")
    before = [(tmp_path / name).read_text() for name in ("metrics.jsonl", "summary.json")]
    with Recorder(tmp_path, resumed_at=1000) as recorder:
        recorder.record({**REPORT, "sps": 0.0, "losses": {}})
        recorder.finish("target-return")
    assert [(tmp_path / name).read_text() for name in ("metrics.jsonl", "summary.json")] == before
    assert recorder.episodic_return == -20.5
