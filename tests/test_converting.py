"""Convert and info: the files say what becomes of them, nothing is overwritten by itself, and both kinds are shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from asyncq.cli import run
from asyncq.config import TrainConfig
from asyncq.errors import UsageError
from asyncq.storage.keras_file import load_keras
from asyncq.storage.weights_file import load_weights, save_weights
from untrained import untrained


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return untrained(tmp_path / "ours.h5", "ALE/Breakout-v5", network="a3c", layer_norm=False)


def test_h5_goes_both_ways(ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras, back, old = tmp_path / "keras.h5", tmp_path / "back.h5", tmp_path / "old.h5"
    run(["convert", str(ours), str(keras)])
    run(["convert", str(keras), str(back)])
    run(["convert", str(keras), str(old), "--to", "keras", "--keras-version", "1"])
    kept = f"; it cannot say how frames are made, and is played as in 2016: to play on, keep {ours}"
    assert capsys.readouterr().out.splitlines() == [f"{keras}: keras{kept}", f"{back}: asyncq", f"{old}: keras"]
    assert load_keras(old).facts["keras"]["backend"] == "theano"
    for loaded in (load_weights(back), load_keras(old)):
        assert all(np.array_equal(loaded.parameters[n], v) for n, v in load_weights(ours).parameters.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ours.h5"], "name the file to write"),
        (["ours.h5", "ours.h5"], "is the file to convert"),
        (["ours.h5", "w.pt"], "must end in .h5, .safetensors or .onnx"),
        (["ours.h5", "w.h5", "--to", "caffe"], "asyncq, keras, safetensors, onnx"),
        (["ours.h5", "w.h5", "--keras-version", "4"], "it must be 1, or 2"),
        (["absent.h5", "w.h5"], "there is no weights file"),
        (["absent.h5", "ours.h5"], "there is no weights file"),
        (["ours.h5", "absent/w.h5"], "there is no directory absent"),
        (["ours.h5", "w.onnx", "--to", "safetensors"], "change one of them"),
        (["ours.h5", "w.h5", "--to", "onnx"], "change one of them"),
        (["ours.h5", "w.keras"], "must end in"),
        (["ours.h5", "w.h5", "--env", "ALE/Pong-v5"], "cannot play ALE/Pong-v5"),
        (["ours.h5", "w.h5", "--import", "absent_module"], "is it installed, or on PYTHONPATH"),
        (["ours.h5", "w.onnx", "--keras-version", "1"], "is for Keras files"),
        (["--weights", "ours.h5", "w.onnx"], "takes both files without --weights"),
        (["ours.onnx", "w.h5"], "can be written but not read"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    arguments: list[str], said: str, ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ours.parent)
    before = ours.read_bytes()
    with pytest.raises(UsageError, match=said):
        run(["convert", *arguments])
    assert ours.read_bytes() == before and list(ours.parent.iterdir()) == [ours]


def test_info_runs_nothing_that_a_file_names(ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_weights(ours)
    spec = dataclasses.replace(weights.spec, imports=("no_such_module",))
    save_weights(tmp_path / "foreign.h5", dataclasses.replace(weights, spec=spec))
    assert run(["info", str(tmp_path / "foreign.h5")]) == 0
    shown = capsys.readouterr().out
    assert "ALE/Breakout-v5" in shown and "noop" not in shown


def test_info_writes_settings_as_the_command_line_takes_them(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_weights(ours)
    config = TrainConfig(
        preset="paper", method="n-step-q", double=True, imports=("mine",), processes=3, reward_clip=0.0
    )
    config = config.resolved("image", 4)
    save_weights(tmp_path / "paper.h5", dataclasses.replace(weights, config=config))
    run(["info", str(tmp_path / "paper.h5")])
    shown = capsys.readouterr().out
    (settings,) = [line for line in shown.splitlines() if line.startswith("settings")]
    assert settings == "settings      today's defaults, but --preset paper --import mine --double --reward-clip 0.0"


def test_info_names_the_settings_that_are_no_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--total-steps", "9", "--n-step", "7", "--batch-size", "8"]
    assert run(["train", "--env", "CartPole-v1", "--processes", "1", "--run-dir", str(tmp_path), *flags]) == 0
    run(["info", str(tmp_path / "latest.h5")])
    shown = capsys.readouterr().out
    assert f"settings      today's defaults, but {' '.join(flags)}\n" in shown


def test_another_id_of_the_game_goes_into_the_file(ours: Path, tmp_path: Path) -> None:
    run(["convert", str(ours), str(tmp_path / "old.h5"), "--to", "asyncq", "--env", "BreakoutNoFrameskip-v4"])
    spec = load_weights(tmp_path / "old.h5").spec
    assert (spec.env_id, spec.sticky) == ("BreakoutNoFrameskip-v4", 0)


def test_info_shows_either_kind(ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["convert", str(ours), str(tmp_path / "keras.h5")])
    capsys.readouterr()
    run(["info", str(ours)])
    shown = capsys.readouterr().out
    for part in ("ALE/Breakout-v5", "sticky actions 0.25", "noop, fire, right, left", "0 env steps", "asyncq 0."):
        assert part in shown
    run(["info", str(tmp_path / "keras.h5")])
    shown = capsys.readouterr().out
    for part in ("Keras 2 or later with tensorflow", "Breakout-v4, frame skip 2 to 4 at random", "float32[256, 2592]"):
        assert part in shown
