"""A run: makes the queue and the boards, gives them to the supervisor, and follows the learner until the end."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import Any

from asyncq.checks import check_settled
from asyncq.config import TrainConfig
from asyncq.devices import choose_device, has_fast_bf16
from asyncq.doctor import refuse_hopeless, refuse_too_large
from asyncq.envs import EnvironmentSpec, describe, read_kwargs
from asyncq.errors import UsageError
from asyncq.experience import ExperienceQueue, FragmentLayout
from asyncq.learner import LearnerTask
from asyncq.machine import usable_cores
from asyncq.methods import network_for
from asyncq.monitoring.display import Display, make_display, speed_settings
from asyncq.monitoring.recorder import Recorder
from asyncq.processes import STOP_SIGNALS
from asyncq.runs import Run, directory_to_resume, open_run
from asyncq.status import StatusBoard
from asyncq.supervisor import LearnerDied, RunFailed, Supervisor
from asyncq.weights import WeightBoard
from asyncq.worker import WorkerTask

REACHED = ("total-steps", "target-return")
"""Reasons of the learner's after which there is nothing to go on with."""
STOP_SECONDS = 7.0
"""How long the learner has to end in order once a stop was asked for, and then how long everyone else has."""


def train(config: TrainConfig) -> int:
    """Train as `config` says; returns the exit status: 0, 1 after a failure, or 128 + the signal that stopped it."""
    config, spec = settle(config)
    device = choose_device(config.device)
    assert config.processes
    refuse_hopeless(
        directory_to_resume(config.resume, config.run_dir) or Path(config.run_dir or "runs"), config.processes
    )
    shared = Shared.make(config, spec)
    news: list[str] = []
    run = open_run(config, news.append)
    if run.is_finished(config):
        print(f"asyncq: {run.directory} has {run.resumed_at:,} env steps already; for more: --total-steps")
        return 0
    with Signals() as signals:
        for restarts in range(config.max_learner_restarts + 1):
            outcome = attempt(config, spec, shared, device, run, news, signals)
            if not outcome.learner_died or signals.received or restarts == config.max_learner_restarts:
                break
            news = [f"{outcome}; it starts again ({restarts + 1}/{config.max_learner_restarts})"]
            run = run.again(news.append)
            shared = Shared.make(config, spec)
        return conclude(outcome, run.directory, signals)


@dataclass(frozen=True)
class Outcome:
    """Why a training ended, and how far it had come: its env steps and the mean return of its last episodes, if known.

    `failure` is None where it ended in order.
    """

    reason: str
    env_steps: int
    episodic_return: float | None = None
    failure: RunFailed | None = None

    def __str__(self) -> str:
        return f"failed: {self.reason}" if self.failure else self.reason

    @property
    def learner_died(self) -> bool:
        """Whether another learner could go on."""
        return isinstance(self.failure, LearnerDied)


def attempt(
    config: TrainConfig,
    spec: EnvironmentSpec,
    shared: Shared,
    device: str,
    run: Run,
    news: Sequence[str],
    signals: Signals,
) -> Outcome:
    """Train until something ends it. `news` is told to the user first."""
    reports, reports_out = multiprocessing.get_context("spawn").Pipe(duplex=False)
    learner, workers = tasks(config, spec, shared, device, run, reports_out)
    failure = None
    with (
        Recorder(run.directory, run.resumed_at) as recorder,
        make_display(config, shared.status, run.directory, device) as display,
    ):
        recorder.log(f"{config.method} on {config.env}, learner on {device}, {speed_settings(config)}")

        def say(line: str) -> None:
            recorder.log(line)
            display.say(line)

        signals.request_stop = shared.status.request_stop
        for line in news:
            say(line)
        if run.resumed_at:
            say(f"goes on from {run.resumed_at:,} env steps")
        supervisor = Supervisor(learner, workers, say, recorder.log)
        reports_out.close()
        try:
            reason = follow(supervisor, reports, recorder, display, signals)
        except RunFailed as error:
            reason = str(error)
            failure = type(error)(reason)  # a new one: the frames of that one keep what the processes shared
        finally:
            supervisor.stop(STOP_SECONDS, hurry=lambda: signals.received >= 2)
        outcome = Outcome(reason, recorder.env_steps, recorder.episodic_return, failure)
        recorder.finish(str(outcome))
    return outcome


def settle(config: TrainConfig) -> tuple[TrainConfig, EnvironmentSpec]:
    """Fill in what environment, method and machine decide. Raises UsageError if they cannot work together."""
    spec = describe(config.env, config.imports, config.frame_stack, config.frame_skip, read_kwargs(config.env_kwargs))
    config = config.resolved(spec.kind, spec.frame_skip)
    if config.precision is None:
        fast = spec.kind == "image" and has_fast_bf16(choose_device(config.device))
        config = dataclasses.replace(config, precision="bf16" if fast else "float32")
    check_settled(config)
    assert config.frame_stack
    return config, dataclasses.replace(spec.resized(config.frame_size), frame_stack=config.frame_stack)


def refuse_other_kind(config: TrainConfig, base: TrainConfig) -> None:
    """Raises UsageError if `config` is that of the run `base`, but for observations of another kind."""
    if config.env == base.env:
        return
    before, wanted = (describe(each.env, each.imports, kwargs=read_kwargs(each.env_kwargs)) for each in (base, config))
    if before.kind != wanted.kind:
        why = f"has what was chosen for the {before.kind}s of {base.env}"
        raise UsageError(f"--config {why}; for {config.env}, which gives {wanted.kind}s, start without --config")


@dataclass(frozen=True)
class Shared:
    """What the processes of a run share."""

    queue: ExperienceQueue
    board: WeightBoard
    status: StatusBoard

    @classmethod
    def make(cls, config: TrainConfig, spec: EnvironmentSpec) -> Shared:
        """Raises UsageError if the network cannot take the environment's observations."""
        assert config.n_step and config.envs_per_process and config.processes
        network = network_for(config, spec)
        layout = FragmentLayout(
            steps=config.n_step,
            envs=config.envs_per_process,
            frame_shape=spec.frame_shape,
            frame_dtype=spec.frame_dtype,
            frame_stack=spec.frame_stack,
            memory_size=network.memory_size,
            sequences=config.n_step // (config.sequence_length or config.n_step),
        )
        refuse_too_large(config.processes * config.queue_size * layout.slot_size())
        queue = ExperienceQueue(layout, config.processes, config.queue_size)
        return cls(queue, WeightBoard(sum(p.numel() for p in network.parameters())), StatusBoard(config.processes))


def tasks(
    config: TrainConfig, spec: EnvironmentSpec, shared: Shared, device: str, run: Run, reports: Connection
) -> tuple[LearnerTask, list[WorkerTask]]:
    """What the learner and each worker are given."""
    assert config.processes
    queue, board, status = shared.queue, shared.board, shared.status
    threads = max(1, usable_cores() - config.processes)
    learner = LearnerTask(config, spec, queue, board, status, reports, run.directory, device, threads, run.resume_from)
    start = run.resumed_at or 0
    return learner, [
        WorkerTask(index, config, spec, lane, board, status, start=start) for index, lane in enumerate(queue.lanes)
    ]


def follow(supervisor: Supervisor, reports: Connection, recorder: Recorder, display: Display, signals: Signals) -> str:
    """Pass the learner's reports on until it has finished; returns why it did. Raises RunFailed."""
    deadline = float("inf")
    started = False
    while True:
        if signals.received >= 2:
            return "stopped at once"
        if time.monotonic() > deadline:
            supervisor.learner.kill()
            return "stopped, but the learner did not answer"
        if signals.received and deadline == float("inf"):
            deadline = time.monotonic() + STOP_SECONDS
            display.say("stopping in order; once more stops at once")
            supervisor.request_stop()
        if signals.received and not started:
            return "stopped before it began"
        try:
            if reports.poll(0.1):
                report = reports.recv()
                if "finished" in report:
                    if not report["saved"]:
                        raise RunFailed(f"{report['finished']}, but its end could not be saved")
                    return str(report["finished"])
                if "started" in report:
                    started = True
                    continue
                if "warning" in report:
                    recorder.log(report["warning"])
                    display.say(report["warning"])
                    continue
                recorder.record(report)
                display.report(report)
        except EOFError:
            supervisor.learner.join(STOP_SECONDS)
            supervisor.watch()
            raise LearnerDied("the learner ended without a word") from None
        display.refresh()
        supervisor.watch()


def conclude(outcome: Outcome, run_dir: Path, signals: Signals) -> int:
    """Say where everything is; returns the exit status."""
    failed, reached = outcome.failure is not None, outcome.reason in REACHED
    has_weights = (run_dir / "best.h5").exists()
    if has_weights or not failed:
        end = "failed" if failed else f"--{outcome} reached" if reached else str(outcome)
        after = f" after {outcome.env_steps:,} env steps" if outcome.env_steps else ""
        score = "" if outcome.episodic_return is None else f", return {outcome.episodic_return:.1f}"
        kept = "no weights were saved yet" if outcome.env_steps else "nothing was learned yet"
        if has_weights:
            kept = f"best weights in {run_dir / 'best.h5'}"
        print(f"asyncq: {end}{after}{score}; {kept}")
    if not reached:
        has_state = any((run_dir / "state").glob("*.h5"))
        flags = f"--resume {quote(str(run_dir))}" if has_state else f"--run-dir {quote(str(run_dir))} --resume auto"
        print(f"asyncq: to go on: asyncq train {flags}")
    if failed:
        print(f"asyncq: {outcome}; see {run_dir / 'log.txt'}", file=sys.stderr)
    return 128 + signals.last if signals.received else int(failed)


SAME_REQUEST_SECONDS = 0.3
"""Whoever signals a process and then its group means one stop, not two."""


class Signals:
    """Counts SIGINT, SIGTERM and SIGHUP instead of dying of them, while it is entered.

    Each requests a stop at once, as this process may hang in a line that nobody reads: behind a pager, say.
    SIGHUP, the terminal's end, only ever counts as the first, and not at all where it was ignored, as under nohup.
    """

    def __init__(self) -> None:
        self.received = 0
        self.last = 0
        self.request_stop: Callable[[], None] = lambda: None
        self._when = float("-inf")

    def __enter__(self) -> Signals:
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {
            number: signal.signal(number, self._count)
            for number in STOP_SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def _count(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGHUP:
            self.received = max(self.received, 1)
            self._when = now
        elif now - self._when > SAME_REQUEST_SECONDS:
            self.received += 1
            self._when = now
        self.last = number
        self.request_stop()

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
