"""Traces of the thick slices in a volume: steps at their borders, stripes at their spacing.

Each compares the volume with itself and is divided by the same number of the truth: anatomy that happens to lie at a
border is no seam. Where scans are thick along several axes, the worst axis counts. NaN where no scan is thick.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from headsr.evaluate.metrics.comparison import Comparison, steps_along, steps_inside, worst_axis

_BESIDE = np.array([-5.0, -4.0, -3.0, 3.0, 4.0, 5.0])  # cycles along the mask: beyond the width of the peak itself


def seam_ratio(comparison: Comparison) -> float:
    """Mean absolute step across the borders of thick slices over that of all steps, relative to the truth's.

    1: no seams; the spacing in voxels: steps at the borders alone, as in nearest neighbours. Where the spacing is no
    whole number, a border lies at the nearest step.
    """
    return worst_axis(comparison, _seam_ratio_along, max)


def stripe_peak(comparison: Comparison) -> float:
    """Power at the frequency of the slices over the mean power beside it, relative to the truth's. 1: no stripes.

    A notch counts like a peak of the same height: slices joined by straight lines leave one. Wherever the slices begin.
    The spectrum is that of the rises max(v[i + 1] - v[i], 0) of every line along the thick axis, summed over the lines.
    Rises answer in the first order to stripes of brightness and to steps or sharpness that come and go with the
    slices; absolute steps miss the former, intensities the latter.
    """
    return worst_axis(comparison, _stripe_peak_along, max)


def _seam_ratio_along(comparison: Comparison, axis: int) -> float:
    inside = steps_inside(comparison.mask, axis)
    spacing = comparison.spacings[axis]
    at_border = _at_border(len(inside), spacing, comparison.borders[axis] if comparison.borders else spacing)
    seams = (_seams(steps_along(v, axis), inside, at_border) for v in (comparison.volume, comparison.truth))
    return _ratio(*seams)


def _at_border(n: int, spacing: float, first: float) -> NDArray[np.bool_]:
    """Which of n steps lie on a border between slices; ``first`` is the first, in voxels from the face."""
    borders = np.rint(first + np.arange(n / spacing) * spacing).astype(int) - 1
    return np.isin(np.arange(n), borders)


def _seams(steps: NDArray[np.float32], inside: NDArray[np.bool_], at_border: NDArray[np.bool_]) -> float:
    return _ratio(_mean_size(steps[at_border], inside[at_border]), _mean_size(steps, inside))


def _mean_size(steps: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    return _ratio(np.abs(steps).sum(where=inside, dtype=np.float64), inside.sum())


def _stripe_peak_along(comparison: Comparison, axis: int) -> float:
    box = comparison.box(0)
    inside = steps_inside(comparison.mask[box], axis)
    if not inside.any():
        return math.nan
    steps = (steps_along(volume[box], axis) for volume in (comparison.volume, comparison.truth))
    volume, truth = (_peak(np.maximum(s, 0) * inside, comparison.spacings[axis]) for s in steps)
    return max(_ratio(volume, truth), _ratio(truth, volume))


def _peak(rises: NDArray[np.float32], spacing: float) -> float:
    """Power of lines (n, ...) at one cycle per spacing over that beside it."""
    n = len(rises)
    frequencies = 1 / spacing + np.concatenate([[0.0], _BESIDE]) / n
    waves = np.exp(-2j * np.pi * frequencies[:, None] * np.arange(n)).astype(np.complex64)
    power = (np.abs(waves @ rises.reshape(n, -1)) ** 2).sum(axis=1, dtype=np.float64)
    return _ratio(power[0], stats.gmean(power[1:]))  # a geometric mean: spectra fall steeply


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else math.nan
