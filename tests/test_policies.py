"""Policies: how often each action is taken, and with which probability they say it was.

Frequencies over 40,000 draws are compared to within 0.012, which is five standard errors of the worst case.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from asyncq.policies import EpsilonGreedyPolicy, GreedyPolicy, SoftmaxPolicy, sample_final_epsilons

DRAWS = 40_000
TOLERANCE = 0.012


def frequencies(actions: Tensor, count: int) -> list[float]:
    return (torch.bincount(actions, minlength=count) / len(actions)).tolist()


def test_softmax_samples_by_its_probabilities() -> None:
    logits = torch.tensor([1.0, -0.5, 0.3, 2.0]).repeat(DRAWS, 1)
    actions, _ = SoftmaxPolicy().act((logits, torch.zeros(DRAWS)))
    expected = np.exp([1, -0.5, 0.3, 2]) / np.exp([1, -0.5, 0.3, 2]).sum()
    assert frequencies(actions, 4) == pytest.approx(expected.tolist(), abs=TOLERANCE)


def test_softmax_rows_are_independent_and_tell_their_log_probability() -> None:
    logits = torch.randn(1000, 3)
    actions, log_probs = SoftmaxPolicy().act((logits, torch.zeros(1000)))
    expected = logits.softmax(-1)[torch.arange(1000), actions].log()
    torch.testing.assert_close(log_probs, expected)
    assert len(set(actions.tolist())) == 3


def test_noise_that_persists_repeats_actions_but_not_their_probabilities() -> None:
    torch.manual_seed(1)
    logits = torch.tensor([1.0, -0.5, 0.3, 2.0]).repeat(DRAWS, 1)
    policy = SoftmaxPolicy(persistence=4)
    first, _ = policy.act((logits, torch.zeros(DRAWS)))
    second, log_probs = policy.act((logits, torch.zeros(DRAWS)))
    probabilities = logits[0].softmax(-1)
    assert frequencies(second, 4) == pytest.approx(probabilities.tolist(), abs=TOLERANCE)
    torch.testing.assert_close(log_probs, probabilities[second].log())
    repeated = 3 / 4 + float(probabilities.square().sum()) / 4  # a quarter is drawn anew, and may be drawn again
    assert (first == second).float().mean() == pytest.approx(repeated, abs=TOLERANCE)


def test_each_row_may_have_a_persistence_of_its_own() -> None:
    policy = SoftmaxPolicy(persistence=[1, 1e9])
    outputs = torch.zeros(2, 100), torch.zeros(2)
    anew, kept = torch.stack([policy.act(outputs)[0] for _ in range(20)], dim=1).tolist()
    assert len(set(anew)) > 1
    assert len(set(kept)) == 1


def test_noise_that_persists_follows_the_logits() -> None:
    policy = SoftmaxPolicy(persistence=1e9)
    policy.act((torch.zeros(8, 3), torch.zeros(8)))
    actions, _ = policy.act((torch.tensor([0.0, 0.0, 100.0]).repeat(8, 1), torch.zeros(8)))
    assert actions.tolist() == [2] * 8


def test_softmax_takes_logits_of_any_size() -> None:
    logits = torch.tensor([[1000.0, -1000.0, 0.0]])
    actions, log_probs = SoftmaxPolicy().act((logits, torch.zeros(1)))
    assert actions.tolist() == [0]
    assert log_probs.tolist() == [0]


def test_greedy_takes_the_best_action_for_sure() -> None:
    actions, log_probs = GreedyPolicy().act((torch.tensor([[1.0, 3, 2], [5, 0, 0]]), torch.zeros(2)))
    assert actions.tolist() == [1, 0]
    assert log_probs.tolist() == [0, 0]


def test_epsilon_greedy_explores_uniformly_with_each_rows_epsilon() -> None:
    epsilons = np.tile([0.0, 0.4, 1.0], DRAWS)
    values = torch.tensor([0.1, 0.2, 0.9, 0.3]).repeat(3 * DRAWS, 1)
    actions, _ = EpsilonGreedyPolicy(epsilons).act((values, torch.zeros(3 * DRAWS)))
    by_epsilon = [frequencies(actions[row::3], 4) for row in range(3)]
    assert by_epsilon[0] == [0, 0, 1, 0]
    assert by_epsilon[1] == pytest.approx([0.1, 0.1, 0.7, 0.1], abs=TOLERANCE)
    assert by_epsilon[2] == pytest.approx([0.25] * 4, abs=TOLERANCE)


def test_epsilon_greedy_tells_the_probability_of_what_it_did() -> None:
    values = torch.tensor([0.1, 0.2, 0.9, 0.3]).repeat(DRAWS, 1)
    actions, log_probs = EpsilonGreedyPolicy(np.full(DRAWS, 0.4)).act((values, torch.zeros(DRAWS)))
    expected = torch.where(actions == 2, 0.7, 0.1).log()
    torch.testing.assert_close(log_probs, expected)
    assert log_probs.dtype == torch.float32


def test_epsilon_greedy_without_exploration_is_certain() -> None:
    _, log_probs = EpsilonGreedyPolicy(np.zeros(2)).act((torch.tensor([[1.0, 2], [2, 1]]), torch.zeros(2)))
    assert log_probs.tolist() == [0, 0]


def test_final_epsilons_are_sampled_by_their_probabilities() -> None:
    sampled = sample_final_epsilons((0.1, 0.01, 0.5), (0.4, 0.3, 0.3), DRAWS, np.random.default_rng(1))
    assert [(sampled == value).mean() for value in (0.1, 0.01, 0.5)] == pytest.approx([0.4, 0.3, 0.3], abs=TOLERANCE)


def test_probabilities_of_epsilons_that_add_up_to_nearly_1_will_do() -> None:
    sampled = sample_final_epsilons((0.1, 0.2, 0.3), (0.3333333,) * 3, 20, np.random.default_rng(1))
    assert set(sampled) == {0.1, 0.2, 0.3}


def test_final_epsilons_are_the_same_for_the_same_seed() -> None:
    one, other = (sample_final_epsilons((0.1, 0.5), (0.5, 0.5), 50, np.random.default_rng(7)) for _ in range(2))
    assert one.tolist() == other.tolist()
