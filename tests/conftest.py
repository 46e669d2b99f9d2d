"""What all tests share: every test starts from the same random numbers, on one torch thread."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
