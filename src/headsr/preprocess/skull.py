"""Whether a scan shows a head or, skull-stripped, the brain alone."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from headsr.preprocess.bias import coarsened
from headsr.preprocess.outline import signal_of
from headsr.volumes import Volume

_VOXEL_MM = 3.0
_LARGEST_ML = 2400.0  # brains stretched to the MNI template have 2150, whole heads of adults 2800 and more
_LEAST_AIR = 0.05  # of the volume of what is shown
# The face and the neck have no skull around them: looked for is the bone of the vault, so far below its top.
_VAULT_MM = 90.0
_DOWN = 0.58  # the sine of the angle below which the base of the skull is looked at
_PATCH = 4.0  # patches of the surface are 1 / _PATCH of a radian wide
_STEP_MM, _LEAST_VOXELS = 2.0, 3  # of a profile, and for each of its values
_DEEPEST_MM, _REACH_MM = 18.0, 14.0
_DARK = 0.6  # of what is brighter on both sides
_DIM = 0.7  # of the median: in T2w the whole cortex lies between brighter fluid
_LEAST_BONE = 0.17  # of the surface: heads without air or face have 0.4 and more, most brains 0.1 and less


def is_skull_stripped(volume: Volume) -> bool:
    """Whether nothing but a brain is left in a scan: zeros around it, not too large, and no bone below its surface.

    Bone is dark between scalp and brain in T1w, T2w, PDw and FLAIR alike. A head whose air was zeroed, or whose face
    was taken away, is not stripped, and neither is a scan that shows no air at all.
    """
    coarse = coarsened(volume, _VOXEL_MM)
    shown = signal_of(coarse)
    return bool(
        shown.sum() * coarse.grid.voxel_size.prod() <= _LARGEST_ML * 1000
        and (~shown).sum() >= _LEAST_AIR * shown.sum()
        and _share_of_bone(coarse, shown) < _LEAST_BONE
    )


def _share_of_bone(volume: Volume, shown: NDArray[np.bool_]) -> float:
    """The share of the vault's surface below which the intensities fall and rise again; 1 where there is none.

    A patch has one profile, the mean intensity by depth: sulci are dark too, but not all around.
    """
    profiles, counts = _profiles(volume, shown)
    reach = round(_REACH_MM / _STEP_MM)
    known = np.nan_to_num(profiles)
    shallower = sliding_window_view(np.pad(known, ((0, 0), (reach, 0))), reach, axis=1)[:, :-1].max(axis=-1)
    deeper = sliding_window_view(np.pad(known, ((0, 0), (0, reach))), reach, axis=1)[:, 1:].max(axis=-1)
    dark = profiles < np.minimum(_DARK * np.minimum(shallower, deeper), _DIM * np.median(volume.data[shown]))
    bone = dark[:, : round(_DEEPEST_MM / _STEP_MM)].any(axis=1)
    surface = counts[:, :3].sum(axis=1)
    return float((surface * bone).sum() / surface.sum()) if surface.any() else 1.0


def _profiles(volume: Volume, shown: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Mean intensity (patches, depths), NaN where nothing is, and the number of voxels behind each."""
    # The edge of the field of view is no surface: depth is the distance from air that is seen.
    depth = ndimage.distance_transform_edt(shown, sampling=volume.grid.voxel_size)[shown]
    points = np.argwhere(shown) @ volume.grid.affine[:3, :3].T
    vault = points[:, 2] > points[:, 2].max() - _VAULT_MM
    way = points - points[vault].mean(axis=0)
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-6)
    steps = round((_DEEPEST_MM + _REACH_MM) / _STEP_MM)
    step = (depth / _STEP_MM).astype(int)
    chosen = vault & (way[:, 2] > -_DOWN) & (step < steps)
    _, patch = np.unique(np.rint(_PATCH * way[chosen]).astype(int), axis=0, return_inverse=True)
    place = patch.ravel() * steps + step[chosen]
    counts = np.bincount(place, minlength=(patch.max() + 1) * steps).reshape(-1, steps)
    sums = np.bincount(place, volume.data[shown][chosen], counts.size).reshape(counts.shape)
    return np.where(counts >= _LEAST_VOXELS, sums / np.maximum(counts, 1), np.nan), counts
