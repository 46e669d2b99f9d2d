"""The command line: what is wrong with the input is said in one line, with exit status 2."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from asyncq.cli import base_of, run
from asyncq.config import TrainConfig
from asyncq.errors import UsageError
from asyncq.storage.state_file import TrainingState, save_state
from untrained import untrained


def asyncq(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "asyncq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_bad_input_is_one_line_and_status_2(tmp_path: Path) -> None:
    result = asyncq("train", "--env", "ALE/Pang-v5", "--run-dir", tmp_path / "run")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "ALE/Pong-v5" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--env", "Cartpole-v1"], "CartPole-v1"),
        (["train", "--method", "a4c"], "did you mean a3c"),
        (["train", "--method", "A3C"], "did you mean a3c"),
        (["train", "--processes", "0"], "at least 1"),
        (["train", "--env", "Pendulum-v1"], "only Discrete actions"),
        (["train", "--env", "CartPole-v1", "--network", "nature"], "mlp"),
        (["train", "--import", "no_such_module", "--env", "CartPole-v1"], "no_such_module"),
        (["train", "--config", "absent.json"], "cannot be read"),
        (["train", "--no-such-flag", "3"], "--no-such-flag"),
        (["train", "CartPole-v1"], "asyncq train --env CartPole-v1"),
        (["train", "--env"], "Missing value for argument '--game/--env'; asyncq"),
        (["train", "--processes", "many"], "'many' is no INT"),
        (["train", "--total-steps", "much"], "'much' is no INT"),
        (["train", "--total-steps", "1.5"], "'1.5' is no INT"),
        (["train", "--procceses", "2"], "perhaps you meant --processes INT"),
        (["train", "--num_envs=8"], "there is no --num-envs; here it is --envs-per-process"),
        (["bench", "--num-envs", "8"], "Unrecognized options: --num-envs"),
        (["train", "--lr", "abc"], "'abc' is no FLOAT;"),
        (["train", "--layer-norm", "maybe"], "'maybe' is no {True,False}"),
        (["evaluate", "absent.h5"], "no weights file"),
        (["evaluate"], "weights file"),
        (["play", "absent.h5", "--record", "x.avi"], ".mp4 or .gif"),
        (["play", "absent.h5", "--follow", "runs/x"], "leave the weights file out"),
        (["evaluate", "absent.h5", "--plot", "x.pdf"], ".png or .svg"),
        (["convert", "absent.h5"], "name the file to write"),
        (["info"], "weights file"),
        (["plot"], "at least one run"),
        (["train", "--env", ""], "an argument of train is empty"),
        (["train", "--env", "CartPole-v1", "--queue-size", "1000000000"], "the queue would take"),
        (["doctor", "--processes", "0"], "at least 1"),
        (["train", "--import", "os", "--import", "sys"], "--import is given 2 times"),
        (["train", "--env_kwargs", "a=1", "--env-kwargs=b=2"], "--env-kwargs is given 2 times"),
        (["evaluate", "--import", "os", "absent.h5"], "before --import"),
        (["plot", "--labels", "a", "runs/x"], "before --labels"),
        (["bake"], "no command"),
        (["trian"], "did you mean train"),
    ],
)
def test_refusals_name_the_reason(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        run(arguments)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert re.fullmatch(r"asyncq \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_run_directory_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="already holds a run"):
        run(["train", "--env", "CartPole-v1", "--run-dir", str(tmp_path)])


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 300])
def test_weights_of_another_kind_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="weights"):
        run(["evaluate", str(path)])


def test_a_state_file_is_told_from_a_weights_file(tmp_path: Path) -> None:
    save_state(tmp_path, TrainingState({}, {"env_steps": 7}), keep=1)
    with pytest.raises(UsageError, match="is the state of a training"):
        run(["info", str(tmp_path / "state" / "7.h5")])


def test_foreign_hdf5_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(UsageError, match="neither asyncq's nor a Keras file"):
        run(["play", "--weights", str(tmp_path / "weights.h5")])


def test_help_lists_every_flag_and_its_other_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        run(["train", "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    fields = {field.name for field in dataclasses.fields(TrainConfig)} - {"imports"} | {"import"}
    for name in fields | {"config", "game", "lr", "beta", "swap_freq", "save_freq"}:
        assert f"--{name.replace('_', '-')}" in text


def test_help_breaks_no_line_where_the_sources_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        run(["train", "--help"])
    assert "told below, or paper, those of Mnih et al. 2016. (default: fast)" in capsys.readouterr().out


def test_a_result_that_cannot_be_printed_is_one_line_and_status_2(tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1")
    command = [sys.executable, "-m", "asyncq", "info", str(weights)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "asyncq: the result cannot be written: No space left on device\n")


@pytest.mark.parametrize(("close", "encoding"), [(">&-", "utf-8"), ("", "ascii")])
def test_a_stdout_that_is_closed_or_knows_few_letters_does_no_harm(close: str, encoding: str, tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1")
    command = f"{sys.executable} -m asyncq evaluate {weights} --episodes 1 {close}"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert close or "? 0.00 over 1 game (" in done.stdout


@pytest.mark.parametrize(
    ("method", "flags", "said"),
    [
        ("a3c", ["--epsilon-final", "0.1"], "--epsilon-final is nothing that a3c reads; leave it out"),
        ("a3c", ["--epsilon_initial", "0.5"], "--epsilon-initial is nothing that a3c reads; leave it out"),
        ("n-step-q", ["--policy-clip", "0.1"], "--policy-clip is nothing that n-step-q reads; leave it out"),
        ("one-step-q", ["--trace-lambda", "0.9"], "--trace-lambda is nothing that one-step-q reads; leave it out"),
    ],
)
def test_a_flag_that_the_method_does_not_read_is_refused(method: str, flags: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(["train", "--method", method, "--env", "CartPole-v1", *flags])


def test_a_configuration_may_hold_what_its_method_does_not_read(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (tmp_path / "config.json").write_text('{"method": "a3c", "env": "CartPole-v1", "epsilon_final": [0.25]}')
    with pytest.raises(UsageError, match="--frame-size 42 is for images"):
        run(["train", "--config", str(tmp_path / "config.json"), "--frame-size", "42", "--run-dir", str(run_dir)])
    with pytest.raises(UsageError, match="--epsilon-final is nothing that a3c reads"):
        run(["train", "--config", str(tmp_path / "config.json"), "--epsilon-final", "0.5"])


def test_another_method_than_that_of_the_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"method": "a3c", "entropy_coefficient": 0.01}')
    with pytest.raises(UsageError, match=r"--config .* has what a3c chose; for n-step-q start without --config"):
        run(["train", "--config", str(tmp_path / "config.json"), "--method", "n-step-q"])
    with pytest.raises(UsageError, match="--method cannot change when a run goes on"):
        run(["train", "--resume", str(tmp_path), "--method", "n-step-q"])


def test_a_configuration_for_another_kind_of_observation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"method": "a3c", "env": "CartPole-v1"}')
    with pytest.raises(UsageError, match="has what was chosen for the vectors of CartPole-v1; for ALE/Pong-v5, which"):
        run(["train", "--config", str(tmp_path), "--env", "ALE/Pong-v5", "--network", "a3c"])


def test_another_preset_than_that_of_the_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"method": "a3c", "preset": "fast"}')
    with pytest.raises(UsageError, match=r"--config .* has what fast chose; for paper start without --config"):
        run(["train", "--config", str(tmp_path / "config.json"), "--preset", "paper"])
    with pytest.raises(UsageError, match=r"--preset cannot change when a run goes on: in .* it is fast"):
        run(["train", "--resume", str(tmp_path), "--preset", "paper"])


@pytest.mark.parametrize("flag", ["--env", "--game"])
def test_another_environment_than_that_of_the_run_is_refused_before_its_settings_are(flag: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"method": "a3c", "env": "CartPole-v1", "network": "mlp"}')
    with pytest.raises(UsageError, match=r"--env cannot change when a run goes on: in .* it is CartPole-v1"):
        run(["train", "--resume", str(tmp_path), flag, "PongNoFrameskip-v4"])


@pytest.mark.parametrize("again", ["resume", "config"])
def test_what_a_quiet_run_is_followed_by_is_not_quiet(again: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"method": "a3c", "env": "CartPole-v1", "quiet": true}')
    file, flags = (str(tmp_path / "config.json"), []) if again == "config" else (None, ["--resume", str(tmp_path)])
    base = base_of(file, flags)
    assert base is not None
    assert not base.quiet


def test_a_name_that_no_file_can_have_is_one_line_and_status_2() -> None:
    done = asyncq("train", "--env", "CartPole-v1", "--run-dir", "x" * 300)
    assert done.returncode == 2
    assert re.fullmatch(r"asyncq: x+[^\n]*: File name too long\n", done.stderr)


def test_ctrl_c_while_it_is_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "asyncq", "--version"]
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 130
    assert result.stderr == ""
