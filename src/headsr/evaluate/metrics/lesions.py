"""Whether what is small and ill is still there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.evaluate.metrics.comparison import Comparison

_RING_MM = 3.0


def lesion_contrast(comparison: Comparison) -> float:
    """The contrast of the lesions over what it is in the truth; the mask is that of the lesions.

    A lesion's contrast is its mean less the mean of the ring of 3 mm around it, without other lesions. The lesions are
    the connected parts of the mask, and each has a weight of its contrast in the truth, whatever its size. 1: kept,
    0: gone. NaN where the truth shows no contrast.
    """
    kept, there = 0.0, 0.0
    for lesion, ring, box in _lesions(comparison):
        volume, truth = (_contrast(v[box], lesion, ring) for v in (comparison.volume, comparison.truth))
        kept += volume if truth > 0 else -volume
        there += abs(truth)
    return kept / there if there > 0 else math.nan


def _lesions(comparison: Comparison) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[slice, ...]]]:
    """Each lesion and its ring, both in a box of the volume. Lesions with nothing around them are left out."""
    labels, _ = ndimage.label(comparison.mask, np.ones((3, 3, 3)))
    margin = [math.ceil(_RING_MM / size) for size in comparison.voxel_mm]
    for label, found in enumerate(ndimage.find_objects(labels), start=1):
        box = tuple(slice(max(0, part.start - m), part.stop + m) for part, m in zip(found, margin, strict=True))
        lesion = labels[box] == label
        distance = ndimage.distance_transform_edt(~lesion, sampling=comparison.voxel_mm)
        ring = (distance <= _RING_MM) & (labels[box] == 0)
        if ring.any():
            yield lesion, ring, box


def _contrast(volume: NDArray[np.float32], lesion: NDArray[np.bool_], ring: NDArray[np.bool_]) -> float:
    return float(volume[lesion].mean(dtype=np.float64) - volume[ring].mean(dtype=np.float64))
