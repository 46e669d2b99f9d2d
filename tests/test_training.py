"""Whole runs, with real processes: they learn, they stop when told, and nothing stays behind."""

import itertools
import json
import multiprocessing
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import Mock

import h5py
import numpy as np
import psutil
import pytest

from asyncq.config import TrainConfig
from asyncq.methods import network_for
from asyncq.networks import QNetwork
from asyncq.storage.state_file import load_state
from asyncq.storage.weights_file import load_weights
from asyncq.supervisor import RunFailed
from asyncq.training import SAME_REQUEST_SECONDS, Outcome, Shared, Signals, conclude, follow, settle
from asyncq.trunks import ImageNorm
from tiny_envs import BRIGHT, FAILING, RECALL

Start: TypeAlias = Callable[..., "subprocess.Popen[str]"]


def asyncq(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asyncq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `asyncq` as the leader of a process group, of which the test leaves nothing even if it fails."""
    groups = []

    def start(*arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "asyncq", *map(str, arguments)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        groups.append(process.pid)
        return process

    yield start
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def wait_for_first_report(run_dir: Path) -> None:
    deadline = time.monotonic() + 120
    while not (run_dir / "metrics.jsonl").exists() or not metrics(run_dir):
        assert time.monotonic() < deadline, "no report came"
        time.sleep(0.1)


def members_of_group(group: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def assert_nothing_left(group: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while members_of_group(group):
        assert time.monotonic() < deadline, f"still there: {members_of_group(group)}"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("method", "target"), [("a3c", 450), ("n-step-q", 200), ("one-step-q", 200), ("one-step-sarsa", 100)]
)
def test_method_learns_cartpole(method: str, target: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    limits = ["--total-steps", 500_000, "--target-return", target]
    done = asyncq(
        "train",
        "--method",
        method,
        "--env",
        "CartPole-v1",
        "--processes",
        2,
        "--seed",
        3,
        "--run-dir",
        run_dir,
        *limits,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["outcome"] == "target-return", summary
    assert summary["episodic_return"] >= target
    evaluated = asyncq("evaluate", run_dir / "best.h5", "--episodes", 20, "--json")
    result = json.loads(evaluated.stdout)
    assert result["mean"] >= 100
    assert result["episodes"] == len(result["returns"]) == 20


@pytest.mark.parametrize("method", ["a3c", "n-step-q"])
def test_an_lstm_learns_what_has_to_be_remembered(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees only the newest observation gets 0.5."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    settings = ["--method", method, "--env", RECALL, "--import", "tiny_envs", "--processes", 1, "--run-dir", tmp_path]
    settings += ["--recurrent", "--target-return", 0.95, "--total-steps", 200_000, "--report-interval", 1]
    done = asyncq("train", *settings)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["outcome"] == "target-return"


@pytest.mark.parametrize("method", ["a3c", "n-step-q"])
def test_what_a_picture_shows_is_learned(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not look gets 4."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    settings = ["--method", method, "--env", BRIGHT, "--import", "tiny_envs", "--processes", 1, "--run-dir", tmp_path]
    done = asyncq("train", *settings, "--network", "small", "--target-return", 7, "--total-steps", 50_000)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["outcome"] == "target-return"


@pytest.mark.parametrize("settings", [{}, {"recurrent": True}, {"env": "CartPole-v1", "recurrent": True}])
def test_the_settled_configuration_describes_what_is_played_and_settles_as_itself(settings: dict[str, Any]) -> None:
    config, spec = settle(TrainConfig(**settings))
    assert spec.frame_stack == config.frame_stack == (1 if settings else 4)
    assert settle(TrainConfig.from_json(config.to_json())) == (config, spec)


def test_run_directory_holds_everything(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    flags = ["--total-steps", 20_000, "--save-interval", 8_000, "--report-interval", 0.5]
    done = asyncq("train", "--env", "CartPole-v1", "--processes", 2, "--run-dir", run_dir, *flags)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in run_dir.iterdir()}
    assert {"config.json", "metrics.jsonl", "log.txt", "summary.json", "weights"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {"latest.h5", "best.h5"} <= names
    saved = sorted(int(path.stem) for path in (run_dir / "weights").iterdir())
    assert len(saved) == 3, saved
    assert saved[0] >= 8_000
    report = metrics(run_dir)[-1]
    expected = {"env_steps", "seconds", "sps", "updates", "episodes", "episodic_return", "lag", "queue_fill", "losses"}
    assert expected <= set(report)
    assert report["env_steps"] >= 20_000
    assert load_weights(run_dir / "latest.h5").facts["env_steps"] == report["env_steps"]


def test_configuration_can_be_repeated(tmp_path: Path) -> None:
    config, _ = settle(TrainConfig(env="CartPole-v1", processes=1, total_steps=2_000, learning_rate=0.002))
    (tmp_path / "earlier.json").write_text(json.dumps(config.to_json()))
    repeated = asyncq("train", "--config", tmp_path / "earlier.json", "--run-dir", tmp_path / "run")
    assert repeated.returncode == 0, repeated.stderr
    assert TrainConfig.from_json(json.loads((tmp_path / "run" / "config.json").read_text())) == config


@pytest.mark.usefixtures("_signals_are_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_in_order(number: signal.Signals, tmp_path: Path, start: Start) -> None:
    run_dir = tmp_path / "run"
    process = start("train", "--env", "CartPole-v1", "--processes", 2, "--run-dir", run_dir, "--report-interval", 0.01)
    wait_for_first_report(run_dir)
    asked = time.monotonic()
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10
    assert process.returncode == 128 + number
    assert str(run_dir / "best.h5") in output
    with h5py.File(run_dir / "latest.h5") as file:
        assert file["parameters"]
    assert_nothing_left(process.pid, seconds=2)


def test_vectors_are_learned_from_in_float32_wherever_bf16_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast, on_images in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr("asyncq.training.has_fast_bf16", lambda device, fast=fast: fast)
        assert settle(TrainConfig(env="CartPole-v1"))[0].precision == "float32"
        assert settle(TrainConfig(env="ALE/Pong-v5"))[0].precision == on_images


def test_interrupt_before_anyone_plays_stops_in_order(tmp_path: Path, start: Start) -> None:
    run_dir = tmp_path / "run"
    process = start("train", "--env", "CartPole-v1", "--processes", 2, "--run-dir", run_dir)
    while not any(is_ours(pid) for pid in members_of_group(process.pid)):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert json.loads((run_dir / "summary.json").read_text())["outcome"].startswith("stopped")
    assert_nothing_left(process.pid, seconds=2)


def test_second_interrupt_stops_at_once(tmp_path: Path, start: Start) -> None:
    run_dir = tmp_path / "run"
    process = start("train", "--env", "CartPole-v1", "--processes", 2, "--run-dir", run_dir, "--report-interval", 0.5)
    wait_for_first_report(run_dir)
    for pid in filter(is_ours, members_of_group(process.pid)):
        os.kill(pid, signal.SIGSTOP)  # nobody can stop in order
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads((run_dir / "summary.json").read_text())["outcome"] == "stopped at once"
    assert_nothing_left(process.pid, seconds=2)


def test_killed_worker_is_replaced(tmp_path: Path, start: Start) -> None:
    run_dir = tmp_path / "run"
    flags = ["--processes", 2, "--total-steps", 60_000, "--report-interval", 0.5]
    process = start("train", "--env", "CartPole-v1", "--run-dir", run_dir, *flags)
    wait_for_first_report(run_dir)
    workers = [pid for pid in members_of_group(process.pid) if is_worker(pid)]
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "is replaced" in errors
    assert json.loads((run_dir / "summary.json").read_text())["env_steps"] >= 60_000


def test_a_stopped_worker_counts_as_hanging_and_is_replaced(tmp_path: Path, start: Start) -> None:
    run_dir = tmp_path / "run"
    flags = ["--processes", 2, "--report-interval", 0.5, "--worker-timeout", 10]
    process = start("train", "--env", "CartPole-v1", "--run-dir", run_dir, *flags)
    wait_for_first_report(run_dir)
    workers = [pid for pid in members_of_group(process.pid) if is_worker(pid)]
    os.kill(workers[0], signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while "did nothing for 10 s (--worker-timeout); it is replaced (1/100)" not in (run_dir / "log.txt").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while len(set(filter(is_worker, members_of_group(process.pid))) - {workers[0]}) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert workers[0] not in members_of_group(process.pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert_nothing_left(process.pid, seconds=2)


def test_a_worker_that_keeps_failing_ends_the_run_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    run_dir = tmp_path / "run"
    flags = ["--env", FAILING, "--import", "tiny_envs", "--processes", 1, "--max-restarts", 1, "--run-dir", run_dir]
    done = asyncq("train", *flags)
    assert done.returncode == 1
    assert "ValueError: the cable is loose; it is replaced (1/1)" in done.stderr
    assert "ValueError: the cable is loose, and --max-restarts 1 is used up" in done.stderr
    assert "Traceback" not in done.stderr
    assert (run_dir / "log.txt").read_text().count("Traceback (most recent call last)") == 2


def test_a_deterministic_run_replaces_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    flags = ["--env", FAILING, "--import", "tiny_envs", "--deterministic", "--run-dir", tmp_path / "run"]
    done = asyncq("train", *flags)
    assert done.returncode == 1
    assert "the cable is loose; with --deterministic it is not replaced" in done.stderr


@pytest.mark.parametrize(
    ("settings", "holds", "advice"),
    [
        (["--processes", 2], 64, "give --queue-size 2"),
        (["--deterministic"], 32, "give a longer --n-step or more --envs-per-process"),
    ],
)
def test_a_batch_that_the_queue_cannot_hold_is_refused(
    settings: list[Any], holds: int, advice: str, tmp_path: Path
) -> None:
    flags = ["--env", "CartPole-v1", "--n-step", 8, "--envs-per-process", 4, "--batch-size", 100, *settings]
    done = asyncq("train", *flags, "--run-dir", tmp_path / "run")
    assert done.returncode == 2
    assert f"--batch-size 100 is more than the {holds} env steps that the queue holds" in done.stderr
    assert advice in done.stderr


def test_a_run_killed_at_any_moment_goes_on_from_its_last_state(tmp_path: Path, start: Start) -> None:
    run_dir = tmp_path / "run"
    flags = ["--env", "CartPole-v1", "--processes", 2, "--save-interval", 2_000, "--report-interval", 0.2]
    flags += ["--run-dir", run_dir, "--resume", "auto"]
    reached = 0
    for moment in (0.31, 0.83):
        process = start("train", *flags)
        deadline = time.monotonic() + 120
        while env_steps_of_state(run_dir) <= reached and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
        assert env_steps_of_state(run_dir) > reached
        reached = env_steps_of_state(run_dir)
    done = asyncq("train", *flags, "--total-steps", reached + 5_000)
    assert done.returncode == 0, done.stderr
    reports = metrics(run_dir)
    for before, after in itertools.pairwise(reports):
        assert after["env_steps"] >= before["env_steps"]
        assert after["seconds"] > before["seconds"]
    assert reports[-1]["env_steps"] >= reached + 5_000
    assert f"goes on from {reached:,} env steps" in (run_dir / "log.txt").read_text()


def test_a_dead_learner_starts_again_from_its_last_state(tmp_path: Path, start: Start) -> None:
    run_dir = tmp_path / "run"
    flags = ["--env", "CartPole-v1", "--processes", 2, "--save-interval", 2_000, "--total-steps", 40_000]
    process = start("train", *flags, "--run-dir", run_dir, "--report-interval", 0.2, "--max-learner-restarts", 1)
    while env_steps_of_state(run_dir) == 0 and process.poll() is None:
        time.sleep(0.05)
    (learner,) = (pid for pid in members_of_group(process.pid) if is_ours(pid) and not is_worker(pid))
    os.kill(learner, signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "failed: the learner ended with exit code -9; it starts again (1/1)" in (run_dir / "log.txt").read_text()
    steps = [report["env_steps"] for report in metrics(run_dir)]
    assert steps == sorted(steps)
    assert steps[-1] == 40_000
    assert_nothing_left(process.pid, seconds=5)


def test_a_deterministic_run_ends_with_the_same_weights_when_it_was_stopped(tmp_path: Path, start: Start) -> None:
    flags = ["--method", "one-step-q", "--recurrent", "--env", "CartPole-v1", "--deterministic", "--total-steps", 9_000]
    flags += ["--save-interval", 3_000, "--report-interval", 0.1]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert asyncq("train", *flags, "--run-dir", whole).returncode == 0
    process = start("train", *flags, "--run-dir", stopped)
    while env_steps_of_state(stopped) == 0 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert env_steps_of_state(stopped) < 9_000
    assert asyncq("train", "--resume", stopped).returncode == 0
    assert env_steps_of_state(whole) == env_steps_of_state(stopped) == 9_000
    ends = [load_state(run / "state" / "9000.h5") for run in (whole, stopped)]
    assert ends[0].arrays.keys() == ends[1].arrays.keys()
    for name, array in ends[0].arrays.items():
        assert np.array_equal(array, ends[1].arrays[name]), name
    assert metrics(whole)[-1]["updates"] == metrics(stopped)[-1]["updates"]


def env_steps_of_state(run_dir: Path) -> int:
    """Of the newest state of a run; 0 if there is none."""
    return max((int(path.stem) for path in (run_dir / "state").glob("[0-9]*.h5")), default=0)


def test_children_end_with_a_killed_parent(tmp_path: Path, start: Start) -> None:
    run_dir = tmp_path / "run"
    process = start("train", "--env", "CartPole-v1", "--processes", 2, "--run-dir", run_dir, "--report-interval", 0.5)
    wait_for_first_report(run_dir)
    process.kill()
    process.communicate(timeout=10)
    assert_nothing_left(process.pid, seconds=5)


def is_ours(pid: int) -> bool:
    """A learner or worker; the group also holds the main process and Python's resource tracker."""
    return "spawn_main" in " ".join(psutil.Process(pid).cmdline())


def is_worker(pid: int) -> bool:
    environment: dict[str, str] = psutil.Process(pid).environ()
    return environment.get("CUDA_VISIBLE_DEVICES") == "" and environment.get("OMP_NUM_THREADS") == "1"


@pytest.mark.usefixtures("_signals_are_heard")
def test_signals_are_counted_and_handlers_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)  # the same request, once more to the whole group
        time.sleep(0.01)
        assert (signals.received, signals.last) == (1, signal.SIGINT)
        time.sleep(SAME_REQUEST_SECONDS / 2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(SAME_REQUEST_SECONDS / 2)
        os.kill(os.getpid(), signal.SIGINT)  # another, as long as that after the first
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGHUP)  # the terminal is gone: no reason to stop at once
        time.sleep(0.01)
        assert (signals.received, signals.last) == (2, signal.SIGHUP)
    assert signal.getsignal(signal.SIGINT) is before


def fill_pipe(end: int) -> None:
    another = os.open(f"/proc/self/fd/{end}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(another, bytes(select.PIPE_BUF))
    os.close(another)


@pytest.mark.usefixtures("_signals_are_heard")
def test_a_signal_requests_a_stop_also_while_nobody_reads_what_is_printed(tmp_path: Path) -> None:
    unread, stdout = os.pipe()
    run_dir = tmp_path / "run"
    flags = ["--env", "CartPole-v1", "--run-dir", str(run_dir), "--report-interval", "0.2"]
    with subprocess.Popen([sys.executable, "-m", "asyncq", "train", *flags], stdout=stdout) as process:
        try:
            wait_for_first_report(run_dir)
            fill_pipe(stdout)
            os.close(stdout)
            reports = 0
            while (now := len(metrics(run_dir))) > reports:  # until it hangs
                reports = now
                time.sleep(2)
            process.terminate()
            deadline = time.monotonic() + 20
            while not (run_dir / "latest.h5").exists():
                assert time.monotonic() < deadline, "nothing was saved"
                time.sleep(0.1)
        finally:
            os.close(unread)


def test_a_terminal_that_goes_ends_nothing_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            assert signals.received == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_settings_reach_the_frames_the_fragments_and_the_network() -> None:
    wanted = TrainConfig(method="n-step-q", network="small", recurrent=True, dueling=True, n_step=32, processes=2)
    config, spec = settle(wanted)
    assert spec.frame_shape == (42, 42)
    assert Shared.make(config, spec).queue.lanes[0].layout.sequences == 2
    network = network_for(config, spec)
    assert isinstance(network, QNetwork)
    assert network.state_value is not None
    assert any(isinstance(module, ImageNorm) for module in network.modules())


@pytest.mark.parametrize(("received", "status"), [([], 1), ([signal.SIGINT], 130)])
def test_the_reason_of_a_failure_is_said_also_after_a_signal(
    received: list[int], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signals = Signals()
    for number in received:
        signals._count(number, None)
    outcome = Outcome("the disk is gone", 9, failure=RunFailed())
    assert conclude(outcome, tmp_path, signals) == status
    said = capsys.readouterr()
    assert "asyncq: failed: the disk is gone; see " in said.err
    assert said.out == f"asyncq: to go on: asyncq train --run-dir {tmp_path} --resume auto\n"


def test_what_to_go_on_with_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conclude(Outcome("stopped", 0), tmp_path / "my runs", Signals())
    *_, command = capsys.readouterr().out.splitlines()
    assert shlex.split(command)[-4:] == ["--run-dir", str(tmp_path / "my runs"), "--resume", "auto"]


def test_the_end_tells_the_return_and_where_the_weights_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "best.h5").touch()
    assert conclude(Outcome("target-return", 78_297, 491.58), tmp_path, Signals()) == 0
    end = f"asyncq: --target-return reached after 78,297 env steps, return 491.6; best weights in {tmp_path}/best.h5\n"
    assert capsys.readouterr().out == end


def test_an_end_that_could_not_be_saved_is_a_failure() -> None:
    reports, learner = multiprocessing.Pipe(duplex=False)
    learner.send({"finished": "total-steps", "saved": False})
    with pytest.raises(RunFailed, match="total-steps, but its end could not be saved"):
        follow(Mock(), reports, Mock(), Mock(), Signals())
