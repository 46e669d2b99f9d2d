"""Learner: drains the queue, updates the network by a method, publishes the weights, and reports."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asyncq.config import TrainConfig
from asyncq.envs import EnvironmentSpec
from asyncq.experience import ExperienceQueue, Fragment
from asyncq.methods import METHODS, network_for
from asyncq.methods.batch import Batch, stack_frames
from asyncq.monitoring.metrics import Metrics
from asyncq.optimizing import AVERAGED_EVERY, arrays_of, averaging_rate, make_optimizer, put_back
from asyncq.saving import Saver
from asyncq.status import StatusBoard
from asyncq.storage.state_file import TrainingState, load_state
from asyncq.storage.weights_file import TrainedWeights
from asyncq.weights import Snapshot, WeightBoard, flatten_parameters

LOOK_AROUND_SECONDS = 0.2
FIRST_REPORT_SECONDS = 1.0
REPORTS_SLOW_DOWN = 0.1
"""Reports are this share of the time so far apart, until that is --report-interval: a short run has a curve, too."""
GATHER_SECONDS = 5.0
"""How long a batch that has begun waits for each further fragment."""
BAD_BATCHES = 20
"""Batches in a row without one update whose gradient is finite, after which there is no point in going on."""
COUNTERS = ("env_steps", "updates", "next_target", "advantage_square")
"""Attributes of the learner that its state holds."""
ADVANTAGES_OF_UPDATES = 100
"""Updates that the running mean square of the advantages covers: where rewards are rare, one batch tells little.

`Method.loss` tells each update's, the learner averages them, and the next `Batch` brings the mean to the loss.
"""


class NumbersWentBad(Exception):
    """No gradient has been finite for a while."""


@dataclass(frozen=True)
class LearnerTask:
    """All that the learner process is given."""

    config: TrainConfig
    spec: EnvironmentSpec
    queue: ExperienceQueue
    board: WeightBoard
    status: StatusBoard
    reports: Connection
    """Takes dicts: with `started`, `warning`, or `finished` and `saved`; every other is a report of `Metrics`."""
    run_dir: Path
    device: str
    threads: int
    resume_from: Path | None = None
    """The state to go on from."""


def run_learner(task: LearnerTask) -> None:
    """Learn until a limit of the configuration is reached or the status board says stop, then save."""
    torch.set_num_threads(task.threads)
    torch.set_flush_denormal(True)  # what optimizers remember of inactive features fades to numbers that are slow
    torch.manual_seed(task.config.seed)
    if task.config.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS may sum in any order
        torch.use_deterministic_algorithms(True)
    learner = Learner(task)
    if task.resume_from is not None:
        learner.restore(load_state(task.resume_from))
    learner.learn()


class Learner:
    """The network, its optimizer, and the counters of the run."""

    def __init__(self, task: LearnerTask) -> None:
        config = task.config
        self.task, self.config = task, config
        self.method = METHODS[config.method]
        self.network = network_for(config, task.spec).to(task.device)
        self.weights = flatten_parameters(self.network)
        self.target = copy.deepcopy(self.network).requires_grad_(False) if config.target_interval else self.network
        self.optimizer = make_optimizer(config, self.network)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.averaged_weights = flatten_parameters(self.average)
        self.updates = 0
        self.env_steps = 0
        self.metrics = Metrics()
        self.next_target = config.target_interval or 0
        self.advantage_square = 0.0
        self.bad_batches = 0
        self.saver = Saver(config, task.run_dir, task.reports)
        self.began = time.monotonic()

    def learn(self) -> None:
        """The learner's whole loop."""
        self.metrics.best = self.saver.record_to_beat(self.metrics.best)
        self.publish()
        self.task.reports.send({"started": self.env_steps})
        self._plan_report()
        if self.config.deterministic and not self.env_steps:
            self.saver.save(self.state(), self.trained())
        reason = self._reason_to_stop() if self.env_steps else None  # one that goes on may be at its target
        if reason:
            self._report()
        while reason is None:
            self.task.status.touch(self.task.status.learner)
            fragments = self._drain()
            if fragments:
                self._count(fragments)
                self._take_in(self.to_device(fragments))
            reason = self._reason_to_stop()
            if self.env_steps and (reason or time.monotonic() >= self.next_report):
                self._report()
            if not reason and self.saver.is_due(self.env_steps):
                self.saver.save(self.state(), self.trained())
        if not self.env_steps:  # stopped before it learned anything: there is nothing to keep
            self.task.reports.send({"finished": reason, "saved": True})
            return
        saved = self.saver.save_end(self.state(), self.trained())
        if self.metrics.best == -math.inf:
            self.saver.save_weights(self.trained(), "best.h5")
        self.task.reports.send({"finished": reason, "saved": saved})

    def _take_in(self, batch: Batch) -> None:
        """Learn from a batch, a copy, while the workers fill its slots anew; if deterministic, before they may."""
        if not self.config.deterministic:
            self.task.queue.release()
        self.learn_from(batch)
        if self.config.deterministic:
            self.publish()
            self.task.queue.release()

    def _drain(self) -> list[Fragment]:
        """Enough fragments for one batch, in order; fewer if no more came for a while, or a stop was asked for."""
        assert self.config.batch_size
        self.metrics.queue_fill.add(self.task.queue.fill)
        fragments: list[Fragment] = []
        deadline = 0.0
        while sum(fragment.mask.size for fragment in fragments) < self.config.batch_size:
            begin = time.monotonic()
            fragment = self.task.queue.take(LOOK_AROUND_SECONDS)
            now = time.monotonic()
            self.metrics.learner_waited += now - begin
            if fragment is not None:
                fragments.append(fragment)
                deadline = now + GATHER_SECONDS
            elif now > deadline or self.task.status.stopping:
                break
        return fragments

    def _count(self, fragments: Sequence[Fragment]) -> None:
        for fragment in fragments:
            fragment.cut(self.config.total_steps - self.env_steps)
            self.env_steps += int(fragment.mask.sum())
            self.metrics.add_fragment(fragment, self.updates)

    def to_device(self, fragments: Sequence[Fragment]) -> Batch:
        """Copy the fragments out of their slots, side by side."""

        def gather(name: str) -> Tensor:
            arrays = [getattr(fragment, name) for fragment in fragments]
            return torch.from_numpy(np.concatenate(arrays, axis=1)).to(self.task.device, non_blocking=True)

        mask = gather("mask")
        squares = self.network.takes_squares
        observations = stack_frames(gather("frames"), mask, self.task.spec.frame_stack, squares)
        if not squares:
            observations = observations.reshape(*observations.shape[:2], *self.task.spec.observation_shape)
        return Batch(
            observations=observations,
            actions=gather("actions"),
            rewards=learned_rewards(gather("rewards"), self.config),
            discounts=gather("discounts"),
            mask=mask,
            behaviour_log_probs=gather("behaviour_log_probs"),
            behaviour_values=gather("behaviour_values"),
            env_steps=self.env_steps,
            memories=gather("memories") if self.config.recurrent else None,
            advantage_square=self.advantage_square,
        )

    def learn_from(self, batch: Batch) -> None:
        """Make all updates on a batch. Raises NumbersWentBad."""
        self._set_learning_rate()
        if not batch.mask.any():  # means over no decision are not numbers
            return
        with self.precision():
            minibatches = self.method.minibatches(self.network, self.target, batch, self.config)
        before = self.updates
        for minibatch in minibatches:
            if self.task.status.stopping and not self.config.deterministic:
                return
            self.task.status.touch(self.task.status.learner)
            self._update(minibatch)
        if self.updates > before:
            self.bad_batches = 0
        else:
            self._count_bad_batch(batch)

    def precision(self) -> torch.autocast:
        """The arithmetic that the configuration asks for."""
        return torch.autocast(self.task.device, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _update(self, minibatch: Any) -> None:
        config = self.config
        with self.precision():
            loss, parts = self.method.loss(self.network, minibatch, config)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [weights.grad for weights in self.network.parameters() if weights.grad is not None]
        norm = parts["grad_norm"] = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self.metrics.skipped_updates += 1
            return
        if config.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), config.max_grad_norm, norm)
        self.optimizer.step()
        if self.updates % AVERAGED_EVERY == 0:
            self.averaged_weights.lerp_(self.weights, averaging_rate(self.updates))
        self.updates += 1
        self.metrics.add_losses(parts)
        if "advantage_square" in parts:
            self._average_in(float(parts["advantage_square"]))
        if config.target_interval and self.env_steps >= self.next_target:
            self.target.load_state_dict(self.network.state_dict())
            self.next_target = self.env_steps + config.target_interval
        if self.updates % config.publish_interval == 0:
            self.publish()

    def _average_in(self, advantage_square: float) -> None:
        if math.isfinite(advantage_square):
            updates = min(self.updates, ADVANTAGES_OF_UPDATES) if self.advantage_square else 1
            self.advantage_square += (advantage_square - self.advantage_square) / updates

    def _count_bad_batch(self, batch: Batch) -> None:
        """Raises NumbersWentBad, with batch and state saved, once there have been too many."""
        self.bad_batches += 1
        if self.bad_batches == 1:
            warning = "no gradient of a batch was finite: its updates are skipped; a smaller --learning-rate may help"
            self.task.reports.send({"warning": warning})
        if self.bad_batches < BAD_BATCHES:
            return
        arrays = {name: array for name, array in batch._asdict().items() if isinstance(array, Tensor)}
        path = self.task.run_dir / "bad-batch.npz"
        self.saver.write(path, partial(np.savez, path, **{name: array.cpu().numpy() for name, array in arrays.items()}))  # type: ignore[arg-type]
        self.saver.save_state(self.state())
        raise NumbersWentBad(f"no gradient of {BAD_BATCHES} batches was finite; the last batch is in {path}")

    def publish(self) -> None:
        """Broadcast the weights to the workers."""
        self.task.board.publish(self.weights.cpu().numpy(), Snapshot(self.updates, self.env_steps))

    def _set_learning_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.env_steps)

    def _report(self) -> None:
        report = self.metrics.report(self.env_steps, self.updates, self.task.status.waited)
        report["learning_rate"] = self.config.learning_rate_at(self.env_steps)
        report["epsilon"] = self._mean_epsilon()
        self.task.reports.send(report)
        self._plan_report()
        self._save_record()

    def _plan_report(self) -> None:
        now = time.monotonic()
        early = max(FIRST_REPORT_SECONDS, REPORTS_SLOW_DOWN * (now - self.began))
        self.next_report = now + min(early, self.config.report_interval)

    def _mean_epsilon(self) -> float | None:
        """Expected share of random actions, whichever final epsilons were drawn; None if the method has no epsilon."""
        config = self.config
        if self.method.HEADS != "q":
            return None
        assert config.epsilon_final and config.epsilon_probabilities
        final = np.dot(config.epsilon_final, config.epsilon_probabilities)
        return round(float(config.epsilon_at(self.env_steps, final)), 4)

    def _save_record(self) -> None:
        if self.metrics.is_record and self.saver.save_weights(self.trained(), "best.h5"):
            self.metrics.best = self.metrics.episodic_return

    def _reason_to_stop(self) -> str | None:
        target = self.config.target_return
        if target is not None and self.metrics.has_full_window and self.metrics.episodic_return >= target:
            return "target-return"
        if self.env_steps >= self.config.total_steps:
            return "total-steps"
        return "stopped" if self.task.status.stopping else None

    def state(self) -> TrainingState:
        """All that another learner needs to go on as this one would."""
        counters = {name: getattr(self, name) for name in COUNTERS} | {"metrics": self.metrics.state()}
        return TrainingState(arrays_of(self.network, self.target, self.average, self.optimizer), counters)

    def restore(self, state: TrainingState) -> None:
        """Go on from `state`. Raises RuntimeError if it is of another network."""
        put_back(state, self.network, self.target, self.average, self.optimizer)
        counters = {"advantage_square": 0.0} | state.counters  # states once lacked it
        for name in COUNTERS:
            setattr(self, name, counters[name])
        self.next_target = min(self.next_target, self.env_steps + (self.config.target_interval or 0))
        self.saver.plan(self.env_steps)
        self.metrics.restore(state.counters["metrics"], self.env_steps)

    def trained(self) -> TrainedWeights:
        """The average of the weights, and the facts about it."""
        parameters = {name: value.float().cpu().numpy() for name, value in self.average.state_dict().items()}
        facts: dict[str, float] = {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "episodes": self.metrics.episodes,
        }
        if self.metrics.episodes:
            facts["episodic_return"] = self.metrics.episodic_return
        return TrainedWeights(parameters, self.config.without_place(), self.task.spec, facts)


def learned_rewards(rewards: Tensor, config: TrainConfig) -> Tensor:
    """Raw rewards, scaled and then clipped."""
    assert config.reward_scale is not None
    scaled = rewards * config.reward_scale
    return scaled.clamp(-config.reward_clip, config.reward_clip) if config.reward_clip else scaled
