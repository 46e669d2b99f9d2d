"""Returns: hand-computed numbers, identities, and slow literal versions that follow the equations term by term.

The literal versions know nothing of the recursions in the source: they list every n-step return of the steps before
the fragment's end or the next reset, and add them up with their weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from asyncq.methods.returns import lambda_returns, one_step_targets, vtrace

GAMMA = 0.9
LAMBDAS = (0.0, 0.3, 0.95, 1.0)


class Case(NamedTuple):
    values: Tensor
    rewards: Tensor
    discounts: Tensor
    mask: Tensor
    log_ratios: Tensor


def random_case(seed: int, steps: int = 9, envs: int = 40) -> Case:
    """Episodes that terminate or are truncated at random; the step after either only resets."""
    generator = torch.Generator().manual_seed(seed)
    discounts, mask = torch.full((steps, envs), GAMMA), torch.ones(steps, envs)
    ends = torch.rand(steps, envs, generator=generator) < 0.25
    terminates = torch.rand(steps, envs, generator=generator) < 0.5
    for env in range(envs):
        for t in range(steps):
            if mask[t, env] and ends[t, env]:
                if terminates[t, env]:
                    discounts[t, env] = 0
                if t + 1 < steps:
                    mask[t + 1, env] = 0
    return Case(
        values=torch.randn(steps + 1, envs, generator=generator, dtype=torch.float64),
        rewards=torch.randn(steps, envs, generator=generator, dtype=torch.float64),
        discounts=discounts.double(),
        mask=mask.double(),
        log_ratios=0.7 * torch.randn(steps, envs, generator=generator, dtype=torch.float64),
    )


def horizon(mask: Tensor, start: int) -> int:
    """The step at which returns from `start` end with a bootstrap: the next reset, or the fragment's end."""
    resets = [t for t in range(start + 1, len(mask)) if mask[t] == 0]
    return min([*resets, len(mask)])


def n_step_return(case: Case, env: int, start: int, n: int) -> float:
    """r_s + d_s r_{s+1} + ... + (d_s ... d_{s+n-1}) v_{s+n}."""
    total, discount = 0.0, 1.0
    for t in range(start, start + n):
        total += discount * float(case.rewards[t, env])
        discount *= float(case.discounts[t, env])
    return total + discount * float(case.values[start + n, env])


def literal_lambda_return(case: Case, env: int, start: int, trace_lambda: float) -> float:
    """(1 - lambda) * sum of lambda^(n-1) G^(n), and lambda^(N-1) G^(N) for the longest."""
    longest = horizon(case.mask[:, env], start) - start
    mixture = sum(
        (1 - trace_lambda) * trace_lambda ** (n - 1) * n_step_return(case, env, start, n) for n in range(1, longest)
    )
    return mixture + trace_lambda ** (longest - 1) * n_step_return(case, env, start, longest)


def literal_vtrace_target(case: Case, env: int, start: int, trace_lambda: float) -> float:
    """v_s + sum over t of (discounts and c's from s to t-1) * rho_t * (r_t + d_t v_{t+1} - v_t), eq. 1."""
    target = float(case.values[start, env])
    for t in range(start, horizon(case.mask[:, env], start)):
        rho = min(1.0, math.exp(float(case.log_ratios[t, env])))
        delta = float(case.rewards[t, env] + case.discounts[t, env] * case.values[t + 1, env] - case.values[t, env])
        product = 1.0
        for i in range(start, t):
            c = trace_lambda * min(1.0, math.exp(float(case.log_ratios[i, env])))
            product *= float(case.discounts[i, env]) * c
        target += product * rho * delta
    return target


def decisions(case: Case) -> list[tuple[int, int]]:
    return [(int(t), int(env)) for t, env in case.mask.nonzero().tolist()]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def halves(steps: int) -> Tensor:
    return torch.full((steps, 1), 0.5, dtype=torch.float64)


def test_random_cases_hold_what_they_should() -> None:
    case = random_case(0)
    before_reset = case.discounts[:-1][case.mask[1:] == 0]
    assert (before_reset == 0).any()
    assert (before_reset > 0).any()
    assert (case.mask[1:][case.discounts[:-1] == 0] == 0).all()


def test_one_step_targets_by_hand() -> None:
    targets = one_step_targets(column(1, 2, 3), column(0.5, 0, 0.5), column(10, 20, 30))
    assert targets.tolist() == [[6], [2], [18]]


def test_lambda_returns_by_hand() -> None:
    # G_2 = 3 + 0.5*30 = 18; G_1 = 2 + 0.5*(0.5*20 + 0.5*18) = 11.5; G_0 = 1 + 0.5*(0.5*10 + 0.5*11.5) = 6.375
    returns = lambda_returns(column(1, 2, 3), halves(3), torch.ones(3, 1), column(10, 20, 30), 0.5)
    assert returns.tolist() == [[6.375], [11.5], [18]]


def test_n_step_returns_by_hand() -> None:
    # 18; 2 + 0.5*18 = 11; 1 + 0.5*11 = 6.5
    returns = lambda_returns(column(1, 2, 3), halves(3), torch.ones(3, 1), column(10, 20, 30), 1.0)
    assert returns.tolist() == [[6.5], [11], [18]]


@pytest.mark.parametrize("trace_lambda", LAMBDAS)
@pytest.mark.parametrize("seed", [1, 2])
def test_lambda_returns_equal_the_literal_mixture(seed: int, trace_lambda: float) -> None:
    case = random_case(seed)
    returns = lambda_returns(case.rewards, case.discounts, case.mask, case.values[1:], trace_lambda)
    for t, env in decisions(case):
        assert float(returns[t, env]) == pytest.approx(literal_lambda_return(case, env, t, trace_lambda), abs=1e-9)


def test_lambda_0_is_the_one_step_target() -> None:
    case = random_case(3)
    returns = lambda_returns(case.rewards, case.discounts, case.mask, case.values[1:], 0.0)
    targets = one_step_targets(case.rewards, case.discounts, case.values[1:])
    assert torch.equal(returns[case.mask > 0], targets[case.mask > 0])


def test_lambda_1_is_the_longest_n_step_return() -> None:
    case = random_case(4)
    returns = lambda_returns(case.rewards, case.discounts, case.mask, case.values[1:], 1.0)
    for t, env in decisions(case):
        n = horizon(case.mask[:, env], t) - t
        assert float(returns[t, env]) == pytest.approx(n_step_return(case, env, t, n), abs=1e-9)


@pytest.mark.parametrize("trace_lambda", LAMBDAS)
def test_truncation_bootstraps_from_the_final_observation(trace_lambda: float) -> None:
    # step 1 is truncated: observation 2, of value 20, is the episode's last, and step 2 only resets
    returns = lambda_returns(column(1, 2, 77, 5), halves(4), column(1, 1, 0, 1), column(10, 20, 30, 40), trace_lambda)
    assert float(returns[1]) == 2 + 0.5 * 20
    assert float(returns[3]) == 5 + 0.5 * 40
    assert float(returns[0]) == pytest.approx(1 + 0.5 * ((1 - trace_lambda) * 10 + trace_lambda * 12))


@pytest.mark.parametrize("trace_lambda", LAMBDAS)
def test_termination_does_not_bootstrap(trace_lambda: float) -> None:
    arguments = column(1, 2, 77, 5), column(0.5, 0, 0.5, 0.5), column(1, 1, 0, 1)
    returns = lambda_returns(*arguments, column(10, 20, 30, 40), trace_lambda)
    assert float(returns[1]) == 2
    elsewhere = lambda_returns(*arguments, column(10, -999, 999, -999), trace_lambda)
    assert torch.equal(returns[:2], elsewhere[:2])


@pytest.mark.parametrize("trace_lambda", LAMBDAS)
def test_what_a_reset_step_holds_reaches_no_other_step(trace_lambda: float) -> None:
    case = random_case(5)
    junk = case._replace(
        rewards=torch.where(case.mask > 0, case.rewards, 1e6),
        discounts=torch.where(case.mask > 0, case.discounts, 123.0),
        log_ratios=torch.where(case.mask > 0, case.log_ratios, 5.0),
    )
    clean, dirty = (
        lambda_returns(c.rewards, c.discounts, c.mask, c.values[1:], trace_lambda)[case.mask > 0] for c in (case, junk)
    )
    assert torch.equal(clean, dirty)
    one, other = (vtrace(c.values, c.rewards, c.discounts, c.mask, c.log_ratios, trace_lambda) for c in (case, junk))
    assert torch.equal(one.targets, other.targets)
    assert torch.equal(one.advantages, other.advantages)


def test_vtrace_by_hand() -> None:
    # ratios 0.5 and 2, clipped to 0.5 and 1; delta_1 = 2 + 0.5*8 - 4 = 2; delta_0 = 0.5*(1 + 0.5*4 - 2) = 0.5
    # target_1 = 4 + 2 = 6; target_0 = 2 + 0.5 + (0.5*0.5)*2 = 3; advantage_0 = 1 + 0.5*6 - 2 = 2
    trace = vtrace(column(2, 4, 8), column(1, 2), halves(2), torch.ones(2, 1), column(0.5, 2).log(), trace_lambda=1.0)
    assert trace.targets.flatten().tolist() == pytest.approx([3, 6])
    assert trace.advantages.flatten().tolist() == pytest.approx([2, 2])


@pytest.mark.parametrize("trace_lambda", LAMBDAS)
@pytest.mark.parametrize("seed", [1, 2])
def test_vtrace_targets_equal_the_literal_sum(seed: int, trace_lambda: float) -> None:
    case = random_case(seed)
    trace = vtrace(case.values, case.rewards, case.discounts, case.mask, case.log_ratios, trace_lambda)
    for t, env in decisions(case):
        expected = literal_vtrace_target(case, env, t, trace_lambda)
        assert float(trace.targets[t, env]) == pytest.approx(expected, abs=1e-9)


def test_vtrace_advantages_bootstrap_from_the_next_target() -> None:
    case = random_case(6)
    trace = vtrace(case.values, case.rewards, case.discounts, case.mask, case.log_ratios, 1.0)
    for t, env in decisions(case):
        ends = t + 1 == len(case.mask) or case.mask[t + 1, env] == 0
        following = float(case.values[t + 1, env]) if ends else literal_vtrace_target(case, env, t + 1, 1.0)
        expected = float(case.rewards[t, env] + case.discounts[t, env] * following - case.values[t, env])
        assert float(trace.advantages[t, env]) == pytest.approx(expected, abs=1e-9)


def test_vtrace_on_policy_at_lambda_1_targets_n_step_returns() -> None:
    case = random_case(7)
    trace = vtrace(case.values, case.rewards, case.discounts, case.mask, torch.zeros_like(case.rewards), 1.0)
    returns = lambda_returns(case.rewards, case.discounts, case.mask, case.values[1:], 1.0)
    torch.testing.assert_close(trace.targets[case.mask > 0], returns[case.mask > 0])


@pytest.mark.parametrize("trace_lambda", LAMBDAS)
def test_vtrace_on_policy_advantages_are_gae(trace_lambda: float) -> None:
    """GAE (Schulman et al. 2016, eq. 16): the sum over l of (discount * lambda)^l * delta_{t+l}."""
    case = random_case(8)
    trace = vtrace(case.values, case.rewards, case.discounts, case.mask, torch.zeros_like(case.rewards), trace_lambda)
    deltas = case.rewards + case.discounts * case.values[1:] - case.values[:-1]
    for t, env in decisions(case):
        expected, weight = 0.0, 1.0
        for later in range(t, horizon(case.mask[:, env], t)):
            expected += weight * float(deltas[later, env])
            weight *= trace_lambda * float(case.discounts[later, env])
        assert float(trace.advantages[t, env]) == pytest.approx(expected, abs=1e-9)


def test_vtrace_at_reset_steps_teaches_nothing() -> None:
    case = random_case(9)
    trace = vtrace(case.values, case.rewards, case.discounts, case.mask, case.log_ratios, 0.95)
    resets = case.mask == 0
    assert (trace.advantages[resets] == 0).all()
    assert torch.equal(trace.targets[resets], case.values[:-1][resets])


def test_vtrace_truncation_bootstraps_and_termination_does_not() -> None:
    values, rewards, mask = column(2, 4, 8, 16), column(1, 99, 3), column(1, 0, 1)
    truncated = vtrace(values, rewards, halves(3), mask, torch.zeros(3, 1), 1.0)
    terminated = vtrace(values, rewards, column(0, 0.5, 0.5), mask, torch.zeros(3, 1), 1.0)
    assert truncated.targets.flatten().tolist() == [1 + 0.5 * 4, 4, 3 + 0.5 * 16]
    assert terminated.targets.flatten().tolist() == [1, 4, 3 + 0.5 * 16]
    assert float(truncated.advantages[0]) == 1 + 0.5 * 4 - 2
    assert float(terminated.advantages[0]) == 1 - 2


@pytest.mark.parametrize("log_ratio", [-1000.0, 1000.0])
def test_vtrace_stays_finite_when_the_policies_have_nothing_in_common(log_ratio: float) -> None:
    case = random_case(10)
    trace = vtrace(case.values, case.rewards, case.discounts, case.mask, torch.full_like(case.rewards, log_ratio), 0.95)
    assert all(part.isfinite().all() for part in trace)
    if log_ratio < 0:
        assert torch.equal(trace.targets, case.values[:-1])
