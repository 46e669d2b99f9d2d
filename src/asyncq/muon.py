"""Muon: momentum whose matrices are made orthogonal, so that every direction a layer knows is learned at one speed.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the step sizes of Liu et al. 2025 (arXiv
2502.16982) that let it share Adam's learning rate. torch.optim.Muon takes no convolutions and multiplies twice as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.999)
ADAM_RMS = 0.2
"""Root mean square of Adam's usual steps, in units of the learning rate."""
COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the polynomial that pulls singular values towards 1 (Jordan et al.); five rounds leave them at 0.7 to 1.2."""
ROUNDS = {torch.float32: (5,), torch.bfloat16: (3, 2)}
"""Between two looks at the matrix itself: in bfloat16 errors of the Gram matrix grow from round to round."""
GUARD = {torch.float32: 0.0, torch.bfloat16: 2**-8}
"""Added to the Gram matrix's eigenvalues, in units of their root mean square: rounding to bfloat16 moves some of those
near 0 below it, where they would explode."""
FEWEST_ROWS = 128
"""Of a matrix that is multiplied in bfloat16; smaller ones cost little, and rounding harms them more."""


class Muon(torch.optim.Optimizer):
    """Muon for `matrices` `[out, in, ...]`, such as the weights of hidden layers; Adam for `others`, all the rest.

    `dtype`, float32 or bfloat16, is that of the products that make steps orthogonal.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float,
        eps: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        groups = [{"params": list(matrices), "orthogonal": True}, {"params": list(others), "orthogonal": False}]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients that `backward` left."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    step = self._orthogonal_step if group["orthogonal"] else self._adam_step
                    parameter.add_(step(parameter.grad, self.state[parameter], group["eps"]), alpha=-group["lr"])

    def _orthogonal_step(self, gradient: Tensor, state: dict[str, Any], eps: float) -> Tensor:
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        nesterov = gradient.lerp(momentum, MOMENTUM).flatten(1)
        return orthogonalised(nesterov, self.dtype, ADAM_RMS * max(nesterov.shape) ** 0.5).view_as(gradient)

    def _adam_step(self, gradient: Tensor, state: dict[str, Any], eps: float) -> Tensor:
        """Kingma and Ba 2015, algorithm 1."""
        if not state:
            state |= {
                "mean": torch.zeros_like(gradient),
                "square": torch.zeros_like(gradient),
                "step": torch.zeros(()),
            }
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - ADAM_BETAS[0])
        state["square"].lerp_(gradient.square(), 1 - ADAM_BETAS[1])
        steps = float(state["step"])
        mean, square = state["mean"] / (1 - ADAM_BETAS[0] ** steps), state["square"] / (1 - ADAM_BETAS[1] ** steps)
        step: Tensor = mean / (square.sqrt() + eps)
        return step


def orthogonalised(matrix: Tensor, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    """`matrix[m, n]` with all its singular values moved near to `scale`, by Newton-Schulz iteration in `dtype`.

    The iteration multiplies the matrix by polynomials of its Gram matrix, which commute: they are gathered in the
    smaller of the two dimensions, and the matrix itself is multiplied only once, in bfloat16 twice.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.mT, dtype, scale).mT
    if len(matrix) < FEWEST_ROWS:
        dtype = torch.float32
    size = matrix.norm() + 1e-7
    matrix = matrix.to(dtype)
    for rounds in ROUNDS[dtype]:
        gram = matrix @ matrix.mT / size.square()
        gram.diagonal().add_(gram.norm(), alpha=GUARD[dtype] / len(gram) ** 0.5)
        factor = product = _polynomial(gram)
        for _ in range(rounds - 1):
            gram = factor @ gram @ factor
            factor = _polynomial(gram)
            product = factor @ product
        matrix = (product * (scale / size)) @ matrix
        size = torch.full_like(size, scale)
    return matrix


def _polynomial(gram: Tensor) -> Tensor:
    """a + b G + c G^2, which times X is one round's a X + b (X X') X + c (X X')^2 X."""
    linear, cubic, quintic = COEFFICIENTS
    factor = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
    factor.diagonal().add_(linear)
    return factor
