"""Regularised least squares over volumes: conjugate gradients on the normal equations, and the smoothness term."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from headsr.acquisition.consistency import allowed
from headsr.acquisition.measurement import Measurement
from headsr.volumes import Grid


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


def relative_trust(scans: Sequence[Measurement]) -> list[float]:
    """1/noise^2 of every scan, relative to the least noisy one."""
    least = min(allowed(scan) for scan in scans)
    return [(least / allowed(scan)) ** 2 for scan in scans]


def measured(x: Tensor, scans: Sequence[Measurement], trust: Sequence[float]) -> Tensor:
    """sum_k v_k A_k^T A_k x (X, Y, Z), with the ``trust`` v_k in every scan."""
    return back([scan.operator.forward(x) for scan in scans], scans, trust)


def back(samples: Sequence[Tensor], scans: Sequence[Measurement], trust: Sequence[float]) -> Tensor:
    """sum_k v_k A_k^T y_k (X, Y, Z) of ``samples`` y_k on the grids of the scans."""
    return sum(v * scan.operator.adjoint(y) for v, scan, y in zip(trust, scans, samples, strict=True))


def steepness(head: Grid) -> list[float]:
    """What a squared difference of neighbours counts along each axis, for gradients per finest voxel size."""
    return ((head.voxel_size.min() / head.voxel_size) ** 2).tolist()


def roughness(x: Tensor, steep: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """G^T G x (X, Y, Z) for forward differences G with free ends, each axis squared times its steepness."""
    result = torch.zeros_like(x)
    for axis, weight in enumerate(steep):
        difference = weight * x.diff(dim=axis)
        size = difference.shape[axis]
        result.narrow(axis, 1, size).add_(difference)
        result.narrow(axis, 0, size).sub_(difference)
    return result


def gradient(x: Tensor, steep: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """G x (3, X, Y, Z) for the G of ``roughness``; zero where a voxel has no next one."""
    result = x.new_zeros(3, *x.shape)
    for axis, weight in enumerate(steep):
        inner = result[axis].narrow(axis, 0, x.shape[axis] - 1)
        inner.copy_(x.diff(dim=axis)).mul_(weight**0.5)
    return result


def gradient_adjoint(vectors: Tensor, steep: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """G^T p (X, Y, Z) for vectors p (3, X, Y, Z)."""
    result = torch.zeros_like(vectors[0])
    for axis, weight in enumerate(steep):
        size = result.shape[axis] - 1
        along = weight**0.5 * vectors[axis].narrow(axis, 0, size)
        result.narrow(axis, 1, size).add_(along)
        result.narrow(axis, 0, size).sub_(along)
    return result


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.sum(a.double() * b.double()))
