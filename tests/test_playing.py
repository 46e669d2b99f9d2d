"""Play and evaluate: full games with raw scores, one JSON object, and videos that can be opened."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asyncq.config import TrainConfig
from asyncq.envs import describe
from asyncq.errors import UsageError
from asyncq.methods import METHODS
from asyncq.networks import make_network
from asyncq.playing import Agent, EvaluateConfig, PlayConfig, evaluate, play, play_games
from asyncq.storage.weights_file import save_weights


def untrained(path: Path, env_id: str, method: str = "a3c") -> Path:
    spec = describe(env_id)
    config = TrainConfig(env=env_id, method=method).resolved(spec.kind, spec.frame_skip)
    spec = spec.resized(config.frame_size)
    torch.manual_seed(0)
    assert config.network
    network = make_network(
        config.network, METHODS[method].HEADS, spec.observation_shape, spec.actions, bool(config.layer_norm)
    )
    parameters = {name: value.numpy() for name, value in network.state_dict().items()}
    save_weights(path, parameters, config, spec, {"env_steps": 0})
    return path


def test_evaluation_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1")
    evaluate(EvaluateConfig(path=str(weights), episodes=7, seed=5, json=True))
    result = json.loads(capsys.readouterr().out)
    assert {"env", "episodes", "mean", "std", "median", "min", "max", "returns", "protocol"} == set(result)
    assert len(result["returns"]) == 7
    assert result["mean"] == pytest.approx(np.mean(result["returns"]))
    assert result["std"] == pytest.approx(np.std(result["returns"]))


def test_evaluation_repeats_with_its_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1")
    config = EvaluateConfig(weights=str(weights), episodes=5, seed=9, json=True)
    evaluate(config)
    evaluate(config)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_pong_games_are_played_to_the_end_with_raw_scores(tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "PongNoFrameskip-v4")
    agent = Agent(EvaluateConfig(path=str(weights)))
    finished: list[int] = []
    returns = play_games(agent, 1000, 2, lambda: finished.append(1))
    assert len(finished) == 2
    assert all(-21 <= value <= -10 and value == int(value) for value in returns)


def test_sticky_setting_follows_the_id(tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "ALE/Pong-v5")
    assert Agent(EvaluateConfig(path=str(weights))).spec.sticky == 0.25
    assert Agent(EvaluateConfig(path=str(weights), env="PongNoFrameskip-v4")).spec.sticky == 0.0


def test_weights_for_another_environment_are_refused(tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "ALE/Pong-v5")
    for other in ("ALE/Breakout-v5", "ALE/Asterix-v5", "CartPole-v1"):
        with pytest.raises(UsageError, match="trained on ALE/Pong-v5"):
            Agent(EvaluateConfig(path=str(weights), env=other))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio leaves its reader's pipe open
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_recording_can_be_opened(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imageio = pytest.importorskip("imageio.v2")
    weights = untrained(tmp_path / "w.h5", "CartPole-v1", method="n-step-q")
    video = tmp_path / f"game.{suffix}"
    play(PlayConfig(path=str(weights), record=str(video), seed=3))
    score = float(capsys.readouterr().out.split()[2])
    with imageio.get_reader(video) as reader:
        pictures = [np.asarray(picture)[..., :3] for picture in reader]
    steps = int(score) + 1  # and the start; Pillow shows pictures that do not change as one
    assert steps - 3 <= len(pictures) <= steps if suffix == "gif" else len(pictures) == steps
    assert pictures[0].shape == (400, 600, 3)
    assert any((picture != pictures[0]).any() for picture in pictures)


def test_unwritable_recording_is_refused(tmp_path: Path) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1")
    with pytest.raises(UsageError, match="cannot write"):
        play(PlayConfig(path=str(weights), record=str(tmp_path / "absent" / "game.gif")))
