"""What a setting is where the user left it open: by the kind of observation, by the method, and by the network."""

from __future__ import annotations

from typing import Any

SHARED_DEFAULTS: dict[str, dict[str, Any]] = {
    "image": {
        "network": "a3c",
        "frame_stack": 4,
        "reward_clip": 1.0,
        "envs_per_process": 16,
        "epsilon_final": (0.01,),
        "epsilon_probabilities": (1.0,),
    },
    "vector": {
        "network": "mlp",
        "frame_stack": 1,
        "reward_clip": 0.0,
        "envs_per_process": 8,
        "epsilon_final": (0.1, 0.01, 0.5),
        "epsilon_probabilities": (0.4, 0.3, 0.3),
    },
}

NETWORK_DEFAULTS: dict[str, dict[str, Any]] = {
    "a3c": {"frame_size": 84},
    "nature": {"frame_size": 84},
    "impala": {"frame_size": 84},
    "small": {"frame_size": 42},
    "mlp": {},
}

_A3C = {
    "entropy_coefficient": 0.01,
    "target_interval": 0,
    "max_grad_norm": 0.5,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-5,
}
_Q = {
    "passes": 2, "final_learning_rate": 0.0, "entropy_coefficient": 0.0, "final_entropy_coefficient": 0.0,
    "normalise_advantages": False, "target_interval": 0, "layer_norm": True, "trace_lambda": 0.65,
    "max_grad_norm": 10.0, "optimizer": "adam", "optimizer_epsilon": 1e-5,
}  # fmt: skip

_ONE_STEP_IMAGE = {
    **_Q, "n_step": 16, "batch_size": 128, "learning_rate": 5e-4, "optimizer_epsilon": 1e-8, "target_interval": 10_000,
}  # fmt: skip
_ONE_STEP_VECTOR = {**_Q, "n_step": 8, "batch_size": 64, "learning_rate": 1e-3, "target_interval": 500}

METHOD_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("a3c", "image"): {
        **_A3C,
        "network": "small",
        "passes": 4,
        "n_step": 64,
        "batch_size": 256,
        "optimizer": "muon",
        "learning_rate": 7e-4,
        "final_learning_rate": 1e-4,
        "learning_rate_anneal_steps": 2_000_000,
        "final_entropy_coefficient": 0.001,
        "layer_norm": True,
        "trace_lambda": 0.9,
        "normalise_advantages": False,
    },
    ("a3c", "vector"): {
        **_A3C,
        "passes": 2,
        "n_step": 16,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "final_learning_rate": 0.0,
        "final_entropy_coefficient": 0.01,
        "layer_norm": False,
        "trace_lambda": 0.95,
        "normalise_advantages": True,
    },
    ("n-step-q", "image"): {
        **_Q,
        "n_step": 32,
        "batch_size": 128,
        "learning_rate": 5e-4,
        "optimizer_epsilon": 1e-8,
    },
    ("n-step-q", "vector"): {**_Q, "n_step": 16, "batch_size": 64, "learning_rate": 1e-3, "trace_lambda": 0.9},
    ("one-step-q", "image"): _ONE_STEP_IMAGE,
    ("one-step-q", "vector"): _ONE_STEP_VECTOR,
    ("one-step-sarsa", "image"): _ONE_STEP_IMAGE,
    ("one-step-sarsa", "vector"): _ONE_STEP_VECTOR,
}
