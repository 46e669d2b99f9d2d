"""Doctor: what will hurt a training before it hurts, each with the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from asyncq.devices import choose_device, has_fast_bf16
from asyncq.envs import describe
from asyncq.errors import UsageError, install
from asyncq.flags import AutoInt
from asyncq.machine import usable_cores, usable_memory
from asyncq.shared import SharedBuffer

LITTLE_SPACE, TOO_LITTLE_SPACE = 2e9, 1e8
"""Bytes free for run directories: below the first a warning, below the second an error."""
TRAINING_BYTES, WORKER_BYTES = 0.5e9, 0.15e9
"""The least memory that a training without its workers takes, and that each of them does; most of it is torch's."""
IMAGES_TAKE = 1.4
"""Times as much, with the default settings."""


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    level: Level
    what: str
    text: str


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Look for what will hurt a training on this machine. Exit status 1 if anything would keep it from running."""

    run_dir: str = "runs"
    """Where runs are to be written."""
    processes: AutoInt = None
    """Worker processes of the training (default: one a core)."""

    def __post_init__(self) -> None:
        if self.processes is not None and self.processes < 1:
            raise UsageError(f"--processes is {self.processes}; it must be at least 1")


def doctor(config: DoctorConfig) -> int:
    """Print a line for each finding; returns the exit status."""
    findings = list(examine(Path(config.run_dir), config.processes or usable_cores()))
    for finding in findings:
        print(f"{finding.level:8} {finding.what:14} {finding.text}")
    return int(any(finding.level is Level.ERROR for finding in findings))


def examine(run_dir: Path, processes: int) -> Iterator[Finding]:
    """Everything, the worst of which is an error."""
    yield processor()
    yield cores(processes)
    yield memory(processes)
    yield shared_memory()
    yield open_files(processes)
    yield space(run_dir)
    yield gpu()
    yield precision()
    yield games()
    yield video()


def refuse_hopeless(run_dir: Path, processes: int) -> None:
    """Raises UsageError with the first error that would keep a training from running."""
    for finding in (memory(processes), shared_memory(), open_files(processes), space(run_dir)):
        if finding.level is Level.ERROR:
            raise UsageError(f"{finding.what}: {finding.text}")


def refuse_too_large(queue_size: int) -> None:
    """Raises UsageError if a queue of so many bytes is more than the machine's memory."""
    if queue_size > usable_memory():
        sizes = f"{queue_size / 1e9:,.0f} GB, and {usable_memory() / 1e9:.0f} may be used here"
        raise UsageError(f"the queue would take {sizes}; lower --queue-size, --n-step or --envs-per-process")


def processor() -> Finding:
    name = platform.machine()
    if name.lower() not in ("x86_64", "amd64"):
        why = "the order of writes to shared memory that asyncq relies on is that of x86-64"
        return Finding(Level.WARNING, "processor", f"{name}; {why}: here something half written may be read")
    return Finding(Level.OK, "processor", name)


def cores(processes: int) -> Finding:
    there, usable = os.cpu_count() or 1, usable_cores()
    text = f"{usable} of {there} may be used"
    if usable < there:
        text += " (affinity, or the container's quota: docker run --cpus)"
    if processes > 2 * usable:
        return Finding(
            Level.WARNING, "cores", f"{text}; {processes} workers share them: --processes {usable} is faster"
        )
    return Finding(Level.OK, "cores", text)


def memory(processes: int) -> Finding:
    needed = TRAINING_BYTES + WORKER_BYTES * processes
    usable = usable_memory()
    text = (
        f"{usable / 1e9:.1f} GB may be used, {processes} workers and the rest take {needed / 1e9:.1f} or more, "
        f"about {IMAGES_TAKE * needed / 1e9:.1f} on images"
    )
    if IMAGES_TAKE * needed > usable:
        level = Level.ERROR if needed > usable else Level.WARNING
        return Finding(level, "memory", f"{text}; choose fewer --processes, with more --envs-per-process")
    return Finding(Level.OK, "memory", text)


def shared_memory() -> Finding:
    try:
        SharedBuffer(1 << 26).array((1 << 26,), "uint8")[:] = 1
    except OSError as error:
        text = (
            f"64 MB of anonymous shared memory cannot be had: {error.strerror}; raise the memory limit (docker run -m)"
        )
        return Finding(Level.ERROR, "shared memory", text)
    return Finding(Level.OK, "shared memory", "anonymous; the size of /dev/shm does not matter")


def open_files(processes: int) -> Finding:
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 64 + 10 * processes
    if limit != resource.RLIM_INFINITY and limit < needed:
        raised = f"ulimit -n {needed}" if hard == resource.RLIM_INFINITY or hard >= needed else "docker run --ulimit"
        text = f"{limit} may be open, {processes} workers need about {needed}; raise it: {raised}, or fewer --processes"
        return Finding(Level.ERROR, "open files", text)
    return Finding(Level.OK, "open files", f"{limit} may be open, {needed} are enough")


def space(run_dir: Path) -> Finding:
    folder = next(parent for parent in (run_dir, *run_dir.absolute().parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        mend = f"choose another --run-dir (in a container: docker run -v, or -u {os.getuid()})"
        return Finding(Level.ERROR, "run directory", f"{folder} cannot be written: {error.strerror}; {mend}")
    free = shutil.disk_usage(folder).free
    text = f"{folder} can be written, {free / 1e9:.1f} GB are free"
    if free < TOO_LITTLE_SPACE:
        return Finding(Level.ERROR, "run directory", f"{text}; make room, or choose another --run-dir")
    if free < LITTLE_SPACE:
        return Finding(Level.WARNING, "run directory", f"{text}; a long run with large networks may need more")
    return Finding(Level.OK, "run directory", text)


def gpu() -> Finding:
    if not torch.cuda.is_available():
        driver, device = Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl")
        if not driver.exists() and not device.exists():
            return Finding(Level.OK, "GPU", "none; the learner uses the processor")
        if not device.exists():
            why = "this container does not see it; start it with --gpus all"
        elif torch.version.cuda is None:
            why = "this torch is a CPU build; install a CUDA build"
        else:
            why = f"this torch, built for CUDA {torch.version.cuda}, cannot use it; is the driver older?"
        return Finding(Level.WARNING, "GPU", f"there is one, but {why}")
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    built = [re.fullmatch(r"sm_(\d+)(\d)", name) for name in torch.cuda.get_arch_list()]
    if not any(found and int(found[1]) == major and int(found[2]) <= minor for found in built):
        text = f"{name} is an sm_{major}{minor}, this torch is built for {', '.join(torch.cuda.get_arch_list())}"
        return Finding(Level.WARNING, "GPU", f"{text}; install a torch for it, or use --device cpu")
    return Finding(Level.OK, "GPU", name)


def precision() -> Finding:
    fast = has_fast_bf16(choose_device("auto"))
    return Finding(Level.OK, "precision", "bf16 in hardware" if fast else "float32; bf16 would be slower here")


def games() -> Finding:
    try:
        describe("ALE/Pong-v5")
    except Exception as error:  # whatever ale-py says
        text = f"Atari games cannot be made: {error}; pip install --force-reinstall ale-py"
        return Finding(Level.WARNING, "Atari", text)
    return Finding(Level.OK, "Atari", "the games are there")


def video() -> Finding:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return Finding(Level.WARNING, "video", f"no encoder for .mp4; {install('video')}")
    return Finding(Level.OK, "video", "ffmpeg is there")
