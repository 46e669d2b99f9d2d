"""Learner: its helpers, and whole runs of it in this process on fragments that the test pushed by hand."""

from __future__ import annotations

import copy
import errno
import math
import multiprocessing
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asyncq.config import TrainConfig
from asyncq.envs import EnvironmentSpec
from asyncq.experience import ExperienceQueue, FragmentLayout
from asyncq.learner import (
    ADVANTAGES_OF_UPDATES,
    BAD_BATCHES,
    COUNTERS,
    LOOK_AROUND_SECONDS,
    Learner,
    LearnerTask,
    NumbersWentBad,
    learned_rewards,
    run_learner,
)
from asyncq.methods import METHODS, network_for
from asyncq.methods.batch import Batch, stack_frames
from asyncq.status import StatusBoard
from asyncq.storage import sealed
from asyncq.storage.files import write_whole
from asyncq.storage.state_file import load_state, newest_state, save_state
from asyncq.storage.weights_file import load_weights
from asyncq.weights import WeightBoard

VECTOR = EnvironmentSpec("CartPole-v1", "vectors", (4,), "float32", frame_stack=1, frame_skip=1, actions=2)
STEPS, ENVS = 4, 2


def make_learner(
    run_dir: Path, spec: EnvironmentSpec = VECTOR, lanes: int = 1, slots: int = 4, **settings: Any
) -> tuple[Learner, Any]:
    """A learner with lanes of fragments of 4 steps and 2 envs, and where its reports come out."""
    given = {"method": "a3c", "n_step": STEPS, "batch_size": STEPS * ENVS, "passes": 1, "env": spec.env_id}
    config = TrainConfig(**{**given, **settings}).resolved(spec.kind, spec.frame_skip)
    reports, reports_in = multiprocessing.Pipe(duplex=False)
    layout = FragmentLayout(
        STEPS,
        ENVS,
        spec.frame_shape,
        spec.frame_dtype,
        spec.frame_stack,
        network_for(config, spec).memory_size,
        sequences=STEPS // (config.sequence_length or STEPS),
    )
    task = LearnerTask(
        config=config,
        spec=spec,
        queue=ExperienceQueue(layout, lanes, slots),
        board=WeightBoard(1),
        status=StatusBoard(lanes),
        reports=reports_in,
        run_dir=run_dir,
        device="cpu",
        threads=1,
    )
    learner = Learner(task)
    object.__setattr__(task, "board", WeightBoard(learner.weights.numel()))
    learner.began = -math.inf  # so that no report comes before --report-interval
    return learner, reports


def push(learner: Learner, version: int, resets: int = 0, into: int = 0) -> bool:
    """Random numbers, of which the first `resets` steps of env 0 are no decisions, into a lane; False if it is full."""
    lane, generator = learner.task.queue.lanes[into], np.random.default_rng(version)
    fragment = lane.reserve(timeout=0)
    if fragment is None:
        return False
    fragment.frames[...] = generator.integers(0, 100, fragment.frames.shape)
    fragment.actions[...] = generator.integers(0, 2, (STEPS, ENVS))
    fragment.memories[...] = generator.normal(size=fragment.memories.shape)
    fragment.rewards[...] = generator.normal(size=(STEPS, ENVS))
    fragment.discounts[...] = 0.99
    fragment.mask[...] = 1
    fragment.mask[:resets, 0] = 0
    fragment.behaviour_log_probs[...] = np.log(0.5)
    fragment.behaviour_values[...] = generator.normal(size=(STEPS + 1, ENVS))
    fragment.episode_returns[...] = np.nan
    fragment.episode_lengths[...] = 0
    fragment.weights_versions[...] = version
    lane.commit()
    return True


def received(reports: Any) -> list[dict[str, Any]]:
    """What the learner has sent since it started."""
    found = []
    while reports.poll():
        found.append(reports.recv())
    return [message for message in found if "started" not in message]


def reported(learner: Learner, loss: str) -> float:
    """Its mean since this was last asked."""
    return float(learner.metrics.report(0, 0)["losses"][loss])


def read(board: WeightBoard) -> tuple[Tensor, int, int]:
    weights = np.zeros(board.size, np.float32)
    snapshot = board.read_if_newer(partial(np.copyto, weights))
    assert snapshot is not None
    return torch.from_numpy(weights), snapshot.version, snapshot.env_steps


@pytest.mark.parametrize(
    ("scale", "clip", "expected"),
    [
        (1.0, 1.0, [-1, -0.5, 0, 1]),
        (1.0, 0.0, [-3, -0.5, 0, 20]),
        (0.1, 1.0, [-0.3, -0.05, 0, 1]),
        (10.0, 4.0, [-4, -4, 0, 4]),
    ],
)
def test_rewards_are_scaled_and_then_clipped(scale: float, clip: float, expected: list[float]) -> None:
    config = TrainConfig(reward_scale=scale, reward_clip=clip)
    rewards = torch.tensor([-3.0, -0.5, 0, 20])
    assert learned_rewards(rewards, config).tolist() == pytest.approx(expected)
    assert rewards.tolist() == [-3, -0.5, 0, 20]


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_publishes_reports_and_saves(tmp_path: Path, method: str, recurrent: bool) -> None:
    total_steps = 3 * STEPS * ENVS
    learner, reports = make_learner(
        tmp_path, method=method, recurrent=recurrent, total_steps=total_steps, save_interval=10
    )
    before = learner.weights.clone()
    for version in range(3):
        push(learner, version)
    learner.learn()

    weights, version, env_steps = read(learner.task.board)
    assert (version, env_steps) == (3, 24)
    assert torch.equal(weights, learner.weights)
    assert not torch.equal(weights, before)
    report, end = received(reports)
    assert (report["env_steps"], report["updates"]) == (24, 3)
    assert report["lag"] == {"mean": 0, "max": 0}
    assert np.isfinite(list(report["losses"].values())).all()
    assert end == {"finished": "total-steps", "saved": True}
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"16.h5", "24.h5"}
    assert {path.name for path in tmp_path.glob("*.h5")} == {"latest.h5", "best.h5"}
    saved = load_weights(tmp_path / "latest.h5")
    assert saved.facts["env_steps"] == 24
    assert saved.config == learner.config
    for name, value in learner.average.state_dict().items():
        assert np.array_equal(saved.parameters[name], value.numpy())
    assert not torch.equal(learner.averaged_weights, weights)


@pytest.mark.parametrize("recurrent", [False, True])
def test_bf16_learns_nearly_the_same_as_float32(tmp_path: Path, recurrent: bool) -> None:
    learned = []
    for precision in ("float32", "bf16"):
        torch.manual_seed(1)
        learner, _ = make_learner(tmp_path, recurrent=recurrent, precision=precision, total_steps=3 * STEPS * ENVS)
        before = learner.weights.clone()
        for version in range(3):
            push(learner, version)
        learner.learn()
        learned.append(learner.weights - before)
    exact, rounded = learned
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.9


def test_a_report_due_at_the_end_is_made_once(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path, total_steps=3 * STEPS * ENVS, report_interval=1e-9)
    for version in range(3):
        push(learner, version)
    learner.learn()
    assert [report.get("env_steps") for report in received(reports)] == [8, 16, 24, None]


@pytest.mark.parametrize(("passed", "wait"), [(0, 1), (20, 2), (49, 4.9), (1000, 5)])
def test_first_reports_come_sooner(passed: float, wait: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _ = make_learner(tmp_path, report_interval=5.0)
    learner.began = 100.0
    monkeypatch.setattr("asyncq.learner.time.monotonic", lambda: 100.0 + passed)
    learner._plan_report()
    assert learner.next_report - 100.0 == pytest.approx(passed + wait)


def test_steps_that_only_reset_are_not_counted(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path, total_steps=2 * STEPS * ENVS - 3)
    push(learner, 0, resets=3)
    push(learner, 0)
    learner.learn()
    assert received(reports)[0]["env_steps"] == 13


def test_a_run_ends_exactly_at_its_total_steps(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path, total_steps=2 * STEPS * ENVS + 3, batch_size=2 * STEPS * ENVS)
    for version in range(4):
        push(learner, version)
    learner.learn()
    report, end = received(reports)
    assert report["env_steps"] == 19
    assert report["updates"] == 2
    assert end == {"finished": "total-steps", "saved": True}


@pytest.mark.parametrize(("method", "env_steps", "expected"), [("a3c", 0, None), ("n-step-q", 50, 0.6)])
def test_a_report_tells_the_share_of_random_actions(
    tmp_path: Path, method: str, env_steps: int, expected: float | None
) -> None:
    epsilons: dict[str, Any] = {
        "epsilon_final": (0.1, 0.5),
        "epsilon_probabilities": (0.75, 0.25),
        "epsilon_anneal_frames": 100,
    }
    learner, reports = make_learner(tmp_path, method=method, **epsilons)
    learner.env_steps = env_steps
    learner._report()
    assert received(reports)[0]["epsilon"] == expected


def test_a_batch_in_which_every_step_reset_teaches_nothing(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path)
    before = learner.weights.clone()
    push(learner, 0)
    fragments = learner._drain()
    fragments[0].mask[...] = 0
    learner._take_in(learner.to_device(fragments))
    assert learner.updates == 0
    assert torch.equal(learner.weights, before)


def test_every_pass_and_minibatch_is_one_update(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path, total_steps=STEPS * ENVS, passes=3, batch_size=STEPS, publish_interval=4)
    push(learner, 0)
    learner.learn()
    assert received(reports)[0]["updates"] == 6
    assert read(learner.task.board)[1] == 4


def test_advantages_are_remembered_over_many_updates(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path)
    squares = []
    for version in range(3):
        push(learner, version)
        learner._take_in(learner.to_device(learner._drain()))
        squares.append(reported(learner, "advantage_square"))
        assert learner.advantage_square == pytest.approx(np.mean(squares))
    assert np.ptp(squares) > 0.01
    before, learner.updates = learner.advantage_square, 5000
    push(learner, 4)
    batch = learner.to_device(learner._drain())
    assert batch.advantage_square == before
    learner._take_in(batch)
    newest = reported(learner, "advantage_square")
    assert learner.advantage_square == pytest.approx(before + (newest - before) / ADVANTAGES_OF_UPDATES)


def test_a_run_that_goes_on_without_a_mean_square_of_advantages_begins_it_anew(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path)
    state = learner.state()
    del state.counters["advantage_square"]
    learner.restore(state)
    learner.updates = 5000
    push(learner, 0)
    learner._take_in(learner.to_device(learner._drain()))
    assert learner.advantage_square == reported(learner, "advantage_square") > 0


def test_advantages_too_large_to_square_are_not_remembered(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, reward_scale=1.0)
    push(learner, 0)
    batch = learner.to_device(learner._drain())
    learner.learn_from(batch)
    known = learner.advantage_square
    batch.rewards[0, 0] = 2e19
    learner.learn_from(batch._replace(advantage_square=known))
    assert learner.updates == 2
    assert reported(learner, "advantage_square") == np.inf
    assert learner.advantage_square == known


def test_a_q_method_ignores_normalised_advantages(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, method="n-step-q", normalise_advantages=True)
    push(learner, 0)
    learner._take_in(learner.to_device(learner._drain()))
    assert learner.updates == 1


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_the_optimizer_takes_the_step_size_of_the_moment(tmp_path: Path, optimizer: str) -> None:
    rates: dict[str, Any] = {"learning_rate": 0.5, "final_learning_rate": 0.1}
    learner, _ = make_learner(tmp_path, total_steps=100, optimizer=optimizer, **rates)
    learner.env_steps = 50
    push(learner, 0)
    learner._take_in(learner.to_device(learner._drain()))
    assert {round(group["lr"], 6) for group in learner.optimizer.param_groups} == {0.3}


def test_the_target_network_follows_at_its_interval(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, method="one-step-q", target_interval=16)
    initial = [parameter.clone() for parameter in learner.target.parameters()]

    def follows(weights: list[Tensor]) -> bool:
        return all(torch.equal(one, other) for one, other in zip(learner.target.parameters(), weights, strict=True))

    for version, expected in ((0, False), (1, True), (2, False), (3, True)):
        push(learner, version)
        fragments = learner._drain()
        learner._count(fragments)
        learner._take_in(learner.to_device(fragments))
        newest = [parameter.detach() for parameter in learner.network.parameters()]
        assert follows(newest) is expected
        assert follows(initial) is (version == 0)


def test_a_shorter_target_interval_holds_from_where_a_run_goes_on(tmp_path: Path) -> None:
    before, _ = make_learner(tmp_path, method="one-step-q", target_interval=1_000_000)
    before.env_steps = before.next_target = 1_000_000
    learner, _ = make_learner(tmp_path, method="one-step-q", target_interval=16)
    learner.restore(before.state())
    assert learner.next_target == 1_000_000
    before.next_target = 2_000_000
    learner.restore(before.state())
    assert learner.next_target == 1_000_016


def test_without_an_interval_the_network_is_its_own_target(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, method="one-step-q", target_interval=0)
    assert learner.target is learner.network


def test_the_gradient_is_clipped_to_its_greatest_norm(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, max_grad_norm=1e-3)
    push(learner, 0)
    learner._take_in(learner.to_device(learner._drain()))
    norms = [parameter.grad.norm() for parameter in learner.network.parameters() if parameter.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert reported(learner, "grad_norm") > 1e-2


def test_a_greatest_norm_of_0_is_no_limit(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, max_grad_norm=0.0)
    push(learner, 0)
    learner._take_in(learner.to_device(learner._drain()))
    norms = [parameter.grad.norm() for parameter in learner.network.parameters() if parameter.grad is not None]
    norm = torch.stack(norms).norm().item()
    assert norm == pytest.approx(reported(learner, "grad_norm"))
    assert norm > 1e-2


def test_a_stop_ends_the_run_with_everything_saved(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path)
    push(learner, 0)
    learner.task.status.request_stop()
    learner.learn()
    assert received(reports)[-1] == {"finished": "stopped", "saved": True}
    assert (tmp_path / "latest.h5").exists()


def test_a_stop_before_anything_was_learned_leaves_nothing_behind(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path, report_interval=1e-9)
    learner.task.status.request_stop()
    learner.learn()
    assert received(reports) == [{"finished": "stopped", "saved": True}]
    assert not any(tmp_path.iterdir())


def test_a_run_ends_early_once_its_target_return_is_reached(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path, target_return=5.0)
    learner.metrics.returns.extend([6.0] * 100)
    learner.metrics.episodes = 100
    push(learner, 0)
    learner.learn()
    assert received(reports)[-1] == {"finished": "target-return", "saved": True}
    assert load_weights(tmp_path / "best.h5").facts["episodic_return"] == 6


def test_a_run_that_goes_on_at_its_target_return_learns_no_more(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path, target_return=5.0)
    learner.metrics.returns.extend([6.0] * 100)
    learner.env_steps = 1000
    push(learner, 0)
    learner.learn()
    *_, report, end = received(reports)
    assert (report["env_steps"], report["episodic_return"]) == (1000, 6.0)
    assert end == {"finished": "target-return", "saved": True}
    assert (learner.env_steps, learner.updates) == (1000, 0)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("frame_stack", [1, 4])
@pytest.mark.parametrize(("network", "side"), [("a3c", 84), ("a3c", 86), ("small", 42)])
def test_images_reach_the_network_as_stacks(
    tmp_path: Path, network: str, side: int, frame_stack: int, recurrent: bool
) -> None:
    """Of the networks, only a3c at 84 takes them in squares."""
    spec = EnvironmentSpec("X-v0", "pixels", (side, side), "uint8", frame_stack, frame_skip=1, actions=2)
    settings: dict[str, Any] = {
        "network": network,
        "frame_size": side,
        "frame_stack": frame_stack,
        "recurrent": recurrent,
    }
    learner, reports = make_learner(tmp_path, spec, total_steps=1, **settings)
    push(learner, 0)
    learner.learn()
    assert received(reports)[0]["updates"] == 1


def test_the_average_is_the_first_weights_until_8_updates_later(tmp_path: Path) -> None:
    learner, _reports = make_learner(tmp_path)
    averages = []
    for number in range(9):
        push(learner, number)
        learner.learn_from(learner.to_device(learner._drain()))
        learner.task.queue.release()
        averages.append(learner.averaged_weights.clone())
        if number == 0:
            assert torch.equal(averages[0], learner.weights)
    assert learner.updates == 9
    assert all(torch.equal(average, averages[0]) for average in averages[:8])
    assert not torch.equal(averages[8], averages[0])


def test_stacks_of_several_fragments_begin_anew_at_resets(tmp_path: Path) -> None:
    spec = EnvironmentSpec("X-v0", "pixels", (84, 84), "uint8", frame_stack=4, frame_skip=1, actions=2)
    learner, _ = make_learner(tmp_path, spec, batch_size=2 * STEPS * ENVS, frame_stack=4)
    push(learner, 0, resets=2)
    push(learner, 1)
    fragments = learner._drain()
    stacks = [stack_frames(torch.tensor(each.frames), torch.tensor(each.mask), 4) for each in fragments]
    assert not stacks[0][2, 0, :3].any() and stacks[0][2, 1].all(-1).any()
    expected = nn.functional.pixel_unshuffle(torch.cat(stacks, 1), 4)
    assert torch.equal(learner.to_device(fragments).observations, expected)


@pytest.mark.parametrize("count", [1, 2])
def test_what_the_learner_learns_from_is_what_was_pushed(tmp_path: Path, count: int) -> None:
    learner, _ = make_learner(tmp_path, batch_size=count * STEPS * ENVS, reward_scale=2.0)
    for version in range(count):
        push(learner, version, resets=1)
    fragments = learner._drain()
    copies = [copy.deepcopy(fragment) for fragment in fragments]
    learner.env_steps = 7
    batch = learner.to_device(fragments)
    assert batch.env_steps == 7
    for fragment in fragments:  # the writer has the slots again
        fragment.frames[...] = fragment.rewards[...] = -1
    for name in ("actions", "rewards", "discounts", "mask", "behaviour_log_probs", "behaviour_values"):
        factor = 2 if name == "rewards" else 1
        expected = factor * np.concatenate([getattr(each, name) for each in copies], axis=1)
        assert np.array_equal(getattr(batch, name).numpy(), expected), name
    assert np.array_equal(batch.observations.numpy(), np.concatenate([each.frames for each in copies], axis=1))


@pytest.mark.parametrize(
    ("lanes", "slots", "gathered", "passes"), [(1, 1, 1, 1), (2, 1, 1, 4), (3, 2, 2, 1), (4, 1, 3, 2)]
)
def test_the_queues_bound_is_the_bound_of_the_lag(
    tmp_path: Path, lanes: int, slots: int, gathered: int, passes: int
) -> None:
    """(N K - 1) waiting fragments and a batch in the making, even if every worker fills each slot at once."""
    size = gathered * STEPS * ENVS
    learner, _ = make_learner(tmp_path, lanes=lanes, slots=slots, passes=passes, batch_size=size)
    lags = []
    for turn in range(30):
        for into in np.random.default_rng(turn).permutation(lanes):
            while push(learner, learner.updates, into=into):
                pass
        fragments = learner._drain()
        lags += [learner.updates - int(fragment.weights_versions[-1]) for fragment in fragments]
        batch = learner.to_device(fragments)
        learner.task.queue.release()
        for into in range(lanes):  # the slots are free before the batch is learned from
            while push(learner, learner.updates, into=into):
                pass
        learner.learn_from(batch)
    batches_ahead = -(-(lanes * slots - 1 + gathered) // gathered)
    assert max(lags) <= passes * batches_ahead
    assert max(lags) >= passes * (batches_ahead - 1)


def test_steps_beyond_the_last_are_not_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _ = make_learner(tmp_path, total_steps=5)
    batches: list[Batch] = []
    monkeypatch.setattr(learner, "learn_from", batches.append)
    push(learner, 0)
    learner.learn()
    assert [int(batch.mask.sum()) for batch in batches] == [5]


@pytest.mark.parametrize(
    ("method", "target_interval", "optimizer"),
    [("a3c", 0, "muon"), ("one-step-q", 5, "radam"), ("n-step-q", 0, "adam"), ("one-step-sarsa", 5, "rmsprop")],
)
def test_a_restored_learner_goes_on_as_the_first_would(
    tmp_path: Path, method: str, target_interval: int, optimizer: str
) -> None:
    settings: dict[str, Any] = {"method": method, "target_interval": target_interval, "optimizer": optimizer}
    first, second = (make_learner(tmp_path, **settings, passes=2, batch_size=STEPS)[0] for _ in range(2))

    def learn(learner: Learner, version: int) -> None:
        push(learner, version)
        fragments = learner._drain()
        learner._count(fragments)
        learner._take_in(learner.to_device(fragments))

    for version in range(4):
        learn(first, version)
    save_state(tmp_path, first.state(), keep=1)
    restored = load_state(tmp_path / "state" / f"{first.env_steps}.h5")
    learn(first, 9)
    second.restore(restored)
    assert second.env_steps == 4 * STEPS * ENVS
    learn(second, 9)
    for name in COUNTERS:
        assert getattr(first, name) == getattr(second, name)
    assert first.advantage_square > 0 or method != "a3c"
    assert first.saver.next_save == second.saver.next_save
    assert torch.equal(first.weights, second.weights)
    for name in ("target", "average"):
        ours, theirs = (getattr(learner, name).parameters() for learner in (first, second))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_sequences_of_several_fragments_keep_their_memories(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, recurrent=True, sequence_length=2, batch_size=2 * STEPS * ENVS)
    push(learner, 0)
    push(learner, 1)
    fragments = learner._drain()
    batch = learner.to_device(fragments)
    assert batch.memories is not None
    assert batch.memories.shape == (2, 2 * ENVS, learner.network.memory_size)
    assert torch.equal(batch.memories[1, ENVS:], torch.as_tensor(fragments[1].memories[1]))


def test_a_deterministic_learner_keeps_its_slots_until_it_has_learned(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, slots=1, deterministic=True)
    push(learner, 0)
    batch = learner.to_device(learner._drain())
    assert not push(learner, 1)
    learner._take_in(batch)
    assert push(learner, 1)
    assert torch.equal(read(learner.task.board)[0], learner.weights)


def test_a_deterministic_run_saves_only_states_that_it_can_go_on_from(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, deterministic=True, save_interval=10)
    learner.task.status.request_stop()
    push(learner, 0)
    learner.learn()
    assert learner.env_steps == 8
    assert [path.stem for path in (tmp_path / "state").iterdir()] == ["0"]


def poisoned(learner: Learner, rewards: float) -> Batch:
    push(learner, 0)
    batch = learner.to_device(learner._drain())
    return batch._replace(rewards=torch.full_like(batch.rewards, rewards))


def test_an_update_whose_gradient_is_no_number_is_skipped_and_counted(tmp_path: Path) -> None:
    learner, reports = make_learner(tmp_path)
    before = learner.weights.clone()
    learner._take_in(poisoned(learner, float("nan")))
    assert torch.equal(learner.weights, before)
    assert (learner.updates, learner.metrics.skipped_updates) == (0, 1)
    assert "a smaller --learning-rate may help" in reports.recv()["warning"]
    learner._take_in(poisoned(learner, float("inf")))
    assert not reports.poll(), "all in a row have one warning"
    learner._take_in(poisoned(learner, 1.0))
    assert not torch.equal(learner.weights, before)
    assert learner.weights.isfinite().all()
    assert (learner.updates, learner.bad_batches) == (1, 0)


def test_too_many_of_them_in_a_row_end_the_run_with_state_and_samples_kept(tmp_path: Path) -> None:
    learner, _reports = make_learner(tmp_path)
    before = learner.weights.clone()
    for _ in range(BAD_BATCHES - 1):
        learner._take_in(poisoned(learner, float("inf")))
    with pytest.raises(NumbersWentBad, match=f"no gradient of {BAD_BATCHES} batches was finite"):
        learner._take_in(poisoned(learner, float("inf")))
    assert torch.equal(learner.weights, before)
    with np.load(tmp_path / "bad-batch.npz") as samples:
        assert samples["observations"].shape == (STEPS + 1, ENVS, 4)
        assert not np.isfinite(samples["rewards"]).any()
    path = newest_state(tmp_path, pytest.fail)
    assert path is not None
    assert all(np.isfinite(array).all() for array in load_state(path).group("network").values())


@pytest.mark.parametrize(("later", "kept"), [(40.0, 50.0), (60.0, 60.0)])
def test_the_best_weights_are_only_replaced_by_better_ones(tmp_path: Path, later: float, kept: float) -> None:
    """Also where the run goes on from a state that is older than they are, or from none."""
    for episodic_return in (50.0, later):
        learner, _ = make_learner(tmp_path, total_steps=STEPS * ENVS)
        learner.metrics.returns.extend([episodic_return] * 100)
        learner.metrics.episodes = 100
        push(learner, 0)
        learner.learn()
    assert load_weights(tmp_path / "best.h5").facts["episodic_return"] == kept


@pytest.mark.parametrize("damaged", [False, True])
def test_lost_best_weights_are_written_anew(tmp_path: Path, damaged: bool) -> None:
    """Also where the state that the run goes on from remembers a better return."""
    if damaged:
        (tmp_path / "best.h5").write_bytes(b"damaged")
    learner, _ = make_learner(tmp_path, total_steps=STEPS * ENVS)
    learner.metrics.best = 50.0
    learner.metrics.returns.extend([40.0] * 100)
    learner.metrics.episodes = 100
    push(learner, 0)
    learner.learn()
    assert load_weights(tmp_path / "best.h5").facts["episodic_return"] == 40


def test_best_weights_without_a_full_window_are_those_of_the_end(tmp_path: Path) -> None:
    for total_steps in (STEPS * ENVS, 2 * STEPS * ENVS):
        learner, _ = make_learner(tmp_path, total_steps=total_steps)
        learner.metrics.returns.extend([1e6 / total_steps] * 99)
        learner.metrics.episodes = 99
        for version in range(2):
            push(learner, version)
        learner.learn()
        assert load_weights(tmp_path / "best.h5").facts["env_steps"] == total_steps


def test_a_record_that_could_not_be_written_leaves_the_former_one_to_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, _ = make_learner(tmp_path)

    def reach(episodic_return: float) -> None:
        learner.metrics.returns.extend([episodic_return] * 100)
        learner.metrics.episodes += 100
        learner._save_record()

    def refuse(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    reach(18.0)
    with monkeypatch.context() as patch:
        patch.setattr(sealed, "write_whole", refuse)
        reach(19.0)
    reach(15.0)
    assert load_weights(tmp_path / "best.h5").facts["episodic_return"] == 18
    reach(18.5)
    assert load_weights(tmp_path / "best.h5").facts["episodic_return"] == 18.5


def test_a_batch_waits_for_the_fragments_that_it_lacks(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, batch_size=2 * STEPS * ENVS)
    push(learner, 0)
    late = threading.Timer(3 * LOOK_AROUND_SECONDS, push, (learner, 1))
    late.start()
    assert len(learner._drain()) == 2
    late.join()


def test_a_stop_waits_neither_for_a_batch_nor_for_its_passes(tmp_path: Path) -> None:
    learner, _ = make_learner(tmp_path, batch_size=2 * STEPS * ENVS, passes=1000)
    push(learner, 0)
    learner.task.status.request_stop()
    fragments = learner._drain()
    assert len(fragments) == 1
    learner.learn_from(learner.to_device(fragments))
    assert learner.updates == 0


def test_a_full_disk_does_not_stop_the_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, reports = make_learner(tmp_path, save_interval=STEPS * ENVS, total_steps=3 * STEPS * ENVS)
    failing = [True]

    def write(path: Path, content: bytes) -> None:
        if failing[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(path, content)

    monkeypatch.setattr(sealed, "write_whole", write)
    for version in range(3):
        push(learner, version)
    learner.learn()
    *before, end = received(reports)
    assert end == {"finished": "total-steps", "saved": False}
    warnings = [report["warning"] for report in before if "warning" in report]
    assert warnings and all("No space left on device" in warning for warning in warnings)
    assert not list(tmp_path.rglob("*.h5"))
    failing[0] = False
    learner.saver.save(learner.state(), learner.trained())
    assert (tmp_path / "latest.h5").exists()
    assert newest_state(tmp_path, pytest.fail) == tmp_path / "state" / f"{3 * STEPS * ENVS}.h5"


def test_numbers_that_are_slow_because_they_are_too_small_are_zero(tmp_path: Path) -> None:
    """An optimizer's memory of what has no gradient any more fades to such numbers, and stays there."""
    learner, _reports = make_learner(tmp_path)
    learner.task.status.request_stop()
    fading = torch.full((64,), 1e-38)
    threads = torch.get_num_threads()
    try:
        run_learner(learner.task)
        assert not (fading * 0.5).any()
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
    assert (fading * 0.5).all()
