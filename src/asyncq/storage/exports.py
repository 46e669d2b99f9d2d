"""Weights for programs that know nothing of asyncq: safetensors, and ONNX with a check of what it computes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asyncq.errors import UsageError, install, one_line
from asyncq.networks import Network, PolicyValueNetwork
from asyncq.storage.files import write_whole
from asyncq.storage.weights_file import TrainedWeights

TOLERANCE = 1e-4
"""How far an ONNX network's output x may lie from ours, as a share of 1 + |x|."""


def save_safetensors(path: Path, weights: TrainedWeights) -> None:
    """The tensors by name, with everything else as JSON in the metadata. Raises UsageError without the package."""
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise UsageError(f"writing {path} needs safetensors: {install('convert')}") from error
    write_whole(path, save(weights.parameters, metadata=weights.metadata()))


def save_onnx(path: Path, weights: TrainedWeights, network: Network) -> float:
    """Write `network` as ONNX: `observations[B, ...]` in, `logits[B, A]` and `value[B]` out, or `q_values[B, A]`.

    With an LSTM also `memory[B, M]` in, zeros as a game begins, and `next_memory[B, M]` out.
    Returns the largest difference of its outputs in onnxruntime to ours on random observations, relative to 1 + their
    size. Raises UsageError without the packages, or if that is above TOLERANCE.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"writing {path} needs onnx, onnxruntime, onnxscript: {install('convert')}") from error
    inputs = {"observations": _random_observations(weights, 32)}
    names = ["logits", "value"] if isinstance(network, PolicyValueNetwork) else ["q_values"]
    exported = _Exported(network, len(names)).eval()
    if network.memory_size:
        inputs["memory"] = torch.rand(32, network.memory_size) - 0.5
        names.append("next_memory")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that nothing here uses
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning, UserWarning))  # the exporter's, of itself
        expected = exported(*inputs.values())
        try:
            program = torch.onnx.export(
                exported, tuple(inputs.values()), input_names=list(inputs), output_names=names,
                dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in inputs), dynamo=True, verbose=False,
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:  # a network of the user's own
            raise UsageError(f"{path} is not written: {one_line(error)[:300]}") from error
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, weights.metadata())
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(names, {name: value.numpy() for name, value in inputs.items()})
    difference = max(
        float((np.abs(ours.numpy() - theirs) / (1 + np.abs(theirs))).max())
        for ours, theirs in zip(expected, found, strict=True)
    )
    if not difference <= TOLERANCE:
        raise UsageError(f"{path} is not written: onnxruntime's outputs are {difference:.1g} from ours")
    write_whole(path, content)
    return difference


class _Exported(torch.nn.Module):
    """A network without the outputs that nobody outside needs."""

    def __init__(self, network: Network, outputs: int) -> None:
        super().__init__()
        self.network, self.outputs = network, outputs

    def forward(self, observations: Tensor, memory: Tensor | None = None) -> tuple[Tensor, ...]:
        if memory is None:
            return tuple(self.network(observations))[: self.outputs]
        outputs, next_memory = self.network.step(observations, memory)
        return *outputs[: self.outputs], next_memory


def _random_observations(weights: TrainedWeights, count: int) -> Tensor:
    spec, generator = weights.spec, np.random.default_rng(0)
    shape = (count, *spec.observation_shape)
    values = generator.normal(size=shape) if spec.kind == "vector" else generator.integers(256, size=shape)
    return torch.as_tensor(values.astype(spec.frame_dtype))
