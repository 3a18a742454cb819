"""Whether a volume's foretold uncertainty is true. NaN for a method that foretells none."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from headsr.evaluate.metrics.comparison import Comparison


def coverage(comparison: Comparison) -> float:
    """The share of the mask's voxels whose error is within the interval that is to hold 90 % of them."""
    if comparison.uncertainty is None:
        return math.nan
    return float((_errors(comparison) <= comparison.uncertainty[comparison.mask]).mean())


def uncertainty_rank(comparison: Comparison) -> float:
    """Spearman's correlation of the foretold uncertainty with the error's size; NaN where one of them is constant."""
    if comparison.uncertainty is None:
        return math.nan
    foretold, errors = comparison.uncertainty[comparison.mask], _errors(comparison)
    if np.ptp(foretold) == 0 or np.ptp(errors) == 0:
        return math.nan
    return float(stats.spearmanr(foretold, errors).statistic)


def _errors(comparison: Comparison) -> np.ndarray:
    return np.abs(comparison.volume[comparison.mask] - comparison.truth[comparison.mask])
