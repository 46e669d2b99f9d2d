"""Diagnosis: who waits is told apart from who is waited for."""

from __future__ import annotations

import pytest

from asyncq.monitoring.diagnosis import bottleneck, dearest_part


@pytest.mark.parametrize(
    ("learner", "workers", "processes", "said"),
    [
        (0.0, 0.4, 2, "the learner limits, workers wait 40% of the time: fewer --passes"),
        (0.3, 0.0, 2, "the workers limit, the learner waits 30% of the time: more --processes help"),
        (0.3, 0.0, 4, "the workers limit, the learner waits 30% of the time: more or faster cores help"),
        (0.01, 0.02, 4, "nobody waits"),
    ],
)
def test_the_side_that_is_waited_for_limits(learner: float, workers: float, processes: int, said: str) -> None:
    assert bottleneck({"learner": learner, "workers": workers}, processes, cores=4).startswith(said)


def test_the_dearest_part_is_named() -> None:
    assert dearest_part({"emulation": 2e-3, "inference": 3e-3, "learning": 1e-3}).startswith("inference costs most")
