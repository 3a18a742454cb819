"""AdamW (Loshchilov and Hutter 2019).

Own code: constructing any optimiser of torch.optim imports torch's compiler, 2 s of processor time (5 s of a busy
machine's) in each job. What is left is the formula.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BETAS, _EPSILON = (0.9, 0.99), 1e-8


class AdamW:
    """Steps the parameters of a module; only the weights of layers decay, not gains and biases.

    ``moments`` holds the running mean and mean square of every gradient by parameter name, to be saved and restored.
    """

    def __init__(self, module: nn.Module, *, weight_decay: float = 1e-2) -> None:
        self.parameters, self.weight_decay = dict(module.named_parameters()), weight_decay
        self.moments: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            self.moments[f"mean.{name}"] = torch.zeros_like(parameter, requires_grad=False)
            self.moments[f"square.{name}"] = torch.zeros_like(parameter, requires_grad=False)

    @torch.no_grad()
    def step(self, number: int, *, rate: float) -> None:
        """Make optimiser step ``number`` (from 1) with learning rate ``rate`` and forget the gradients."""
        moved = {name: p for name, p in self.parameters.items() if p.grad is not None}
        if not moved:
            raise ValueError("no parameter has a gradient")
        parameters, gradients = list(moved.values()), [p.grad for p in moved.values()]
        means = [self.moments[f"mean.{name}"] for name in moved]
        squares = [self.moments[f"square.{name}"] for name in moved]
        torch._foreach_lerp_(means, gradients, 1 - _BETAS[0])
        torch._foreach_mul_(squares, _BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - _BETAS[1])
        deviations = torch._foreach_sqrt(squares)
        torch._foreach_div_(deviations, (1 - _BETAS[1] ** number) ** 0.5)
        torch._foreach_add_(deviations, _EPSILON)
        for parameter in parameters:
            if parameter.ndim in (2, 4):  # of linear layers and convolutions
                parameter.mul_(1 - rate * self.weight_decay)
            parameter.grad = None
        torch._foreach_addcdiv_(parameters, means, deviations, -rate / (1 - _BETAS[0] ** number))
