"""Recorder: writes `metrics.jsonl`, TensorBoard events, `log.txt` and `summary.json` into the run directory."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from asyncq.errors import UsageError
from asyncq.storage.files import write_whole

TAGS = {
    "episodic_return": "charts/episodic_return",
    "episodic_length": "charts/episodic_length",
    "sps": "charts/SPS",
    "learning_rate": "charts/learning_rate",
    "epsilon": "charts/epsilon",
    "updates": "charts/updates",
    "skipped_updates": "charts/skipped_updates",
    "episodes": "charts/episodes",
    "queue_fill": "queue/fill",
}


EVENTS_AGAIN_SECONDS = 30.0
"""Between two tries to write TensorBoard events to a full disk."""


class Recorder:
    """Every report of a run goes through here, once. What a full disk does not take is lost; training goes on."""

    def __init__(self, run_dir: Path, resumed_at: int | None = None) -> None:
        """`resumed_at`: the env steps of the state that a resumed run goes on from."""
        self._run_dir = run_dir
        self._resumed_at = resumed_at
        self._last: dict[str, Any] = {}

    def __enter__(self) -> Recorder:
        """Raises UsageError if the directory's files cannot be read or written."""
        threading.excepthook = _say_unless_disk
        try:
            if self._resumed_at is not None:
                forget_after(self._run_dir / "metrics.jsonl", self._resumed_at)
            self._metrics = open(self._run_dir / "metrics.jsonl", "a", buffering=1)
            self._log = open(self._run_dir / "log.txt", "a", buffering=1, encoding="utf-8", errors="backslashreplace")
            self._open_events()
        except OSError as error:
            raise UsageError(f"cannot write to {self._run_dir}: {error.strerror}") from error
        if self._resumed_at is not None:  # TensorBoard then drops what older files have from this step on
            session = SessionLog(status=SessionLog.START)
            self._events.add_event(Event(step=self._resumed_at + 1, wall_time=time.time(), session_log=session))
        return self

    def _open_events(self) -> None:
        self._events_from = time.monotonic() + EVENTS_AGAIN_SECONDS
        self._events = EventFileWriter(str(self._run_dir))

    def __exit__(self, *error: object) -> None:
        for file in (self._metrics, self._log, self._events):
            with contextlib.suppress(OSError):
                file.close()
        threading.excepthook = threading.__excepthook__

    @property
    def env_steps(self) -> int:
        """Env steps learned from, at the last report."""
        return int(self._last.get("env_steps", self._resumed_at or 0))

    @property
    def episodic_return(self) -> float | None:
        """Mean raw return of the last episodes, at the last report."""
        score: float | None = self._last.get("episodic_return")
        return score

    def log(self, line: str) -> None:
        """Add a dated line to `log.txt`."""
        with contextlib.suppress(OSError):
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def record(self, report: dict[str, Any]) -> None:
        """Write one report everywhere, but not again where the run went on from: there it only says the return."""
        self._last = report = finite(report)
        if self.env_steps == self._resumed_at:
            return
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in tagged(report)]
        event = Event(step=report["env_steps"], wall_time=time.time(), summary=Summary(value=values))
        with contextlib.suppress(OSError):
            self._metrics.write(json.dumps(report) + "\n")
        with contextlib.suppress(OSError):
            self._add_event(event)

    def _add_event(self, event: Event) -> None:
        """A writer that has failed once stays failed; another takes its place, now and then."""
        try:
            self._events.add_event(event)
        except OSError:
            if time.monotonic() >= self._events_from:
                self._open_events()

    def finish(self, outcome: str) -> None:
        """Write `summary.json`: the last report and why the run ended."""
        self.log(outcome)
        if self.env_steps == self._resumed_at:
            return  # it ended before it went on: the summary stays that of before
        summary = {"outcome": outcome, **self._last}
        if self._last.get("seconds"):
            summary["sps"] = round(self._last["env_steps"] / self._last["seconds"], 1)
        with contextlib.suppress(OSError):
            write_whole(self._run_dir / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())


def _say_unless_disk(failed: threading.ExceptHookArgs) -> None:
    """Of a full disk the events' own thread dies, too; `_add_event` then meets the same error."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


def forget_after(metrics: Path, env_steps: int) -> None:
    """Take out the reports of what was lost when a run ended without saving: those beyond `env_steps`."""
    if metrics.exists():
        kept = [line for line in metrics.read_text(errors="replace").splitlines() if _env_steps_of(line) <= env_steps]
        write_whole(metrics, "".join(f"{line}\n" for line in kept).encode())


def _env_steps_of(line: str) -> float:
    try:
        return float(json.loads(line)["env_steps"])
    except (ValueError, KeyError, TypeError):  # half a line: the run was killed while it wrote
        return math.inf


def finite(value: Any) -> Any:
    """`value` with None for every number that JSON has no word for: NaN and the infinities."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tagged(report: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a report under the tags that TensorBoard shows them by."""
    for name, tag in TAGS.items():
        if report.get(name) is not None:
            yield tag, report[name]
    for group in ("losses", "lag", "waits"):
        for name, value in (report[group] or {}).items():
            if value is not None:
                yield f"{group}/{name}", value
