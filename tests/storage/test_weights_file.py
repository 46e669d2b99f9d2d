"""Weights files: what is saved comes back, and what is damaged or foreign is refused in one line, never half read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from asyncq.config import TrainConfig
from asyncq.envs import EnvironmentSpec
from asyncq.errors import UsageError
from asyncq.networks import make_network
from asyncq.shared import Array
from asyncq.storage.sealed import USER_BLOCK
from asyncq.storage.weights_file import SEAL, TrainedWeights, load_weights, save_weights

CONFIG = TrainConfig(env="CartPole-v1", imports=("one",), seed=7).resolved("vector", 1)
SPEC = EnvironmentSpec(
    env_id="CartPole-v1",
    family="vectors",
    frame_shape=(4,),
    frame_dtype="float32",
    frame_stack=1,
    frame_skip=1,
    actions=2,
    imports=("one",),
)
FACTS = {"env_steps": 1234, "updates": 5, "episodic_return": 195.5}


def network_parameters() -> dict[str, Array]:
    network = make_network("mlp", "policy-value", (4,), 2, True)
    return {name: value.numpy() for name, value in network.state_dict().items()}


def trained() -> TrainedWeights:
    return TrainedWeights(network_parameters(), CONFIG, SPEC, FACTS)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change the HDF5 in a weights file, and seal it again."""
    with h5py.File(path, "a") as file:
        change(file)
    path.write_bytes(SEAL.apply(path.read_bytes()))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "latest.h5"
    save_weights(path, trained())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    weights = trained()
    save_weights(tmp_path / "new" / "a.h5", weights)
    loaded = load_weights(tmp_path / "new" / "a.h5")
    assert set(loaded.parameters) == set(weights.parameters)
    for name, value in weights.parameters.items():
        assert loaded.parameters[name].dtype == value.dtype
        assert np.array_equal(loaded.parameters[name], value)
    assert (loaded.config, loaded.spec, loaded.facts) == (CONFIG, SPEC, FACTS)
    assert set(loaded.versions) == {"asyncq", "torch", "gymnasium", "ale-py"}


def test_a_network_can_be_made_from_the_file(saved: Path) -> None:
    loaded = load_weights(saved)
    network = make_network("mlp", "policy-value", SPEC.observation_shape, SPEC.actions, True)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in loaded.parameters.items()})


def test_saving_replaces_the_file_and_leaves_no_other(saved: Path) -> None:
    save_weights(saved, dataclasses.replace(trained(), config=dataclasses.replace(CONFIG, seed=8)))
    assert load_weights(saved).config.seed == 8
    assert [path.name for path in saved.parent.iterdir()] == ["latest.h5"]


def test_a_failed_save_leaves_the_earlier_file_whole(saved: Path) -> None:
    with pytest.raises(TypeError):
        save_weights(saved, dataclasses.replace(trained(), parameters={"bad": np.array([object()])}))
    assert load_weights(saved).facts == FACTS


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    assert "there is no weights file" in refusal(tmp_path / "absent.h5")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert f"give the weights file in it, such as {tmp_path / 'best.h5'}" in refusal(tmp_path)
    (tmp_path / "agent.h5").touch()
    assert f"give the weights file in it, such as {tmp_path / 'agent.h5'}" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", b"not HDF5 at all\n" * 1000])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.h5"
    path.write_bytes(content)
    assert "no readable weights file" in refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    refusal(saved)


def test_a_foreign_hdf5_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(3)
    assert "of another kind" in refusal(path)


def test_any_hdf5_reader_opens_the_file(saved: Path) -> None:
    with h5py.File(saved) as file:
        assert file.userblock_size == USER_BLOCK
        assert set(file["parameters"]) == set(network_parameters())


def test_the_first_line_says_what_the_file_is(saved: Path) -> None:
    assert saved.read_bytes().split(b"\n")[0].startswith(b"asyncq weights, format 2, sha256 ")


@pytest.mark.parametrize("missing", ["config", "environment", "facts", "versions"])
def test_a_file_that_lacks_a_part_is_refused(saved: Path, missing: str) -> None:
    edit(saved, lambda file: file.attrs.pop(missing))
    assert "another one wrote it" in refusal(saved)


def test_a_file_without_parameters_is_refused(saved: Path) -> None:
    edit(saved, lambda file: file.pop("parameters"))
    refusal(saved)


@pytest.mark.parametrize(
    ("attribute", "content"),
    [
        ("config", "{"),
        ("config", "[]"),
        ("config", "7"),
        ("config", '{"gamma": "x"}'),
        ("environment", "{}"),
        ("environment", "7"),
    ],
)
def test_a_file_with_nonsense_in_it_is_refused(saved: Path, attribute: str, content: str) -> None:
    edit(saved, lambda file: file.attrs.modify(attribute, content))
    refusal(saved)


@pytest.mark.parametrize(("version", "said"), [(b"1", "an older asyncq"), (b"3", "a newer asyncq")])
def test_a_file_of_another_format_is_refused(saved: Path, version: bytes, said: str) -> None:
    saved.write_bytes(saved.read_bytes().replace(b"format 2", b"format " + version, 1))
    assert said in refusal(saved)


@pytest.mark.parametrize("part", ["parameters", "attribute"])
def test_what_was_changed_does_not_fit_the_checksum(saved: Path, part: str) -> None:
    with h5py.File(saved, "a") as file:
        if part == "parameters":
            file["parameters"]["policy.weight"][0, 0] += 1e-3
        else:
            file.attrs["facts"] = "{}"
    assert "checksum" in refusal(saved)


def test_random_damage_is_always_refused(saved: Path) -> None:
    """200 files with other bytes somewhere, or cut short: every one is refused, in one line."""
    content, generator = saved.read_bytes(), np.random.default_rng(1)
    for copy in range(200):
        start = int(generator.integers(len(content)))
        length = int(generator.choice([1, 16, 512]))
        damaged = bytearray(content)
        damaged[start : start + length] = generator.bytes(len(damaged[start : start + length]))
        saved.write_bytes(damaged[:start] if copy % 4 == 0 else damaged)
        if saved.read_bytes() != content:
            refusal(saved)
