"""Two scans of one head compared where both see it: the gain between their intensities, and how well they agree.

Scans with different slices are different blurs of the head. Each is smoothed in the directions in which it is the
sharper one, to the variance of the thickest slice in every direction; then what is left to differ is intensity, noise
and a wrong placement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.acquisition.placement import PlacedScan, working_size
from headsr.volumes import Grid

_HEAD = 0.25  # of the 90th percentile: what is darker is air or bone
_OUTLIER = 3.0  # robust standard deviations
_ROUNDS = 10
_PER_DEVIATION = 1.4826  # of a normal distribution's median absolute deviation


@dataclass(frozen=True)
class Agreement:
    """``gain``: moving = gain * reference. ``correlation`` and ``residual`` (rms, in the reference's intensities) of
    the two once the gain is divided out, over the ``shared_mm3`` of head that both scans see, and ``overlap``, the
    share of the smaller scan's head that this is."""

    gain: float
    correlation: float
    residual: float
    shared_mm3: float
    overlap: float


def compare(moving: PlacedScan, reference: PlacedScan) -> Agreement:
    """Compare two scans of the same contrast where they lie.

    The gain is a ratio of sums, so it does not depend on which of the two is the noisier or the more blurred; voxels
    that disagree by more than three robust deviations are left out. There is no offset: a magnitude image starts at
    zero. Where the scans share no head all numbers are zero.
    """
    return _agreement(*_on_one_grid(moving, reference))


def _on_one_grid(moving: PlacedScan, reference: PlacedScan) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    size = working_size(moving, reference)
    widest = max(moving.extents.max(), reference.extents.max())
    grid = reference.volume.grid.at_voxel_size(size)
    a, b = (_sampled(scan, widest, grid) for scan in (reference, moving))
    return a, b, float(np.prod(grid.voxel_size))


def _sampled(scan: PlacedScan, widest_mm: float, grid: Grid) -> NDArray[np.float32]:
    """The scan blurred to the variance of a box of ``widest_mm`` in every direction, on a grid; NaN outside it."""
    own = scan.volume.grid
    sigma = np.sqrt(np.maximum(widest_mm**2 - scan.extents**2, 0) / 12) / own.voxel_size
    blurred = ndimage.gaussian_filter(scan.volume.data, sigma, mode="nearest")
    index = np.linalg.inv(own.affine) @ grid.affine
    return ndimage.affine_transform(
        blurred, index[:3, :3], offset=index[:3, 3], output_shape=grid.shape, order=3, mode="constant", cval=np.nan
    )


def _agreement(a: NDArray[np.float32], b: NDArray[np.float32], cell_mm3: float) -> Agreement:
    in_a, in_b = (_bright(values) for values in (a, b))
    head = in_a & in_b
    if head.sum() < 2:
        return Agreement(0.0, 0.0, 0.0, 0.0, 0.0)
    a, b = a[head].astype(np.float64), b[head].astype(np.float64)
    gain = _gain(a, b)
    overlap = head.sum() / min(in_a.sum(), in_b.sum())
    residual = float(np.sqrt(np.mean((b / gain - a) ** 2)))
    return Agreement(gain, float(np.corrcoef(a, b)[0, 1]), residual, float(head.sum() * cell_mm3), float(overlap))


def _bright(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a scan sees the head."""
    inside = values[np.isfinite(values)]
    return np.nan_to_num(values) > _HEAD * np.percentile(inside, 90) if inside.size else np.zeros(values.shape, bool)


def _gain(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """b / a as the ratio of their sums over the voxels that agree with it."""
    gain = np.median(b / a)
    for _ in range(_ROUNDS):
        off = np.abs(b - gain * a)
        kept = off <= _OUTLIER * _PER_DEVIATION * np.median(off)
        gain = b[kept].sum() / a[kept].sum()
    return float(gain)
