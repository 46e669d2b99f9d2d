"""Child processes: their environment is theirs alone, their death is seen, and they end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from asyncq.processes import PLAYER_ENVIRONMENT, STOP_SIGNALS, start_child


def tell(pipe: Connection) -> None:
    pipe.send((os.environ.get("OMP_NUM_THREADS"), signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def fail(_: object) -> None:
    raise ValueError("on purpose")


def test_a_child_has_its_environment_and_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ours, theirs = Pipe()
    process = start_child("test", PLAYER_ENVIRONMENT, tell, theirs)
    threads, blocked = ours.recv()
    process.join()
    assert threads == "1" and blocked >= STOP_SIGNALS - {signal.SIGTERM}
    assert "OMP_NUM_THREADS" not in os.environ
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & STOP_SIGNALS


def lives(pid: int) -> bool:
    """Where nobody waits for an orphan, it stays a zombie."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def start_and_terminate_another(pipe: Connection) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    other = subprocess.Popen(["sleep", "100"])
    other.terminate()
    pipe.send(other.wait(10))


def test_a_child_heeds_no_sigterm_but_what_it_starts_does() -> None:
    """An environment may start a simulator, and wait in its `close` for that to end."""
    ours, theirs = Pipe()
    process = start_child("test", {}, start_and_terminate_another, theirs)
    theirs.close()
    assert ours.recv() == -signal.SIGTERM
    process.join()
    assert process.exitcode == 0


def start_one_of_ones_own() -> None:
    other = multiprocessing.get_context("spawn").Process(target=int)
    other.start()
    other.join()
    sys.exit(other.exitcode)


def test_a_child_may_have_children() -> None:
    """An environment may play in processes of its own."""
    process = start_child("test", {}, start_one_of_ones_own)
    process.join()
    assert process.exitcode == 0


def test_a_child_that_fails_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    process = start_child("test", {}, fail, None)
    process.join()
    assert process.exitcode == 1
    assert "ValueError: on purpose" in capfd.readouterr().err


def test_a_child_ends_with_a_killed_parent_also_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, time\nif 'SLOW' in os.environ:\n    time.sleep(100)\ndef run():\n    pass\n"
    )
    script = (
        "import time\n"
        "import slow\n"
        "from asyncq.processes import start_child\n"
        "print(start_child('test', {'SLOW': '1'}, slow.run).pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        time.sleep(2)  # until it watches
        assert lives(child)
        parent.kill()
    deadline = time.monotonic() + 5
    while lives(child):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)


def test_a_traceback_goes_into_the_pipe_that_is_given(capfd: pytest.CaptureFixture[str]) -> None:
    errors, theirs = Pipe(duplex=False)
    process = start_child("test", {}, fail, None, errors=theirs)
    process.join()
    assert process.exitcode == 1
    assert errors.recv().strip().endswith("ValueError: on purpose")
    assert capfd.readouterr().err == ""
