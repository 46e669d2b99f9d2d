"""asyncq/Latency-v0: steps last as long as they are told to, and naming the bit that is shown pays."""

from __future__ import annotations

import time
from typing import Any

import pytest

from asyncq.cli import run
from asyncq.envs import describe, make_env
from asyncq.envs.latency import ENV_ID, EPISODE_STEPS
from asyncq.errors import UsageError


def test_a_step_lasts_as_long_as_it_is_told_to() -> None:
    env: Any = make_env(describe(ENV_ID, kwargs={"seconds": 0.02}), 2)
    env.reset(seed=1)
    begin = time.perf_counter()
    for _ in range(10):
        env.step([0, 1])
    assert time.perf_counter() - begin >= 2 * 10 * 0.02
    env.close()


def test_naming_the_bit_pays_1_and_episodes_are_truncated() -> None:
    env: Any = make_env(describe(ENV_ID, kwargs={"seconds": 0}), 1)
    observations, _ = env.reset(seed=1)
    for step in range(1, EPISODE_STEPS + 1):
        named = int(observations[0, 0]) if step % 3 else 1 - int(observations[0, 0])
        observations, rewards, terminated, truncated, _ = env.step([named])
        assert rewards[0] == (1 if step % 3 else 0)
        assert not terminated[0]
        assert truncated[0] == (step == EPISODE_STEPS)
    env.close()


@pytest.mark.parametrize(
    ("word", "said"),
    [("seconds=-1", "at least 0"), ("speed=3", "unexpected keyword"), ("seconds", "NAME=VALUE"), ("=3", "NAME=VALUE")],
)
def test_arguments_that_do_not_fit_are_refused(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(["train", "--env", ENV_ID, "--env-kwargs", word])
