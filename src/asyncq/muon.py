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
ROUNDS = 5
BLOCK_ROWS = 64
"""Rows, the weights of so many units, that are made orthogonal together: a quarter of the work of all 256 at once."""


class Muon(torch.optim.Optimizer):
    """Muon for `matrices` `[out, in, ...]`, such as the weights of hidden layers; Adam for `others`, all the rest."""

    def __init__(self, matrices: Iterable[Tensor], others: Iterable[Tensor], lr: float, eps: float) -> None:
        groups = [{"params": list(matrices), "orthogonal": True}, {"params": list(others), "orthogonal": False}]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients that `backward` left."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient, state = parameter.grad, self.state[parameter]
                if gradient is None:
                    continue
                if group["orthogonal"]:
                    step = self._orthogonal_step(gradient, state)
                else:
                    step = self._adam_step(gradient, state, group["eps"])
                parameter.add_(step, alpha=-group["lr"])

    def _orthogonal_step(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        nesterov = gradient.lerp(momentum, MOMENTUM).flatten(1)
        return orthogonalised(nesterov, ADAM_RMS * max(nesterov.shape) ** 0.5).view_as(gradient)

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


def orthogonalised(matrix: Tensor, scale: float = 1.0) -> Tensor:
    """`matrix[m, n]` with the singular values of each block of rows moved near to `scale`, by Newton-Schulz iteration.

    Rows are the smaller dimension: blocks of BLOCK_ROWS, or one of all rows if these do not divide. The iteration
    multiplies a block by polynomials of its Gram matrix, which commute: they are gathered in the size of the block's
    rows, and the block itself is multiplied only once.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.mT, scale).mT
    rows = BLOCK_ROWS if len(matrix) % BLOCK_ROWS == 0 else len(matrix)
    blocks = matrix.view(-1, rows, matrix.shape[1])
    size: Tensor = torch.linalg.matrix_norm(blocks, keepdim=True) + 1e-7
    gram = blocks @ blocks.mT / size.square()
    factor = product = _polynomial(gram)
    for _ in range(ROUNDS - 1):
        gram = factor @ gram @ factor
        factor = _polynomial(gram)
        product = factor @ product
    return (product * (scale / size) @ blocks).view_as(matrix)


def _polynomial(gram: Tensor) -> Tensor:
    """a + b G + c G^2 of each `gram[m, m]`, which times X is one round's a X + b (X X') X + c (X X')^2 X."""
    linear, cubic, quintic = COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
    factor.diagonal(dim1=-2, dim2=-1).add_(linear)
    return factor
