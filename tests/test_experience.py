"""Fragments and the queue: order, back pressure, and writers that die."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time

import numpy as np

from asyncq.experience import ExperienceQueue, Fragment, FragmentLayout, Lane
from asyncq.shared import SharedBuffer

SPAWN = multiprocessing.get_context("spawn")
LAYOUT = FragmentLayout(steps=3, envs=2, frame_shape=(5,), frame_dtype="uint8", frame_stack=4)


def fill(fragment: Fragment, number: int) -> None:
    """Every array holds its own numbers, so that one that lies in another's place shows."""
    for place, field in enumerate(dataclasses.fields(fragment)):
        if field.name != "finished_ns":
            array = getattr(fragment, field.name)
            array[...] = (np.arange(array.size).reshape(array.shape) + 7 * place + number) % 251
    fragment.weights_versions[...] = number


def holds(fragment: Fragment, number: int) -> bool:
    expected = {name: np.zeros(shape, dtype) for name, (shape, dtype) in LAYOUT.fields().items()}
    fill(Fragment(**expected), number)
    return all(
        np.array_equal(getattr(fragment, name), array) for name, array in expected.items() if name != "finished_ns"
    )


def push(lane: Lane, number: int) -> bool:
    fragment = lane.reserve(timeout=0)
    if fragment is None:
        return False
    fill(fragment, number)
    lane.commit()
    return True


def take_versions(queue: ExperienceQueue) -> list[int]:
    versions = []
    while (fragment := queue.take(timeout=0)) is not None:
        versions.append(int(fragment.weights_versions[0]))
    return versions


def test_a_lane_is_first_in_first_out_and_its_slots_wrap_around() -> None:
    queue = ExperienceQueue(LAYOUT, workers=1, slots_per_lane=3)
    for number in range(1, 20):
        assert push(queue.lanes[0], number)
        assert push(queue.lanes[0], number + 100)
        for expected in (number, number + 100):
            fragment = queue.take(timeout=0)
            assert fragment is not None
            assert fragment.weights_versions[0] == expected
            assert holds(fragment, expected)
        queue.release()


def test_a_full_lane_refuses_until_a_slot_is_released() -> None:
    queue = ExperienceQueue(LAYOUT, workers=2, slots_per_lane=2)
    lane, other = queue.lanes
    assert [push(lane, number) for number in (1, 2, 3)] == [True, True, False]
    assert push(other, 4), "a full lane blocks only its own worker"
    assert take_versions(queue) == [1, 2, 4]
    assert not push(lane, 5), "what was taken is still being read"
    queue.release()
    assert [push(lane, number) for number in (6, 7, 8)] == [True, True, False]
    assert take_versions(queue) == [6, 7]


def test_releasing_gives_back_only_what_was_taken() -> None:
    queue = ExperienceQueue(LAYOUT, workers=1, slots_per_lane=2)
    lane = queue.lanes[0]
    push(lane, 1)
    push(lane, 2)
    queue.take(timeout=0)
    queue.release()
    assert [push(lane, 3), push(lane, 4)] == [True, False]
    assert take_versions(queue) == [2, 3]


def test_a_writer_waits_no_longer_than_its_timeout() -> None:
    queue = ExperienceQueue(LAYOUT, workers=1, slots_per_lane=1)
    push(queue.lanes[0], 1)
    started = time.monotonic()
    assert queue.lanes[0].reserve(timeout=0.2) is None
    assert 0.19 <= time.monotonic() - started < 10


def test_lanes_are_read_in_the_order_in_which_fragments_were_finished() -> None:
    queue = ExperienceQueue(LAYOUT, workers=3, slots_per_lane=4)
    order = [2, 0, 0, 1, 2, 1, 0, 2]
    for number, lane in enumerate(order):
        assert push(queue.lanes[lane], 10 * number + lane)
    assert take_versions(queue) == [10 * number + lane for number, lane in enumerate(order)]


def test_the_reader_takes_nothing_that_was_only_reserved() -> None:
    queue = ExperienceQueue(LAYOUT, workers=1, slots_per_lane=2)
    fragment = queue.lanes[0].reserve(timeout=0)
    assert fragment is not None
    fill(fragment, 1)
    assert queue.take(timeout=0) is None


def test_an_empty_queue_gives_none_after_its_timeout() -> None:
    queue = ExperienceQueue(LAYOUT, workers=2, slots_per_lane=2)
    started = time.monotonic()
    assert queue.take(timeout=0.2) is None
    assert 0.19 <= time.monotonic() - started < 10


def test_rings_of_fragments_that_were_taken_without_waiting_do_not_end_the_next_wait() -> None:
    queue = ExperienceQueue(LAYOUT, workers=2, slots_per_lane=2)
    push(queue.lanes[0], 1)
    push(queue.lanes[1], 2)
    assert take_versions(queue) == [1, 2]
    started = time.monotonic()
    assert queue.take(timeout=0.2) is None
    assert time.monotonic() - started >= 0.19


def test_fill_is_the_share_of_slots_not_yet_released() -> None:
    queue = ExperienceQueue(LAYOUT, workers=2, slots_per_lane=2)
    assert queue.fill == 0
    push(queue.lanes[0], 1)
    push(queue.lanes[0], 2)
    push(queue.lanes[1], 3)
    assert queue.fill == 0.75
    take_versions(queue)
    assert queue.fill == 0.75
    queue.release()
    assert queue.fill == 0


def test_fragments_of_different_slots_and_lanes_share_no_memory() -> None:
    queue = ExperienceQueue(LAYOUT, workers=2, slots_per_lane=2)
    for number, lane in ((1, 0), (2, 0), (3, 1), (4, 1)):
        push(queue.lanes[lane], number)
    taken = [queue.take(timeout=0) for _ in range(4)]
    assert [fragment is not None and holds(fragment, number) for number, fragment in enumerate(taken, 1)] == [True] * 4


def push_ten(lane: Lane) -> None:
    for number in range(1, 11):
        fragment = lane.reserve(timeout=60)
        while fragment is None:
            fragment = lane.reserve(timeout=60)
        fill(fragment, number)
        lane.commit()


def die_while_filling(lane: Lane, reserved: SharedBuffer) -> None:
    """Commits fragment 1, fills half of the next, and waits for its end."""
    push(lane, 1)
    fragment = lane.reserve(timeout=0)
    assert fragment is not None
    fragment.frames[:3] = 250
    fragment.actions[:] = 250
    reserved.array((1,), np.int64)[0] = 1
    time.sleep(300)


def take_ten(queue: ExperienceQueue) -> None:
    """Expect fragments 1 to 10, each intact, in less than two minutes."""
    deadline = time.monotonic() + 120
    for number in range(1, 11):
        fragment = queue.take(timeout=1)
        while fragment is None and time.monotonic() < deadline:
            fragment = queue.take(timeout=1)
        assert fragment is not None
        assert fragment.weights_versions[0] == number
        assert holds(fragment, number)
        assert 0 < time.monotonic_ns() - fragment.finished_ns[0] < 120e9
        queue.release()


def test_a_lane_outlives_a_writer_that_is_killed_in_the_middle_of_a_fragment() -> None:
    """And what a second writer pushes from its own process arrives intact, through back pressure."""
    queue, reserved = ExperienceQueue(LAYOUT, workers=2, slots_per_lane=2), SharedBuffer(64)
    victim = SPAWN.Process(target=die_while_filling, args=(queue.lanes[0], reserved))
    victim.start()
    deadline = time.monotonic() + 90
    while not reserved.array((1,), np.int64)[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert victim.pid
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL

    assert take_versions(queue) == [1]
    queue.release()
    assert queue.take(timeout=0.1) is None
    push(queue.lanes[1], 77)
    assert take_versions(queue) == [77]
    queue.release()

    successor = SPAWN.Process(target=push_ten, args=(queue.lanes[0],))
    successor.start()
    try:
        take_ten(queue)
    finally:
        successor.join(30)
        successor.kill()
    assert successor.exitcode == 0
    assert queue.fill == 0


def test_a_cut_fragment_keeps_its_first_decisions() -> None:
    layout = FragmentLayout(3, 2, (1,), "float32", 1)
    fragment = ExperienceQueue(layout, 1, 1).lanes[0].reserve(timeout=0)
    assert fragment is not None
    fragment.mask[...] = [[1, 0], [1, 1], [1, 1]]
    fragment.episode_returns[...] = [[1, 2], [3, 4], [5, 6]]
    fragment.cut(2)
    assert fragment.mask.tolist() == [[1, 0], [1, 0], [0, 0]]
    assert fragment.episode_returns[np.isfinite(fragment.episode_returns)].tolist() == [1, 2, 3]
    fragment.cut(0)
    assert not fragment.mask.any()
