"""A scan of a head as the workflow, ``headsr sr`` and ``headsr check`` all begin with it."""

from __future__ import annotations

import itertools
import os

import numpy as np
from numpy.typing import NDArray

from headsr.volumes import Volume, VolumeError, load_volume

_CORNER = 8  # a corner is so many times shorter than the scan
_LEAST_SAMPLES = 16  # of a corner that tells something
# Of the range of a scan: the noise of air is a hundredth or two of it, that of MP2RAGE's UNI a third.
_LOUD = 0.15
_WHITE = 0.8  # differences of neighbours against those of the next but one: 1 is white noise, anatomy is far below


def load_scan(path: str | os.PathLike[str]) -> Volume:
    """Read a scan of a head: ``load_volume``, and VolumeError for one whose air hides where the head is."""
    volume = load_volume(path)
    if noise_of_corners(volume) > _LOUD:
        raise VolumeError(
            f"{path}: there is noise over the whole range of intensities where there should be air, as in the UNI "
            "image of MP2RAGE, so where the head is cannot be seen. Take the scanner's denoised one (UNI-DEN), or make "
            "it of both inversions (O'Brien et al. 2014)"
        )
    return volume


def noise_of_corners(scan: Volume) -> float:
    """The white noise in most corners of a scan as a part of its range; 0 where there is none or too little to tell."""
    low, high = np.percentile(scan.data[::2, ::2, ::2], (1, 99))
    axis = int(np.argmax(scan.data.shape))
    corners = [np.moveaxis(corner, axis, 0) for corner in _corners(scan.data)]
    told = [_white_noise(corner) for corner in corners if corner.size >= _LEAST_SAMPLES and len(corner) > 2]
    return float(np.median(told) / (high - low)) if told and high > low else 0.0


def _corners(data: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    lengths = [max(1, n // _CORNER) for n in data.shape]
    ends = itertools.product(*((slice(0, n), slice(-n, None)) for n in lengths))
    return [data[corner] for corner in ends]


def _white_noise(corner: NDArray[np.float32]) -> float:
    """The deviation of noise whose neighbours along the first axis differ as much as others; 0 of anything smoother."""
    near, far = (float(np.mean(np.square(corner[step:] - corner[:-step], dtype=np.float64))) for step in (1, 2))
    return float(np.sqrt(near / 2)) if near > 0 and near >= _WHITE**2 * far else 0.0
