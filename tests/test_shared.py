"""Shared memory and bells, between this process and spawned ones: seen at once, and without a name anywhere."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from asyncq.shared import Bell, SharedBuffer, aligned

SPAWN = multiprocessing.get_context("spawn")


def write_and_ring(buffer: SharedBuffer, bell: Bell) -> None:
    numbers = buffer.array((3,), np.int64, 64)
    numbers[:] = numbers * 10
    for _ in range(100_000):
        bell.ring()


def test_aligned_rounds_up_to_cache_lines() -> None:
    assert [aligned(size) for size in (0, 1, 64, 65, 128)] == [0, 64, 64, 128, 128]


def test_a_buffer_begins_with_zeros_and_its_views_share_memory() -> None:
    buffer = SharedBuffer(256)
    one, other = buffer.array((4, 2), np.float32, 64), buffer.array((8,), np.float32, 64)
    assert not one.any()
    one[1, 1] = 7
    assert other.tolist() == [0, 0, 0, 7, 0, 0, 0, 0]


def test_a_view_past_the_end_is_refused() -> None:
    with pytest.raises(TypeError):
        SharedBuffer(64).array((9,), np.int64)


def test_a_child_sees_what_was_written_and_its_many_rings_wake_without_ever_blocking_it() -> None:
    buffer, bell = SharedBuffer(128), Bell()
    numbers = buffer.array((3,), np.int64, 64)
    numbers[:] = 1, 2, 3
    child = SPAWN.Process(target=write_and_ring, args=(buffer, bell))
    child.start()
    started = time.monotonic()
    bell.wait(60)
    assert time.monotonic() - started < 59
    assert numbers.tolist() == [10, 20, 30]
    child.join(60)
    assert child.exitcode == 0


def test_nothing_appears_in_the_file_system() -> None:
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    buffer = SharedBuffer(1 << 20)
    buffer.array((1 << 20,), np.uint8)[:] = 1
    after = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    assert {path.name for path in after - before if path.owner() == Path.home().owner()} == set()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_a_buffer_gives_its_descriptors_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        SharedBuffer(64)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_bell_that_was_rung_before_wakes_at_once_and_only_once() -> None:
    bell = Bell()
    for _ in range(3):
        bell.ring()
    started = time.monotonic()
    bell.wait(30)
    assert time.monotonic() - started < 10
    started = time.monotonic()
    bell.wait(0.1)
    assert time.monotonic() - started >= 0.09


def test_a_bell_that_nobody_rings_times_out() -> None:
    started = time.monotonic()
    Bell().wait(0.2)
    assert 0.19 <= time.monotonic() - started < 10
