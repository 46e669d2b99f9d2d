"""The optimizer is the one asked for, and the average follows the weights."""

from __future__ import annotations

import math

import pytest
import torch

from asyncq.config import TrainConfig
from asyncq.muon import Muon
from asyncq.networks import make_network
from asyncq.optimizing import AVERAGED_EVERY, averaging_rate, make_optimizer
from asyncq.rmsprop import RMSProp
from asyncq.weights import flatten_parameters


@pytest.mark.parametrize(
    ("name", "kind"),
    [("rmsprop", RMSProp), ("adam", torch.optim.Adam), ("radam", torch.optim.RAdam), ("muon", Muon)],
)
def test_the_optimizer_is_the_one_asked_for(name: str, kind: type[torch.optim.Optimizer]) -> None:
    config = TrainConfig(optimizer=name, learning_rate=0.25, optimizer_epsilon=1e-3)
    optimizer = make_optimizer(config, torch.nn.Linear(2, 1))
    assert type(optimizer) is kind
    assert (optimizer.defaults["lr"], optimizer.defaults["eps"]) == (0.25, 1e-3)


@pytest.mark.parametrize("name", ["rmsprop", "adam", "radam", "muon"])
def test_the_optimizer_moves_the_flat_weights_in_place(name: str) -> None:
    network = torch.nn.Linear(2, 1)
    flat = flatten_parameters(network)
    before = flat.clone()
    config = TrainConfig(optimizer=name, learning_rate=0.25, optimizer_epsilon=1e-5)
    optimizer = make_optimizer(config, network)
    network(torch.tensor([[3.0, 4.0]])).sum().backward()
    optimizer.step()
    assert (flat < before).all()


@pytest.mark.parametrize(("name", "shape", "trunks"), [("a3c", (4, 84, 84), 1), ("mlp", (4,), 2)])
def test_muon_makes_the_hidden_layers_orthogonal_and_leaves_the_rest_to_adam(
    name: str, shape: tuple[int, ...], trunks: int
) -> None:
    network = make_network(name, "policy-value", shape, 3, layer_norm=True)
    hidden = [
        value
        for path, value in network.named_parameters()
        if "trunk" in path and "norm" not in path and path.endswith("weight") and value.ndim in (2, 4)
    ]
    groups = make_optimizer(
        TrainConfig(optimizer="muon", learning_rate=1.0, optimizer_epsilon=1.0), network
    ).param_groups
    orthogonal = [value for group in groups if group["orthogonal"] for value in group["params"]]
    assert {*map(id, orthogonal)} == {*map(id, hidden)} and len(hidden) > trunks
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_a_weight_that_is_computed_from_others_is_left_to_adam() -> None:
    network = make_network("mlp", "q", (4,), 3, layer_norm=False)
    layer = next(module for module in network.modules() if isinstance(module, torch.nn.Linear))
    torch.nn.utils.parametrizations.weight_norm(layer)
    optimizer = make_optimizer(TrainConfig(optimizer="muon", learning_rate=0.25, optimizer_epsilon=1e-5), network)
    network(torch.ones(1, 4))[0].sum().backward()
    optimizer.step()


def averages(weights: list[float]) -> list[float]:
    average, found = 0.0, []
    for updates, weight in enumerate(weights):
        if updates % AVERAGED_EVERY == 0:
            average += averaging_rate(updates) * (weight - average)
        found.append(average)
    return found


def test_the_average_begins_with_the_first_weights_and_follows_the_early_ones_closely() -> None:
    found = averages([5.0] + 30 * [1.0] + 40 * [2.0])
    assert found[0] == 5
    assert found[30] == pytest.approx(1, abs=0.1)
    assert found[-1] == pytest.approx(2, abs=0.1)


def test_later_it_forgets_in_333_updates_all_but_a_share_of_1_in_e() -> None:
    kept = [average - 1 for average in averages(5_000 * [5.0] + 333 * [1.0])]
    moves = 333 // AVERAGED_EVERY
    assert kept[4_999 + moves * AVERAGED_EVERY] == pytest.approx(4 * (1 - AVERAGED_EVERY / 333) ** moves, rel=1e-3)
    assert kept[4_999 + moves * AVERAGED_EVERY] == pytest.approx(4 / math.e, abs=0.02)
