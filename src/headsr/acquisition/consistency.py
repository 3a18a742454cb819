"""What was measured stays measured: project a volume onto its scans, and map what is left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headsr.acquisition.measurement import Measurement

# Without noise a residual of this share of the intensity range is float32 rounding, not disagreement.
ROUNDING = 1e-4
_TOLERANCE = 0.02  # how near to the noise a projection has to come, as a share of it
_CONVERGED = 1e-8
_ROUNDS = 20


def residuals(volume: Tensor, scans: Sequence[Measurement]) -> list[Tensor]:
    """A x - y on each scan's own grid."""
    return [scan.operator.forward(volume) - scan.data for scan in scans]


def allowed(scan: Measurement) -> float:
    """The root mean square residual that the scan's noise explains."""
    return max(scan.noise, ROUNDING)


def project(volume: Tensor, scans: Sequence[Measurement]) -> Tensor:
    """The nearest volume that takes from each scan's residual what its noise cannot explain.

    Noise explains residuals up to a limit, the largest at which their root mean square is the noise: smaller ones are
    left alone (the discrepancy principle: noise is not fitted), larger ones are cut to the limit wherever they are. The
    smallest change c with A c = cut comes from conjugate gradients; for one scan with a box profile and an integer
    factor their first iteration is the closed form c = A^+ cut. Where several scans contradict each other the cut
    cannot be met at once, and is made again on what is left. Returns the volume unchanged where it agrees already.
    """
    for _ in range(_ROUNDS):
        left = [scan.data - scan.operator.forward(volume) for scan in scans]
        if all(scan.rms(r) <= allowed(scan) for r, scan in zip(left, scans, strict=True)):
            break
        beyond = [_beyond_the_noise(r, scan) for r, scan in zip(left, scans, strict=True)]
        volume = volume + _smallest_change(beyond, scans)
    return volume


def _smallest_change(wanted: list[Tensor], scans: Sequence[Measurement], *, iterations: int = 100) -> Tensor:
    """Of the changes with the least |A c - wanted|^2 the smallest: CGLS from zero (Bjorck 1996, algorithm 7.4.1)."""
    gradient = _adjoint(wanted, scans)
    change, direction, energy = torch.zeros_like(gradient), gradient.clone(), _dot([gradient], [gradient])
    least = _CONVERGED * energy  # below, the gradient of float32 intensities is rounding
    for _ in range(iterations):
        if energy <= least or all(s.rms(w) <= _TOLERANCE * allowed(s) for w, s in zip(wanted, scans, strict=True)):
            break
        seen = [scan.operator.forward(direction) for scan in scans]
        curvature = _dot(seen, seen)
        if curvature <= 0:
            break
        step = energy / curvature
        change += step * direction
        wanted = [w - step * q for w, q in zip(wanted, seen, strict=True)]
        gradient = _adjoint(wanted, scans)
        previous, energy = energy, _dot([gradient], [gradient])
        direction = gradient + (energy / previous) * direction
    return change


def _adjoint(residual: Sequence[Tensor], scans: Sequence[Measurement]) -> Tensor:
    return sum(scan.operator.adjoint(r) for r, scan in zip(residual, scans, strict=True))


def _beyond_the_noise(residual: Tensor, scan: Measurement) -> Tensor:
    """What is left of a residual once as much of each value is taken as keeps their root mean square at the noise."""
    noise = allowed(scan)
    if scan.rms(residual) <= noise:
        return torch.zeros_like(residual)
    low, high = 0.0, float(residual.abs().max())
    for _ in range(40):
        limit = (low + high) / 2
        explained = scan.rms(residual.clamp(-limit, limit)) < (1 - _TOLERANCE) * noise
        low, high = (limit, high) if explained else (low, limit)
    return residual - residual.clamp(-low, low)


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(sum(torch.sum(x.double() * y.double()) for x, y in zip(a, b, strict=True)))
