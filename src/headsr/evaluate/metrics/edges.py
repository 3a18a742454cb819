"""How sharp a volume is along the thick axes of its scans, at the places where the truth has edges.

Where scans are thick along several axes, the worst axis counts. NaN where no scan is thick.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from headsr.evaluate.metrics.comparison import Comparison, steps_along, steps_inside, worst_axis

_STRONG = 95.0  # percentile of the truth's steps from which one is an edge
_STRAIGHT = 0.8  # of all steps around an edge, what its rise must amount to: nothing else happens there
_FEWEST = 50
_PEAK = np.arange(-2, 3)  # steps around the steepest that say where between voxels an edge lies
_BIN = 0.25  # voxels
_FLAT = 0.1  # of the truth's rise; less is no edge
_RISE = 2.0 * special.ndtri(0.9)  # from 10 % to 90 % of an error function, in its sigma


def edge_width(comparison: Comparison) -> float:
    """10 to 90 % rise in mm of the mean edge along the thick axis: that of the error function fitted to it.

    Edges are the truth's strongest steps that rise alone within a slice's spacing and two voxels on either side. The
    volume's profiles there are laid over each other, as in the slanted-edge method, so that an edge in the wrong place
    widens the mean as a blurred one does. NaN for fewer than 50 edges, or where the volume has none in their place.
    """
    return worst_axis(comparison, _width_along, max)


def sharpness(comparison: Comparison) -> float:
    """How much of the truth's gradients along the thick axis the volume has: sum(dv dt) / sum(dt dt) in the mask.

    headsr's own measure; dv and dt are the steps from voxel to voxel of volume and truth. 1: as sharp as the truth,
    below: blurred, above: oversharpened. Noise, stripes and invented detail leave it alone, unlike a mean gradient.
    """
    return worst_axis(comparison, _sharpness_along, min)


def _sharpness_along(comparison: Comparison, axis: int) -> float:
    inside = steps_inside(comparison.mask, axis)
    dv, dt = (steps_along(v, axis)[inside].astype(np.float64) for v in (comparison.volume, comparison.truth))
    return float(dv @ dt / (dt @ dt)) if dt.any() else math.nan


def _width_along(comparison: Comparison, axis: int) -> float:
    reach = math.ceil(comparison.spacings[axis]) + 2
    volume, truth, mask = (_lines(v, axis) for v in (comparison.volume, comparison.truth, comparison.mask))
    around = np.arange(1 - reach, reach + 1)[:, None]  # voxels around the step from 0 to 1
    at, line = _steepest(truth, steps_inside(mask, 0), reach)
    before = truth[at + around, line]
    straight = np.abs(before[-1] - before[0]) > _STRAIGHT * np.abs(np.diff(before, axis=0)).sum(axis=0)
    at, line, before = at[straight], line[straight], before[:, straight]
    if at.size < _FEWEST:
        return math.nan
    heights = (volume[at + around, line] - before[0]) / (before[-1] - before[0])
    return _fitted_rise(around - 0.5 - _offsets(truth, at, line), heights) * float(comparison.voxel_mm[axis])


def _lines(volume: NDArray, axis: int) -> NDArray:
    """The lines along an axis: (n, number of lines)."""
    return np.moveaxis(volume, axis, 0).reshape(volume.shape[axis], -1)


def _steepest(
    truth: NDArray[np.float32], inside: NDArray[np.bool_], reach: int
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Strong steps of lines (n, L), steeper than their neighbours, ``reach`` voxels from the ends: (step, line)."""
    size = np.abs(np.diff(truth, axis=0)) * inside
    if not size.any():
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    strong = size > np.percentile(size[inside], _STRONG)
    strong[1:-1] &= (size[1:-1] >= size[:-2]) & (size[1:-1] > size[2:])
    strong[: reach - 1] = strong[len(strong) - reach + 1 :] = False
    at, line = np.nonzero(strong)
    return at, line


def _offsets(truth: NDArray[np.float32], at: NDArray[np.int_], line: NDArray[np.int_]) -> NDArray[np.float32]:
    """Where the edges lie, in voxels from the middle of their steepest step: the centroid of the steps around it."""
    around = at + _PEAK[:, None]
    size = np.abs(truth[around + 1, line] - truth[around, line])
    return (_PEAK[:, None] * size).sum(axis=0) / size.sum(axis=0)


def _fitted_rise(positions: NDArray[np.float32], heights: NDArray[np.float32]) -> float:
    """10 to 90 % rise of the error function through the mean edge, in voxels; NaN where there is no edge."""
    bins = np.rint(positions / _BIN).astype(int)
    bins = (bins - bins.min()).ravel()
    n = np.bincount(bins)
    mean_position, mean_height = (np.bincount(bins, v.ravel())[n > 0] / n[n > 0] for v in (positions, heights))
    try:
        (_, height, _, sigma), _ = optimize.curve_fit(
            _error_function,
            mean_position,
            mean_height,
            p0=(0.0, 1.0, 0.0, 1.0),
            sigma=n[n > 0] ** -0.5,
            bounds=(
                [-np.inf, -np.inf, positions.min(), _BIN / 4],
                [np.inf, np.inf, positions.max(), np.ptp(positions)],
            ),
        )
    except RuntimeError:  # no error function comes near it
        return math.nan
    return float(_RISE * sigma) if height > _FLAT else math.nan


def _error_function(
    x: NDArray[np.float64], low: float, height: float, middle: float, sigma: float
) -> NDArray[np.float64]:
    return low + height * special.ndtr((x - middle) / sigma)
