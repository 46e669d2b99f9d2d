"""Methods: each file says what a fragment teaches and how to learn it; this table knows all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.envs.spec import EnvironmentSpec
from asyncq.methods import a3c, n_step_q, one_step_q, one_step_sarsa
from asyncq.methods.action_values import QMethod
from asyncq.methods.batch import Batch
from asyncq.networks import PolicyValueNetwork, QNetwork, make_network


class Method(Protocol):
    """What learns from fragments: a module, or a `QMethod`."""

    @property
    def HEADS(self) -> str:
        """Heads of the network: "policy-value" (the policy is their softmax) or "q" (epsilon-greedy)."""

    def minibatches(
        self, network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig, /
    ) -> Iterator[Any]:
        """What each update on a batch learns from: `--passes` times all decisions, in parts of about `--batch-size`.

        Called, but not iterated, in the run's precision: targets are computed in the call, not in a generator's body.
        """

    def loss(self, network: nn.Module, minibatch: Any, config: TrainConfig, /) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss on a minibatch, and its parts for the report; the learner averages an `advantage_square`."""


METHODS: dict[str, Method] = {
    "a3c": a3c,
    "n-step-q": QMethod(n_step_q.targets),
    "one-step-q": QMethod(one_step_q.targets),
    "one-step-sarsa": QMethod(one_step_sarsa.targets),
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
