"""The machine: a container's quota counts like missing cores, its limit like missing memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from asyncq import machine
from asyncq.machine import cpu_quota, memory_limit, usable_cores, usable_memory


def group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def membership(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "membership"
    path.write_text(text + "\n")
    return path


def test_the_smallest_quota_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    group(tmp_path, ".", cpu__max="800000 100000")
    group(tmp_path, "slice", cpu__max="250000 100000")
    group(tmp_path, "slice/job", cpu__max="max 100000")
    assert cpu_quota(tmp_path, membership(tmp_path, "0::/slice/job")) == 2.5
    assert cpu_quota(tmp_path, membership(tmp_path, "0::/")) == 8


def test_version_1_has_two_files(tmp_path: Path) -> None:
    group(tmp_path, "cpu/docker", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    group(tmp_path, "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert cpu_quota(tmp_path, membership(tmp_path, "4:cpu,cpuacct:/docker\n3:memory:/docker")) == 1.5


def test_the_smallest_limit_of_memory_counts(tmp_path: Path) -> None:
    group(tmp_path, ".", memory__max="max")
    group(tmp_path, "slice", memory__max="2000000000")
    group(tmp_path, "slice/job", memory__max="3000000000")
    assert memory_limit(tmp_path, membership(tmp_path, "0::/slice/job")) == 2e9
    assert memory_limit(tmp_path, membership(tmp_path, "0::/")) == math.inf
    group(tmp_path, "memory/docker", memory__limit_in_bytes="1000000000")
    assert memory_limit(tmp_path, membership(tmp_path, "4:cpu,cpuacct:/docker\n3:memory:/docker")) == 1e9


@pytest.mark.parametrize("granted", [cpu_quota, memory_limit])
def test_no_control_group_is_no_limit(granted: Callable[[Path, Path], float], tmp_path: Path) -> None:
    assert granted(tmp_path, tmp_path / "absent") == math.inf
    assert granted(tmp_path, membership(tmp_path, "0::/nowhere")) == math.inf


def test_memory_is_the_machines_or_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_limit", lambda root, membership: math.inf)
    assert usable_memory() == psutil.virtual_memory().total
    monkeypatch.setattr(machine, "memory_limit", lambda root, membership: 5e8)
    assert usable_memory() == 5e8


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (2.5, 3), (0.2, 1), (64.0, 8)])
def test_cores_are_those_of_the_affinity_or_fewer(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda root, membership: quota)
    assert usable_cores() == cores
