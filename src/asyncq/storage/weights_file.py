"""Weights files: the tensors and everything needed to play with them, in one `.h5`."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from asyncq.config import TrainConfig
from asyncq.envs import EnvironmentSpec
from asyncq.errors import UsageError
from asyncq.shared import Array

FORMAT = "asyncq-weights"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class WeightsFile:
    """What `load_weights` found: parameters by name, the run's configuration, its environment, and facts about it."""

    parameters: dict[str, Array]
    config: TrainConfig
    spec: EnvironmentSpec
    facts: dict[str, Any]


def save_weights(
    path: Path, parameters: dict[str, Array], config: TrainConfig, spec: EnvironmentSpec, facts: dict[str, Any]
) -> None:
    """Write `path` whole or not at all: to a temporary file first, which then takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    versions = {package: version(package) for package in ("asyncq", "torch", "gymnasium", "ale-py")}
    with h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["checksum"] = _checksum(parameters)
        for name, content in (
            ("config", config.to_json()), ("environment", spec.to_json()), ("facts", facts), ("versions", versions),
        ):  # fmt: skip
            file.attrs[name] = json.dumps(content)
        for name, value in parameters.items():
            file.create_dataset(f"parameters/{name}", data=value)
    with open(temporary, "rb") as written:
        os.fsync(written.fileno())
    os.replace(temporary, path)


def load_weights(path: Path) -> WeightsFile:
    """Read a weights file. Raises UsageError if it is absent, damaged, or of another kind."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory; give the weights file in it, such as {path / 'best.h5'}")
    if not path.is_file():
        raise UsageError(f"there is no weights file {path}")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise UsageError(f"{path} is an HDF5 file, but none of asyncq's weights files")
            if int(file.attrs["format_version"]) > FORMAT_VERSION:
                raise UsageError(f"{path} was written by a newer asyncq; update asyncq to read it")
            group = file["parameters"]
            parameters = {name: np.asarray(group[name]) for name in group}
            config, spec, facts = (json.loads(file.attrs[name]) for name in ("config", "environment", "facts"))
            intact = file.attrs["checksum"] == _checksum(parameters)
            content = WeightsFile(parameters, TrainConfig.from_json(config), EnvironmentSpec.from_json(spec), facts)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UsageError(f"{path} is no readable weights file: damaged, cut short, or of another kind") from error
    if not intact:
        raise UsageError(f"{path} is damaged: its contents do not fit its checksum")
    return content


def _checksum(parameters: dict[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parameters):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parameters[name]).tobytes())
    return digest.hexdigest()
