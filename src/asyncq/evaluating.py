"""Measure an agent: many full games at once, on all cores, each game from a seed of its own.

What a game scores depends on its seed and not on the games beside it, so results repeat on any number of cores.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import signal
import statistics
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from scipy import stats

from asyncq.agent import Agent, AgentConfig, read_weights
from asyncq.envs import TRAINING_SEEDS, import_modules, make_env, refuse_unplayable, reset_with_seeds
from asyncq.errors import UsageError, install
from asyncq.flags import OpenStr
from asyncq.machine import usable_cores
from asyncq.processes import PLAYER_ENVIRONMENT, start_child
from asyncq.shared import Array
from asyncq.storage.files import refuse_unwritable, refusing_what_fails, write_whole
from asyncq.storage.weights_file import TrainedWeights, package_versions

CONFIDENCE = 0.95
DYING_SECONDS = 5.0
"""From the end of a process's pipe to its own."""
SIDE_BY_SIDE = 8
"""Games that a process plays at once; the network costs a third as much in such batches as alone."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(AgentConfig):
    """Measure an agent: full games, raw unclipped score, the environment's own sticky actions."""

    episodes: int = 30
    """Games to play."""
    json: bool = False
    """Print one JSON object on stdout and nothing else."""
    plot: OpenStr = None
    """Draw a histogram of the scores into this .png or .svg file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episodes < 1:
            raise UsageError(f"--episodes is {self.episodes}; it must be at least 1")
        if self.seed + self.episodes > TRAINING_SEEDS:
            raise UsageError(f"--seed is {self.seed}; from {TRAINING_SEEDS} on, seeds are those of training")
        if self.plot is not None:
            _check_plot(Path(self.plot))


@dataclass(frozen=True)
class Game:
    """One full game."""

    seed: int
    score: float
    """Sum of raw rewards."""
    steps: int
    """Env steps."""


def evaluate(config: EvaluateConfig) -> int:
    """Play the games, print what they scored; returns the exit status."""
    weights = read_weights(config)  # once: the file of a run that goes on changes meanwhile
    agent = Agent(config, weights)  # refuses what cannot be played before any process starts
    refuse_unplayable(agent.spec)
    games: list[Game] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=not sys.stderr.isatty(), transient=True, console=Console(stderr=True)) as progress:
        bar = progress.add_task("games", total=config.episodes)
        try:
            for game in play_games(config, weights, range(config.seed, config.seed + config.episodes)):
                if not math.isfinite(game.score):
                    why = f"the game from seed {game.seed} scored {game.score}, which is no score to take the mean of"
                    raise UsageError(f"{why}; mend the rewards of {agent.spec.env_id}")
                games.append(game)
                mean = statistics.fmean(game.score for game in games)
                progress.update(bar, advance=1, description=f"games, mean {mean:.1f}")
        except PlayerDied as error:
            print(f"asyncq: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"asyncq: stopped after {len(games)} of {config.episodes} games", file=sys.stderr)
            return 130
    games.sort(key=lambda game: game.seed)
    result = summarise(agent, config, games)
    print(json.dumps(result) if config.json else _sentence(result))
    if config.plot is not None:
        _draw(Path(config.plot), result)
        print(config.plot, file=sys.stderr)
    return 0


class PlayerDied(Exception):
    """A process that played games ended before them; what it said stands on stderr."""


def play_games(config: AgentConfig, weights: TrainedWeights, seeds: range) -> Iterator[Game]:
    """One game from each of `seeds`, in the order in which they end. Raises PlayerDied."""
    pipes: dict[Connection, BaseProcess] = {}
    left = deque(seeds)
    try:
        for index in range(min(usable_cores(), len(seeds))):
            pipe, theirs = Pipe()
            pipes[pipe] = start_child(f"player-{index}", PLAYER_ENVIRONMENT, _player, theirs)
            theirs.close()  # so that the pipe ends with the process
        for pipe in pipes:
            _give(pipe, (config, weights))  # not as arguments: whoever starts a process that dies hangs in those
        for pipe, seed in zip([*pipes] * SIDE_BY_SIDE, seeds, strict=False):
            _give(pipe, seed)
            left.popleft()
        for _ in seeds:
            pipe = cast(list[Connection], wait(pipes))[0]
            yield _next_game(pipe, pipes[pipe])
            if left:
                _give(pipe, left.popleft())
    finally:
        for process in pipes.values():
            process.kill()


def _give(pipe: Connection, what: object) -> None:
    with contextlib.suppress(ConnectionError):  # the process died, which its end of the pipe tells
        pipe.send(what)


def _next_game(pipe: Connection, process: BaseProcess) -> Game:
    try:
        game: Game = pipe.recv()
    except (EOFError, ConnectionError):
        process.join(DYING_SECONDS)
        why = "is memory short?" if process.exitcode == -signal.SIGKILL else "what it said is above"
        raise PlayerDied(f"a process that played games died with exit code {process.exitcode}; {why}") from None
    return game


def _player(pipe: Connection) -> None:
    """Take configuration and weights, then play a game for each seed that comes, several side by side."""
    config, weights = pipe.recv()
    torch.set_num_threads(1)
    gym.logger.min_level = gym.logger.ERROR  # the main process has been warned
    import_modules(config.imports)
    agent = Agent(config, weights)
    games: list[GameInPlay] = []
    while True:
        while not games or pipe.poll():
            games.append(GameInPlay(agent, pipe.recv()))
        step_together(agent, games)
        for game in [game for game in games if game.done]:
            games.remove(game)
            pipe.send(game.close())


class GameInPlay:
    """A game that has begun, with an environment and random numbers of its own."""

    def __init__(self, agent: Agent, seed: int) -> None:
        self.env = make_env(agent.spec, 1)
        self.observations, _ = reset_with_seeds(self.env, [seed])
        self.generator = torch.Generator().manual_seed(seed)
        self.memory = agent.no_memory(1)
        self.seed, self.score, self.steps, self.done = seed, 0.0, 0, False

    def step(self, action: Array) -> None:
        """One env step with `action[1]`."""
        self.observations, rewards, terminated, truncated, _ = self.env.step(action)
        self.score += float(rewards[0])
        self.steps += 1
        self.done = bool(terminated[0] or truncated[0])

    def close(self) -> Game:
        self.env.close()
        return Game(self.seed, self.score, self.steps)


def step_together(agent: Agent, games: list[GameInPlay]) -> None:
    """One step of each of up to SIDE_BY_SIDE games."""
    first = games[0].observations
    batch = np.zeros((SIDE_BY_SIDE, *first.shape[1:]), first.dtype)  # always as many: rounding differs with the size
    memory = agent.no_memory(SIDE_BY_SIDE)
    for row, game in enumerate(games):
        batch[row], memory[row] = game.observations[0], game.memory[0]
    outputs, memory = agent.consider(batch, memory)
    for row, game in enumerate(games):
        game.memory = memory[row : row + 1]
        game.step(agent.choose((outputs[0][row : row + 1], outputs[1][row : row + 1]), game.generator))


def summarise(agent: Agent, config: EvaluateConfig, games: list[Game]) -> dict[str, Any]:
    """The result of an evaluation, and the protocol that it followed."""
    spec, scores = agent.spec, [game.score for game in games]
    different = different_games(agent, games)
    return {
        "env": spec.env_id,
        "episodes": len(games),
        "mean": statistics.fmean(scores),
        "std": statistics.pstdev(scores),
        "different_games": different,
        "confidence_interval": confidence_interval(scores, different),
        "median": statistics.median(scores),
        "min": min(scores),
        "max": max(scores),
        "returns": scores,
        "lengths": [game.steps for game in games],
        "protocol": {
            "score": "raw, unclipped, full games",
            "confidence": CONFIDENCE,
            "policy": agent.policy_name,
            "sticky_actions": spec.sticky,
            "frame_skip": spec.random_frame_skip or spec.frame_skip,
            "frame_stack": spec.frame_stack,
            "frame_shape": spec.frame_shape,
            "preprocessing": spec.family,
            "max_frames": spec.max_frames,
            "seeds": [config.seed, config.seed + len(games) - 1],
            "weights": str(config.file),
            "method": agent.trained.method,
            "network": agent.trained.network,
            "recurrent": agent.trained.recurrent,
            "trained_env": agent.trained.env,
            "trained_env_steps": agent.facts.get("env_steps"),
            "versions": package_versions(),
        },
    }


def different_games(agent: Agent, games: list[Game]) -> int:
    """How many of the games are no repetitions.

    Without sticky actions and random frame skips chance has no part in an Atari game but for the up to 30 no-ops it may
    begin with, so that a greedy policy plays one game for each number of them.
    """
    spec = agent.spec
    chance = spec.sticky or spec.random_frame_skip or not spec.family.startswith("atari")
    if agent.policy_name == "greedy" and not chance:
        return len({(game.score, game.steps) for game in games})
    return len(games)


def confidence_interval(scores: list[float], different: int) -> tuple[float, float] | None:
    """Bounds of the 95% interval of the mean, by Student's t, of which so many games are `different`; None for one."""
    if different < 2:
        return None
    mean, error = statistics.fmean(scores), statistics.stdev(scores) / math.sqrt(different)
    low, high = stats.t.interval(CONFIDENCE, different - 1, loc=mean, scale=error) if error else (mean, mean)
    return float(low), float(high)


def _sentence(result: dict[str, Any]) -> str:
    interval = result["confidence_interval"]
    games = "1 game" if result["episodes"] == 1 else f"{result['episodes']} games"
    if (different := result["different_games"]) < result["episodes"]:
        games += f", {different} of them different"
    certain = "95% confidence {:.2f} to {:.2f}; ".format(*interval) if interval else ""
    return (
        f"{result['env']}: {result['mean']:.2f} ± {result['std']:.2f} over {games} "
        f"({certain}median {result['median']:.10g}, min {result['min']:.10g}, max {result['max']:.10g}; "
        f"{result['protocol']['policy']})"
    )


def _check_plot(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"--plot {path} must be a file name that ends in .png or .svg")
    refuse_unwritable(path)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--plot needs matplotlib: {install('plot')}") from error


def _draw(path: Path, result: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    scores = np.round(result["returns"], 6)  # sums of the same rewards in another order differ further behind
    axes.hist(scores, bins=min(20, max(5, result["episodes"] // 2)), color="#4c72b0", edgecolor="white")
    if result["confidence_interval"]:
        axes.axvspan(*result["confidence_interval"], color="#dd8452", alpha=0.3, label="95% interval of the mean")
    axes.axvline(result["mean"], color="#dd8452", label=f"mean {result['mean']:.1f}")
    axes.set(title=f"{result['env']}, {result['episodes']} games", xlabel="score", ylabel="games")
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    with refusing_what_fails(path):
        write_whole(path, picture.getvalue())
