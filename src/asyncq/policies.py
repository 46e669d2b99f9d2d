"""Policies: from a network's outputs to actions."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from asyncq.networks import Outputs


class Policy(Protocol):
    """How actions `[B]` are chosen, and the log probability `[B]` with which each was."""

    def act(self, outputs: Outputs, generator: Generator | None = None) -> tuple[Tensor, Tensor]: ...


class SoftmaxPolicy:
    """Samples from the softmax of the logits.

    Row i keeps its random numbers for `persistence[i]` steps on average; one number stands for all rows. More than 1
    makes moves last that are tried: noise correlated in time (Eberhard et al. 2023; on-policy: Hollenstein et al.
    2024). The log probabilities are the softmax's, as if the noise were new at every step.
    """

    def __init__(self, persistence: ArrayLike = 1.0) -> None:
        self.renewal = 1 / torch.as_tensor(persistence)
        self.persists = bool((self.renewal < 1).any())
        self.noise: Tensor | None = None

    def act(self, outputs: Outputs, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        log_probs = outputs[0].log_softmax(-1)
        noise = torch.empty_like(log_probs).exponential_(generator=generator).log_()
        if self.persists:
            if self.noise is not None:
                renewed = torch.rand(len(noise), generator=generator) < self.renewal
                noise = noise.where(renewed.unsqueeze(-1), self.noise)
            self.noise = noise
        actions = (log_probs - noise).argmax(-1)  # the Gumbel-max trick
        return actions, log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


class GreedyPolicy:
    """Takes the best action."""

    def act(self, outputs: Outputs, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        actions = outputs[0].argmax(-1)
        return actions, torch.zeros(len(actions))


class EpsilonGreedyPolicy:
    """Takes the best action, and with probability epsilon, one a row, a uniformly random one."""

    def __init__(self, epsilon: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        self.epsilon = torch.as_tensor(epsilon)

    def act(self, outputs: Outputs, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        values, _ = outputs
        greedy = values.argmax(-1)
        random = torch.randint(values.shape[-1], greedy.shape, generator=generator)
        actions = torch.where(torch.rand(greedy.shape, generator=generator) < self.epsilon, random, greedy)
        chosen = self.epsilon / values.shape[-1] + (actions == greedy) * (1 - self.epsilon)
        return actions, chosen.log().float()


def sample_final_epsilons(
    finals: tuple[float, ...], probabilities: tuple[float, ...], count: int, generator: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Final epsilons of `count` environments, as the paper samples them for its threads (section 5.1)."""
    return generator.choice(finals, size=count, p=np.array(probabilities) / sum(probabilities))
