"""Play with trained weights: evaluate them over full games, record a game, or show it in a window."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress

from asyncq.config import OpenFloat, OpenStr, TrainConfig, usable_cores
from asyncq.envs import EnvironmentSpec, describe, make_env, reset_with_seeds, same_task
from asyncq.errors import UsageError
from asyncq.methods import METHODS
from asyncq.networks import make_network
from asyncq.policies import EpsilonGreedyPolicy, GreedyPolicy, Policy, SoftmaxPolicy
from asyncq.screens import Show, WindowClosed, has_screen, video, window
from asyncq.shared import Array
from asyncq.storage.weights_file import load_weights

PARALLEL_GAMES = 50
"""Games that an evaluation plays at a time."""


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """What `play` and `evaluate` have in common."""

    path: tyro.conf.Positional[OpenStr] = None
    """Weights file (.h5)."""
    weights: OpenStr = None
    """The same, as a flag."""
    env: Annotated[OpenStr, tyro.conf.arg(aliases=["--game"])] = None
    """Another id of the same task, say with other sticky actions (default: the one trained on)."""
    imports: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """Modules that register third-party environments."""
    seed: int = 1000
    """Seed of the first game; the following games count up from it."""
    greedy: bool = False
    """Always take the best action (default: a3c samples its policy, the Q methods use --epsilon)."""
    epsilon: float = 0.001
    """Q methods: share of random actions."""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.weights is None):
            raise UsageError("name one weights file, as in: asyncq evaluate runs/NAME/best.h5")
        if not 0 <= self.epsilon <= 1:
            raise UsageError(f"--epsilon is {self.epsilon}; it must lie between 0 and 1")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}; it must be at least 0")

    @property
    def file(self) -> Path:
        return Path(self.path or self.weights or "")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(AgentConfig):
    """Measure an agent: full games, raw unclipped score, the environment's own sticky actions."""

    episodes: int = 30
    """Games to play."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes < 1:
            raise UsageError(f"--episodes is {self.episodes}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class PlayConfig(AgentConfig):
    """Watch an agent play in a window, or record it; without a screen it is recorded."""

    episodes: int = 1
    """Games to play."""
    record: OpenStr = None
    """Write a video to this .mp4 or .gif file instead of opening a window."""
    fps: OpenFloat = None
    """Pictures a second (default: the game's own speed)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes < 1:
            raise UsageError(f"--episodes is {self.episodes}; it must be at least 1")
        if self.fps is not None and not self.fps > 0:
            raise UsageError(f"--fps is {self.fps}; it must be greater than 0")
        if self.record is not None and Path(self.record).suffix not in (".mp4", ".gif"):
            raise UsageError(f"--record {self.record} must end in .mp4 or .gif")


class Agent:
    """A trained network, its policy and its environment."""

    def __init__(self, config: AgentConfig) -> None:
        file = load_weights(config.file)
        self.trained: TrainConfig = file.config
        self.facts = file.facts
        self.spec = _playing_spec(file.spec, config)
        assert file.config.network
        heads = METHODS[file.config.method].HEADS
        self.network = make_network(
            file.config.network, heads, self.spec.observation_shape, self.spec.actions, bool(file.config.layer_norm)
        )
        try:
            self.network.load_state_dict({name: torch.as_tensor(value) for name, value in file.parameters.items()})
        except RuntimeError as error:
            raise UsageError(f"the tensors in {config.file} do not fit its network {file.config.network}") from error
        self.policy, self.policy_name = _policy(heads, config)

    def act(self, observations: Array) -> Array:
        """Actions `[B]` for stacked `observations[B, ...]`."""
        with torch.inference_mode():
            actions, _ = self.policy.act(self.network(torch.as_tensor(observations)))
        return actions.numpy()


def _playing_spec(trained: EnvironmentSpec, config: AgentConfig) -> EnvironmentSpec:
    if missing := sorted(set(trained.imports) - set(config.imports)):  # a file alone must not make us run code
        flags = " ".join(["--import", *missing])
        raise UsageError(f"{trained.env_id} comes from {', '.join(missing)}; add {flags} if you trust it")
    if config.env is None or config.env == trained.env_id:
        return trained
    spec = describe(config.env, config.imports, trained.frame_stack, trained.frame_skip)
    spec = spec.resized(trained.frame_shape[0])
    if not same_task(spec, trained):
        raise UsageError(f"these weights were trained on {trained.env_id}; they cannot play {config.env}")
    return spec


def _policy(heads: str, config: AgentConfig) -> tuple[Policy, str]:
    if config.greedy:
        return GreedyPolicy(), "greedy"
    if heads == "policy-value":
        return SoftmaxPolicy(), "sampled"
    return EpsilonGreedyPolicy(np.array([config.epsilon])), f"epsilon-greedy {config.epsilon:g}"


def evaluate(config: EvaluateConfig) -> int:
    """Play the games, print what they scored; returns the exit status."""
    agent = Agent(config)
    torch.manual_seed(config.seed)
    returns: list[float] = []
    with Progress(
        disable=config.json or not sys.stderr.isatty(), transient=True, console=Console(stderr=True)
    ) as progress:
        bar = progress.add_task("games", total=config.episodes)
        for first in range(0, config.episodes, PARALLEL_GAMES):
            count = min(PARALLEL_GAMES, config.episodes - first)
            returns += play_games(agent, config.seed + first, count, lambda: progress.advance(bar))
    result = summarise(agent, config, returns)
    if config.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['env']}: {result['mean']:.2f} ± {result['std']:.2f} over {config.episodes} games "
            f"(median {result['median']:g}, min {result['min']:g}, max {result['max']:g}; {agent.policy_name})"
        )
    return 0


def play_games(agent: Agent, seed: int, games: int, on_finish: Callable[[], object]) -> list[float]:
    """Raw returns of `games` games played side by side, one an environment, so that short games count no more."""
    env = make_env(agent.spec, games, threads=usable_cores())
    try:
        observations, _ = reset_with_seeds(env, range(seed, seed + games))
        returns = np.zeros(games)
        playing = np.ones(games, bool)
        actions = np.zeros(games, np.int64)
        while playing.any():
            actions[playing] = agent.act(observations[playing])
            observations, rewards, terminated, truncated, _ = env.step(actions)
            returns += np.where(playing, rewards, 0.0)
            for _ in range(int((playing & (terminated | truncated)).sum())):
                on_finish()
            playing &= ~(terminated | truncated)
    finally:
        env.close()
    return [float(value) for value in returns]


def summarise(agent: Agent, config: EvaluateConfig, returns: list[float]) -> dict[str, Any]:
    """The result of an evaluation, and the protocol that it followed."""
    spec = agent.spec
    return {
        "env": spec.env_id,
        "episodes": len(returns),
        "mean": statistics.fmean(returns),
        "std": statistics.pstdev(returns),
        "median": statistics.median(returns),
        "min": min(returns),
        "max": max(returns),
        "returns": returns,
        "protocol": {
            "score": "raw, unclipped, full games",
            "policy": agent.policy_name,
            "sticky_actions": spec.sticky,
            "frame_skip": spec.frame_skip,
            "max_frames": spec.max_frames,
            "seeds": [config.seed, config.seed + len(returns) - 1],
            "weights": str(config.file),
            "method": agent.trained.method,
            "trained_env_steps": agent.facts.get("env_steps"),
        },
    }


def play(config: PlayConfig) -> int:
    """Show or record games; returns the exit status."""
    agent = Agent(config)
    torch.manual_seed(config.seed)
    record = Path(config.record) if config.record else None
    if record is None and not has_screen():
        record = Path(f"{agent.spec.env_id.replace('/', '-')}.gif")
        print(f"asyncq: no screen here; recording to {record}", file=sys.stderr)
    if record:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a screen
    env = make_env(agent.spec, 1, render=True)
    fps = config.fps or _speed(env, agent.spec)
    try:
        with video(record, fps) if record else window(agent.spec.env_id, fps) as show:
            for game in range(config.episodes):
                score = _play_shown(agent, env, config.seed + game, show)
                print(f"game {game + 1}: {score:g}", flush=True)
    except WindowClosed:
        return 0
    except gym.error.DependencyNotInstalled as error:
        raise UsageError(f"{agent.spec.env_id} cannot be drawn: {' '.join(str(error).split())}") from error
    finally:
        env.close()
    if record:
        print(f"video in {record}")
    return 0


def _play_shown(agent: Agent, env: Any, seed: int, show: Show) -> float:
    observations, _ = reset_with_seeds(env, [seed])
    score, done = 0.0, False
    show(env.render()[0])
    while not done:
        observations, rewards, terminated, truncated, _ = env.step(agent.act(observations))
        score += float(rewards[0])
        done = bool(terminated[0] or truncated[0])
        show(env.render()[0])
    return score


def _speed(env: Any, spec: EnvironmentSpec) -> float:
    frames = 60 if spec.family == "atari" else env.metadata.get("render_fps", 30)
    return float(frames / spec.frame_skip)
