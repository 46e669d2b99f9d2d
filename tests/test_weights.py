"""WeightBoard: readers see whole vectors only, of versions that rise, however fast the writer publishes."""

from __future__ import annotations

import multiprocessing
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asyncq.shared import Array, SharedBuffer
from asyncq.weights import Snapshot, WeightBoard, fill_parameters, flatten_parameters

SPAWN = multiprocessing.get_context("spawn")
SIZE = 200_000
SECONDS = 2.0


def publish_constants(board: WeightBoard, stop: SharedBuffer) -> None:
    """Version v is a vector of v's; three at once, so that they overtake readers, and then a moment of peace."""
    version, stopping, generator = 0, stop.array((1,), np.int64), np.random.default_rng(1)
    weights = np.empty(board.size, np.float32)
    while not stopping[0]:
        for _ in range(3):
            version += 1
            weights.fill(version)
            board.publish(weights, Snapshot(version, 10 * version))
        time.sleep(generator.uniform(0, 0.01))


def read_constants(board: WeightBoard, stop: SharedBuffer, results: SharedBuffer) -> None:
    """A reader in its own process: counts in `results` until told to stop."""
    stopping, reader = stop.array((1,), np.int64), Reader(board, results.array((2,), np.int64))
    while not stopping[0]:
        reader.look()


class Reader:
    """Counts its copies of the weights, and those that were torn or older than the one before."""

    def __init__(self, board: WeightBoard, counts: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self._board, self.counts = board, counts
        self._weights = np.zeros((board.size, 16), np.float32)[:, 0]  # strided: slow to copy to
        self._newest = 0

    def look(self) -> None:
        snapshot = self._board.read_if_newer(partial(np.copyto, self._weights))
        if snapshot is None:
            return
        whole = bool((self._weights == snapshot.version).all()) and snapshot.env_steps == 10 * snapshot.version
        rising, self._newest = snapshot.version > self._newest, snapshot.version
        self.counts += (1, not (whole and rising))


def test_a_reader_of_a_board_without_weights_gets_none() -> None:
    weights = np.full(3, 7, np.float32)
    assert WeightBoard(3).read_if_newer(partial(np.copyto, weights)) is None
    assert weights.tolist() == [7, 7, 7]


def test_a_reader_gets_each_publication_once() -> None:
    board, weights = WeightBoard(3), np.zeros(3, np.float32)
    board.publish(np.array([1, 2, 3], np.float32), Snapshot(version=5, env_steps=50))
    assert board.read_if_newer(partial(np.copyto, weights)) == Snapshot(5, 50)
    assert weights.tolist() == [1, 2, 3]
    weights[:] = 0
    assert board.read_if_newer(partial(np.copyto, weights)) is None
    assert weights.tolist() == [0, 0, 0]


def test_a_reader_gets_the_newest_of_several_publications() -> None:
    board, weights = WeightBoard(2), np.zeros(2, np.float32)
    for version in range(1, 6):
        board.publish(np.full(2, version, np.float32), Snapshot(version, 0))
    snapshot = board.read_if_newer(partial(np.copyto, weights))
    assert snapshot is not None
    assert snapshot.version == 5
    assert weights.tolist() == [5, 5]


def test_the_first_version_may_be_0() -> None:
    board = WeightBoard(1)
    board.publish(np.ones(1, np.float32), Snapshot(0, 0))
    assert board.read_if_newer(partial(np.copyto, np.zeros(1, np.float32))) == Snapshot(0, 0)


@pytest.mark.parametrize("overtaken_by", [1, 2, 3])
def test_a_copy_that_is_overtaken_in_the_middle_is_whole(overtaken_by: int) -> None:
    """The writer publishes so many times while the reader has copied half; it does not tear, or is taken again."""
    board, weights = WeightBoard(4), np.zeros(4, np.float32)
    board.publish(np.full(4, 1, np.float32), Snapshot(1, 10))
    later = iter(range(2, 2 + overtaken_by))

    def copy_and_be_overtaken(source: Array) -> None:
        weights[:2] = source[:2]
        for version in later:
            board.publish(np.full(4, version, np.float32), Snapshot(version, 10 * version))
        weights[2:] = source[2:]

    snapshot = board.read_if_newer(copy_and_be_overtaken)
    assert snapshot is not None
    assert weights.tolist() == [snapshot.version] * 4
    assert snapshot.env_steps == 10 * snapshot.version
    assert (snapshot.version == 1) is (overtaken_by == 1)


def test_a_copy_of_a_buffer_that_is_being_filled_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader ends its copy of the first publication while the third, into the same buffer, is half done."""
    board, weights, copy = WeightBoard(4), np.zeros(4, np.float32), np.copyto
    half_done, go_on = threading.Event(), threading.Event()
    board.publish(np.full(4, 1, np.float32), Snapshot(1, 10))

    def publish_two() -> None:
        for version in (2, 3):
            board.publish(np.full(4, version, np.float32), Snapshot(version, 10 * version))

    writer = threading.Thread(target=publish_two)

    def slow_publication(target: Array, source: Array) -> None:
        if source[0] < 3:
            copy(target, source)
            return
        copy(target[2:], source[2:])
        half_done.set()
        assert go_on.wait(30)
        copy(target[:2], source[:2])

    def slow_copy(source: Array) -> None:
        copy(weights[:2], source[:2])
        if weights[0] == 1:
            writer.start()
            assert half_done.wait(30)
        copy(weights[2:], source[2:])

    monkeypatch.setattr("asyncq.weights.np.copyto", slow_publication)
    snapshot = board.read_if_newer(slow_copy)
    go_on.set()
    writer.join(30)
    assert snapshot == Snapshot(2, 20)
    assert weights.tolist() == [2] * 4


def test_readers_never_see_a_torn_copy_nor_an_older_version() -> None:
    board, stop = WeightBoard(SIZE), SharedBuffer(64)
    results = SharedBuffer(64)
    writer = SPAWN.Process(target=publish_constants, args=(board, stop))
    reader = SPAWN.Process(target=read_constants, args=(board, stop, results))
    writer.start()
    reader.start()
    try:
        own, other = np.zeros(2, np.int64), results.array((2,), np.int64)
        here = Reader(board, own)
        deadline, patience = time.monotonic() + SECONDS, time.monotonic() + 90
        while time.monotonic() < deadline or (min(own[0], other[0]) < 50 and time.monotonic() < patience):
            here.look()
    finally:
        stop.array((1,), np.int64)[0] = 1
        for process in (writer, reader):
            process.join(60)
    assert (writer.exitcode, reader.exitcode) == (0, 0)
    assert min(own[0], other[0]) >= 50
    assert (own[1], other[1]) == (0, 0)


def test_flatten_parameters_makes_views_of_one_tensor() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    flat = flatten_parameters(network)
    assert flat.shape == (3 * 2 + 2 + 2 + 1,)
    assert torch.equal(flat, torch.cat([parameter.flatten() for parameter in before]))
    flat.zero_()
    assert all(not parameter.any() for parameter in network.parameters())
    assert [parameter.shape for parameter in network.parameters()] == [parameter.shape for parameter in before]


def test_fill_parameters_takes_what_flatten_parameters_gives() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(2, 1))
    copied = nn.Sequential(nn.Conv2d(2, 3, 2).to(torch.bfloat16), nn.Linear(2, 1))
    copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fill_parameters(copied, flatten_parameters(network).numpy())
    for given, found in zip(network.parameters(), copied.parameters(), strict=True):
        assert torch.equal(given.to(found.dtype), found)


def test_an_optimizer_moves_the_flat_tensor_too() -> None:
    network = nn.Linear(2, 1)
    flat = flatten_parameters(network)
    before = flat.clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    network(torch.tensor([[3.0, 4.0]])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(before - flat, torch.tensor([3.0, 4.0, 1.0]))
    assert network.weight.detach().flatten().tolist() == flat[:2].tolist()
