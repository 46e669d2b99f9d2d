"""Presets: what a setting is where the user left it open, by the kind of observation, the method and the network.

`fast` is the best known here. `paper` is Mnih et al. 2016 (section 8 of its supplement), as far as one learner for all
workers goes: the paper's 16 threads are about 16 environments, and an update learns from 5 steps, as each thread's did.
"""

from __future__ import annotations

from typing import Any

SHARED_DEFAULTS: dict[str, dict[str, Any]] = {
    "image": {
        "network": "a3c",
        "frame_stack": 4,
        "reward_scale": 1.0,
        "reward_clip": 1.0,
        "life_loss_ends": True,
        "envs_per_process": 16,
        "epsilon_final": (0.01,),
        "epsilon_probabilities": (1.0,),
    },
    "vector": {
        "network": "mlp",
        "frame_stack": 1,
        "reward_scale": 1.0,
        "reward_clip": 0.0,
        "life_loss_ends": False,
        "envs_per_process": 8,
        "epsilon_final": (0.1, 0.01, 0.5),
        "epsilon_probabilities": (0.4, 0.3, 0.3),
    },
}

FRAME_SIZES = {"a3c": 84, "nature": 84, "impala": 84, "small": 42}
"""Of the networks that take images; one's own take 84."""

_A3C = {
    "learning_rate_schedule": "linear",
    "entropy_coefficient": 0.01,
    "target_interval": 0,
    "max_grad_norm": 0.5,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-5,
    "policy_clip": 0.2,
    "correction": "vtrace",
    "entropy_anneal_steps": 1_500_000,
}
_Q = {
    "passes": 2, "final_learning_rate": 0.0, "learning_rate_schedule": "linear",
    "entropy_coefficient": 0.0, "final_entropy_coefficient": 0.0,
    "normalise_advantages": False, "target_interval": 0, "layer_norm": True, "trace_lambda": 0.65,
    "max_grad_norm": 10.0, "optimizer": "adam", "optimizer_epsilon": 1e-5, "policy_clip": 0.0, "correction": "none",
    "entropy_anneal_steps": 1, "exploration_persistence": (1.0,),
}  # fmt: skip

_ONE_STEP_IMAGE = {
    **_Q, "network": "small", "n_step": 16, "batch_size": 128, "optimizer": "muon", "learning_rate": 5e-4,
    "optimizer_epsilon": 1e-8, "target_interval": 10_000,
}  # fmt: skip
_ONE_STEP_VECTOR = {**_Q, "n_step": 8, "batch_size": 64, "learning_rate": 1e-3, "target_interval": 500}

FAST: dict[tuple[str, str], dict[str, Any]] = {
    ("a3c", "image"): {
        **_A3C,
        "passes": 1,
        "n_step": 32,
        "batch_size": 128,
        "optimizer": "muon",
        "learning_rate": 1.4e-3,
        "final_learning_rate": 1e-4,
        "learning_rate_schedule": "exponential",
        "final_entropy_coefficient": 0.003,
        "exploration_persistence": (4.0,),
        "layer_norm": True,
        "trace_lambda": 0.9,
        "normalise_advantages": False,
    },
    ("a3c", "vector"): {
        **_A3C,
        "passes": 4,
        "n_step": 64,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "final_learning_rate": 0.0,
        "final_entropy_coefficient": 0.01,
        "exploration_persistence": (1.0, 1.0, 1.0, 8.0),
        "correction": "none",  # more than one pass with V-trace moves the targets with each
        "reward_scale": 0.1,  # values of 100 take the network long to reach, and while it does the policy may collapse
        "layer_norm": True,
        "trace_lambda": 0.95,
        "normalise_advantages": True,
    },
    ("n-step-q", "image"): {
        **_Q,
        "n_step": 32,
        "batch_size": 128,
        "optimizer": "muon",
        "learning_rate": 5e-4,
        "optimizer_epsilon": 1e-8,
    },
    ("n-step-q", "vector"): {**_Q, "n_step": 16, "batch_size": 64, "learning_rate": 1e-3, "trace_lambda": 0.9},
    ("one-step-q", "image"): _ONE_STEP_IMAGE,
    ("one-step-q", "vector"): _ONE_STEP_VECTOR,
    ("one-step-sarsa", "image"): _ONE_STEP_IMAGE,
    ("one-step-sarsa", "vector"): _ONE_STEP_VECTOR,
}

PAPER: dict[str, Any] = {
    "n_step": 5, "batch_size": 5, "passes": 1, "trace_lambda": 1.0,
    "learning_rate": 7e-4, "final_learning_rate": 0.0, "learning_rate_schedule": "linear", "max_grad_norm": 0.0,
    "layer_norm": False,
    # the author's 0.1 is for sums over the 5 steps of an update; for means over them that is 0.1 / 5^2
    "optimizer": "rmsprop", "optimizer_epsilon": 0.004,
    "normalise_advantages": False, "policy_clip": 0.0, "correction": "none", "reward_scale": 1.0,
    "precision": "float32", "exploration_persistence": (1.0,),
    "epsilon_final": (0.1, 0.01, 0.5), "epsilon_probabilities": (0.4, 0.3, 0.3), "epsilon_anneal_frames": 4_000_000,
}  # fmt: skip
PAPER_A3C = {"final_entropy_coefficient": 0.01}
PAPER_Q = {"target_interval": 10_000}

PAPER_THREADS = 16
"""Each with an environment of its own."""

PRESETS = ("fast", "paper")


def open_settings(preset: str, method: str, kind: str, processes: int) -> dict[str, Any]:
    """What `preset` chooses for `method`, observations of `kind` "image" or "vector", and so many `processes`."""
    settings = {**SHARED_DEFAULTS[kind], **FAST[method, kind]}
    if preset == "paper":
        settings |= {**PAPER, **(PAPER_A3C if method == "a3c" else PAPER_Q)}
        settings["network"] = SHARED_DEFAULTS[kind]["network"]
        settings["envs_per_process"] = max(1, PAPER_THREADS // processes)
    return settings
