"""What was measured stays measured: project a volume onto its scans, and map what is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.measurement import Measurement

# Without noise a residual of this share of the intensity range is float32 rounding, not disagreement.
ROUNDING = 1e-4
_RAYLEIGH_MEDIAN = np.sqrt(2.0 * np.log(2.0))


def residuals(volume: Tensor, scans: Sequence[Measurement]) -> list[Tensor]:
    """A x - y on each scan's own grid."""
    return [scan.operator.forward(volume) - scan.data for scan in scans]


def allowed(scan: Measurement) -> float:
    """The root mean square residual that the scan's noise explains."""
    return max(scan.noise, ROUNDING)


def project(volume: Tensor, scans: Sequence[Measurement], *, iterations: int = 200) -> Tensor:
    """The nearest volume whose residual is at most each scan's noise: x + A^T u, with conjugate gradients on A A^T.

    For one scan with a box profile and an integer factor A A^T is a multiple of the identity and the first iteration is
    the closed form x + A^+ (y - A x). Stops at the noise (the discrepancy principle), so noise is not fitted.
    Returns the volume unchanged where it agrees already.
    """
    residual = [-r for r in residuals(volume, scans)]
    direction = [r.clone() for r in residual]
    correction = torch.zeros_like(volume)
    energy = _dot(residual, residual)
    for _ in range(iterations):
        if all(_rms(r) <= 0.999 * allowed(scan) for r, scan in zip(residual, scans, strict=True)):
            break
        spread = sum(scan.operator.adjoint(d) for scan, d in zip(scans, direction, strict=True))
        curvature = float(torch.sum(spread.double() ** 2))
        if curvature <= 0:
            break
        change = [scan.operator.forward(spread) for scan in scans]
        step = energy / curvature * _share_to_the_noise(residual, change, scans, energy / curvature)
        correction += step * spread
        for r, c in zip(residual, change, strict=True):
            r -= step * c
        previous, energy = energy, _dot(residual, residual)
        direction = [r + (energy / previous) * d for r, d in zip(residual, direction, strict=True)]
    return volume + correction


def estimate_noise(scan: NDArray[np.float32], head: NDArray[np.bool_]) -> float:
    """Standard deviation of a magnitude scan's noise, from its air (a Rayleigh distribution, median 1.18 sigma).

    Where the air was set to zero, the median absolute second difference inside the head along the finest direction
    is used instead; anatomy adds to it, so that is an upper bound.
    """
    air = scan[~head]
    sigma = float(np.median(air) / _RAYLEIGH_MEDIAN) if air.size else 0.0
    if sigma > 0 and np.unique(air[:10000]).size > 8:
        return sigma
    difference = scan[2:] - 2 * scan[1:-1] + scan[:-2]
    return float(np.median(np.abs(difference[head[1:-1]])) / 0.6745 / np.sqrt(6.0))


def _share_to_the_noise(
    residual: Sequence[Tensor], change: Sequence[Tensor], scans: Sequence[Measurement], step: float
) -> float:
    """The share of a step at which every residual meets its noise; the whole step where they do not all meet it.

    |r - t step c|^2 is a parabola in t for each scan: the wanted t is its first crossing of the allowed energy.
    """
    share = 0.0
    for r, c, scan in zip(residual, change, scans, strict=True):
        a, b = step**2 * _dot([c], [c]), -2 * step * _dot([r], [c])
        gap = _dot([r], [r]) - r.numel() * (0.995 * allowed(scan)) ** 2
        if gap <= 0:
            continue
        root = b * b - 4 * a * gap
        if a <= 0 or root < 0:
            return 1.0
        share = max(share, (-b - root**0.5) / (2 * a))
    return share if 0.0 < share < 1.0 else 1.0


def _rms(residual: Tensor) -> float:
    return float(residual.double().pow(2).mean().sqrt())


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(sum(torch.sum(x.double() * y.double()) for x, y in zip(a, b, strict=True)))
