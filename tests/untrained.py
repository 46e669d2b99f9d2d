"""Weights files of networks that have learned nothing, for tests of what plays and reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from asyncq.config import TrainConfig
from asyncq.envs import describe
from asyncq.methods import network_for
from asyncq.storage.weights_file import TrainedWeights, save_weights


def untrained(path: Path, env_id: str, method: str = "a3c", **settings: Any) -> Path:
    spec = describe(env_id)
    config = TrainConfig(env=env_id, method=method, **settings).resolved(spec.kind, spec.frame_skip)
    spec = spec.resized(config.frame_size)
    torch.manual_seed(0)
    network = network_for(config, spec)
    parameters = {name: value.numpy() for name, value in network.state_dict().items()}
    save_weights(path, TrainedWeights(parameters, config, spec, {"env_steps": 0}))
    return path
