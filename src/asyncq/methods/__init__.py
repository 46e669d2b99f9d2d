"""Methods: each file holds one loss on fragments and names the heads it needs; this table knows them all."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.methods import a3c, n_step_q, one_step_q
from asyncq.methods.batch import Batch


class Method(Protocol):
    """A module that learns from fragments."""

    HEADS: str
    """Heads of the network: "policy-value" (the policy is their softmax) or "q" (epsilon-greedy)."""

    def loss(
        self, network: nn.Module, target_network: nn.Module, batch: Batch, config: TrainConfig, /
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


METHODS: dict[str, Method] = {"a3c": a3c, "n-step-q": n_step_q, "one-step-q": one_step_q}
