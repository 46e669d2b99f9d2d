"""The learner's device: which it is, and what it is fast at."""

from __future__ import annotations

import torch

from asyncq.errors import UsageError


def choose_device(device: str) -> str:
    """Turn "auto" into "cuda" or "cpu". Raises UsageError if a GPU is wanted and there is none."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU; use --device cpu, or install a CUDA build and driver")
    return device


def has_fast_bf16(device: str) -> bool:
    """Whether `device` multiplies bfloat16 in hardware: a GPU's tensor cores, or a processor's AMX or AVX-512 BF16."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_amx() or bool(torch.cpu._is_avx512_bf16_supported())


def has_amx() -> bool:
    """Whether the processor multiplies matrices in tiles."""
    return bool(torch.cpu._is_amx_tile_supported())
