"""The scans of one head as one operator, where they see the head; and least squares with it, one step at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from headsr.acquisition.measurement import Measurement, head_voxels

_SEEN = 0.01  # of a sample: less of the head in it is nothing
_CONVERGED = 1e-8


@dataclass(frozen=True, eq=False)
class NearHead:
    """The operators of several scans, with the samples that say nothing of the head left out.

    ``samples`` (x, y, z of each scan; bool) see some of the ``voxels`` (X, Y, Z; bool) of the head; how much air lies
    around them is no matter. ``free`` are the voxels that may change, all where it is None.
    """

    scans: tuple[Measurement, ...]
    voxels: Tensor
    samples: tuple[Tensor, ...]
    free: Tensor | None = None

    def forward(self, volume: Tensor) -> list[Tensor]:
        """What each scan takes of a change (X, Y, Z) of the free voxels."""
        free = volume if self.free is None else volume * self.free
        return [s.operator.forward(free) * near for s, near in zip(self.scans, self.samples, strict=True)]

    def adjoint(self, residuals: Sequence[Tensor]) -> Tensor:
        """The transpose of ``forward``."""
        triples = zip(self.scans, self.samples, residuals, strict=True)
        back = sum(scan.operator.adjoint(r * near) for scan, near, r in triples)
        return back if self.free is None else back * self.free

    def only(self, free: Tensor) -> NearHead:
        """The same where only the voxels ``free`` may change."""
        return replace(self, free=free)

    def left_by(self, volume: Tensor) -> list[Tensor]:
        """y - A x of every scan, zero where it says nothing of the head."""
        measured = [scan.data * near for scan, near in zip(self.scans, self.samples, strict=True)]
        return [y - ax for y, ax in zip(measured, replace(self, free=None).forward(volume), strict=True)]

    def rms(self, residuals: Sequence[Tensor]) -> list[float]:
        """The root mean square of every scan's residual over the head."""
        return [scan.rms(r) for scan, r in zip(self.scans, residuals, strict=True)]

    def size(self, change: Tensor) -> float:
        """The root mean square of a change (X, Y, Z) over the head."""
        return (dot([change * self.voxels], [change]) / max(1, int(self.voxels.sum()))) ** 0.5

    def descent(self, wanted: list[Tensor]) -> Iterator[tuple[Tensor, float, list[Tensor]]]:
        """CGLS from zero towards the least |A c - wanted|^2 (Bjorck 1996, algorithm 7.4.1).

        The steps: a direction (X, Y, Z), how far to go along it, and what is then left of ``wanted``. Their sums grow,
        and tend to the smallest of the changes with the least left.
        """
        gradient = self.adjoint(wanted)
        direction, energy = gradient, dot([gradient], [gradient])
        least = _CONVERGED * energy  # below, the gradient of float32 intensities is rounding
        while energy > least:
            seen = self.forward(direction)
            curvature = dot(seen, seen)
            if curvature <= 0:
                return
            step = energy / curvature
            wanted = [w - step * q for w, q in zip(wanted, seen, strict=True)]
            yield direction, step, wanted
            gradient = self.adjoint(wanted)
            previous, energy = energy, dot([gradient], [gradient])
            direction = gradient + (energy / previous) * direction


def near_head(scans: Sequence[Measurement]) -> NearHead:
    """The scans near the head that they see."""
    voxels = head_voxels(scans)
    seen = [scan.operator.forward(voxels.to(scan.data.dtype)).abs() > _SEEN for scan in scans]
    return NearHead(tuple(scans), voxels, tuple(near | s.head for near, s in zip(seen, scans, strict=True)))


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The inner product of two lists of tensors."""
    return float(sum(torch.sum(x.double() * y.double()) for x, y in zip(a, b, strict=True)))
