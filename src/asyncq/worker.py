"""Worker: plays its environments with its own copy of the weights and pushes fragments into its lane."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from asyncq.config import TrainConfig
from asyncq.devices import has_fast_bf16
from asyncq.envs import TRAINING_SEEDS, EnvironmentSpec, make_env, reset_with_seeds
from asyncq.experience import Fragment, Lane
from asyncq.methods import METHODS, network_for
from asyncq.networks import Outputs
from asyncq.policies import EpsilonGreedyPolicy, SoftmaxPolicy, sample_final_epsilons
from asyncq.shared import Array
from asyncq.status import StatusBoard, WorkerState
from asyncq.weights import Snapshot, WeightBoard, fill_parameters

LOOK_AROUND_SECONDS = 0.2
NICENESS = 10
"""Where cores are short the learner goes first: a fragment that waits for it grows old."""


@dataclass(frozen=True)
class WorkerTask:
    """All that a worker process is given."""

    index: int
    config: TrainConfig
    spec: EnvironmentSpec
    lane: Lane
    board: WeightBoard
    status: StatusBoard
    restarts: int = 0
    start: int = 0
    """Env steps at which the run began or went on: one that goes on plays other games."""


def run_worker(task: WorkerTask) -> None:
    """Play until the status board says stop."""
    os.nice(NICENESS)
    torch.set_num_threads(1)
    gym.logger.min_level = gym.logger.ERROR  # the main process has been warned when it described the environment
    worker = Worker(task)
    try:
        worker.play()
    finally:
        worker.env.close()
    task.status.set_state(task.index, WorkerState.STOPPED)


class Worker:
    """E environments, a policy, and the fragment being filled."""

    def __init__(self, task: WorkerTask) -> None:
        config = task.config
        assert config.envs_per_process and config.n_step
        self.task = task
        self.steps, self.envs = config.n_step, config.envs_per_process
        self.heads = METHODS[config.method].HEADS
        network = network_for(config, task.spec)
        fast = config.precision == "bf16" and has_fast_bf16("cpu")
        self.network = network.acting_in_bfloat16() if fast else network
        self.snapshot = Snapshot(version=0, env_steps=0)
        self.begin_games(task.start)

    def begin_games(self, env_steps: int) -> None:
        """New environments, and all that is random about them, as the seed and the run's `env_steps` decide it."""
        config, task = self.task.config, self.task
        self.env = make_env(task.spec, self.envs)
        self.began_at = env_steps
        sequence = np.random.SeedSequence([config.seed, task.index, task.restarts, env_steps])
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        generator = np.random.default_rng(sequence)
        exploration = self._exploration()
        self.exploration = exploration[task.index * self.envs :][: self.envs]
        self.unreported = self.exploration > exploration.min()
        self.policy = self._policy()
        seeds = [int(seed) for seed in generator.integers(TRAINING_SEEDS, 2**31 - 1, self.envs)]
        self.observations, info = reset_with_seeds(self.env, seeds)
        self.lives = info.get("lives", np.zeros(self.envs, np.int32))
        self.resetting = np.zeros(self.envs, bool)
        self.memory = torch.zeros(self.envs, self.network.memory_size)
        self.returns = np.zeros(self.envs)
        self.lengths = np.zeros(self.envs, np.int64)

    def play(self) -> None:
        """Play a fragment, hand it over; a full lane makes this wait."""
        lane, status, index = self.task.lane, self.task.status, self.task.index
        self._wait_for_first_weights()
        while not status.stopping:
            fragment = lane.reserve(timeout=0)
            if fragment is None:
                status.set_state(index, WorkerState.WAITING)
                begin = time.monotonic()
                lane.reserve(LOOK_AROUND_SECONDS)
                status.add_wait(index, time.monotonic() - begin)
                continue
            status.set_state(index, WorkerState.PLAYING)
            self.refresh()
            if self.task.config.deterministic and self._saved_since():
                self.env.close()
                self.begin_games(self.snapshot.env_steps)
            self.fill(fragment)
            steps = int(fragment.mask.sum())
            lane.commit()
            status.add_steps(index, steps)

    def _wait_for_first_weights(self) -> None:
        while not self.task.status.stopping and not self.refresh():
            self.task.status.touch(self.task.index)
            time.sleep(0.01)

    def refresh(self) -> bool:
        """Whether there were newer weights, which the network has now."""
        snapshot = self.task.board.read_if_newer(partial(fill_parameters, self.network))
        if snapshot is None:
            return False
        self.snapshot = snapshot
        if self.heads == "q":  # epsilon has fallen
            self.policy = self._policy()
        return True

    def _exploration(self) -> Array:
        """How each environment of the run explores, worker by worker: its noise's persistence, or its final epsilon."""
        config = self.task.config
        assert config.processes
        everyone = config.processes * self.envs
        if self.heads == "policy-value":
            assert config.exploration_persistence
            return np.resize(config.exploration_persistence, everyone)
        assert config.epsilon_final and config.epsilon_probabilities
        generator = np.random.default_rng([config.seed, self.began_at])
        return sample_final_epsilons(config.epsilon_final, config.epsilon_probabilities, everyone, generator)

    def _policy(self) -> SoftmaxPolicy | EpsilonGreedyPolicy:
        if self.heads == "policy-value":
            return SoftmaxPolicy(self.exploration)
        return EpsilonGreedyPolicy(self.task.config.epsilon_at(self.snapshot.env_steps, self.exploration))

    def _saved_since(self) -> bool:
        """Whether the learner has saved a state since the games began; from there a resumed run would play."""
        interval = self.task.config.save_interval
        return self.snapshot.env_steps // interval > self.began_at // interval

    def fill(self, fragment: Fragment) -> None:
        """Play T steps into a fragment."""
        spec = self.task.spec
        fragment.frames[: spec.frame_stack] = spec.stacks(self.observations)
        sequence = self.steps // len(fragment.memories)
        for t in range(self.steps):
            self.refresh()
            fragment.weights_versions[t] = self.snapshot.version
            if t % sequence == 0:
                fragment.memories[t // sequence] = self.memory.numpy()
            actions, log_probs, values = self.choose()
            fragment.actions[t] = actions.numpy()
            fragment.behaviour_log_probs[t] = log_probs.numpy()
            fragment.behaviour_values[t] = values.numpy()
            self._step(fragment, t)
            if self.network.memory_size:
                self.memory = self.memory.where(torch.as_tensor(fragment.mask[t, :, None] > 0), 0)
            self.task.status.touch(self.task.index)
            fragment.frames[spec.frame_stack + t] = spec.latest_frames(self.observations)
        if self.heads == "policy-value" and self.task.config.correction == "none":
            with torch.inference_mode():
                (_, values), _ = self._look()
            fragment.behaviour_values[-1] = values.numpy()

    @torch.inference_mode()
    def choose(self) -> tuple[Tensor, Tensor, Tensor]:
        """Actions `[E]`, their log probabilities, and the observations' values; the network remembers what it sees."""
        outputs, self.memory = self._look()
        return *self.policy.act(outputs), outputs[1]

    def _look(self) -> tuple[Outputs, Tensor]:
        """What the network makes of the newest observations, and its memory after them."""
        return self.network.step(torch.as_tensor(self.observations), self.memory)

    def _step(self, fragment: Fragment, t: int) -> None:
        config = self.task.config
        self.observations, rewards, terminated, truncated, info = self.env.step(fragment.actions[t])
        fragment.rewards[t] = rewards
        fragment.mask[t] = ~self.resetting
        ends = terminated | (self._lost_a_life(info) if config.life_loss_ends else False)
        fragment.discounts[t] = np.where(ends, 0.0, config.gamma)
        self._count_episodes(fragment, t, terminated | truncated)

    def _lost_a_life(self, info: dict[str, Any]) -> Any:
        known = info.get("_lives", True)  # Gymnasium's mask: who said anything about lives in this step
        before, self.lives = self.lives, np.where(known, info.get("lives", self.lives), self.lives)
        return (self.lives < before) & ~self.resetting

    def _count_episodes(self, fragment: Fragment, t: int, done: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        self.returns += np.where(self.resetting, 0.0, fragment.rewards[t])
        self.lengths += ~self.resetting
        reported = done & ~self.unreported
        fragment.episode_returns[t] = np.where(reported, self.returns, np.nan)
        fragment.episode_lengths[t] = np.where(reported, self.lengths, 0)
        self.returns[done] = 0
        self.lengths[done] = 0
        self.resetting = done
