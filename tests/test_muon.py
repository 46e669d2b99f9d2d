"""Muon: its matrices' steps are orthogonal, the other parameters' are Adam's, and both are as large as Adam's."""

from __future__ import annotations

import copy

import pytest
import torch

from asyncq.muon import ADAM_RMS, BLOCK_ROWS, Muon, orthogonalised


def matrix_with(singular_values: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    left, _ = torch.linalg.qr(torch.randn(rows, len(singular_values), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, len(singular_values), generator=generator))
    matrix: torch.Tensor = left * singular_values @ right.mT
    return matrix


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 20), (20, 8)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_all_directions_become_equally_long_and_stay_the_same(rows: int, columns: int, scale: float) -> None:
    matrix = scale * matrix_with(torch.logspace(0, -2, 8), rows, columns)
    found = orthogonalised(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    along = left.mT @ found @ right.mT
    assert torch.allclose(along, along.diagonal().diag(), atol=1e-3)
    assert along.diagonal().min() > 0.6
    assert along.diagonal().max() < 1.25


def test_gathered_polynomials_give_what_the_plain_iteration_gives() -> None:
    """X <- a X + b (X X') X + c (X X')^2 X, five times, as in Jordan et al. 2024."""
    matrix = matrix_with(torch.linspace(1, 0.01, 6), 6, 15)
    plain = matrix / matrix.norm()
    for _ in range(5):
        gram = plain @ plain.mT
        plain = 3.4445 * plain - 4.775 * gram @ plain + 2.0315 * gram @ gram @ plain
    assert torch.allclose(orthogonalised(matrix), plain, atol=1e-4)


def test_blocks_of_rows_become_orthogonal_each_for_itself() -> None:
    matrix = torch.randn(2 * BLOCK_ROWS, 150, generator=torch.Generator().manual_seed(1))
    expected = torch.cat([orthogonalised(matrix[:BLOCK_ROWS]), orthogonalised(matrix[BLOCK_ROWS:])])
    torch.testing.assert_close(orthogonalised(matrix), expected)
    torch.testing.assert_close(orthogonalised(matrix.mT), expected.mT)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_a_convolutions_step_is_that_of_its_matrix_and_as_large_as_adams() -> None:
    kernel = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    before = kernel.detach().clone()
    kernel.grad = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    Muon([kernel], [], lr=0.1, eps=1e-8).step()
    step = (before - kernel.detach()) / 0.1
    direction = orthogonalised(kernel.grad.flatten(1)).view_as(kernel)
    assert torch.allclose(step / step.norm(), direction / direction.norm(), atol=1e-5)
    assert step.square().mean().sqrt().item() == pytest.approx(ADAM_RMS, rel=0.2)


def test_momentum_remembers_earlier_gradients() -> None:
    matrix = torch.zeros(4, 6, requires_grad=True)
    optimizer = Muon([matrix], [], lr=1.0, eps=1e-8)
    gradients = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(4))
    momentum = torch.zeros(4, 6)
    for gradient in gradients:
        matrix.grad = gradient.clone()
        before = matrix.detach().clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
    wanted = orthogonalised(0.05 * gradients[-1] + 0.95 * momentum) * ADAM_RMS * 6**0.5
    assert torch.allclose(before - matrix.detach(), wanted, atol=1e-5)


def test_the_rest_moves_as_adam_moves_it() -> None:
    ours = torch.linspace(-1, 1, 5).requires_grad_()
    theirs = copy.deepcopy(ours)
    optimizers = Muon([], [ours], lr=0.01, eps=1e-5), torch.optim.Adam([theirs], lr=0.01, eps=1e-5)
    for gradient in torch.randn(10, 5, generator=torch.Generator().manual_seed(5)):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)
