"""EnvironmentSpec: frames and stacks of observations, and the way into a file and back."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from asyncq.envs.spec import EnvironmentSpec

IMAGE = EnvironmentSpec(
    env_id="ALE/Pong-v5",
    family="atari",
    frame_shape=(2, 3),
    frame_dtype="uint8",
    frame_stack=4,
    frame_skip=4,
    actions=6,
    sticky=0.25,
    max_frames=108_000,
    imports=("one", "two"),
)
VECTOR = dataclasses.replace(IMAGE, family="vectors", frame_shape=(3,), frame_dtype="float32", frame_stack=1)


@pytest.mark.parametrize("frame_stack", [1, 4])
def test_frames_of_images(frame_stack: int) -> None:
    spec = dataclasses.replace(IMAGE, frame_stack=frame_stack)
    observations = np.arange(5 * frame_stack * 6).reshape(5, frame_stack, 2, 3)
    assert spec.observation_shape == observations.shape[1:]
    assert spec.latest_frames(observations).shape == (5, 2, 3)
    assert np.array_equal(spec.latest_frames(observations), observations[:, frame_stack - 1])
    assert spec.stacks(observations).shape == (frame_stack, 5, 2, 3)
    assert np.array_equal(spec.stacks(observations)[0], observations[:, 0])
    assert np.array_equal(spec.stacks(observations)[-1], spec.latest_frames(observations))


def test_a_vector_is_its_own_frame() -> None:
    observations = np.arange(15).reshape(5, 3)
    assert VECTOR.observation_shape == (3,)
    assert np.array_equal(VECTOR.latest_frames(observations), observations)
    assert np.array_equal(VECTOR.stacks(observations), observations[None])


def test_kind_is_what_networks_care_about() -> None:
    assert (IMAGE.kind, VECTOR.kind) == ("image", "vector")


@pytest.mark.parametrize("spec", [IMAGE, VECTOR])
def test_json_and_back_gives_the_same_spec(spec: EnvironmentSpec) -> None:
    assert EnvironmentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
