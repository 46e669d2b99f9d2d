"""What the Q methods share: all but their targets, and the values that Q-learning bootstraps from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods.batch import Batch, Samples, chosen, outputs, shuffled_samples


@dataclass(frozen=True)
class QMethod:
    """Learns action values from single steps, whose targets are computed once a batch."""

    targets: Callable[[nn.Module, nn.Module, Batch, TrainConfig], Tensor]
    """What the values of the chosen actions are to be, `[T, E]`, by the network and the target network."""
    HEADS: str = "q"

    def minibatches(
        self, network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig
    ) -> Iterator[Samples]:
        """Single steps in random order."""
        assert config.batch_size and config.passes
        with torch.no_grad():
            targets = self.targets(network, target_network, batch, config)
        return (
            samples for _ in range(config.passes) for samples in shuffled_samples(batch, targets, config.batch_size)
        )

    def loss(self, network: nn.Module, samples: Samples, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """Half the mean squared error of the chosen actions' values: the scalar loss, and what to report."""
        values, _ = samples.outputs(network)
        value = chosen(values, samples.actions)
        error = 0.5 * (samples.targets - value).square().mean()
        return error, {"value": error.detach(), "mean_q": value.mean().detach()}


def bootstrap_values(network: nn.Module, target_network: nn.Module, batch: Batch, double: bool) -> Tensor:
    """The target network's greatest action value for each next observation of the batch, `[T, E]`.

    With `double` it is the target network's value of the action that the network itself thinks best: whoever chooses
    does not judge as well (van Hasselt et al. 2016, eq. 4).
    """
    values, greatest = outputs(target_network, batch, slice(1, None))
    return chosen(values, outputs(network, batch, slice(1, None))[0].argmax(-1)) if double else greatest
