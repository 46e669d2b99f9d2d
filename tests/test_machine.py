"""The machine: a container's quota counts like missing cores."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from asyncq import machine
from asyncq.machine import cpu_quota, usable_cores


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


def test_no_control_group_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, tmp_path / "absent") == math.inf
    assert cpu_quota(tmp_path, membership(tmp_path, "0::/nowhere")) == math.inf


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (2.5, 3), (0.2, 1), (64.0, 8)])
def test_cores_are_those_of_the_affinity_or_fewer(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda root, membership: quota)
    assert usable_cores() == cores
