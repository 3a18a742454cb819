"""Hermite functions: an orthonormal basis of what is square integrable on the line."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hermite_functions(positions: Tensor, number: int) -> list[Tensor]:
    """h_0 ... h_(number - 1) at positions of any shape, in fp32, each of that shape.

    h_0 = pi^(-1/4) exp(-x² / 2), h_1 = √2 x h_0, h_k = √(2 / k) x h_(k-1) - √((k - 1) / k) h_(k-2). The last one
    oscillates within ``reach(number)`` and is nothing beyond: on a narrower range they are far from orthogonal.
    """
    x = positions.float()
    functions = [math.pi**-0.25 * torch.exp(-0.5 * x.square())]
    if number > 1:
        functions.append(math.sqrt(2) * x * functions[0])
    for k in range(2, number):
        functions.append(math.sqrt(2 / k) * x * functions[-1] - math.sqrt((k - 1) / k) * functions[-2])
    return functions


def reach(number: int) -> float:
    """How far from zero the last of ``number`` Hermite functions oscillates: its turning point √(2 number - 1)."""
    return math.sqrt(2 * number - 1)
