"""Weights files: the tensors and everything needed to play with them, in one sealed `.h5`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from asyncq.config import TrainConfig
from asyncq.envs import EnvironmentSpec
from asyncq.errors import UsageError
from asyncq.shared import Array
from asyncq.storage.files import read_weights_bytes
from asyncq.storage.sealed import Seal

SEAL = Seal(b"asyncq weights, format ", 2)


def package_versions() -> dict[str, str]:
    """Versions of what decides how an agent trains and plays."""
    return {package: version(package) for package in ("asyncq", "torch", "gymnasium", "ale-py")}


@dataclass(frozen=True)
class TrainedWeights:
    """Parameters by name, the configuration of their training, its environment, and facts about it."""

    parameters: dict[str, Array]
    config: TrainConfig
    spec: EnvironmentSpec
    facts: dict[str, Any]
    versions: dict[str, str] = field(default_factory=package_versions)
    """Of the packages that trained them."""

    def metadata(self) -> dict[str, str]:
        """Everything but the tensors, as JSON by name."""
        content = {
            "config": self.config.to_json(), "environment": self.spec.to_json(), "facts": self.facts,
            "versions": self.versions,
        }  # fmt: skip
        return {name: json.dumps(value) for name, value in content.items()}


def save_weights(path: Path, weights: TrainedWeights) -> None:
    """Write `path` whole or not at all. Raises OSError."""
    with SEAL.write(path) as file:
        file.attrs.update(weights.metadata())
        for name, value in weights.parameters.items():
            file.create_dataset(f"parameters/{name}", data=value)


def load_weights(path: Path) -> TrainedWeights:
    """Read a weights file. Raises UsageError if it is absent, damaged, or of another kind."""
    content = read_weights_bytes(path)
    if not SEAL.is_on(content):
        raise UsageError(f"{path} is no readable weights file: damaged in its first bytes, or of another kind")
    try:
        with SEAL.open(path, content) as file:
            group = file["parameters"]
            parameters = {name: np.asarray(group[name]) for name in group}
            config, spec, facts, versions = (
                json.loads(file.attrs[name]) for name in ("config", "environment", "facts", "versions")
            )
        spec = EnvironmentSpec.from_json(spec)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UsageError(f"{path} is no weights file that this asyncq can read; another one wrote it") from error
    try:
        return TrainedWeights(parameters, TrainConfig.from_json(config), spec, facts, versions)
    except UsageError as error:
        raise UsageError(f"{path} is no weights file that this asyncq can read: {error}") from error
