"""Slice profiles: the weight with which each thin cell contributes to one thick sample.

Box and Gaussian (FWHM = thickness) as in slice-to-volume reconstruction; the anti-aliased cubic of Keys (1981).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PROFILES = ("box", "gaussian", "cubic")
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def profile_matrix(n: int, centres: NDArray[np.float64], thickness: float, profile: str = "box") -> NDArray[np.float64]:
    """Weights (len(centres), n) of n unit cells in each sample; every row sums to one.

    ``centres`` and ``thickness`` are in cells (cell i spans i - 0.5 to i + 0.5). A sample that reaches outside is the
    mean of what lies inside, so a constant stays that constant.
    """
    cells = np.arange(n)[None, :]
    distance = cells - np.asarray(centres, dtype=np.float64)[:, None]
    if profile == "box":
        half = thickness / 2
        weights = np.clip(np.minimum(distance + 0.5, half) - np.maximum(distance - 0.5, -half), 0, None)
    elif profile == "gaussian":
        sigma = thickness / _FWHM_PER_SIGMA
        weights = np.exp(-0.5 * (distance / sigma) ** 2)
        weights[np.abs(distance) > 4 * sigma + 1] = 0
    elif profile == "cubic":
        weights = _keys_cubic(distance / max(thickness, 1.0))
    else:
        raise ValueError(f"unknown slice profile {profile!r}; choose one of {', '.join(PROFILES)}")
    total = weights.sum(axis=1, keepdims=True)
    if (total <= 0).any():
        raise ValueError("a sample lies wholly outside the grid that it samples")
    return weights / total


def _keys_cubic(x: NDArray[np.float64], a: float = -0.5) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel (1981, eq. 4) with support [-2, 2]."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
