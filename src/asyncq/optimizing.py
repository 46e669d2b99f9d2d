"""The optimizer, the average of the weights, and all tensors that an update reads or changes, as arrays to save."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.muon import Muon
from asyncq.rmsprop import RMSProp
from asyncq.shared import Array
from asyncq.storage.state_file import TrainingState

AVERAGED_SHARE, AVERAGED_AT_MOST = 0.1, 333
"""The updates over which weights are averaged: a share of all so far, and no more than so many."""
AVERAGED_EVERY = 8
"""Updates from one whose weights enter the average to the next: moving it costs a twentieth of a small update."""


def make_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """One optimizer for everyone's experience: the paper's "shared RMSProp" needs no more here."""
    settings: dict[str, Any] = {"lr": config.learning_rate, "eps": config.optimizer_epsilon}
    if config.optimizer == "rmsprop":
        return RMSProp(network.parameters(), **settings)
    if config.optimizer == "muon":
        matrices = hidden_weights(network)
        known = {id(matrix) for matrix in matrices}
        others = (parameter for parameter in network.parameters() if id(parameter) not in known)
        return Muon(matrices, others, **settings)
    if config.optimizer == "radam":
        return torch.optim.RAdam(network.parameters(), **settings)
    return torch.optim.Adam(network.parameters(), fused=True, **settings)


def hidden_weights(network: nn.Module) -> list[Tensor]:
    """Weights of the layers between observation and features: not heads, norms, or the LSTM, which is four in one, nor
    those that a parametrization computes from others."""
    layers = [module for name, module in network.named_modules() if "trunk" in name]
    weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    return [weight for weight in weights if isinstance(weight, nn.Parameter)]


def averaging_rate(updates: int) -> float:
    """How far the average moves, every AVERAGED_EVERY updates, to the weights after `updates`: all the way at first."""
    return 1 / min(AVERAGED_SHARE * updates / AVERAGED_EVERY + 1, AVERAGED_AT_MOST / AVERAGED_EVERY)


def arrays_of(
    network: nn.Module, target: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Array]:
    """`network/...`, `average/...`, `optimizer/<parameter>/...`, `target/...` where that is another, and `random`."""
    arrays = _arrays(network.state_dict(), "network") | _arrays(average.state_dict(), "average")
    if target is not network:
        arrays |= _arrays(target.state_dict(), "target")
    for index, moments in optimizer.state_dict()["state"].items():
        arrays |= _arrays(moments, f"optimizer/{index}")
    return arrays | {"random": torch.get_rng_state().numpy()}


def put_back(
    state: TrainingState,
    network: nn.Module,
    target: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """The inverse of `arrays_of`. Raises RuntimeError if the state is of another network."""
    network.load_state_dict(_tensors(state.group("network")))
    average.load_state_dict(_tensors(state.group("average")))
    if target is not network:  # the run may have had none before
        target.load_state_dict(_tensors(state.group("target") or state.group("network")))
    moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for path, tensor in _tensors(state.group("optimizer")).items():
        index, name = path.split("/")
        moments[int(index)][name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(moments)})
    torch.set_rng_state(torch.from_numpy(state.arrays["random"]))


def _arrays(tensors: Mapping[str, Tensor], group: str) -> dict[str, Array]:
    return {f"{group}/{name}": value.detach().cpu().numpy() for name, value in tensors.items()}


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
