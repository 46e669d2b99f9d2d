"""Weights files: the tensors and everything needed to play with them, in one `.h5`.

In front of the HDF5 stands a user block of one line: what the file is, and the SHA-256 of all that follows. Nothing of
a file is interpreted before that fits, so a damaged one is refused wherever the damage lies.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from asyncq.config import TrainConfig
from asyncq.envs import EnvironmentSpec
from asyncq.errors import UsageError
from asyncq.shared import Array
from asyncq.storage.files import read_weights_bytes, write_whole

MAGIC = b"asyncq weights, format "
FORMAT_VERSION = 2
USER_BLOCK = 512
"""Bytes in front of the HDF5; the smallest that the format allows."""


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
    body = io.BytesIO()
    with h5py.File(body, "w", userblock_size=USER_BLOCK) as file:
        file.attrs.update(weights.metadata())
        for name, value in weights.parameters.items():
            file.create_dataset(f"parameters/{name}", data=value)
    write_whole(path, sealed(body.getvalue()))


def sealed(content: bytes) -> bytes:
    """`content` with its user block filled in."""
    body = content[USER_BLOCK:]
    line = MAGIC + f"{FORMAT_VERSION}, sha256 {hashlib.sha256(body).hexdigest()}\n".encode()
    return line.ljust(USER_BLOCK, b"\0") + body


def is_weights_file(content: bytes) -> bool:
    return content.startswith(MAGIC)


def load_weights(path: Path) -> TrainedWeights:
    """Read a weights file. Raises UsageError if it is absent, damaged, or of another kind."""
    content = read_weights_bytes(path)
    if not is_weights_file(content):
        raise UsageError(f"{path} is no readable weights file: damaged in its first bytes, or of another kind")
    said_version = content[len(MAGIC) : USER_BLOCK].split(b",")[0]
    if said_version.isdigit() and int(said_version) > FORMAT_VERSION:
        raise UsageError(f"{path} was written by a newer asyncq; update asyncq to read it")
    if content != sealed(content):
        raise UsageError(f"{path} is damaged: its contents do not fit its checksum")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            group = file["parameters"]
            parameters = {name: np.asarray(group[name]) for name in group}
            config, spec, facts, versions = (
                json.loads(file.attrs[name]) for name in ("config", "environment", "facts", "versions")
            )
            config, spec = TrainConfig.from_json(config), EnvironmentSpec.from_json(spec)
            return TrainedWeights(parameters, config, spec, facts, versions)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UsageError(f"{path} is no weights file that this asyncq can read; another one wrote it") from error
