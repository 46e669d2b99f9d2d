"""Keras `.h5` files of the networks of 2016: read whichever Keras wrote them, and written for Keras 1 or later."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from asyncq.config import TrainConfig
from asyncq.envs import EnvironmentSpec, describe_2016
from asyncq.envs.spec import FRAME_SHAPE
from asyncq.errors import UsageError
from asyncq.shared import Array
from asyncq.storage.files import read_weights_bytes, write_whole
from asyncq.storage.keras_layout import BACKENDS, DATA_FORMATS, KerasFormat, Layer, from_keras, recognise, to_keras
from asyncq.storage.weights_file import TrainedWeights

GAME = "Breakout-v4"
"""What files with its four actions are played on, unless said otherwise: a Keras file does not name its game."""
IMPLAUSIBLE = 1e4
"""No weight is as large as this, or not a number; a Keras file has no checksum that would tell."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_keras_file(content: bytes) -> bool:
    """Whether it may be one: HDF5 without a user block."""
    return content.startswith(SIGNATURE)


def load_keras(
    path: Path, env_id: str | None = None, backend: str | None = None, data_format: str | None = None
) -> TrainedWeights:
    """Read a Keras weights file or whole model, for the game `env_id`; `backend` and `data_format` win over the file's.

    Raises UsageError if it is damaged, no network of 2016, or not for that game.
    """
    layers, form = _read(path, backend, data_format)
    try:
        parameters = from_keras(layers, form)
    except ValueError:
        parameters = {}
    network = recognise(parameters)
    if network is None:
        hint = "; is --keras-data-format right?" if data_format else ""
        raise UsageError(f"{path} is an HDF5 file, but neither asyncq's nor a Keras file of the networks of 2016{hint}")
    if not all((np.abs(value) < IMPLAUSIBLE).all() for value in parameters.values()):
        raise UsageError(f"{path} is damaged: it holds numbers that no trained network has")
    method, head = ("a3c", "policy") if "policy.bias" in parameters else ("one-step-q", "action_values")
    stack = parameters["trunk.convolutions.0.weight"].shape[1]
    spec = _environment(path, env_id, stack, len(parameters[f"{head}.bias"]))
    config = TrainConfig(method=method, env=spec.env_id, network=network, layer_norm=False, frame_stack=stack)
    facts = {"keras": dataclasses.asdict(form)}
    return TrainedWeights(parameters, config.resolved(spec.kind, spec.frame_skip), spec, facts)


def _read(path: Path, backend: str | None, data_format: str | None) -> tuple[list[Layer], KerasFormat]:
    content = io.BytesIO(read_weights_bytes(path))
    try:
        with h5py.File(content, "r") as file:
            root = file.get("model_weights", file)
            _check_names(root)
            layers = list(_layers(root))
            return layers, _format(file, root, layers, backend, data_format)
    except Exception as error:  # of a damaged file HDF5 may say anything
        raise UsageError(f"{path} is no readable weights file: damaged, cut short, or of another kind") from error


def save_keras(path: Path, weights: TrainedWeights, version: int | None = None) -> None:
    """Write `weights` as a Keras weights file, laid out as the one that they came from, or for another `version`.

    Raises UsageError if no Keras network of 2016 has these parameters, OSError if `path` cannot be written.
    """
    if recognise(weights.parameters) is None or weights.spec.frame_shape != FRAME_SHAPE:  # 86x86 has the same shapes
        raise UsageError(
            "these weights have no counterpart in Keras: only those trained with --network a3c or nature and "
            "--layer-norm False on frames of 84x84, without --recurrent and --dueling, do"
        )
    form = KerasFormat(**weights.facts.get("keras", {}))
    if version not in (None, form.version):
        form = KerasFormat(version, BACKENDS[version - 1])
    body = io.BytesIO()
    with h5py.File(body, "w") as file:
        layers = to_keras(weights.parameters, form)
        file.attrs["layer_names"] = _names(layers)
        if form.version > 1:
            file.attrs.update(backend=form.backend, keras_version="2.0")
        for name, layer in layers.items():
            tensors = _tensors(name, layer, form)
            group = file.create_group(name)
            group.attrs["weight_names"] = _names(tensors)
            for tensor, value in tensors.items():
                group.create_dataset(tensor, data=value)
    write_whole(path, body.getvalue())


def _check_names(root: Any) -> None:
    """Raises KeyError if a tensor is missing that the file itself lists, as all but Keras 3's weights files do."""
    for layer in root.attrs.get("layer_names", ()):
        for tensor in root[layer].attrs["weight_names"]:
            root[layer][tensor]


def _layers(root: Any) -> Iterator[Layer]:
    """Every group below `root` that holds a kernel and a bias, but not what an optimizer keeps of them."""
    for name, item in root.items():
        if isinstance(item, h5py.Group) and not name.startswith("optimizer"):
            tensors = sorted((v for v in item.values() if isinstance(v, h5py.Dataset)), key=lambda tensor: -tensor.ndim)
            if len(tensors) == 2 and tensors[0].ndim in (2, 4) and tensors[1].ndim == 1:
                yield Layer(*(np.asarray(tensor, np.float32) for tensor in tensors))
            yield from _layers(item)


def _format(file: Any, root: Any, layers: list[Layer], backend: str | None, data_format: str | None) -> KerasFormat:
    """What the file says of itself, or its tensors do: only Keras 1 names a kernel W, and it records no backend."""
    names: list[str] = []
    root.visit(names.append)
    if any(name.endswith("_W") for name in names):
        kernels = [layer.kernel.shape for layer in layers if layer.kernel.ndim == 4]
        out_first = all(height == width for _, _, height, width in kernels)
        return KerasFormat(1, backend or "theano", data_format or DATA_FORMATS[0 if out_first else 1])
    recorded = _text(file.attrs.get("backend", root.attrs.get("backend", "")))
    backend = backend or ("theano" if recorded == "theano" else "tensorflow")
    return KerasFormat(2, backend, data_format or _flattening_order(file.attrs.get("model_config", "{}")))


def _flattening_order(model_config: str | bytes) -> str:
    """How a whole model counts the dense layer's inputs. Flatten reorders them only if told that channels are first."""
    model = json.loads(model_config).get("config", {})
    layers = model if isinstance(model, list) else model.get("layers", [])  # early Keras 2: a Sequential is a list
    formats = [layer["config"].get("data_format") for layer in layers if layer["class_name"] in ("Conv2D", "Flatten")]
    flat = formats and ("channels_last" in formats[:-1] or formats[-1] == "channels_first")
    return "channels_last" if flat else "channels_first"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _environment(path: Path, env_id: str | None, stack: int, actions: int) -> EnvironmentSpec:
    spec = describe_2016(env_id or GAME, stack)
    if spec.actions == actions:
        return spec
    if env_id is None:
        raise UsageError(f"{path} has {actions} actions and does not name its game; add --env, say --env Pong-v4")
    raise UsageError(f"{path} has {actions} actions, but {env_id} has {spec.actions}; it is for another game")


def _tensors(name: str, layer: Layer | None, form: KerasFormat) -> dict[str, Array]:
    if layer is None:
        return {}
    kernel, bias = ("{0}_W", "{0}_b") if form.version == 1 else ("{0}/kernel:0", "{0}/bias:0")
    return {kernel.format(name): layer.kernel, bias.format(name): layer.bias}


def _names(named: dict[str, Any]) -> Array:
    return np.array([name.encode() for name in named])
