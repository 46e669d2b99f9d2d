"""Worker: the fragments that it pushes tell exactly what happened in its environments.

It plays in a thread of this process; the environment shows `[episode, step, last action]`, terminates with action 1
(its 6), is truncated after step 4, and pays 1 a step and 10 more for action 1.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from typing import Any

import numpy as np
import pytest
import torch

from asyncq import worker as worker_module
from asyncq.config import TrainConfig
from asyncq.envs import TRAINING_SEEDS, describe
from asyncq.experience import ExperienceQueue, Fragment, FragmentLayout
from asyncq.methods import network_for
from asyncq.methods.batch import Batch, chosen, outputs, stack_frames
from asyncq.networks import PolicyValueNetwork
from asyncq.policies import EpsilonGreedyPolicy, SoftmaxPolicy
from asyncq.shared import Array
from asyncq.status import StatusBoard, WorkerState
from asyncq.weights import Snapshot, WeightBoard, flatten_parameters
from asyncq.worker import Worker, WorkerTask, run_worker
from tiny_envs import COUNTER, LIVES, PIXELS

STEPS, ENVS = 8, 3


def make_task(**settings: Any) -> tuple[WorkerTask, ExperienceQueue, torch.nn.Module]:
    """A worker's task, the queue that it fills, and a network whose weights are on its board."""
    spec = describe(settings.get("env", COUNTER), ("tiny_envs",))
    given = {"env": COUNTER, "n_step": STEPS, "batch_size": STEPS, "envs_per_process": ENVS, "gamma": 0.9}
    config = TrainConfig(**{**given, **settings}).resolved(spec.kind, 1)
    network = network_for(config, spec)
    weights = flatten_parameters(network)
    board = WeightBoard(weights.numel())
    board.publish(weights.numpy(), Snapshot(version=3, env_steps=0))
    sequences = STEPS // (config.sequence_length or STEPS)
    layout = FragmentLayout(
        STEPS,
        config.envs_per_process or ENVS,
        spec.frame_shape,
        spec.frame_dtype,
        spec.frame_stack,
        network.memory_size,
        sequences,
    )
    queue = ExperienceQueue(layout, 1, slots_per_lane=2)
    return WorkerTask(0, config, spec, queue.lanes[0], board, StatusBoard(1)), queue, network


def copied(fragment: Fragment) -> Fragment:
    return Fragment(**{f.name: getattr(fragment, f.name).copy() for f in dataclasses.fields(fragment)})


def play(task: WorkerTask, queue: ExperienceQueue, count: int) -> list[Fragment]:
    """The first `count` fragments of a worker that is then told to stop."""
    thread = threading.Thread(target=run_worker, args=(task,))
    thread.start()
    fragments: list[Fragment] = []
    try:
        while len(fragments) < count and thread.is_alive():
            fragment = queue.take(timeout=1)
            if fragment is not None:
                fragments.append(copied(fragment))
                queue.release()
    finally:
        task.status.request_stop()
        thread.join(30)
    assert len(fragments) == count
    assert task.status.state(0) == WorkerState.STOPPED
    return fragments


def joined(fragments: list[Fragment], name: str) -> Array:
    return np.concatenate([getattr(fragment, name) for fragment in fragments])


def test_the_last_observation_of_a_fragment_is_the_first_of_the_next() -> None:
    task, queue, _ = make_task()
    fragments = play(task, queue, 6)
    for one, other in itertools.pairwise(fragments):
        assert np.array_equal(one.frames[-1], other.frames[0])


def test_fragments_tell_what_happened() -> None:
    """Replays the rules of the environment on the actions, step by step."""
    task, queue, _ = make_task()
    fragments = play(task, queue, 12)
    frames = np.concatenate([fragments[0].frames[:1], *(fragment.frames[1:] for fragment in fragments)])
    actions, rewards = joined(fragments, "actions"), joined(fragments, "rewards")
    mask, discounts = joined(fragments, "mask"), joined(fragments, "discounts")
    returns, lengths = joined(fragments, "episode_returns"), joined(fragments, "episode_lengths")
    truncations = terminations = 0
    for env in range(ENVS):
        episode, step, total, over = 1, 0, 0, False
        assert frames[0, env].tolist() == [1, 0, 0]
        for t in range(len(actions)):
            now = (mask[t, env], rewards[t, env], discounts[t, env], lengths[t, env])
            if over:
                episode, step, total, over = episode + 1, 0, 0, False
                assert now == (0, 0, np.float32(0.9), 0)
                assert np.isnan(returns[t, env])
                assert frames[t + 1, env].tolist() == [episode, 0, 0]
                continue
            step, terminated = step + 1, bool(actions[t, env] == 1)
            truncated = not terminated and step == 4
            reward = 11 if terminated else 1
            total, over = total + reward, terminated or truncated
            discount = np.float32(0 if terminated else 0.9)
            assert now == (1, reward, discount, step if over else 0)
            assert frames[t + 1, env].tolist() == [episode, step, 5 + actions[t, env]]
            assert returns[t, env] == total if over else np.isnan(returns[t, env])
            terminations, truncations = terminations + terminated, truncations + truncated
    assert min(terminations, truncations) >= 3


@pytest.mark.parametrize("length", [1, 4, 8])
def test_a_memory_goes_through_fragments_and_ends_with_its_episode(length: int) -> None:
    """The learner, which begins each sequence with its memory, finds the probabilities with which the worker acted."""
    task, queue, network = make_task(recurrent=True, sequence_length=length, correction="none")
    fragments = play(task, queue, 4)
    assert not fragments[0].memories[0].any()
    assert all(fragment.memories[0].any(-1).sum() >= ENVS - 1 for fragment in fragments[1:])
    for fragment in fragments:
        table = torch.zeros(STEPS, ENVS)
        batch = Batch(
            observations=torch.as_tensor(fragment.frames),
            actions=torch.as_tensor(fragment.actions),
            rewards=table,
            discounts=table,
            mask=torch.as_tensor(fragment.mask),
            behaviour_log_probs=torch.as_tensor(fragment.behaviour_log_probs),
            behaviour_values=torch.as_tensor(fragment.behaviour_values),
            memories=torch.as_tensor(fragment.memories),
        )
        logits, values = outputs(network, batch)
        expected = chosen(logits[:-1].log_softmax(-1), batch.actions)
        torch.testing.assert_close(batch.behaviour_log_probs, expected)
        torch.testing.assert_close(batch.behaviour_values, values)
    masks = np.concatenate([fragment.mask for fragment in fragments])
    assert (masks == 0).any()


def test_log_probabilities_and_values_are_those_of_the_published_weights() -> None:
    task, queue, network = make_task(correction="none")
    for fragment in play(task, queue, 3):
        assert fragment.weights_versions.tolist() == [3] * STEPS
        with torch.no_grad():
            logits, values = network(torch.from_numpy(fragment.frames).flatten(0, 1))
        actions = torch.from_numpy(fragment.actions).flatten()
        expected = logits.log_softmax(-1)[torch.arange(len(actions)), actions]
        torch.testing.assert_close(torch.from_numpy(fragment.behaviour_log_probs).flatten(), expected)
        torch.testing.assert_close(torch.from_numpy(fragment.behaviour_values).flatten(), values)


def test_in_bfloat16_it_acts_nearly_as_the_newest_weights_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "has_fast_bf16", lambda device: True)
    task, _, network = make_task(env=PIXELS, precision="bf16")
    assert isinstance(network, PolicyValueNetwork)
    worker = Worker(task)
    for version, scale in ((4, 1.0), (5, 30.0)):
        network.policy.weight.data *= scale
        task.board.publish(flatten_parameters(network).numpy(), Snapshot(version, env_steps=0))
        worker.refresh()
        actions, found, _ = worker.choose()
        with torch.no_grad():
            logits, _ = network(torch.as_tensor(worker.observations))
        expected = chosen(logits.log_softmax(-1), actions)
        assert not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    worker.env.close()


def test_weights_published_while_a_fragment_is_played_are_played_from_the_next_step_on() -> None:
    task, _, network = make_task()
    worker = Worker(task)
    step, weights = worker.env.step, flatten_parameters(network)
    versions = iter([4, 4, 5, 9, 9, 9, 9, 12])

    def publish_and_step(actions: Any) -> Any:
        task.board.publish(weights.numpy(), Snapshot(next(versions), env_steps=0))
        return step(actions)

    worker.env.step = publish_and_step  # type: ignore[method-assign]
    fragment = task.lane.reserve(timeout=0)
    assert fragment is not None
    worker.fill(fragment)
    worker.env.close()
    assert fragment.weights_versions.tolist() == [3, 4, 4, 5, 9, 9, 9, 9]


def test_a_worker_counts_its_decisions_on_the_status_board() -> None:
    task, queue, _ = make_task()
    fragments = play(task, queue, 4)
    while (fragment := queue.take(timeout=0)) is not None:
        fragments.append(copied(fragment))
    assert task.status.env_steps(0) == joined(fragments, "mask").sum()


def test_the_same_seed_plays_the_same_and_a_replacement_plays_anew() -> None:
    actions = []
    for restarts in (0, 0, 1):
        torch.manual_seed(5)
        task, queue, _ = make_task()
        actions.append(joined(play(dataclasses.replace(task, restarts=restarts), queue, 3), "actions"))
    assert np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])


def test_environments_of_all_workers_take_the_persistences_in_turn() -> None:
    task, _, _ = make_task(exploration_persistence=(1.0, 2.0, 4.0), envs_per_process=4)
    renewals = []
    for index in (0, 1):
        worker = Worker(dataclasses.replace(task, index=index))
        worker.env.close()
        assert isinstance(worker.policy, SoftmaxPolicy)
        renewals += worker.policy.renewal.tolist()
    assert renewals == [1, 1 / 2, 1 / 4, 1, 1 / 2, 1 / 4, 1, 1 / 2]


def test_noise_that_persists_outlives_weights() -> None:
    task, _, network = make_task(exploration_persistence=(1e9,))
    weights = flatten_parameters(network).zero_().numpy()  # all actions are alike
    worker = Worker(task)
    chosen_actions = []
    for version in (4, 5):
        task.board.publish(weights, Snapshot(version, env_steps=0))
        assert worker.refresh()
        chosen_actions += [worker.choose()[0].tolist() for _ in range(10)]
    worker.env.close()
    assert chosen_actions == [chosen_actions[0]] * 20


@pytest.mark.parametrize(("env_steps", "expected"), [(0, 1.0), (50, 0.6), (100, 0.2), (10_000, 0.2)])
def test_epsilon_follows_the_env_steps_of_the_newest_weights(env_steps: int, expected: float) -> None:
    epsilons = {"epsilon_final": (0.2,), "epsilon_probabilities": (1.0,), "epsilon_anneal_frames": 100}
    task, _, network = make_task(method="n-step-q", **epsilons)
    worker = Worker(task)
    task.board.publish(flatten_parameters(network).numpy(), Snapshot(4, env_steps))
    assert worker.refresh()
    worker.env.close()
    assert isinstance(worker.policy, EpsilonGreedyPolicy)
    assert worker.policy.epsilon.tolist() == pytest.approx([expected] * ENVS)
    assert worker.snapshot.version == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "n-step-q", "epsilon_final": (0.1, 0.5), "epsilon_probabilities": (0.5, 0.5)},
        {"method": "a3c", "exploration_persistence": (1.0, 8.0)},
    ],
)
def test_episodes_of_the_more_exploring_environments_are_not_reported(settings: dict[str, Any]) -> None:
    task, queue, _ = make_task(envs_per_process=ENVS, **settings)
    worker = Worker(task)
    worker.env.close()
    assert worker.unreported.tolist() == (worker.exploration > worker.exploration.min()).tolist()
    assert worker.unreported.any()
    returns = joined(play(task, queue, 10), "episode_returns")
    assert np.isnan(returns[:, worker.unreported]).all()
    assert not np.isnan(returns[:, ~worker.unreported]).all()


@pytest.mark.parametrize(("processes", "reported"), [(1, True), (2, False)])
def test_a_worker_reports_nothing_where_only_others_explore_least(processes: int, reported: bool) -> None:
    task, queue, _ = make_task(envs_per_process=1, processes=processes, exploration_persistence=(8.0, 1.0))
    ended = joined(play(task, queue, 30), "episode_lengths") > 0
    assert ended.any() == reported


def test_epsilons_are_the_runs_and_stay_where_a_worker_is_replaced() -> None:
    """The least of them are those of one of the run's environments, of whichever worker."""

    def worker(index: int, restarts: int = 0) -> Worker:
        task, _, _ = make_task(
            envs_per_process=1, processes=8, method="n-step-q",
            epsilon_final=(0.1, 0.01, 0.5), epsilon_probabilities=(0.4, 0.3, 0.3),
        )  # fmt: skip
        made = Worker(dataclasses.replace(task, index=index, restarts=restarts))
        made.env.close()
        return made

    workers = [worker(index) for index in range(8)]
    epsilons = [float(worker.exploration[0]) for worker in workers]
    assert len(set(epsilons)) > 1
    assert [bool(worker.unreported[0]) for worker in workers] == [each > min(epsilons) for each in epsilons]
    assert [float(worker(index, restarts=1).exploration[0]) for index in range(8)] == epsilons


def test_stacks_of_images_are_those_that_were_played() -> None:
    task, _, _ = make_task(env=PIXELS)
    worker = Worker(task)
    seen: list[Array] = []
    choose = worker.choose

    def watch() -> Any:
        seen.append(worker.observations.copy())
        return choose()

    worker.choose = watch  # type: ignore[method-assign]
    for _ in range(4):
        fragment = task.lane.reserve(timeout=0)
        assert fragment is not None
        worker.fill(fragment)
        stacks = stack_frames(torch.as_tensor(fragment.frames), torch.as_tensor(fragment.mask), 4)
        assert np.array_equal(stacks[:-1].numpy(), np.stack(seen[-STEPS:]))
    worker.env.close()


def test_every_worker_run_and_start_has_seeds_of_its_own_all_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def reset(env: Any, seeds: list[int]) -> Any:
        given.extend(seeds)
        return env.reset(seed=seeds)

    monkeypatch.setattr("asyncq.worker.reset_with_seeds", reset)
    task, _, _ = make_task()
    other_seed = dataclasses.replace(task, config=dataclasses.replace(task.config, seed=2))
    for each in (task, dataclasses.replace(task, index=1), dataclasses.replace(task, start=1000), other_seed):
        Worker(each).env.close()
    assert len(set(given)) == 4 * ENVS
    assert min(given) >= TRAINING_SEEDS


def test_lives_without_a_mask_are_everybodys() -> None:
    """As ale-py tells them."""
    worker = Worker(make_task()[0])
    worker.env.close()
    worker._lost_a_life({"lives": np.array([3, 3, 3])})
    assert worker._lost_a_life({"lives": np.array([2, 3, 3])}).tolist() == [True, False, False]


def test_environments_that_say_nothing_about_lives_have_lost_none() -> None:
    task, _, _ = make_task()
    worker = Worker(task)
    worker.env.close()
    for lives, said, lost in (
        ([3, 3, 0], [True, True, False], [False, False, False]),
        ([0, 2, 0], [False, True, False], [False, True, False]),
        ([2, 0, 3], [True, False, True], [True, False, False]),
    ):
        found = worker._lost_a_life({"lives": np.array(lives), "_lives": np.array(said)})
        assert found.tolist() == lost


@pytest.mark.parametrize("ends", [True, False])
def test_a_lost_life_ends_what_is_learned_but_not_the_game(ends: bool) -> None:
    task, queue, _ = make_task(env=LIVES, life_loss_ends=ends)
    fragments = play(task, queue, 2)
    game = [0.9, 0.0, 0.9, 0.0, 0.9, 0.0, 0.9] if ends else [0.9, 0.9, 0.9, 0.9, 0.9, 0.0, 0.9]
    discounts = np.tile(np.array(game * 3)[: 2 * STEPS, None], ENVS)
    assert joined(fragments, "discounts") == pytest.approx(discounts)
    games = np.arange(2 * STEPS) % 7
    assert np.array_equal(joined(fragments, "mask"), np.tile(games[:, None] != 6, ENVS))
    over = np.where(games == 5, 6.0, np.nan)
    assert joined(fragments, "episode_returns") == pytest.approx(np.tile(over[:, None], ENVS), nan_ok=True)
