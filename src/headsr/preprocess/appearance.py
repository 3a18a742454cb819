"""What a scan shows, from its intensities alone, and what of it a person should look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headsr.preprocess.bias import coarsened
from headsr.preprocess.outline import head_of, otsu
from headsr.preprocess.skull import is_skull_stripped
from headsr.volumes import Volume

_AIR_OF_CT = -500.0  # Hounsfield units; no magnitude is below zero
_VESSELS = 2.8  # the 99.9th against the 90th percentile of what is bright: 1.5 to 2.1 in T1w, T2w, PDw and FLAIR
_MOSTLY_ZERO = 0.9  # of the voxels; air that was stored as 0 is half of many scans
_FEW_VALUES = 16
_VOXEL_MM = 3.0  # fine enough to see whether there is air
_LEAST_AIR = 0.02


def is_computed(scan: Volume) -> bool:
    """Whether a scan is a computed tomography: air is far below zero."""
    return float(np.percentile(scan.data[::2, ::2], 1)) < _AIR_OF_CT


def shown_in(scan: Volume) -> str:
    """What of a person a scan shows, in words."""
    return "the brain alone (skull-stripped)" if is_skull_stripped(scan) else "a whole head, or a part of one"


def oddities_of(scan: Volume) -> list[str]:
    """What a person should look at before a scan is used, in words; empty for a scan as most are."""
    found, zeros = [], float((scan.data == 0).mean())
    values = np.unique(scan.data[::2, ::2, ::2])
    if is_computed(scan):
        found.append("probably a computed tomography: its air is far below 0")
    if len(values) <= _FEW_VALUES:
        found.append(f"has {len(values)} different values: is it a mask or a map of labels, and no scan?")
    elif _has_vessels(scan.data):
        found.append("probably an angiography: a few voxels are far brighter than the rest, and set the range")
    if zeros >= _MOSTLY_ZERO:
        found.append(f"{zeros:.0%} of its voxels are 0")
    if lost := _empty_within(scan):
        found.append(f"{lost} of its slices hold one value alone, between others that show something")
    if scan.grid.is_sheared:
        found.append("its axes are not at right angles (a tilted gantry), which its qform cannot say: its sform counts")
    if not is_computed(scan) and _lacks_air(scan):
        found.append("shows no air: its field of view lies inside the head, so its noise is measured in tissue alone")
    return found


def _has_vessels(data: NDArray[np.float32]) -> bool:
    bright = data[data > otsu(np.clip(data, 0, np.percentile(data, 99)))]
    if not bright.size:
        return False
    most, many = np.percentile(bright, (99.9, 90))
    return bool(most > _VESSELS * many)


def _empty_within(scan: Volume) -> int:
    """How many slices are empty between others: lost on the way, for air is at the ends."""
    axis = int(np.argmax(scan.grid.voxel_size))
    planes = np.moveaxis(scan.data, axis, 0).reshape(scan.data.shape[axis], -1)
    shows = np.flatnonzero(planes.min(1) < planes.max(1))
    return int(shows[-1] - shows[0] + 1 - len(shows))


def _lacks_air(scan: Volume) -> bool:
    return bool((~head_of(coarsened(scan, _VOXEL_MM))).mean() < _LEAST_AIR)
