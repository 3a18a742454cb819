"""What the scans of a head say of any volume of it: what an unrolled network is given instead of a training setting.

The scans enter through their operators A_k alone. With v_k, 1/noise_k^2 relative to the least noisy scan, and f, how
many voxels of the head a sample stands for in the mean, everything follows from sum_k f v_k |A_k x - y_k|^2, whose
normal matrix has about the norm 1 at any factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.least_squares import roughness, steepness
from headsr.acquisition.measurement import Study
from headsr.acquisition.operator import Acquisition
from headsr.volumes import Grid

# What a volume is smoothed by to begin with, per unit of f: without noise, and for each variance of it.
_SMOOTH, _SMOOTH_PER_VARIANCE = 3e-4, 60.0
_ITERATIONS = 12
_LEAST_GRAIN = 1e-4  # of the range: a head without any detail has none to restore
_LEAST_NOISE = 1e-3  # below it, noise makes no difference to what can be known of a head
_SEEN = 1e-3  # of the greatest sensitivity: where less is seen, nothing is known


class Evidence:
    """The scans of N heads that were measured alike: operators A_k, data (N, 1, x, y, z) and noise of each scan.

    Volumes are (N, 1, X, Y, Z), float32, on the grid that all operators share. ``noise`` are standard deviations,
    ``voxel_mm`` (N,) the mean voxel sizes of the heads, where the grid counts in voxels.
    """

    def __init__(
        self,
        operators: Sequence[Acquisition],
        scans: Sequence[Tensor],
        noise: Sequence[float],
        *,
        voxel_mm: Tensor | None = None,
    ) -> None:
        self.operators, self.scans, self.noise = list(operators), list(scans), [max(n, _LEAST_NOISE) for n in noise]
        self.head: Grid = self.operators[0].head
        size = float(np.exp(np.log(self.head.voxel_size).mean()))
        self._voxel_mm = torch.tensor([size]) if voxel_mm is None else voxel_mm
        self.trust = [(min(self.noise) / n) ** 2 for n in self.noise]
        self.fineness = float(np.mean([np.prod(_spacing(operator)) for operator in self.operators]))
        self._seen = [operator.adjoint(operator.covered.to(self.scans[0].dtype)) for operator in self.operators]
        self._target = self._back(self.scans)

    @classmethod
    def of(cls, study: Study) -> Evidence:
        """The scans of one head as they were measured."""
        scans = study.scans
        return cls([s.operator for s in scans], [s.data[None, None] for s in scans], [s.noise for s in scans])

    @property
    def variance(self) -> float:
        """f times the least variance of the noise: what one unit of the normal equations is worth."""
        return self.fineness * min(self.noise) ** 2

    def normal(self, x: Tensor) -> Tensor:
        """sum_k f v_k A_k^T A_k x."""
        return self._back([operator.forward(x) for operator in self.operators])

    @cached_property
    def start(self) -> Tensor:
        """Smooth least squares of few steps from the mean of what the scans show, where the network begins."""
        weight = self.fineness * _SMOOTH + _SMOOTH_PER_VARIANCE * self.variance
        steep = steepness(self.head)

        def normal(x: Tensor) -> Tensor:
            rough = roughness(x.permute(2, 3, 4, 0, 1), steep).permute(3, 4, 0, 1, 2)
            return self.normal(x) + weight * rough

        return _solved(normal, self._target, self._mean_over(self.scans), iterations=_ITERATIONS)

    @cached_property
    def grain(self) -> Tensor:
        """How much neighbouring voxels of the start differ where they do, (N, 1, 1, 1, 1): the scale of all detail.

        The contraharmonic mean of their differences, to which the air around a head adds nothing.
        """
        total = square = 0.0
        for axis in (2, 3, 4):
            step = self.start.diff(dim=axis).abs()
            total = total + step.sum(dim=(1, 2, 3, 4), keepdim=True)
            square = square + step.square().sum(dim=(1, 2, 3, 4), keepdim=True)
        return (square / total.clamp_min(1e-20)).clamp_min(_LEAST_GRAIN)

    def agreeing(self, estimate: Tensor, rho: Tensor, *, iterations: int) -> Tensor:
        """Towards argmin_x sum_k f v_k |A_k x - y_k|^2 + rho |x - estimate|^2 by conjugate gradients from the estimate.

        ``rho`` (N, 1, 1, 1, 1) says how far the estimate is trusted against the scans.
        """
        return _solved(
            lambda x: self.normal(x) + rho * x, self._target + rho * estimate, estimate, iterations=iterations
        )

    def misfits(self, x: Tensor) -> Tensor:
        """y - A x as each voxel's slices see it, (N, 3, X, Y, Z): of the scans that are coarse along each axis.

        Where no scan is coarse along an axis, zero.
        """
        return torch.cat(self._by_axis([y - a.forward(x) for a, y in zip(self.operators, self.scans, strict=True)]), 1)

    def shown(self) -> Tensor:
        """What the scans that are coarse along each axis show at each voxel less the start, (N, 3, X, Y, Z).

        Where no scan is coarse along an axis, zero.
        """
        means, found = self._by_axis(self.scans), self.axes()
        return torch.cat([mean - self.start if axis in found else mean for axis, mean in enumerate(means)], dim=1)

    def places(self) -> Tensor:
        """Where each voxel lies in its slices, (1, 4, X, Y, Z): per axis its distance from their middle, in slices.

        The last channel is 1 where any scan sees the voxel.
        """
        offsets, seen = [], torch.stack(self._seen).sum(0)
        for axis in range(3):
            total, count = torch.zeros_like(seen), 0
            for operator, sensitivity in zip(self.operators, self._seen, strict=True):
                for own, towards in zip(operator.coarse, _towards(operator), strict=True):
                    if towards == axis:
                        total, count = total + _offset(operator, own, sensitivity), count + 1
            offsets.append(total / max(1, count))
        covered = (seen > _SEEN * seen.amax()).to(seen.dtype)
        return torch.stack([*offsets, covered])[None]

    def axes(self) -> set[int]:
        """The axes of the head along which any scan is coarse."""
        return {axis for operator in self.operators for axis in _towards(operator)}

    def reaches(self) -> NDArray[np.float64]:
        """How many voxels a sample of each scan reaches across along each axis of the head, (K, 3).

        Along axes that the scan is not coarse along, 1.
        """
        found = np.ones((len(self.operators), 3))
        for row, operator in zip(found, self.operators, strict=True):
            for own, towards in zip(operator.coarse, _towards(operator), strict=True):
                row[towards] = _extent(operator)[own]
        return found

    def traits(self) -> Tensor:
        """What is the same at every voxel, (N, 13): per axis whether a scan is coarse along it, the distance and the
        thickness of its slices (octaves of voxels), then the least noise (three octaves of 1 %), the number of scans
        (thirds), the voxel size (octaves of mm) and the noise in units of the grain (three octaves).
        """
        found = np.zeros((3, 3))
        for operator in self.operators:
            spacing, extent = _spacing(operator), _extent(operator)
            for own, towards in zip(operator.coarse, _towards(operator), strict=True):
                found[towards] += [1, np.log2(spacing[own]), np.log2(extent[own])]
        found[:, 1:] /= np.maximum(1, found[:, :1])
        found[:, 0] = np.minimum(found[:, 0], 1)
        noise = np.log2(min(self.noise) / 0.01) / 3
        shared = torch.tensor([*found.ravel(), noise, len(self.operators) / 3], dtype=torch.float32)
        size = self._voxel_mm.float().log2().to(self.start.device)[:, None]
        against = (min(self.noise) / self.grain).log2().flatten(1) / 3
        heads = len(against)
        return torch.cat([shared.to(against).expand(heads, -1), size.expand(heads, -1), against], dim=1)

    def _back(self, samples: Sequence[Tensor]) -> Tensor:
        """sum_k f v_k A_k^T y_k."""
        parts = zip(self.trust, self.operators, samples, strict=True)
        return sum(self.fineness * v * operator.adjoint(y) for v, operator, y in parts)

    def _mean_over(self, samples: Sequence[Tensor], which: Sequence[int] | None = None) -> Tensor:
        """What some scans (None: all) show at every voxel, in the mean; zero where none does."""
        which = range(len(samples)) if which is None else which
        total = sum(self.trust[k] * self.operators[k].adjoint(samples[k]) for k in which)
        seen = sum(self.trust[k] * self._seen[k] for k in which)
        known = seen > _SEEN * seen.amax()
        return torch.where(known, total / torch.where(known, seen, torch.ones_like(seen)), torch.zeros_like(total))

    def _by_axis(self, samples: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for axis in range(3):
            which = [k for k, operator in enumerate(self.operators) if axis in _towards(operator)]
            found.append(self._mean_over(samples, which) if which else torch.zeros_like(self._target))
        return found


def _spacing(operator: Acquisition) -> np.ndarray:
    """How many voxels of the head lie between samples along each axis of the scan."""
    return operator.scan.voxel_size / operator.steps


def _extent(operator: Acquisition) -> np.ndarray:
    """How many voxels of the head a sample reaches across along each axis of the scan."""
    return operator.extents / operator.steps


def _towards(operator: Acquisition) -> list[int]:
    """For each coarse axis of a scan the axis of the head that it is nearest to."""
    into_head = np.linalg.inv(operator.head.affine[:3, :3]) @ operator.scan.affine[:3, :3]
    return [int(np.abs(into_head[:, axis]).argmax()) for axis in operator.coarse]


def _offset(operator: Acquisition, axis: int, sensitivity: Tensor) -> Tensor:
    """How far each voxel (X, Y, Z) lies from the middle of the slices that see it, along one axis, in slices."""
    index = torch.arange(operator.scan.shape[axis], dtype=sensitivity.dtype, device=sensitivity.device)
    index = index.reshape([-1 if i == axis else 1 for i in range(3)]).expand(operator.scan.shape)
    seen = sensitivity.clamp_min(1e-6)
    middle = operator.adjoint(torch.where(operator.covered, index, torch.zeros_like(index))) / seen
    to_scan = np.linalg.inv(operator.scan.affine) @ operator.head.affine
    x, y, z = (
        torch.arange(n, dtype=sensitivity.dtype, device=sensitivity.device) * step
        for n, step in zip(operator.head.shape, to_scan[axis, :3].tolist(), strict=True)
    )
    place = x[:, None, None] + y[:, None] + z + float(to_scan[axis, 3])
    known = sensitivity > _SEEN * sensitivity.amax()
    return torch.where(known, (place - middle).clamp(-2, 2), torch.zeros_like(place))


def _solved(normal: Callable[[Tensor], Tensor], target: Tensor, start: Tensor, *, iterations: int) -> Tensor:
    """Some steps of conjugate gradients for every head of a batch by itself, differentiable. Hestenes, Stiefel 1952."""
    x, residual = start, target - normal(start)
    direction, energy = residual, _energy(residual, residual)
    for _ in range(iterations):
        image = normal(direction)
        step = energy / _energy(direction, image).clamp_min(1e-20)
        x = x + step * direction
        residual = residual - step * image
        previous, energy = energy, _energy(residual, residual)
        direction = residual + energy / previous.clamp_min(1e-20) * direction
    return x


def _energy(a: Tensor, b: Tensor) -> Tensor:
    """a . b of every head of a batch, (N, 1, 1, 1, 1)."""
    return (a * b).sum(dim=(1, 2, 3, 4), keepdim=True)
