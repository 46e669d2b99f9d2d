"""What the Q methods share: the loss, and the values that Q-learning bootstraps from."""

from __future__ import annotations

from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Batch, Samples, chosen, outputs


def squared_error(network: nn.Module, samples: Samples, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the mean squared error of the chosen actions' values: the scalar loss, and what to report."""
    values, _ = samples.outputs(network)
    value = chosen(values.float(), samples.actions)
    error = 0.5 * (samples.targets["values"] - value).square().mean()
    return error, {"value": error.detach(), "mean_q": value.mean().detach()}


def bootstrap_values(network: nn.Module, target_network: nn.Module, batch: Batch, double: bool) -> Tensor:
    """The target network's greatest action value for each next observation of the batch, `[T, E]`.

    With `double` it is the target network's value of the action that the network itself thinks best: whoever chooses
    does not judge as well (van Hasselt et al. 2016, eq. 4).
    """
    values, greatest = outputs(target_network, batch, begin=1)
    return chosen(values, outputs(network, batch, begin=1)[0].argmax(-1)) if double else greatest
