"""What every child process needs: an environment of its own, no signals of the terminal, and an end with its parent."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

LONGEST_TRACEBACK = 16_000
"""Characters; what fits into a pipe that nobody reads yet."""

STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
"""They reach the whole process group, but the main process decides: children begin with them blocked, and heed none."""

LEARNER_ENVIRONMENT = {
    # large tensors come from the heap and stay there, instead of being mapped and faulted in anew at every step
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 24),
    "MALLOC_ARENA_MAX": "2",
}
PLAYER_ENVIRONMENT = {**LEARNER_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
"""Of processes that play: they see no GPU and use one thread each."""


def start_child(
    name: str,
    environment: dict[str, str],
    run: Callable[..., None],
    *arguments: Any,
    errors: Connection | None = None,
) -> BaseProcess:
    """Start `run(*arguments)` in a new interpreter, never by fork: CUDA and torch's threads do not survive that.

    The traceback of an exception goes into `errors`, or else to stderr.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_child_main, args=(errors, Packed((run, arguments))), name=f"asyncq-{name}"
    )
    resource_tracker.ensure_running()  # or the first start would start it, which lifts the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        with _environment(environment):
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


@atexit.register
def _kill_children() -> None:
    """Before multiprocessing waits for them: it would send SIGTERM, which they do not heed."""
    for child in multiprocessing.active_children():
        if child.name.startswith("asyncq-"):
            child.kill()


class Packed:
    """Something that is pickled with a process and not unpickled before it is asked for.

    Unpickling imports modules, torch among them, which takes seconds; the child watches its parent meanwhile.
    """

    def __init__(self, content: Any) -> None:
        self._content = content

    def __getstate__(self) -> bytes:
        return bytes(ForkingPickler.dumps(self._content))

    def __setstate__(self, pickled: bytes) -> None:
        self._pickled = pickled

    def unpack(self) -> Any:
        return pickle.loads(self._pickled)


def _child_main(errors: Connection | None, work: Packed) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # what an environment starts inherits a block, but no handler, and has to end when it is terminated
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        run, arguments = work.unpack()
        run(*arguments)
    except Exception:
        if errors is None:
            traceback.print_exc()
        else:
            errors.send(traceback.format_exc()[-LONGEST_TRACEBACK:])
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
