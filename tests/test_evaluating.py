"""Evaluation: full games with raw scores, one JSON object, the same on any number of cores."""

from __future__ import annotations

import importlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from asyncq import evaluating
from asyncq.agent import Agent, read_weights
from asyncq.envs import describe, describe_2016
from asyncq.errors import UsageError
from asyncq.evaluating import (
    EvaluateConfig,
    Game,
    GameInPlay,
    PlayerDied,
    confidence_interval,
    different_games,
    evaluate,
    play_games,
    step_together,
)
from untrained import untrained


def test_evaluation_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1")
    evaluate(EvaluateConfig(path=str(weights), episodes=7, seed=5, json=True))
    result = json.loads(capsys.readouterr().out)
    assert len(result["returns"]) == len(result["lengths"]) == 7
    assert result["mean"] == pytest.approx(np.mean(result["returns"]))
    assert result["std"] == pytest.approx(np.std(result["returns"]))
    low, high = result["confidence_interval"]
    assert low < result["mean"] < high
    assert result["returns"] == result["lengths"], "CartPole gives 1 a step"
    assert result["protocol"]["seeds"] == [5, 11]
    assert {"policy", "sticky_actions", "frame_skip", "frame_stack", "max_frames", "versions"} <= set(
        result["protocol"]
    )


@pytest.mark.parametrize(("method", "recurrent"), [("a3c", True), ("n-step-q", False)])
def test_a_game_depends_on_its_seed_alone(
    method: str, recurrent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epsilon = None if method == "a3c" else 0.5
    weights = untrained(tmp_path / "w.h5", "CartPole-v1", method, recurrent=recurrent)
    config = EvaluateConfig(path=str(weights), epsilon=epsilon)
    results = []
    for cores, seeds in ((1, range(9, 21)), (2, range(20, 8, -1))):
        monkeypatch.setattr(evaluating, "usable_cores", lambda cores=cores: cores)
        results.append(sorted(play_games(config, read_weights(config), seeds), key=lambda game: game.seed))
    assert results[0] == results[1]
    assert len({game.score for game in results[0]}) > 1


def test_games_side_by_side_remember_each_their_own(tmp_path: Path) -> None:
    agent = Agent(EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1", recurrent=True))))
    games = [GameInPlay(agent, seed) for seed in (1, 2)]
    memory = agent.no_memory(2)
    for _ in range(3):
        observations = np.concatenate([game.observations for game in games])
        _, memory = agent.consider(observations, memory)
        step_together(agent, games)
        torch.testing.assert_close(torch.cat([game.memory for game in games]), memory)
    assert memory.any()


def test_pong_games_are_played_to_the_end_with_raw_scores(tmp_path: Path) -> None:
    config = EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "PongNoFrameskip-v4")))
    (game,) = play_games(config, read_weights(config), range(1000, 1001))
    assert -21 <= game.score <= -10 and game.score == int(game.score)
    assert game.steps > 700


def test_a_player_that_dies_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1")))
    others = replace(read_weights(config), parameters={})
    with pytest.raises(PlayerDied, match="died with exit code 1; what it said is above"):
        list(play_games(config, others, range(2)))
    assert "do not fit its network" in capfd.readouterr().err


def die(pipe: Connection) -> None:
    os._exit(3)


def test_a_player_that_dies_before_it_has_read_all_weights_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1")))
    large = replace(read_weights(config), parameters={"weight": np.zeros(1_000_000)})
    monkeypatch.setattr(evaluating, "_player", die)
    with pytest.raises(PlayerDied, match="died with exit code 3"):
        list(play_games(config, large, range(2)))


def test_a_player_that_was_killed_may_have_lacked_memory() -> None:
    ours, theirs = Pipe()
    theirs.close()
    killed: Any = SimpleNamespace(join=lambda _: None, exitcode=-signal.SIGKILL)
    with pytest.raises(PlayerDied, match="exit code -9; is memory short"):
        evaluating._next_game(ours, killed)


def test_stopping_says_how_many_games_were_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> Iterator[Game]:
        yield Game(seed=0, score=9.0, steps=9)
        raise KeyboardInterrupt

    monkeypatch.setattr("asyncq.evaluating.play_games", interrupted)
    assert evaluate(EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1")))) == 130
    assert capsys.readouterr() == ("", "asyncq: stopped after 1 of 30 games\n")


def test_a_score_without_a_mean_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncq.evaluating.play_games", lambda *_: iter([Game(1003, float("-inf"), steps=9)]))
    with pytest.raises(UsageError, match="the game from seed 1003 scored -inf"):
        evaluate(EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1"))))


def test_large_scores_are_said_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asyncq.evaluating.play_games", lambda *_: iter([Game(1000, 1_234_567.0, steps=9)]))
    assert evaluate(EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1")))) == 0
    assert "(median 1234567, min 1234567, max 1234567; sampled)" in capsys.readouterr().out


def test_all_games_are_played_with_the_weights_that_were_read(tmp_path: Path) -> None:
    config = EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1")))
    weights = read_weights(config)
    (tmp_path / "w.h5").unlink()
    assert len(list(play_games(config, weights, range(3)))) == 3


def test_the_interval_is_students() -> None:
    scores = [1.0, 2.0, 3.0, 4.0]
    half = 3.182446 * np.std(scores, ddof=1) / 2  # t of 3 degrees of freedom at 97.5%
    assert confidence_interval(scores, 4) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-6)
    assert confidence_interval([7.0, 7.0], 2) == (7.0, 7.0)
    assert confidence_interval([7.0], 1) is None


@pytest.mark.parametrize(
    ("env", "policy", "different"),
    [
        ("PongNoFrameskip-v4", "greedy", 2),
        ("PongNoFrameskip-v4", "sampled", 6),
        ("ALE/Pong-v5", "greedy", 6),
        ("CartPole-v1", "greedy", 6),
        ("2016 BreakoutNoFrameskip-v4", "greedy", 2),
        ("2016 Breakout-v4", "greedy", 6),
    ],
)
def test_games_that_can_only_repeat_count_once(env: str, policy: str, different: int) -> None:
    spec = describe_2016(env[5:], 4) if env.startswith("2016") else describe(env)
    agent = SimpleNamespace(spec=spec, policy_name=policy)
    games = [Game(seed, score, 900) for seed, score in enumerate([-3.0, -3.0, -3.0, 5.0, 5.0, 5.0])]
    assert different_games(agent, games) == different  # type: ignore[arg-type]
    low, high = confidence_interval([game.score for game in games], different) or (0, 0)
    assert (low + high) / 2 == pytest.approx(1)
    assert high - low == pytest.approx(78.7 if different == 2 else 9.2, abs=0.1)


def test_seeds_of_training_are_refused() -> None:
    with pytest.raises(UsageError, match="seeds are those of training"):
        EvaluateConfig(path="w.h5", seed=2**30 - 29)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_histogram_is_a_picture(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(
        evaluating, "play_games", lambda config, weights, seeds: (Game(seed, seed, 5) for seed in seeds)
    )
    weights, plot = untrained(tmp_path / "w.h5", "CartPole-v1"), tmp_path / f"scores.{suffix}"
    evaluate(EvaluateConfig(path=str(weights), episodes=3, plot=str(plot)))
    assert plot.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


def test_scores_that_differ_by_rounding_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(
        evaluating,
        "play_games",
        lambda config, weights, seeds: (Game(seed, (0.3, 0.1 + 0.2)[seed % 2], 5) for seed in seeds),
    )
    weights, plot = untrained(tmp_path / "w.h5", "CartPole-v1"), tmp_path / "scores.png"
    evaluate(EvaluateConfig(path=str(weights), plot=str(plot)))
    assert plot.is_file()


@pytest.mark.parametrize(
    ("plot", "said"), [("scores.pdf", "that ends in .png"), ("absent/scores.png", "there is no directory")]
)
def test_a_histogram_that_cannot_be_written_is_refused_first(plot: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        EvaluateConfig(path="w.h5", plot=str(tmp_path / plot))


def test_an_environment_that_cannot_be_made_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = untrained(tmp_path / "w.h5", "CartPole-v1")
    monkeypatch.setattr("asyncq.envs.make_env", lambda *_: importlib.import_module("no_such_physics"))
    with pytest.raises(UsageError, match="environment CartPole-v1 cannot be made: No module named 'no_such_physics'"):
        evaluate(EvaluateConfig(path=str(weights)))


def test_a_game_begins_by_its_own_seed(tmp_path: Path) -> None:
    agent = Agent(EvaluateConfig(path=str(untrained(tmp_path / "w.h5", "CartPole-v1"))))
    one, again, other = (GameInPlay(agent, seed).observations for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
