"""Watch an agent play: in a window, in a video file, or along with a training that is still running."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, repeat
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from asyncq.agent import Agent, AgentConfig
from asyncq.envs import EnvironmentSpec, action_names, make_env, reset_with_seeds
from asyncq.errors import UsageError, one_line
from asyncq.flags import OpenFloat, OpenInt, OpenStr, Switch
from asyncq.overlay import Overlay
from asyncq.runs import is_training
from asyncq.screens import Show, WindowClosed, has_screen, video, window
from asyncq.storage.files import refuse_unwritable


@dataclass(frozen=True, kw_only=True)
class PlayConfig(AgentConfig):
    """Watch an agent play in a window, or record it; without a screen it is recorded."""

    follow: OpenStr = None
    """Instead of a weights file: a run directory, whose newest weights play each game, also while it trains."""
    episodes: OpenInt = None
    """Games to play (default: 1; with --follow in a window, until it is closed)."""
    render: Switch = False
    """Open a window, also beside --record (default: only without --record)."""
    record: OpenStr = None
    """Write a video to this .mp4 or .gif file."""
    overlay: bool = False
    """Draw beside the picture: the score, the state's value, each action's probability (or value), the chosen one."""
    fps: OpenFloat = None
    """Pictures a second (default: the game's own speed)."""

    def __post_init__(self) -> None:
        if self.follow is None:
            super().__post_init__()
        elif self.path or self.weights:
            raise UsageError("--follow takes the weights from its run; leave the weights file out")
        else:
            self.check_play()
        if self.episodes is not None and self.episodes < 1:
            raise UsageError(f"--episodes is {self.episodes}; it must be at least 1")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UsageError(f"--fps is {self.fps}; it must be greater than 0, and at most 1000")
        if self.record is not None and Path(self.record).suffix.lower() not in (".mp4", ".gif"):
            raise UsageError(f"--record {self.record} must be a file name that ends in .mp4 or .gif")


def play(config: PlayConfig) -> int:
    """Show or record games; returns the exit status."""
    began = time.time()
    torch.set_num_threads(1)  # more gain nothing on one observation, and wait for each other where cores are busy
    agents = _agents(config)
    agent = next(agents)
    record = Path(config.record) if config.record else None
    on_screen = has_screen() and (config.render or record is None)
    if not on_screen:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a screen
    if not has_screen() and (config.render or record is None):
        record = record or _free_name(agent.spec.env_id.replace("/", "-"))
        refuse_unwritable(record)
        print(f"asyncq: no screen here; recording to {record}", file=sys.stderr)
    endless = config.follow is not None and record is None
    games = count() if config.episodes is None and endless else range(config.episodes or 1)
    overlay = Overlay(action_names(agent.spec), agent.heads == "policy-value") if config.overlay else None
    env = _drawable(agent.spec)
    fps = config.fps or _speed(env, agent.spec)
    try:
        with contextlib.ExitStack() as screens:
            shows = [screens.enter_context(video(record, fps))] if record else []
            shows += [screens.enter_context(window(agent.spec.env_id, fps))] if on_screen else []
            screens.enter_context(contextlib.suppress(WindowClosed))  # innermost, so that a video is ended in order
            for game, player in zip(games, chain([agent], agents), strict=False):
                score = _play_game(player, env, config.seed + game, shows, overlay)
                print(f"game {game + 1}: {score:.10g}", flush=True)
    except KeyboardInterrupt:
        recorded = record and record.exists() and record.stat().st_mtime >= began
        print("asyncq: stopped" + f"; what was played so far is in {record}" * bool(recorded), file=sys.stderr)
        return 130
    finally:
        env.close()
    if record:
        print(f"video in {record}")
    return 0


def _drawable(spec: EnvironmentSpec) -> Any:
    """One environment with pictures. Raises UsageError if it has none."""
    try:
        env = make_env(spec, 1, render=True)
        reset_with_seeds(env, [0])
        if (env.render() or [None])[0] is None:
            raise ValueError("it renders nothing")
    except Exception as error:  # somebody else's code may raise anything
        raise UsageError(f"{spec.env_id} cannot be drawn: {one_line(error)}") from error
    return env


def _free_name(stem: str) -> Path:
    """A .gif in the current directory that is not there yet."""
    names = chain([f"{stem}.gif"], (f"{stem}-{number}.gif" for number in count(2)))
    return next(path for path in map(Path, names) if not path.exists())


def _agents(config: PlayConfig) -> Iterator[Agent]:
    """Who plays each game: always the same, or the newest of the run that is followed."""
    if config.follow is None:
        yield from repeat(Agent(config))
        return
    while True:
        newest = _newest_weights(Path(config.follow))
        yield Agent(replace(config, follow=None, path=str(newest)))


def _newest_weights(run_dir: Path) -> Path:
    """The weights file written last in `run_dir`; waits for the first. Raises UsageError if none will come."""
    if not (run_dir / "config.json").is_file():
        raise UsageError(f"--follow {run_dir} is no run directory: there is no config.json in it")
    said = False
    while True:
        trains = is_training(run_dir)
        if files := [*run_dir.glob("*.h5"), *run_dir.glob("weights/*.h5")]:
            return max(files, key=lambda file: file.stat().st_mtime_ns)
        if not trains:
            again = f"asyncq train --run-dir {quote(str(run_dir))} --resume auto"
            raise UsageError(f"{run_dir} has no weights, and no asyncq trains there now; to go on: {again}")
        if not said:
            print(f"asyncq: waiting for the first weights of {run_dir}", file=sys.stderr)
            said = True
        time.sleep(0.5)


def _play_game(agent: Agent, env: Any, seed: int, shows: list[Show], overlay: Overlay | None) -> float:
    generator = torch.Generator().manual_seed(seed)
    observations, _ = reset_with_seeds(env, [seed])
    score, done, memory = 0.0, False, agent.no_memory(1)
    while True:
        outputs, memory = agent.consider(observations, memory)
        actions = agent.choose(outputs, generator)
        picture = env.render()[0]
        if overlay:
            preferences, value = agent.preferences(outputs)[0].tolist(), float(outputs[1][0])
            picture = overlay.beside(picture, score, preferences, int(actions[0]), value)
        for show in shows:
            show(picture)
        if done:
            return score
        observations, rewards, terminated, truncated, _ = env.step(actions)
        score += float(rewards[0])
        done = bool(terminated[0] or truncated[0])


def _speed(env: Any, spec: EnvironmentSpec) -> float:
    frames = 60 if spec.family.startswith("atari") else env.metadata.get("render_fps", 30)
    return float(frames / spec.frame_skip)
