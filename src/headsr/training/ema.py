"""The exponential moving average of a network's weights, which is what is exported."""

from __future__ import annotations

import copy

import torch
from torch import nn


def averaged_copy(module: nn.Module) -> nn.Module:
    """A copy that starts the average: evaluation mode, no gradients."""
    return copy.deepcopy(module).eval().requires_grad_(False)


@torch.no_grad()
def update_average(averaged: nn.Module, module: nn.Module, *, decay: float, step: int) -> None:
    """Move the average towards the weights after optimiser step number ``step`` (from 1); buffers are copied.

    The decay warms up as (1 + step) / (10 + step), or the average of a short training would be its random start.
    """
    decay = min(decay, (1 + step) / (10 + step))
    average, current = list(averaged.parameters()), list(module.parameters())
    torch._foreach_lerp_(average, current, 1 - decay)
    for kept, buffer in zip(averaged.buffers(), module.buffers(), strict=True):
        kept.copy_(buffer)
