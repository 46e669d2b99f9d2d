"""What the machine lends this process: cores, by its affinity and by a container's quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may keep busy: its affinity's, or fewer where a control group has a smaller quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(allowed, cpu_quota(CGROUPS, Path("/proc/self/cgroup"))))


def cpu_quota(root: Path, membership: Path) -> float:
    """Cores' worth of time that the control groups grant, infinity where none limits it.

    A group is limited by its own quota and by those of all groups above it. In a container its own is the root.

    Args:
        root: where control groups are mounted; version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`) are known.
        membership: the process's groups, one `number:controllers:path` a line.
    """
    quotas = [math.inf]
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        base = root / "cpu" if "cpu" in controllers.split(",") else root
        group = base / path.lstrip("/")
        for folder in [group, *group.parents]:
            if folder == base or base in folder.parents:
                quotas.append(_quota(folder))
    return min(quotas)


def _quota(folder: Path) -> float:
    words = [word for line in _lines(folder / "cpu.max") for word in line.split()]
    words = words or _lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us")
    if len(words) != 2 or words[0] in ("max", "-1"):
        return math.inf
    return int(words[0]) / int(words[1])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
