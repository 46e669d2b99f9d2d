"""What the machine lends this process, also in a container: cores and memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may keep busy: its affinity's, or fewer where a control group has a smaller quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(allowed, cpu_quota(CGROUPS, MEMBERSHIP)))


def usable_memory() -> float:
    """Bytes that this process may use: the machine's, or fewer where a control group has a smaller limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, memory_limit(CGROUPS, MEMBERSHIP))


def cpu_quota(root: Path, membership: Path) -> float:
    """Cores' worth of time that the control groups grant, infinity where none limits it; see `_groups`."""
    return min(map(_quota, _groups(root, membership, "cpu")), default=math.inf)


def memory_limit(root: Path, membership: Path) -> float:
    """Bytes that the control groups grant, infinity where none limits them; see `_groups`."""
    return min(map(_limit, _groups(root, membership, "memory")), default=math.inf)


def _groups(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of all groups above it, whose limits hold as well.

    In a container its own group is the root.

    Args:
        root: where control groups are mounted, of version 2 (`cpu.max`) or 1 (`cpu/cpu.cfs_quota_us`).
        membership: the process's groups, one `number:controllers:path` a line.
        controller: of version 1.
    """
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        base = root / controller if controller in controllers.split(",") else root
        group = base / path.lstrip("/")
        yield from (folder for folder in [group, *group.parents] if folder == base or base in folder.parents)


def _quota(folder: Path) -> float:
    words = [word for line in _lines(folder / "cpu.max") for word in line.split()]
    words = words or _lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us")
    if len(words) != 2 or words[0] in ("max", "-1"):
        return math.inf
    return int(words[0]) / int(words[1])


def _limit(folder: Path) -> float:
    lines = _lines(folder / "memory.max") or _lines(folder / "memory.limit_in_bytes")
    return int(lines[0]) if lines and lines[0] != "max" else math.inf


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
