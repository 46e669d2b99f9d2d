"""The optimizer is the one asked for, and the average follows the weights."""

from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from asyncq.config import TrainConfig
from asyncq.muon import Muon
from asyncq.optimizing import AVERAGED_AT_MOST, average_of, make_optimizer
from asyncq.weights import flatten_parameters


@pytest.mark.parametrize(
    ("name", "kind"),
    [("rmsprop", torch.optim.RMSprop), ("adam", torch.optim.Adam), ("radam", torch.optim.RAdam), ("muon", Muon)],
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


def averaged(average: AveragedModel) -> float:
    return next(average.parameters()).item()


def test_the_average_begins_with_the_first_update_and_looks_back_over_a_tenth_of_them() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = average_of(network)
    wanted = 0.0
    for update in range(4 * AVERAGED_AT_MOST):
        value = float(update % 7)
        torch.nn.init.constant_(network.weight, value)
        average.update_parameters(network)
        horizon = min(0.1 * update + 1, AVERAGED_AT_MOST)
        wanted += (value - wanted) / horizon
        assert averaged(average) == pytest.approx(wanted, abs=1e-3)
    assert network.weight.item() == value


def test_a_change_of_the_weights_is_forgotten_after_some_horizons() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = average_of(network)
    torch.nn.init.constant_(network.weight, 5.0)
    for _ in range(20 * AVERAGED_AT_MOST):
        average.update_parameters(network)
    torch.nn.init.constant_(network.weight, 1.0)
    for _ in range(AVERAGED_AT_MOST):
        average.update_parameters(network)
    assert averaged(average) == pytest.approx(1 + 4 / 2.718, abs=0.02)
