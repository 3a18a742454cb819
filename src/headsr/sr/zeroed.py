"""What was taken away from a scan stays away: a face set to zero, or all but the brain."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from headsr.acquisition.measurement import Measurement, Study

_LEAST_ML = 1.0  # of zeros that hang together; the air of a scan that stores it as 0 is more too, and stays 0


def zeroed(study: Study, first: NDArray[np.float32]) -> Tensor | None:
    """Which voxels (X, Y, Z; bool) of the result lie in what was set to zero in the first scan; None where nothing was.

    ``first`` are its intensities in its own units. A sample is the mean of what it reaches, and intensities are
    magnitudes: where it is zero, all that it reaches is. A voxel belongs to the sample nearest to it. What other scans
    have set to zero is no matter: most often it is where they do not reach.
    """
    if study.signed:
        return None
    scan = study.scans[0]
    empty = _large_zeros(first, float(np.prod(scan.operator.scan.voxel_size)))
    return _carried(empty, scan, study) if empty.any() else None


def _large_zeros(data: NDArray[np.float32], voxel_mm3: float) -> NDArray[np.bool_]:
    labels, number = ndimage.label(data == 0)
    if not number:
        return labels > 0
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes * voxel_mm3 >= 1000 * _LEAST_ML)[labels]


def _carried(samples: NDArray[np.bool_], scan: Measurement, study: Study) -> Tensor:
    """The samples (x, y, z) on the head's grid (X, Y, Z), each voxel that of the nearest one; none outside the scan."""
    index = np.linalg.inv(scan.operator.scan.affine) @ study.head.affine
    inside, places = np.ones(study.head.shape, bool), []
    for axis, n in enumerate(samples.shape):
        x, y, z = (index[axis, i] * np.arange(size) for i, size in enumerate(study.head.shape))
        place = np.rint(x[:, None, None] + (y[:, None] + (z + index[axis, 3]))).astype(np.int32)
        inside &= (place >= 0) & (place < n)
        places.append(np.clip(place, 0, n - 1))
    return torch.as_tensor(samples[tuple(places)] & inside)
