"""Keras files: real ones of 2016 play as they did, every Keras' layout is read, and damage is refused in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from asyncq.agent import network_of
from asyncq.config import TrainConfig
from asyncq.envs import describe_2016
from asyncq.envs.atari_2016 import grey_frame
from asyncq.errors import UsageError
from asyncq.networks import make_network
from asyncq.storage import keras_file
from asyncq.storage.keras_file import load_keras, save_keras
from asyncq.storage.keras_layout import KerasFormat, to_keras
from asyncq.storage.weights_file import TrainedWeights

REAL = Path(__file__).parents[3] / "shared" / "data" / "keras1"
A3C, Q = REAL / "a3c-breakout-91750000.h5", REAL / "one-step-q-breakout-18h.h5"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason=f"there are no files of 2016 in {REAL}")


def random_weights(heads: str = "policy-value", env_id: str = "Breakout-v4", stack: int = 3) -> TrainedWeights:
    spec = describe_2016(env_id, stack)
    network = make_network("a3c", heads, spec.observation_shape, spec.actions, layer_norm=False)
    parameters = {name: value.numpy() for name, value in network.state_dict().items()}
    method = "a3c" if heads == "policy-value" else "one-step-q"
    config = TrainConfig(method=method, env=env_id, network="a3c", layer_norm=False, frame_stack=stack)
    return TrainedWeights(parameters, config.resolved("image", 3), spec, {})


def same(one: TrainedWeights, other: TrainedWeights) -> bool:
    return set(one.parameters) == set(other.parameters) and all(
        np.array_equal(one.parameters[name], value) for name, value in other.parameters.items()
    )


@needs_real_files
def test_raw_frames_give_the_golden_outputs() -> None:
    golden = np.load(REAL / "golden.npz")
    observations = np.stack([[grey_frame(frame, (84, 84)) for frame in stack] for stack in golden["frames"]])
    assert np.abs(observations / 255 - golden["observations"]).max() < 1e-6
    with torch.no_grad():
        logits, values = network_of(load_keras(A3C), A3C)(torch.as_tensor(observations))
        q_values, _ = network_of(load_keras(Q), Q)(torch.as_tensor(observations))
    assert np.abs(logits.softmax(-1).numpy() - golden["policy"]).max() < 1e-5
    assert np.abs(values.numpy() - golden["value"]).max() < 1e-5
    assert np.abs(q_values.numpy() - golden["q_values"]).max() < 1e-5


@needs_real_files
@pytest.mark.parametrize("path", [A3C, Q])
def test_real_files_come_back_bit_equal(path: Path, tmp_path: Path) -> None:
    save_keras(tmp_path / "back.h5", load_keras(path))
    with h5py.File(path) as before, h5py.File(tmp_path / "back.h5") as after:
        assert list(before.attrs["layer_names"]) == list(after.attrs["layer_names"])
        assert set(before) == set(after)
        for layer in before:
            names = list(before[layer].attrs["weight_names"])
            assert names == list(after[layer].attrs["weight_names"])
            for name in names:
                one, other = before[layer][name], after[layer][name]
                assert one.dtype == other.dtype and np.array_equal(one[()], other[()])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("heads", ["policy-value", "q"])
def test_what_is_written_is_read(version: int, heads: str, tmp_path: Path) -> None:
    weights = random_weights(heads)
    save_keras(tmp_path / "k.h5", weights, version)
    loaded = load_keras(tmp_path / "k.h5")
    assert same(loaded, weights)
    assert (loaded.spec, loaded.config) == (weights.spec, weights.config)
    assert loaded.facts["keras"]["version"] == version


def test_weights_files_of_keras_3_are_read(tmp_path: Path) -> None:
    """`layers/<class>_<number>/vars/0` and `1`, and no attributes, as Keras 3.15 writes `.weights.h5`."""
    weights = random_weights()
    layers = [layer for layer in to_keras(weights.parameters, KerasFormat()).values() if layer]
    names = ["conv2d_7", "conv2d_8", "dense", "dense_1", "dense_2"]
    with h5py.File(tmp_path / "k.weights.h5", "w") as file:
        for name, layer in zip(names, layers, strict=True):
            file[f"layers/{name}/vars/0"], file[f"layers/{name}/vars/1"] = layer.kernel, layer.bias
        file["optimizer/vars/0"], file["optimizer/vars/1"] = np.zeros((256, 4)), np.zeros(4)
    assert same(load_keras(tmp_path / "k.weights.h5"), weights)


def whole_model(path: Path, form: KerasFormat, convolutions: str, flatten: str | None, backend: str) -> TrainedWeights:
    """A model as Keras 2 and 3 save it: its configuration, its weights, its optimizer."""
    weights = random_weights()
    described: list[Any] = [{"class_name": "Conv2D", "config": {"data_format": convolutions}}] * 2
    described.append({"class_name": "Flatten", "config": {"data_format": flatten} if flatten else {}})
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": described}})
        file.attrs["backend"] = backend
        for name, layer in to_keras(weights.parameters, form).items():
            if layer:
                file[f"model_weights/{name}/{name}/kernel"] = layer.kernel
                file[f"model_weights/{name}/{name}/bias"] = layer.bias
        file["optimizer_weights/adam/kernel"], file["optimizer_weights/adam/bias"] = np.zeros((256, 4)), np.zeros(4)
    return weights


@pytest.mark.parametrize(
    ("convolutions", "flatten", "order"),
    [
        ("channels_first", "channels_last", "channels_first"),
        ("channels_first", None, "channels_first"),
        ("channels_first", "channels_first", "channels_last"),
        ("channels_last", "channels_last", "channels_last"),
    ],
)
def test_whole_models_say_how_they_flatten(convolutions: str, flatten: str | None, order: str, tmp_path: Path) -> None:
    weights = whole_model(tmp_path / "k.h5", KerasFormat(2, "tensorflow", order), convolutions, flatten, "tensorflow")
    assert same(load_keras(tmp_path / "k.h5"), weights)


def test_the_recorded_backend_decides_and_a_flag_wins(tmp_path: Path) -> None:
    weights = whole_model(tmp_path / "k.h5", KerasFormat(2, "theano"), "channels_first", None, "theano")
    assert same(load_keras(tmp_path / "k.h5"), weights)
    assert not same(load_keras(tmp_path / "k.h5", backend="tensorflow"), weights)


def test_keras_1_is_theano_unless_said_otherwise(tmp_path: Path) -> None:
    weights = random_weights()
    save_keras(tmp_path / "k.h5", weights, version=1)
    turned = load_keras(tmp_path / "k.h5", backend="tensorflow").parameters["trunk.convolutions.0.weight"]
    assert np.array_equal(turned, weights.parameters["trunk.convolutions.0.weight"][:, :, ::-1, ::-1])


@pytest.mark.parametrize("stack", [3, 4])
def test_stack_and_actions_come_from_the_shapes(stack: int, tmp_path: Path) -> None:
    save_keras(tmp_path / "k.h5", random_weights(env_id="Pong-v4", stack=stack))
    with pytest.raises(UsageError, match="6 actions and does not name its game"):
        load_keras(tmp_path / "k.h5")
    loaded = load_keras(tmp_path / "k.h5", "Pong-v4")
    assert (loaded.spec.env_id, loaded.spec.actions, loaded.spec.frame_stack) == ("Pong-v4", 6, stack)
    with pytest.raises(UsageError, match="Breakout-v4 has 4"):
        load_keras(tmp_path / "k.h5", "Breakout-v4")


def test_weights_without_a_counterpart_are_not_written(tmp_path: Path) -> None:
    normalised, larger = random_weights(), random_weights()
    normalised.parameters["trunk.norms.0.weight"] = np.ones(3, np.float32)
    larger = dataclasses.replace(larger, spec=larger.spec.resized(86))  # the parameters' shapes are the same
    for weights in (normalised, larger):
        with pytest.raises(UsageError, match="no counterpart in Keras"):
            save_keras(tmp_path / "k.h5", weights)
    assert not list(tmp_path.iterdir())


def test_numbers_that_no_network_has_are_refused(tmp_path: Path) -> None:
    weights = random_weights()
    weights.parameters["policy.weight"][0, 0] = np.nan
    save_keras(tmp_path / "k.h5", weights)
    with pytest.raises(UsageError, match="no trained network"):
        load_keras(tmp_path / "k.h5")


def test_an_a3c_file_without_its_value_is_no_q_file(tmp_path: Path) -> None:
    save_keras(tmp_path / "k.h5", random_weights(), version=1)
    with h5py.File(tmp_path / "k.h5", "a") as file:
        del file["value"]["value_W"]
    with pytest.raises(UsageError, match="damaged"):
        load_keras(tmp_path / "k.h5")


def test_a_foreign_hdf5_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = np.arange(3)
    with pytest.raises(UsageError, match="neither asyncq's nor a Keras file"):
        load_keras(tmp_path / "foreign.h5")


def test_random_damage_never_ends_in_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 damaged copies. Keras files have no checksum: what is read has other numbers at most, never another shape."""
    path, weights = tmp_path / "k.h5", random_weights()
    save_keras(path, weights, version=1)
    monkeypatch.setattr(keras_file, "describe_2016", lambda *_: weights.spec)  # it loads the game, which takes long
    shapes = {name: value.shape for name, value in weights.parameters.items()}
    content, generator, refused = path.read_bytes(), np.random.default_rng(1), 0
    for copy in range(200):
        start = int(generator.integers(4096 if copy % 2 else len(content)))  # half of them where the layout is
        length = int(generator.choice([1, 16, 512]))
        damaged = bytearray(content)
        damaged[start : start + length] = generator.bytes(len(damaged[start : start + length]))
        path.write_bytes(damaged[:start] if copy % 10 == 0 else damaged)
        try:
            loaded = load_keras(path)
        except UsageError:
            refused += 1
            continue
        assert {name: value.shape for name, value in loaded.parameters.items()} == shapes
    assert refused > 40
