"""The learner's device: what a processor must have for bfloat16 to be worth it."""

from __future__ import annotations

import pytest
import torch

from asyncq.devices import has_fast_bf16


@pytest.mark.parametrize(("amx", "avx512", "fast"), [(True, False, True), (False, True, True), (False, False, False)])
def test_bf16_is_fast_on_processors_that_multiply_it(
    amx: bool, avx512: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert has_fast_bf16("cpu") is fast
