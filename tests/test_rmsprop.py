"""RMSProp against the paper's equation, and against sums instead of means."""

from __future__ import annotations

import pytest
import torch

from asyncq.rmsprop import CACHED_NUMBERS, RMSProp


def weight_after(gradients: list[float], lr: float, eps: float) -> float:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = RMSProp([weight], lr=lr, eps=eps)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    return weight.item()


def test_two_steps_by_hand() -> None:
    first = 3.0 / (0.01 * 9 + 0.1) ** 0.5
    second = -1.0 / (0.99 * 0.01 * 9 + 0.01 * 1 + 0.1) ** 0.5
    assert weight_after([3.0, -1.0], lr=0.1, eps=0.1) == pytest.approx(2 - 0.1 * (first + second))


def test_means_over_n_steps_with_epsilon_over_n_squared_move_as_sums_do() -> None:
    sums = [0.4, -1.5, 2.5]
    means = [gradient / 5 for gradient in sums]
    assert weight_after(means, lr=0.1, eps=0.1 / 25) == pytest.approx(weight_after(sums, lr=0.1, eps=0.1))


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert weight_after([0.0, 0.0], lr=0.1, eps=1e-5) == 2


def test_parameters_without_a_gradient_are_left_alone() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    RMSProp([weight], lr=0.1, eps=0.1).step()
    assert weight.item() == 2


def test_a_tensor_of_several_parts_whose_gradient_lies_in_another_order() -> None:
    weight = torch.nn.Parameter(torch.zeros(3, 8, 64, 64))
    assert weight.numel() > CACHED_NUMBERS
    weight.grad = torch.randn(weight.shape).contiguous(memory_format=torch.channels_last)
    optimizer = RMSProp([weight], lr=0.1, eps=0.1)
    optimizer.step()
    optimizer.step()
    first, second = (weight.grad / (share * weight.grad.square() + 0.1).sqrt() for share in (0.01, 0.0199))
    torch.testing.assert_close(weight.detach(), -0.1 * (first + second).contiguous())
