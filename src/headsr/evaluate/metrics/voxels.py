"""How near a volume is to the truth: PSNR, SSIM and NRMSE inside a mask, always with a stated data range.

Nothing is estimated from the images: a range taken from the data makes numbers of two volumes incomparable. Values are
never clipped.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from headsr.evaluate.metrics.comparison import Comparison

_SIGMA = 1.5
_WINDOW = 11  # what the library's Gaussian of that sigma spans: 2 int(3.5 sigma + 0.5) + 1


def psnr(comparison: Comparison) -> float:
    """Peak signal-to-noise ratio in dB, 20 log10(data range / root mean square error); infinite for equal volumes."""
    mse = _mean_square_error(comparison)
    return float(10.0 * np.log10(comparison.data_range**2 / mse)) if mse > 0 else float("inf")


def nrmse(comparison: Comparison) -> float:
    """Root mean square error over the root mean square of the truth; NaN where that is zero."""
    there = _mean_square(comparison.truth[comparison.mask])
    return float(np.sqrt(_mean_square_error(comparison) / there)) if there > 0 else math.nan


def ssim(comparison: Comparison) -> float:
    """The mean of ``ssim_map``. The map is made once, on the box around the first mask that asks for it.

    A mask that reaches beyond the box has it made anew. Raises ValueError as ``ssim_map``.
    """
    known = comparison.maps.get("ssim")
    if known is None or np.isnan(known[comparison.mask]).any():
        known = comparison.maps["ssim"] = _ssim_around(comparison)
    return float(known[comparison.mask].mean(dtype=np.float64))


def ssim_map(volume: NDArray, truth: NDArray, *, data_range: float) -> NDArray[np.float32]:
    """The structural similarity (X, Y, Z) of Wang et al. (2004) in an 11^3 Gaussian window, sigma 1.5 voxels.

    Population covariance, C1 = (0.01 R)^2 and C2 = (0.03 R)^2. Raises ValueError for volumes smaller than the window.
    """
    if min(truth.shape) < _WINDOW:
        raise ValueError(
            f"SSIM needs at least {_WINDOW} voxels along every axis, not {'x'.join(map(str, truth.shape))}"
        )
    _, similarity = structural_similarity(
        truth,
        volume,
        data_range=data_range,
        gaussian_weights=True,
        sigma=_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return similarity


def _ssim_around(comparison: Comparison) -> NDArray[np.float32]:
    """The map of the whole volume where it is made: the box around the mask and half a window; NaN elsewhere."""
    made, kept = comparison.box(_WINDOW), comparison.box(_WINDOW // 2)
    whole = np.full(comparison.truth.shape, np.nan, dtype=np.float32)
    whole[made] = ssim_map(comparison.volume[made], comparison.truth[made], data_range=comparison.data_range)
    result = np.full_like(whole, np.nan)
    result[kept] = whole[kept]
    return result


def _mean_square_error(comparison: Comparison) -> float:
    return _mean_square(comparison.volume[comparison.mask] - comparison.truth[comparison.mask])


def _mean_square(values: NDArray) -> float:
    return float(np.mean(values.astype(np.float64) ** 2))
