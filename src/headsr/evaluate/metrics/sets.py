"""How far apart two sets of images are, by features of them: rows of (N, D), however they were made.

Rows count as independent. Neighbouring slices of one head are not, so that errors over slices are too small. Every
distance comes with its N: small sets are far apart by their size alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCKS = 10
_NUMBERS = 2**24  # of a kernel in memory: 128 MB, of all pairs of 4096 rows


@dataclass(frozen=True)
class Distance:
    """A distance between two sets; ``n`` rows of the smaller one made it, ``error`` is its standard error or NaN."""

    value: float
    n: int
    error: float = math.nan


def fid(features: NDArray, reference: NDArray) -> Distance:
    """The Fréchet distance |m - m'|² + tr(S + S' - 2 (S S')^½) of two sets (N, D), (N', D) as if they were Gaussian.

    Heusel et al. (2017), by MONAI. It takes the root of a product that has no full rank below D + 1 rows, with an
    error of 1e-7 of the product's size, and refuses features of large size; so features come to it in units of
    their spread. Biased upwards by about D / N of the spread.
    """
    import torch
    from monai.metrics.fid import get_fid_score

    n = _smaller(features, reference)
    both = [np.asarray(rows, dtype=np.float64) for rows in (features, reference)]
    spread = math.sqrt(sum(rows.var(axis=0).sum() for rows in both))
    if spread == 0:
        return Distance(float(((both[0][0] - both[1][0]) ** 2).sum()), n)
    distance = float(get_fid_score(*(torch.from_numpy(rows / spread) for rows in both)))
    return Distance(max(distance, 0.0) * spread**2, n)


def kid(features: NDArray, reference: NDArray) -> Distance:
    """The kernel distance of Bińkowski et al. (2018): unbiased MMD² of two sets with the kernel (x·y / D + 1)³.

    Around 0 for sets of one distribution, whatever their size, and so below 0 at times. ``error`` is the jackknife's,
    which leaves out one of ten blocks of both sets at a time: up to twice too large for sets that are alike. NaN for
    fewer rows than blocks.
    """
    n = _smaller(features, reference)
    value = _mmd2(features, reference)
    if n < _BLOCKS:
        return Distance(value, n)
    without = [_mmd2(*(np.delete(r, np.s_[i::_BLOCKS], axis=0) for r in (features, reference))) for i in range(_BLOCKS)]
    return Distance(value, n, float(np.std(without)) * math.sqrt(_BLOCKS - 1))


def _smaller(features: NDArray, reference: NDArray) -> int:
    """The number of rows of the smaller set. Raises ValueError for features of different length or single rows."""
    if features.ndim != 2 or reference.ndim != 2 or features.shape[1] != reference.shape[1]:
        raise ValueError(f"sets of features are (N, D) with the same D, not {features.shape} and {reference.shape}")
    if min(len(features), len(reference)) < 2:
        raise ValueError(f"a set needs at least two rows, not {len(features)} and {len(reference)}")
    return min(len(features), len(reference))


def _mmd2(features: NDArray, reference: NDArray) -> float:
    x, y = (np.asarray(rows, dtype=np.float64) for rows in (features, reference))
    between = sum(float(_kernel(x[part], y).sum()) for part in _parts(len(x), len(y))) / (len(x) * len(y))
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2.0 * between


def _kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _mean_of_pairs(rows: NDArray[np.float64]) -> float:
    """The mean kernel of two different rows."""
    n, total = len(rows), 0.0
    for part in _parts(n, n):
        kernel = _kernel(rows[part], rows)
        total += float(kernel.sum() - np.trace(kernel, offset=part.start))
    return total / (n * (n - 1))


def _parts(n: int, others: int) -> list[slice]:
    """As many of n rows at a time as a kernel with all others may have numbers."""
    size = max(1, _NUMBERS // others)
    return [slice(start, start + size) for start in range(0, n, size)]
