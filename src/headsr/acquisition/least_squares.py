"""Regularised least squares over volumes: conjugate gradients on the normal equations, and the smoothness term."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor], target: Tensor, *, iterations: int, start: Tensor | None = None
) -> Tensor:
    """Solve ``normal`` x = ``target`` for a symmetric, positive definite ``normal``, from ``start`` (zero when None).

    Few iterations regularise too. Hestenes and Stiefel 1952.
    """
    x = torch.zeros_like(target) if start is None else start.clone()
    residual = target.clone() if start is None else target - normal(x)
    direction, energy = residual.clone(), _dot(residual, residual)
    for _ in range(iterations):
        if energy <= 0:
            break
        image = normal(direction)
        step = energy / _dot(direction, image)
        x += step * direction
        residual -= step * image
        previous, energy = energy, _dot(residual, residual)
        direction = residual + (energy / previous) * direction
    return x


def roughness(x: Tensor, steepness: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """G^T G x (X, Y, Z) for forward differences G with free ends, each axis times its ``steepness``."""
    result = torch.zeros_like(x)
    for axis, weight in enumerate(steepness):
        difference = weight * x.diff(dim=axis)
        size = difference.shape[axis]
        result.narrow(axis, 1, size).add_(difference)
        result.narrow(axis, 0, size).sub_(difference)
    return result


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.sum(a.double() * b.double()))
