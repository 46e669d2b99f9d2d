"""Exports: other libraries read the tensors, and onnxruntime computes what our network does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asyncq.agent import network_of
from asyncq.errors import UsageError
from asyncq.storage import exports
from asyncq.storage.exports import save_onnx, save_safetensors
from asyncq.storage.weights_file import load_weights
from untrained import untrained


def test_safetensors_hold_every_tensor_and_the_rest_as_json(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    weights = load_weights(untrained(tmp_path / "w.h5", "CartPole-v1"))
    save_safetensors(tmp_path / "w.safetensors", weights)
    with safetensors.safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert set(file.keys()) == set(weights.parameters)
        assert all(np.array_equal(file.get_tensor(name), value) for name, value in weights.parameters.items())
        assert json.loads(file.metadata()["environment"])["env_id"] == "CartPole-v1"


@pytest.mark.filterwarnings("default")  # of the exporter, about itself
@pytest.mark.parametrize(
    ("env_id", "method", "outputs"),
    [("CartPole-v1", "n-step-q", ["q_values"]), ("ALE/Pong-v5", "a3c", ["logits", "value"])],
)
def test_onnx_gives_the_same_outputs(env_id: str, method: str, outputs: list[str], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = untrained(tmp_path / "w.h5", env_id, method)
    weights = load_weights(path)
    network = network_of(weights, path)
    assert save_onnx(tmp_path / "w.onnx", weights, network) <= exports.TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "w.onnx")
    for batch in (1, 5):  # any number at a time
        shape = (batch, *weights.spec.observation_shape)
        observations = np.random.default_rng(3).integers(0, 9, shape).astype(weights.spec.frame_dtype)
        found = session.run(outputs, {"observations": observations})
        with torch.no_grad():
            expected = network(torch.as_tensor(observations))
        assert all(np.abs(ours.numpy() - theirs).max() < 1e-4 for ours, theirs in zip(expected, found, strict=False))


@pytest.mark.filterwarnings("default")
def test_onnx_takes_and_gives_the_memory_of_an_lstm(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = untrained(tmp_path / "w.h5", "CartPole-v1", recurrent=True)
    weights = load_weights(path)
    network = network_of(weights, path)
    assert save_onnx(tmp_path / "w.onnx", weights, network) <= exports.TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "w.onnx")
    observations, memory = torch.randn(5, 4), torch.randn(5, network.memory_size)
    given = {"observations": observations.numpy(), "memory": memory.numpy()}
    logits, value, after = session.run(["logits", "value", "next_memory"], given)
    with torch.no_grad():
        expected, expected_after = network.step(observations, memory)
    for ours, theirs in zip((*expected, expected_after), (logits, value, after), strict=True):
        assert np.abs(ours.numpy() - theirs).max() < 1e-4


@pytest.mark.filterwarnings("default")
def test_a_network_that_onnx_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    path = untrained(tmp_path / "w.h5", "CartPole-v1", network="tiny_envs:Undecided")
    weights = load_weights(path)
    with pytest.raises(UsageError, match="is not written: Failed to export"):
        save_onnx(tmp_path / "w.onnx", weights, network_of(weights, path, ("tiny_envs",)))
    assert not (tmp_path / "w.onnx").exists()


def test_an_onnx_network_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(exports, "TOLERANCE", -1.0)
    path = untrained(tmp_path / "w.h5", "CartPole-v1")
    weights = load_weights(path)
    with pytest.raises(UsageError, match="is not written"):
        save_onnx(tmp_path / "w.onnx", weights, network_of(weights, path))
    assert not (tmp_path / "w.onnx").exists()
