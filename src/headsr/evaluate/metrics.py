"""How near a volume is to the truth: PSNR, SSIM and NRMSE inside a mask, always with a stated data range.

Nothing is estimated from the images: a range taken from the data makes numbers of two volumes incomparable. Values are
never clipped.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

METRICS = ("psnr", "ssim", "nrmse")
UNITS = {
    "psnr": "dB, 20 log10(data range / root mean square error inside the mask)",
    "ssim": "1, mean inside the mask of the 3-D map (Gaussian window, sigma 1.5 voxels, population covariance)",
    "nrmse": "1, root mean square error over the root mean square of the truth, both inside the mask",
}
_SIGMA = 1.5
_WINDOW = 11  # what the library's Gaussian of that sigma spans: 2 int(3.5 sigma + 0.5) + 1


def psnr(estimate: NDArray, truth: NDArray, mask: NDArray[np.bool_], *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB inside the mask, infinite for equal volumes."""
    mse = _mean_square(estimate[mask] - truth[mask])
    return float(10.0 * np.log10(data_range**2 / mse)) if mse > 0 else float("inf")


def nrmse(estimate: NDArray, truth: NDArray, mask: NDArray[np.bool_]) -> float:
    """Root mean square error over the root mean square of the truth, both inside the mask."""
    return float(np.sqrt(_mean_square(estimate[mask] - truth[mask]) / _mean_square(truth[mask])))


def ssim_map(estimate: NDArray, truth: NDArray, *, data_range: float) -> NDArray[np.float32]:
    """The structural similarity (X, Y, Z) of Wang et al. (2004) in an 11^3 Gaussian window.

    C1 = (0.01 R)^2 and C2 = (0.03 R)^2. Raises ValueError for volumes that are smaller than the window.
    """
    if min(truth.shape) < _WINDOW:
        raise ValueError(
            f"SSIM needs at least {_WINDOW} voxels along every axis, not {'x'.join(map(str, truth.shape))}"
        )
    _, similarity = structural_similarity(
        truth,
        estimate,
        data_range=data_range,
        gaussian_weights=True,
        sigma=_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return similarity


def measure(
    estimate: NDArray, truth: NDArray, masks: Mapping[str, NDArray[np.bool_]], *, data_range: float
) -> dict[str, dict[str, float]]:
    """Every metric inside every mask: {mask: {metric: value}}.

    The similarity map is made once, on the box around the masks; the box is wider than the window, so that its values
    inside the masks are those of the whole volume.
    """
    box = _box(np.logical_or.reduce(list(masks.values())))
    estimate, truth = estimate[box], truth[box]
    similarity = ssim_map(estimate, truth, data_range=data_range)
    return {
        name: {
            "psnr": psnr(estimate, truth, mask[box], data_range=data_range),
            "ssim": float(similarity[mask[box]].mean(dtype=np.float64)),
            "nrmse": nrmse(estimate, truth, mask[box]),
        }
        for name, mask in masks.items()
    }


def _mean_square(values: NDArray) -> float:
    return float(np.mean(values.astype(np.float64) ** 2))


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The box around a mask with a full window of margin."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ValueError("the mask is empty")
    return tuple(
        slice(max(0, part.start - _WINDOW), min(size, part.stop + _WINDOW))
        for part, size in zip(found[0], mask.shape, strict=True)
    )
