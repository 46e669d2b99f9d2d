"""The loss that all Q methods share; they differ in their targets."""

from __future__ import annotations

from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Samples, chosen


def squared_error(network: nn.Module, samples: Samples, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the mean squared error of the chosen actions' values: the scalar loss, and what to report."""
    values, _ = network(samples.observations)
    value = chosen(values.float(), samples.actions)
    error = 0.5 * (samples.targets["values"] - value).square().mean()
    return error, {"value": error.detach(), "mean_q": value.mean().detach()}
