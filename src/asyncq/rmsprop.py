"""RMSProp as Mnih et al. 2016 have it (section 4): epsilon stands under the root, where torch's stands beside it.

With it there the root never meets the zeros that inactive features leave in the mean square, and which cost torch's
square root on a CPU twice the time.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

DECAY = 0.99
CACHED_NUMBERS = 65_536
"""That a CPU updates at once, so that they stay in its cache from one operation to the next."""


class RMSProp(torch.optim.Optimizer):
    """Steps of lr * g / sqrt(mean of g^2 + eps), without momentum."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, eps: float) -> None:
        super().__init__(parameters, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients that `backward` left."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient, state = parameter.grad, self.state[parameter]
                if gradient is None:
                    continue
                if not state:
                    state["square_avg"] = torch.zeros_like(parameter)
                whole = parameter.view(-1), gradient.reshape(-1), state["square_avg"].view(-1)
                size = CACHED_NUMBERS if parameter.is_cpu else parameter.numel()
                for weights, slopes, mean_squares in zip(*(tensor.split(size) for tensor in whole), strict=True):
                    mean_squares.mul_(DECAY).addcmul_(slopes, slopes, value=1 - DECAY)
                    weights.addcmul_(slopes, (mean_squares + group["eps"]).rsqrt_(), value=-group["lr"])
