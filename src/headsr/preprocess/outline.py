"""Where a scan shows tissue and where the head is, from its intensities alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.volumes import Volume

_CLOSING_MM = 12.0
_ZERO = 0.002  # of the brightest; a step of 8 bits is twice as much, the noise of air more
_SMOOTHING_MM = 1.5
_LEAST_PART = 0.02  # of the largest; the scalp may hang together with the brain nowhere, for bone is dark


def foreground(volume: Volume) -> NDArray[np.bool_]:
    """Tissue that gives signal (X, Y, Z): above Otsu's threshold of the intensities, the brightest percent clipped."""
    data = np.clip(volume.data, 0, np.percentile(volume.data, 99))
    return data > otsu(data)


def otsu(data: NDArray[np.float32], bins: int = 256) -> float:
    """The threshold that separates two classes best (Otsu 1979)."""
    counts, edges = np.histogram(data, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    mean_below = np.cumsum(counts * centres)[:-1] / np.maximum(below, 1)
    mean_above = (np.sum(counts * centres) - np.cumsum(counts * centres)[:-1]) / np.maximum(above, 1)
    between = below.astype(float) * above * (mean_below - mean_above) ** 2
    return float(edges[1:-1][between == between.max()].mean())


def head_of(volume: Volume) -> NDArray[np.bool_]:
    """The whole head (X, Y, Z) with its dark bone and cavities: the largest bright part, closed and filled."""
    data = np.clip(volume.data, 0, np.percentile(volume.data, 99))
    # The scalp is often darker than half of the brain; half of Otsu's threshold is still well above air.
    bright = ndimage.gaussian_filter(data, _SMOOTHING_MM / volume.grid.voxel_size) > 0.5 * otsu(data)
    return _solid(bright, volume.grid.voxel_size)


def signal_of(volume: Volume) -> NDArray[np.bool_]:
    """All that is not zero (X, Y, Z), closed and filled as a head is: everything where there is noise in the air."""
    return _solid(~_is_zero(volume.data), volume.grid.voxel_size)


def brain_of(volume: Volume) -> NDArray[np.bool_]:
    """The brain of a skull-stripped scan (X, Y, Z): all large parts that are not zero, with what is dark in them."""
    return ndimage.binary_fill_holes(_large_parts(~_is_zero(volume.data)))


def _is_zero(data: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where intensities are 0, or what is left of 0 by an interpolation: no noise is that quiet."""
    return np.abs(data) <= _ZERO * np.percentile(data, 99.9)


def _solid(mask: NDArray[np.bool_], voxel_size: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The large parts of a mask, closed to one and filled."""
    closed = _closed(_large_parts(mask), _CLOSING_MM, voxel_size)
    # A cavity that opens at the edge of the field of view is closed within its own slices.
    for axis in range(3):
        for index in range(closed.shape[axis]):
            part = (slice(None),) * axis + (index,)
            closed[part] = ndimage.binary_fill_holes(closed[part])
    return _large_parts(closed, least=1.0)


def _large_parts(mask: NDArray[np.bool_], least: float = _LEAST_PART) -> NDArray[np.bool_]:
    """The connected parts that are at least ``least`` times as large as the largest one."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= max(1, least * sizes.max()))[labels]


def _closed(mask: NDArray[np.bool_], radius: float, voxel_size: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Closing with a ball of ``radius`` mm on any voxel size; the edge of the field of view does not bound the head."""
    margin = [(int(np.ceil(radius / size)) + 1,) * 2 for size in voxel_size]
    wide = np.pad(mask, margin, mode="edge")
    dilated = ndimage.distance_transform_edt(~wide, sampling=voxel_size) <= radius
    closed = ndimage.distance_transform_edt(dilated, sampling=voxel_size) > radius
    return closed[tuple(slice(m, -m) for m, _ in margin)] | mask
