"""Fragments of experience and the bounded queue that carries them from the workers to the learner.

The queue is a set of lanes, one a worker: a ring of preallocated slots with one writer and one reader, and two counters
that say how many fragments were ever committed and released. No lock, no pickling, no message per step. A worker
whose lane is full waits: this bound is what keeps the experience fresh.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from asyncq.shared import CACHE_LINE, Array, Bell, SharedBuffer, aligned


@dataclass(frozen=True)
class FragmentLayout:
    """Shapes of a fragment: T steps of E environments; a frame is one observation without its stack."""

    steps: int
    envs: int
    frame_shape: tuple[int, ...]
    frame_dtype: str
    frame_stack: int
    memory_size: int = 0
    """Numbers that the network remembers of a game."""
    sequences: int = 1
    """Into which the steps fall; the memory is kept as each begins."""

    def fields(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """Shape and type of every array of a fragment, by its name."""
        table = (self.steps, self.envs)
        return {
            "frames": ((self.steps + self.frame_stack, self.envs, *self.frame_shape), self.frame_dtype),
            "actions": (table, "int64"),
            "rewards": (table, "float32"),
            "discounts": (table, "float32"),
            "mask": (table, "float32"),
            "behaviour_log_probs": (table, "float32"),
            "behaviour_values": ((self.steps + 1, self.envs), "float32"),
            "memories": ((self.sequences, self.envs, self.memory_size), "float32"),
            "episode_returns": (table, "float32"),
            "episode_lengths": (table, "int64"),
            "weights_versions": ((self.steps,), "int64"),
            "finished_ns": ((1,), "int64"),
        }

    def slot_size(self) -> int:
        """Bytes that one fragment takes."""
        return sum(aligned(math.prod(shape) * np.dtype(dtype).itemsize) for shape, dtype in self.fields().values())


@dataclass(frozen=True)
class Fragment:
    """T consecutive steps of E environments, as views of a slot. `mask` is 0 at steps that were no decisions
    (the environment was being reset); the observation there is the last one of the finished episode.

    `frames[T+S, E, ...]`: every frame once; observation t is the stack of frames t to t+S-1.
    `actions, rewards, discounts, mask, behaviour_log_probs: [T, E]`; rewards are raw, discounts are gamma, or 0 where
    the episode terminated or, if that ends what is learned from, a life was lost. `behaviour_values[T+1, E]`: what the
    worker's network thought each observation worth; the last row is filled for a3c without V-trace only.
    `memories[C, E, M]`: what the network remembered as each of C sequences of T/C steps began.
    `episode_returns[T, E]`: raw return of the episode that ended with this step, if it is reported, else NaN;
    `episode_lengths[T, E]` likewise, in env steps, else 0. `weights_versions[T]`: what each step was played with.
    `finished_ns[1]`: when the fragment was committed, on the machine's monotonic clock.
    """

    frames: Array
    actions: Array
    rewards: Array
    discounts: Array
    mask: Array
    behaviour_log_probs: Array
    behaviour_values: Array
    memories: Array
    episode_returns: Array
    episode_lengths: Array
    weights_versions: Array
    finished_ns: Array

    def cut(self, decisions: int) -> None:
        """Keep the first so many, step by step over all environments; the rest is neither counted nor learned from."""
        beyond = np.cumsum(self.mask).reshape(self.mask.shape) > decisions
        self.mask[beyond] = 0
        self.episode_returns[beyond] = np.nan


class Lane:
    """One worker's part of the queue: a ring of `slots` fragments with one writer and one reader."""

    def __init__(
        self,
        layout: FragmentLayout,
        slots: int,
        ready: Bell,
        free: Bell | None = None,
        memory: SharedBuffer | None = None,
    ) -> None:
        self.layout = layout
        self.slots = slots
        self._ready = ready
        self._free = free or Bell()
        self._memory = memory or SharedBuffer(2 * CACHE_LINE + slots * layout.slot_size())
        self._committed = self._memory.array((1,), np.int64)
        self._released = self._memory.array((1,), np.int64, CACHE_LINE)
        self._taken = int(self._released[0])
        self._fragments = [self._view(slot) for slot in range(slots)]

    def _view(self, slot: int) -> Fragment:
        offset = 2 * CACHE_LINE + slot * self.layout.slot_size()
        arrays = {}
        for name, (shape, dtype) in self.layout.fields().items():
            arrays[name] = self._memory.array(shape, dtype, offset)
            offset += aligned(arrays[name].nbytes)
        return Fragment(**arrays)

    def __reduce__(self) -> tuple[type[Lane], tuple[FragmentLayout, int, Bell, Bell, SharedBuffer]]:
        return Lane, (self.layout, self.slots, self._ready, self._free, self._memory)

    def __len__(self) -> int:
        """Fragments committed and not yet released."""
        return int(self._committed[0] - self._released[0])

    def reserve(self, timeout: float) -> Fragment | None:
        """Writer: the slot to fill next; None if the lane is full and stays so, for `timeout` seconds at most."""
        if len(self) == self.slots:
            self._free.wait(timeout)
        if len(self) == self.slots:
            return None
        return self._fragments[int(self._committed[0]) % self.slots]

    def commit(self) -> None:
        """Writer: hand the reserved fragment over."""
        self._fragments[int(self._committed[0]) % self.slots].finished_ns[0] = time.monotonic_ns()
        self._committed[0] += 1
        self._ready.ring()

    def peek(self) -> Fragment | None:
        """Reader: the oldest fragment that was not taken yet."""
        if self._taken == self._committed[0]:
            return None
        return self._fragments[self._taken % self.slots]

    def take(self) -> None:
        """Reader: keep the fragment that `peek` showed, until `release`."""
        self._taken += 1

    def release(self) -> None:
        """Reader: give all slots that were taken back to the writer."""
        if self._released[0] != self._taken:
            self._released[0] = self._taken
            self._free.ring()


class ExperienceQueue:
    """All lanes, read by the learner in the order in which fragments were finished."""

    def __init__(self, layout: FragmentLayout, workers: int, slots_per_lane: int) -> None:
        self._ready = Bell()
        self.lanes = [Lane(layout, slots_per_lane, self._ready) for _ in range(workers)]

    def take(self, timeout: float) -> Fragment | None:
        """The oldest fragment, valid until `release`; None if none came, in `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        while (lane := self._oldest()) is None and (left := deadline - time.monotonic()) > 0:
            self._ready.wait(left)  # may return at once: fragments that were taken without waiting have rung, too
        if lane is None:
            return None
        fragment = lane.peek()
        lane.take()
        return fragment

    def _oldest(self) -> Lane | None:
        waiting = [(int(fragment.finished_ns[0]), lane) for lane in self.lanes if (fragment := lane.peek()) is not None]
        return min(waiting, key=lambda entry: entry[0])[1] if waiting else None

    def release(self) -> None:
        """Give back every fragment taken so far."""
        for lane in self.lanes:
            lane.release()

    @property
    def fill(self) -> float:
        """Share of the slots that hold a fragment, 0 to 1."""
        return sum(len(lane) for lane in self.lanes) / sum(lane.slots for lane in self.lanes)
