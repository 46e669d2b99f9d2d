"""Configuration: what is filled in, and that it survives being written down."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from asyncq.checks import METHODS
from asyncq.config import TrainConfig
from asyncq.defaults import PRESETS
from asyncq.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "kind", "reason"),
    [
        ({"network": "nature"}, "vector", "use --network mlp"),
        ({"network": "a3c"}, "vector", "use --network mlp"),
        ({"network": "mlp"}, "image", "use --network small, a3c, nature or impala"),
        ({"frame_stack": 4}, "vector", "--frame-stack 4 is for images"),
        ({"frame_size": 42}, "vector", "--frame-size 42 is for images"),
        ({"final_learning_rate": 0.1}, "image", "--final-learning-rate 0.1 is above"),
    ],
)
def test_what_cannot_work_with_the_observations_is_refused(settings: dict[str, Any], kind: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        TrainConfig(**settings).resolved(kind, 1)


@pytest.mark.parametrize("kind", ["image", "vector"])
@pytest.mark.parametrize("method", METHODS)
def test_resolved_fills_in_everything_but_what_has_a_meaning_when_open(method: str, kind: str) -> None:
    config = TrainConfig(method=method).resolved(kind, 4)
    open_fields = {field.name for field in dataclasses.fields(config) if getattr(config, field.name) is None}
    open_fields -= {"frame_size"} if kind == "vector" else set()
    assert open_fields == {
        "target_return", "run_dir", "resume", "precision", "sequence_length", "learning_rate_anneal_steps",
    }  # fmt: skip
    assert config.frame_skip == 4
    assert config.resolved(kind, 4) == config


def test_final_epsilons_are_equally_likely_unless_said_otherwise() -> None:
    config = TrainConfig(method="n-step-q", epsilon_final=(0.1, 0.2)).resolved("vector", 1)
    assert config.epsilon_probabilities == (0.5, 0.5)
    papers = TrainConfig(method="n-step-q", epsilon_final=(0.1, 0.01, 0.5)).resolved("vector", 1)
    assert papers.epsilon_probabilities == (0.4, 0.3, 0.3)


@pytest.mark.parametrize(("n_step", "length"), [(64, 16), (5, 5), (100, 20), (3, 3)])
def test_sequences_divide_the_fragment(n_step: int, length: int) -> None:
    config = TrainConfig(recurrent=True, n_step=n_step).resolved("image", 4)
    assert (config.sequence_length, config.frame_stack) == (length, 1)
    with pytest.raises(UsageError, match="--n-step 23 cannot be cut into sequences of 5 to 20 steps"):
        TrainConfig(recurrent=True, n_step=23).resolved("image", 4)
    assert TrainConfig(recurrent=True, n_step=23, sequence_length=1).resolved("image", 4).sequence_length == 1
    assert TrainConfig(recurrent=True, n_step=n_step, frame_stack=4).resolved("image", 4).frame_stack == 4


@pytest.mark.parametrize("method", METHODS)
def test_resolved_changes_nothing_that_was_given(method: str) -> None:
    given: dict[str, Any] = {
        "method": method,
        "network": "nature",
        "n_step": 6,
        "batch_size": 54,
        "passes": 3,
        "learning_rate": 0.25,
        "optimizer": "adam",
        "trace_lambda": 0.5,
        "layer_norm": False,
        "reward_clip": 0.0,
        "max_grad_norm": 0.0,
        "target_interval": 0,
        "frame_stack": 2,
        "envs_per_process": 3,
    }
    config = TrainConfig(**given).resolved("image", 4)
    assert {name: getattr(config, name) for name in given} == given


@pytest.mark.parametrize("kind", ["image", "vector"])
@pytest.mark.parametrize("method", METHODS)
def test_the_papers_preset_fills_in_the_same_settings_as_the_fast_one(method: str, kind: str) -> None:
    fast, paper = (TrainConfig(preset=preset, method=method).resolved(kind, 4) for preset in PRESETS)
    for field in dataclasses.fields(fast):
        if field.name not in ("learning_rate_anneal_steps", "epsilon_anneal_frames", "precision"):
            assert (getattr(fast, field.name) is None) == (getattr(paper, field.name) is None), field.name
    assert paper.learning_rate_at(paper.total_steps // 2) == pytest.approx(3.5e-4)
    assert (paper.optimizer, paper.n_step, paper.batch_size, paper.passes) == ("rmsprop", 5, 5, 1)
    assert (paper.network, paper.precision) == ("a3c" if kind == "image" else "mlp", "float32")
    assert paper.target_interval == (0 if method == "a3c" else 10_000)
    assert paper.entropy_coefficient_at(9_000_000) == (0.01 if method == "a3c" else 0)


def test_a_flag_wins_over_the_preset() -> None:
    config = TrainConfig(preset="paper", n_step=20, correction="vtrace", learning_rate=1e-4).resolved("image", 4)
    assert (config.n_step, config.correction, config.learning_rate, config.policy_clip) == (20, "vtrace", 1e-4, 0)


@pytest.mark.parametrize(("network", "size"), [("a3c", 84), ("nature", 84), ("small", 42)])
def test_frames_have_the_size_that_the_network_is_made_for(network: str, size: int) -> None:
    assert TrainConfig(network=network).resolved("image", 4).frame_size == size
    assert TrainConfig(network=network, frame_size=60).resolved("image", 4).frame_size == 60


def test_rewards_are_clipped_for_images_only() -> None:
    assert TrainConfig().resolved("image", 4).reward_clip == 1
    assert TrainConfig().resolved("vector", 1).reward_clip == 0


@pytest.mark.parametrize(("processes", "envs"), [(1, 16), (2, 8), (16, 1), (40, 1)])
def test_the_papers_16_environments_are_shared_out_among_the_processes(processes: int, envs: int) -> None:
    assert TrainConfig(preset="paper", processes=processes).resolved("image", 4).envs_per_process == envs


def test_a_lost_life_ends_what_is_learned_from_games_by_default() -> None:
    assert TrainConfig().resolved("image", 4).life_loss_ends is True
    assert TrainConfig(preset="paper").resolved("image", 4).life_loss_ends is True
    assert TrainConfig(life_loss_ends=False).resolved("image", 4).life_loss_ends is False


def test_the_entropy_bonus_falls_linearly_over_the_run_at_most_and_then_stays() -> None:
    for total, anneal in ((10_000, 1000), (1000, 10_000)):
        config = TrainConfig(
            entropy_coefficient=0.5, final_entropy_coefficient=0.1, entropy_anneal_steps=anneal, total_steps=total
        )
        bonuses = [config.entropy_coefficient_at(steps) for steps in (0, 500, 1000, 9000)]
        assert bonuses == pytest.approx([0.5, 0.3, 0.1, 0.1])
    longer = TrainConfig(learning_rate=0.5, final_learning_rate=0.1, total_steps=50, learning_rate_anneal_steps=100)
    assert longer.learning_rate_at(50) == pytest.approx(0.3)


def test_an_entropy_coefficient_below_the_default_final_one_stays_what_it_is() -> None:
    assert TrainConfig(entropy_coefficient=1e-4).resolved("image", 4).entropy_coefficient_at(10_000_000) == 1e-4
    assert TrainConfig(entropy_coefficient=0.0).resolved("vector", 1).entropy_coefficient_at(0) == 0


def test_the_step_size_falls_over_the_run_or_as_long_as_asked() -> None:
    for config in (
        TrainConfig(learning_rate=0.5, final_learning_rate=0.1, total_steps=100),
        TrainConfig(learning_rate=0.5, final_learning_rate=0.1, total_steps=900, learning_rate_anneal_steps=100),
    ):
        assert [config.learning_rate_at(steps) for steps in (0, 50, 100, 120)] == pytest.approx([0.5, 0.3, 0.1, 0.1])


def test_an_exponential_step_size_falls_by_the_same_factor_again_and_again() -> None:
    config = TrainConfig(
        learning_rate=0.8, final_learning_rate=0.1, learning_rate_schedule="exponential", total_steps=300
    )
    rates = [config.learning_rate_at(steps) for steps in (0, 100, 200, 300, 400)]
    assert rates == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.1])


def test_a_step_size_that_shall_end_at_0_falls_linearly() -> None:
    assert TrainConfig().resolved("image", 4).learning_rate_schedule == "exponential"
    config = TrainConfig(learning_rate=0.4, final_learning_rate=0.0, total_steps=100).resolved("image", 4)
    assert config.learning_rate_at(50) == pytest.approx(0.2)


def test_epsilon_anneals_over_1_million_frames_or_a_tenth_of_a_shorter_run() -> None:
    assert TrainConfig(total_steps=100_000_000).resolved("image", 4).epsilon_anneal_frames == 1_000_000
    assert TrainConfig(total_steps=1_000_000).resolved("image", 4).epsilon_anneal_frames == 400_000
    assert TrainConfig(epsilon_anneal_frames=0).resolved("image", 4).epsilon_anneal_frames == 0


def test_epsilon_falls_linearly_by_frames_and_then_stays() -> None:
    config = TrainConfig(method="n-step-q").resolved("image", 4)
    expected = {0: [1, 1], 62_500: [0.775, 0.875], 125_000: [0.55, 0.75], 250_000: [0.1, 0.5], 7_000_000: [0.1, 0.5]}
    for env_steps, epsilons in expected.items():
        assert config.epsilon_at(env_steps, np.array([0.1, 0.5])).tolist() == pytest.approx(epsilons)


def test_a_run_made_longer_does_not_explore_anew() -> None:
    short = TrainConfig(method="one-step-q", total_steps=100_000).resolved("vector", 1)
    longer = dataclasses.replace(short, total_steps=10_000_000)
    assert short.epsilon_at(100_000, 0.1) == longer.epsilon_at(100_000, 0.1) == 0.1


def test_a_batch_that_nobody_asked_for_is_no_larger_than_the_queue() -> None:
    small: dict[str, Any] = {"processes": 2, "n_step": 8, "envs_per_process": 2}
    assert TrainConfig(**small).resolved("image", 4).batch_size == 32
    assert TrainConfig(**small, queue_size=4).resolved("image", 4).batch_size == 128
    assert TrainConfig(**small, batch_size=128).resolved("image", 4).batch_size == 128


@pytest.mark.parametrize("method", METHODS)
def test_json_and_back_gives_the_same_configuration(method: str) -> None:
    for config in (
        TrainConfig(method=method, imports=("one", "two"), target_return=19.5),
        TrainConfig(method=method).resolved("vector", 1),
    ):
        assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_json_with_settings_that_do_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="gama, lamda"):
        TrainConfig.from_json({"lamda": 1, "gama": 2, "seed": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [("processes", 2.5), ("target_return", "x"), ("recurrent", "no"), ("gamma", True), ("epsilon_final", [0.1, "a"])],
)
def test_json_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{name} in the configuration is"):
        TrainConfig.from_json({name: value})


def test_whole_numbers_will_do_for_any_number_in_json() -> None:
    assert TrainConfig.from_json({"target_return": 18, "epsilon_final": [1], "n_step": 5}).target_return == 18


def test_one_number_will_do_where_several_may_stand_in_json() -> None:
    assert TrainConfig.from_json({"exploration_persistence": 4.0}).exploration_persistence == (4.0,)


def test_json_that_cannot_work_is_refused() -> None:
    with pytest.raises(UsageError, match="--gamma"):
        TrainConfig.from_json({**TrainConfig().to_json(), "gamma": 7})


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().gamma = 0.5  # type: ignore[misc]
