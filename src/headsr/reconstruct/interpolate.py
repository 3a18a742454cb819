"""Cubic B-spline interpolation of one scan, and the fused average of all scans (CubeAvg, methods a.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headsr.acquisition.measurement import Measurement, Study
from headsr.recipes import Average, Spline
from headsr.reconstruct.estimate import Estimate
from headsr.volumes import Grid, Volume, spline_resample

if TYPE_CHECKING:
    from headsr.weights import TrainedModel


def spline(study: Study, method: Spline, models: Mapping[str, TrainedModel]) -> Estimate:
    """The interpolation of the first scan alone."""
    return Estimate(average_of(study.scans[:1], study.head), {"interpolated_scans": 1})


def average(study: Study, method: Average, models: Mapping[str, TrainedModel]) -> Estimate:
    """The fused average of all scans."""
    return Estimate(fused_average(study), {"interpolated_scans": len(study.scans)})


def fused_average(study: Study) -> NDArray[np.float32]:
    """The average of all scans: (X, Y, Z) on the head's grid, normalised intensities."""
    return average_of(study.scans, study.head)


def average_of(scans: Sequence[Measurement], head: Grid) -> NDArray[np.float32]:
    """The mean of the scans' spline interpolations (X, Y, Z), everywhere over those whose field of view reaches there.

    What no scan saw is zero, as air is.
    """
    total, count = np.zeros(head.shape, np.float32), np.zeros(head.shape, np.float32)
    for scan in scans:
        inside = in_view(scan.operator.scan, head)
        total += spline_of(scan, head) * inside
        count += inside
    return total / np.maximum(count, 1)


def in_view(scan: Grid, head: Grid) -> NDArray[np.bool_]:
    """Which voxel centres of ``head`` (X, Y, Z) lie in the field-of-view box of ``scan``, whatever its placement."""
    index = np.linalg.inv(scan.affine) @ head.affine
    inside = np.ones(head.shape, dtype=bool)
    for axis, n in enumerate(scan.shape):
        x, y, z = (index[axis, i] * np.arange(size) for i, size in enumerate(head.shape))
        place = x[:, None, None] + (y[:, None] + (z + index[axis, 3]))
        inside &= np.abs(place - (n - 1) / 2) <= n / 2 + 1e-3
    return inside


def spline_of(scan: Measurement, head: Grid) -> NDArray[np.float32]:
    """One scan interpolated onto the head's grid (X, Y, Z), along its thick axis and wherever else the grids differ."""
    return spline_resample(Volume(scan.data.cpu().numpy(), scan.operator.scan), head)
