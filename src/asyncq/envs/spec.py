"""All that has to be known of an environment to play it exactly as it was played in training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

FRAME_SHAPE = (84, 84)
"""Of images, unless they are resized: what the field's results are from (Mnih et al. 2015)."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """An environment and its preprocessing, as plain values; a weights file holds it."""

    env_id: str
    family: str
    """"atari", "atari-2016", "pixels" or "vectors"."""
    frame_shape: tuple[int, ...]
    """One frame without its stack: `(height, width)`, or `(size,)` of a vector."""
    frame_dtype: str
    frame_stack: int
    frame_skip: int
    actions: int
    first_action: int = 0
    """The environment counts its actions from here."""
    sticky: float = 0.0
    """Probability that the previous action is repeated, each frame."""
    max_frames: int | None = None
    """Frames after which the environment itself truncates an episode."""
    imports: tuple[str, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Arguments of the environment's constructor."""
    random_frame_skip: tuple[int, int] | None = None
    """Frames that an action lasts where that is drawn anew for each, from the first to the second of these; then
    `frame_skip` is their mean."""

    @property
    def kind(self) -> str:
        """ "image" or "vector": what the networks care about."""
        return "image" if len(self.frame_shape) == 2 else "vector"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One stacked observation: `(stack, height, width)` or `(size,)`."""
        return self.frame_shape if self.kind == "vector" else (self.frame_stack, *self.frame_shape)

    def resized(self, frame_size: int | None) -> EnvironmentSpec:
        """Images in square frames of `frame_size` pixels a side; vectors, and images at None, stay as they are."""
        if self.kind == "vector" or frame_size is None:
            return self
        return dataclasses.replace(self, frame_shape=(frame_size, frame_size))

    def latest_frames(self, observations: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The newest frame of each of `observations[E, ...]`."""
        return observations if self.kind == "vector" else observations[:, -1]

    def stacks(self, observations: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """All frames of `observations[E, ...]`, oldest first: `[S, E, ...]`."""
        if self.kind == "vector":
            return observations[np.newaxis]
        return np.moveaxis(observations, 1, 0)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EnvironmentSpec:
        arguments: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**arguments)
