"""Where the head is and where the brain is, on the scan's own grid."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.preprocess.transform import read_affine, resample_through
from headsr.volumes import Volume, VolumeError, load_volume, save_volume

_CLOSING_MM = 12.0
_SMOOTHING_MM = 1.5
_LEAST_PART = 0.02  # of the largest; the scalp may hang together with the brain nowhere, for bone is dark
_LEAST_OVERLAP = 0.6


def mask_head(
    scan: str | os.PathLike[str],
    transform: str | os.PathLike[str],
    template_brain: str | os.PathLike[str],
    *,
    head_mask: str | os.PathLike[str],
    brain_mask: str | os.PathLike[str],
) -> None:
    """Write the head mask and the brain mask (uint8, on the scan's grid) of a bias-corrected scan.

    The head is what is brighter than air, closed and filled; the brain is the template's, moved by ``transform`` (from
    register_to_template). Raises VolumeError when the two do not fit together, which is a failed registration.
    """
    volume = load_volume(scan)
    head = head_of(volume)
    brain = resample_through(load_volume(template_brain), read_affine(transform), volume.grid) >= 0.5
    inside = brain & head
    if not brain.any() or inside.sum() < _LEAST_OVERLAP * brain.sum():
        raise VolumeError(
            f"{scan}: only {inside.sum()} of the {brain.sum()} voxels of the template's brain fall inside the head. "
            "Is it one whole head, with the right orientation in its header?"
        )
    save_volume(head_mask, head.astype(np.uint8), volume.grid, description="headsr head mask")
    save_volume(brain_mask, inside.astype(np.uint8), volume.grid, description="headsr brain mask")


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
    closed = _closed(_large_parts(bright), _CLOSING_MM, volume.grid.voxel_size)
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
