"""The directory of a run: made for a new one, gone on with for one that had stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from asyncq.checks import flag
from asyncq.config import TrainConfig
from asyncq.errors import UsageError
from asyncq.storage.files import write_whole
from asyncq.storage.state_file import newest_state

GLANCE_SECONDS = 0.1
"""Within which `is_training` has given the lock back."""

LASTING = (
    "method", "env", "imports", "env_kwargs", "network", "layer_norm", "dueling", "recurrent", "frame_stack",
    "frame_size", "frame_skip", "optimizer",
)  # fmt: skip
"""Settings that the saved state depends on; all others but the preset may change when a run goes on."""


@dataclass(frozen=True)
class Run:
    """Where a run lies, and the state that it goes on from; None at its beginning."""

    directory: Path
    resume_from: Path | None = None
    resumed_at: int | None = None
    """Env steps of that state; 0 if the run stopped before it saved one."""
    lock: int | None = field(default=None, compare=False)
    """Descriptor of the lock that keeps others from training in the directory, until the process ends."""

    def is_finished(self, config: TrainConfig) -> bool:
        """Whether nothing is left to do."""
        return self.resumed_at is not None and self.resumed_at >= config.total_steps

    def again(self, say: Callable[[str], None]) -> Run:
        """The same run from its newest state that can be read, or anew if none was saved. Raises UsageError."""
        state = newest_state(self.directory, say)
        env_steps = 0 if state is None else int(state.stem)
        for pattern in ("*/.*.h5.*", ".*.h5.*", ".*.json*.*"):  # of writes that were killed
            for left in self.directory.glob(pattern):
                left.unlink()
        return dataclasses.replace(self, resume_from=state, resumed_at=env_steps)


def read_config(path: Path, what: str) -> TrainConfig:
    """The configuration in a `config.json`; `what` names it in messages. Raises UsageError if there is none."""
    try:
        values = json.loads(path.read_text())
        if values == {}:
            raise ValueError("nothing is set")
        return TrainConfig.from_json(values)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from error
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{what} is no configuration that asyncq wrote") from error


def directory_to_resume(resume: str | None, run_dir: str | None) -> Path | None:
    """The directory of the run that `--resume` asks to go on with, None for a new run. Raises UsageError."""
    if resume is None:
        return None
    if resume == "auto":
        if run_dir is None:
            raise UsageError("--resume auto needs --run-dir, to look for a run there")
        return Path(run_dir) if (Path(run_dir) / "config.json").exists() else None
    directory = Path(resume)
    if not (directory / "config.json").exists():
        raise UsageError(f"--resume {directory}: {no_run_in(directory)}")
    if run_dir is not None and Path(run_dir) != directory:
        raise UsageError(f"--resume {directory} goes on in its own directory; leave --run-dir out")
    return directory


def no_run_in(path: Path) -> str:
    """Says so, and which directory to name instead if `path` is a part of a run."""
    run = next((parent for parent in path.parents[:2] if (parent / "config.json").exists()), None)
    return "there is no run in it; " + (f"did you mean {run}?" if run else "a run's directory has a config.json")


def open_run(config: TrainConfig, say: Callable[[str], None]) -> Run:
    """The run of the settled `config`, its directory made or found, with `config.json` in it. Raises UsageError."""
    directory = directory_to_resume(config.resume, config.run_dir)
    if directory is None:
        return _new_run(config)
    lock = _lock(directory)
    before = read_config(directory / "config.json", f"{directory / 'config.json'}")
    for name in LASTING:
        if getattr(config, name) != getattr(before, name):
            value = getattr(before, name)
            raise UsageError(f"{flag(name)} cannot change when a run goes on: in {directory} it is {value}")
    run = Run(directory, lock=lock).again(say)
    if run.resume_from is None and any(directory.glob("weights/*.h5")):
        raise UsageError(
            f"{directory} has weights, but its states are gone; put them back, or choose another --run-dir"
        )
    if run.resume_from is None and config.resume != "auto":
        raise UsageError(
            f"--resume {directory}: the run stopped before its first state was saved; "
            f"to begin it anew: --run-dir {quote(str(directory))} --resume auto"
        )
    if not run.is_finished(config):
        _write_config(directory, config)
    return run


def _lock(directory: Path) -> int:
    """Descriptor of a lock that ends with the process. Raises UsageError if another one trains in `directory`."""
    try:
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror}") from error
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        time.sleep(GLANCE_SECONDS)  # it may be is_training that holds it
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(f"another asyncq trains in {directory}; stop it first, or choose another --run-dir") from error
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"{directory} cannot be locked: {error.strerror}; choose a --run-dir on another file system"
        ) from error
    return descriptor


def is_training(directory: Path) -> bool:
    """Whether an asyncq trains in `directory` now."""
    try:
        with open(directory / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _new_run(config: TrainConfig) -> Run:
    """In a directory that is new, or whose run stopped before it had anything to keep."""
    directory = Path(config.run_dir) if config.run_dir else _free_directory(config)
    if _is_taken(directory):
        resume = f", or go on with it: --resume {quote(str(directory))}"
        further = resume if (directory / "config.json").exists() else ""
        raise UsageError(f"{directory} already holds a run; choose another --run-dir{further}")
    try:
        (directory / "weights").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to --run-dir {directory}: {error.strerror}") from error
    lock = _lock(directory)
    _write_config(directory, config)
    return Run(directory, lock=lock)


def _free_directory(config: TrainConfig) -> Path:
    """A new one under runs/, named after the run. Raises UsageError."""
    name = f"{config.env.replace('/', '-')}__{config.method}__{config.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while True:
        directory = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:  # others may begin in the same second
            number += 1
        except OSError as error:
            raise UsageError(f"cannot write to --run-dir {directory}: {error.strerror}") from error
        else:
            return directory


def _is_taken(directory: Path) -> bool:
    """Whether there is a run with results in `directory`, or somebody else's `config.json`."""
    path, metrics = directory / "config.json", directory / "metrics.jsonl"
    if any(any(directory.glob(kept)) for kept in ("best.h5", "latest.h5", "weights/*.h5", "state/*.h5")):
        return True
    if not path.exists():
        return False
    if metrics.exists() and metrics.stat().st_size > 0:
        return True
    try:
        read_config(path, f"{path}")
    except UsageError:
        return True
    return False


def _write_config(directory: Path, config: TrainConfig) -> None:
    saved = json.dumps(config.without_place().to_json(), indent=2)
    try:
        write_whole(directory / "config.json", (saved + "\n").encode())
    except OSError as error:
        raise UsageError(f"cannot write to --run-dir {directory}: {error.strerror}") from error
