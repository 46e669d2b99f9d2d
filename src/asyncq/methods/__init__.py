"""Methods: each file says what a fragment teaches, its targets, and how to learn it, its loss; this table knows all."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.envs.spec import EnvironmentSpec
from asyncq.methods import a3c, n_step_q, one_step_q, one_step_sarsa
from asyncq.methods.batch import Batch, Samples
from asyncq.networks import PolicyValueNetwork, QNetwork, make_network


class Method(Protocol):
    """A module that learns from fragments."""

    HEADS: str
    """Heads of the network: "policy-value" (the policy is their softmax) or "q" (epsilon-greedy)."""

    def targets(
        self, network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig, /
    ) -> dict[str, Tensor]:
        """What the network is to learn from a batch, computed once, by name, each `[T, E]`."""

    def loss(self, network: nn.Module, samples: Samples, config: TrainConfig, /) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss on samples with their targets, and its parts for the report."""


METHODS: dict[str, Method] = {
    "a3c": a3c,
    "n-step-q": n_step_q,
    "one-step-q": one_step_q,
    "one-step-sarsa": one_step_sarsa,
}


def network_for(config: TrainConfig, spec: EnvironmentSpec) -> PolicyValueNetwork | QNetwork:
    """The network that `config` describes, with its method's heads, in evaluation mode: who learns and who plays see
    the same outputs, whatever layers a user's network has. Raises UsageError if the frames are too small."""
    assert config.network
    return make_network(
        config.network,
        METHODS[config.method].HEADS,
        spec.observation_shape,
        spec.actions,
        layer_norm=bool(config.layer_norm),
        dueling=config.dueling,
        recurrent=config.recurrent,
    ).eval()
