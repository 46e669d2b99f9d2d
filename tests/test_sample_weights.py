"""Sample weights: every file has its curve and its evaluation beside it, is small, and plays as well as they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncq.agent import read_weights
from asyncq.evaluating import EvaluateConfig, play_games
from asyncq.storage.weights_file import load_weights

FOLDER = Path(__file__).parent.parent / "sample-weights"
WEIGHTS = sorted(FOLDER.glob("*.h5"))


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_weights_have_their_curve_their_evaluation_and_a_line_in_the_readme(path: Path) -> None:
    result = json.loads(path.with_suffix(".json").read_text())
    weights = load_weights(path)
    assert result["env"] == weights.spec.env_id
    assert result["episodes"] >= 30
    assert result["protocol"]["trained_env_steps"] == weights.facts["env_steps"]
    assert path.with_suffix(".png").is_file()
    assert f"{path.name}" in (FOLDER / "README.md").read_text()
    assert path.stat().st_size < 4_000_000


def test_a_sample_scores_what_its_evaluation_says() -> None:
    path = FOLDER / "cartpole-a3c.h5"
    result = json.loads(path.with_suffix(".json").read_text())
    seeds = range(result["protocol"]["seeds"][0], result["protocol"]["seeds"][0] + 3)
    config = EvaluateConfig(path=str(path))
    scores = {game.seed: game.score for game in play_games(config, read_weights(config), seeds)}
    assert [scores[seed] for seed in seeds] == result["returns"][:3]
