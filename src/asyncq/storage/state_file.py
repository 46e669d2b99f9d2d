"""State files: all that a training needs to go on as if it had not stopped, in one sealed `.h5` each.

The newest few lie in the run directory's `state/`, named by their env steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from asyncq.errors import Damaged, UsageError
from asyncq.shared import Array
from asyncq.storage.files import read_weights_bytes
from asyncq.storage.sealed import Seal

SEAL = Seal(b"asyncq training state, format ", 2)


@dataclass(frozen=True)
class TrainingState:
    """Arrays by path (`network/...`, `average/...`, `target/...`, `optimizer/<parameter>/...`, `random`), counters."""

    arrays: dict[str, Array]
    counters: dict[str, Any]

    def group(self, name: str) -> dict[str, Array]:
        """The arrays below `name`, by the rest of their path."""
        return {path[len(name) + 1 :]: array for path, array in self.arrays.items() if path.startswith(f"{name}/")}


def save_state(run_dir: Path, state: TrainingState, keep: int) -> None:
    """Write the state of a run, and remove all but the newest `keep`. Raises OSError."""
    folder = run_dir / "state"
    with SEAL.write(folder / f"{state.counters['env_steps']}.h5") as file:
        file.attrs["counters"] = json.dumps(state.counters)
        for path, array in state.arrays.items():
            file.create_dataset(path, data=array)
    for old in _newest_first(folder)[keep:]:
        old.unlink()


def load_state(path: Path) -> TrainingState:
    """Read a state. Raises Damaged, UsageError if it is absent or cannot be read."""
    content = read_weights_bytes(path)
    if not SEAL.is_on(content):
        raise Damaged(f"{path} is no readable training state: damaged in its first bytes, or of another kind")
    arrays: dict[str, Array] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item)

    with SEAL.open(path, content) as file:
        file.visititems(take)
        return TrainingState(arrays, json.loads(file.attrs["counters"]))


def newest_state(run_dir: Path, say: Callable[[str], None]) -> Path | None:
    """The newest state of a run that is whole, None if none was ever saved; says so of each that is damaged.

    Raises UsageError if there are states, but all are damaged: starting from nothing would not be what was asked for.
    Also if one cannot be read for now, or by this asyncq: going on from an older one would lose what it holds.
    """
    paths = _newest_first(run_dir / "state")
    damaged: list[Path] = []
    for path in paths:
        try:
            load_state(path)
        except Damaged as error:
            say(f"{error}; trying the state before it")
            damaged.append(path)
            continue
        for bad in damaged:  # or it would count as the newest for ever
            bad.rename(bad.with_suffix(".damaged"))
        return path
    if paths:
        raise UsageError(f"all states in {run_dir / 'state'} are damaged; train anew with another --run-dir")
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*.h5") if path.stem.isdigit()), key=lambda path: -int(path.stem))
