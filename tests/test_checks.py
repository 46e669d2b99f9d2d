"""Checks: what cannot work is refused, in one line with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from asyncq.config import TrainConfig
from asyncq.errors import UsageError

NAN = float("nan")

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "n-step-qq"}, "did you mean n-step-q"),
    ({"method": "ppo"}, "one-step-q, one-step-sarsa, n-step-q, a3c"),
    ({"preset": "slow"}, "fast, paper"),
    ({"network": "resnet"}, "--network resnet"),
    ({"optimizer": "sgd"}, "--optimizer sgd"),
    ({"correction": "retrace"}, "vtrace, none"),
    ({"device": "tpu"}, "auto, cpu, cuda"),
    ({"precision": "fp16"}, "float32, bf16"),
    ({"processes": 0}, "--processes is 0; it must be at least 1"),
    ({"total_steps": 0}, "--total-steps"),
    ({"queue_size": 0}, "--queue-size"),
    ({"publish_interval": 0}, "--publish-interval"),
    ({"save_interval": 0}, "--save-interval"),
    ({"envs_per_process": 0}, "--envs-per-process"),
    ({"n_step": 0}, "--n-step"),
    ({"batch_size": 0}, "--batch-size"),
    ({"passes": 0}, "--passes"),
    ({"frame_stack": 0}, "--frame-stack"),
    ({"frame_size": 100_000}, "--frame-size is 100000; it must be at most 1024"),
    ({"frame_stack": 100_000}, "--frame-stack is 100000; it must be at most 1024"),
    ({"frame_skip": 3_000_000_000}, "--frame-skip is 3000000000; it must be at most 1000"),
    ({"run_dir": "caf\udce9"}, "is not UTF-8; give it another"),
    ({"resume": "caf\udce9"}, "is not UTF-8; give it another"),
    ({"epsilon_final": ()}, "--epsilon-final has no numbers"),
    ({"epsilon_final": (0.1, 0.2), "epsilon_probabilities": (0.5,)}, "one probability for each epsilon"),
    ({"total_steps": 10**300}, "it must be at most 1000000000000000"),
    ({"frame_size": 0}, "--frame-size"),
    ({"frame_skip": 0}, "--frame-skip"),
    ({"max_grad_norm": -1.0}, "--max-grad-norm"),
    ({"reward_clip": -1.0}, "--reward-clip"),
    ({"reward_clip": NAN}, "--reward-clip"),
    ({"target_interval": -1}, "--target-interval"),
    ({"entropy_coefficient": -0.1}, "--entropy-coefficient"),
    ({"entropy_anneal_steps": 0}, "--entropy-anneal-steps"),
    ({"entropy_coefficient": 0.01, "final_entropy_coefficient": 0.02}, "it only falls"),
    ({"epsilon_anneal_frames": -1}, "--epsilon-anneal-frames"),
    ({"final_learning_rate": -1e-4}, "--final-learning-rate"),
    ({"final_learning_rate": 0.0, "learning_rate_schedule": "exponential"}, "never comes to 0; give"),
    ({"learning_rate_schedule": "cosine"}, "choose one of: linear, exponential"),
    ({"seed": -1}, "--seed"),
    ({"optimizer_epsilon": 0.0}, "--optimizer-epsilon is 0.0; it must be greater than 0"),
    ({"value_coefficient": -1.0}, "--value-coefficient"),
    ({"policy_clip": -0.1}, "--policy-clip"),
    ({"exploration_persistence": (1.0, 0.5)}, "each at least 1"),
    ({"exploration_persistence": (float("inf"),)}, "each at least 1"),
    ({"exploration_persistence": ()}, "one number or several"),
    ({"gamma": 1.01}, "--gamma is 1.01; it must lie between 0 and 1"),
    ({"gamma": NAN}, "--gamma"),
    ({"trace_lambda": -0.1}, "--trace-lambda"),
    ({"epsilon_initial": 2.0}, "--epsilon-initial"),
    ({"learning_rate": 0.0}, "--learning-rate is 0.0; it must be greater than 0"),
    ({"learning_rate": NAN}, "--learning-rate"),
    ({"reward_scale": 0.0}, "--reward-scale"),
    ({"report_interval": 0.0}, "--report-interval"),
    ({"double": True}, "--double and --dueling are for the Q methods"),
    ({"dueling": True}, "--double and --dueling are for the Q methods"),
    ({"method": "one-step-sarsa", "double": True}, "--double is for Q-learning"),
    ({"method": "n-step-q", "double": True, "target_interval": 0}, "--double needs a target network"),
    ({"learning_rate": float("inf")}, "--learning-rate is inf; it must be a finite number"),
    ({"target_return": NAN}, "--target-return is nan"),
    ({"seed": 2**63}, "--seed"),
    ({"run_dir": ""}, "--run-dir is empty"),
    ({"max_learner_restarts": -1}, "--max-learner-restarts"),
    ({"deterministic": True, "processes": 2}, "--deterministic needs --processes 1, not 2"),
    ({"deterministic": True, "queue_size": 2}, "--deterministic needs --queue-size 1, not 2"),
    ({"deterministic": True, "publish_interval": 4}, "--deterministic needs --publish-interval 1, not 4"),
    ({"epsilon_final": (0.1, 0.2, 1.5)}, "between 0 and 1"),
    ({"epsilon_probabilities": (0.4, 0.3, 0.4)}, "add up to 1"),
    ({"epsilon_probabilities": (-0.4, 0.7, 0.7)}, "not be negative"),
    ({"method": "a3c", "target_interval": 100}, "no target network"),
    ({"method": "n-step-q", "entropy_coefficient": 0.01}, "--epsilon-final instead"),
    ({"learning_rate": 1e-4, "final_learning_rate": 1e-3}, "only falls"),
    ({"sequence_length": 8}, "add --recurrent, or give it as auto"),
    ({"recurrent": True, "n_step": 20, "sequence_length": 8}, "--sequence-length 8 must divide --n-step 20"),
]


@pytest.mark.parametrize(("settings", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_work_is_refused_in_one_line_with_the_reason(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(**settings)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
