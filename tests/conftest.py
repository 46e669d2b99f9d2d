"""What all tests share: every test starts from the same random numbers, on one torch thread."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)


@pytest.fixture
def _signals_are_heard() -> Iterator[None]:
    """Also where nohup, or a shell in the background, began the tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
