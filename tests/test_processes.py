"""Child processes: their environment is theirs alone, their death is seen, and they end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection

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
    assert threads == "1" and blocked >= STOP_SIGNALS
    assert "OMP_NUM_THREADS" not in os.environ
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & STOP_SIGNALS


def test_a_child_that_fails_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    process = start_child("test", {}, fail, None)
    process.join()
    assert process.exitcode == 1
    assert "ValueError: on purpose" in capfd.readouterr().err


def test_a_child_ends_with_a_parent_that_is_killed() -> None:
    script = (
        "import time\n"
        "from asyncq.processes import start_child\n"
        "if __name__ == '__main__':\n"
        "    print(start_child('test', {}, time.sleep, 100).pid, flush=True)\n"
        "    time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        time.sleep(2)  # until it watches
        parent.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def test_a_traceback_goes_into_the_pipe_that_is_given(capfd: pytest.CaptureFixture[str]) -> None:
    errors, theirs = Pipe(duplex=False)
    process = start_child("test", {}, fail, None, errors=theirs)
    process.join()
    assert process.exitcode == 1
    assert errors.recv().strip().endswith("ValueError: on purpose")
    assert capfd.readouterr().err == ""
