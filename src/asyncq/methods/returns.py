"""Returns as pure functions of `[T, E]` tensors, time first.

Everywhere: `discounts` is gamma, or 0 after a termination; `mask` is 0 at steps that only reset their environment.
A return that reaches such a step ends there with the value of its observation: that is how a truncated episode
bootstraps from its last observation, while a terminated one is cut by its discount.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def one_step_targets(rewards: Tensor, discounts: Tensor, next_values: Tensor) -> Tensor:
    """r_t + discount_t * v_{t+1} (Watkins' Q-learning, with v the greatest action value). All `[T, E]`."""
    return rewards + discounts * next_values


def lambda_returns(
    rewards: Tensor, discounts: Tensor, mask: Tensor, next_values: Tensor, trace_lambda: float
) -> Tensor:
    """lambda-returns, the mixture of all n-step returns up to the fragment's end; n-step returns at lambda 1.

    G_t = r_t + discount_t * ((1 - lambda) v_{t+1} + lambda G_{t+1}), with G_T = v_T
    (Sutton & Barto, 2nd edition, eq. 12.18; Mnih et al. 2016, algorithm S2 at lambda 1).

    Args:
        rewards, discounts, mask: `[T, E]`.
        next_values: v_{t+1}, `[T, E]`.

    Returns:
        `[T, E]`; what stands at masked steps means nothing.
    """
    returns = torch.empty_like(rewards)
    following = next_values[-1]
    for t in range(len(rewards) - 1, -1, -1):
        mixed = next_values[t] + trace_lambda * (following - next_values[t])
        returns[t] = rewards[t] + discounts[t] * mixed
        if t > 0:
            following = torch.where(mask[t] > 0, returns[t], next_values[t - 1])
    return returns


MOST_RATIO = 1.0
"""Both rho-bar and c-bar."""


class VTrace(NamedTuple):
    """`targets[T, E]` for the values, `advantages[T, E]` for the policy."""

    targets: Tensor
    advantages: Tensor


def vtrace(
    values: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    mask: Tensor,
    log_ratios: Tensor,
    trace_lambda: float,
) -> VTrace:
    """V-trace (Espeholt et al. 2018, eq. 1) with lambda as in its remark 2; on-policy it is GAE(lambda).

    advantage_t = r_t + discount_t * (v_{t+1} + lambda (target_{t+1} - v_{t+1})) - v_t, 0 where masked; the weight of
    the policy gradient, the ratio, is left to the caller.

    Args:
        values: v_t, `[T+1, E]`.
        rewards, discounts, mask: `[T, E]`.
        log_ratios: log pi(a_t|x_t) - log mu(a_t|x_t), `[T, E]`.
        trace_lambda: multiplies the trace coefficients c.
    """
    ratios = log_ratios.exp().clamp(max=MOST_RATIO)
    deltas = mask * ratios * (rewards + discounts * values[1:] - values[:-1])
    traces = mask * trace_lambda * discounts * ratios
    corrections = torch.empty_like(deltas)
    correction = torch.zeros_like(values[-1])
    for t in range(len(rewards) - 1, -1, -1):
        correction = deltas[t] + traces[t] * correction
        corrections[t] = correction
    targets = values[:-1] + corrections
    following = torch.cat([corrections[1:], torch.zeros_like(corrections[:1])])
    mixed = values[1:] + trace_lambda * following
    return VTrace(targets, mask * (rewards + discounts * mixed - values[:-1]))
