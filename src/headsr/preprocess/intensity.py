"""Normalised intensities: 1 is the 99.9th percentile inside the head, nothing is shifted and nothing is clipped."""

from __future__ import annotations

import os

import numpy as np

from headsr.files import sidecar_of, write_json
from headsr.preprocess.skull import is_skull_stripped
from headsr.volumes import VolumeError, load_volume, save_volume

PERCENTILE = 99.9  # of the intensities inside the head: what becomes 1


def normalize_intensity(
    scan: str | os.PathLike[str],
    head_mask: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    source_key: str,
) -> None:
    """Write the scan in normalised intensities (NIfTI, float32) and the JSON beside it that leads back to its units.

    scan units = normalised * scale + offset; the offset is 0, since MR magnitudes start there. ``source_key`` is the
    annex key that the scan came from; the JSON also says whether the scan is skull-stripped. Raises VolumeError when
    mask and scan do not fit or the head has no signal.
    """
    volume, mask = load_volume(scan), load_volume(head_mask, constant=True)
    if not mask.grid.same_as(volume.grid):
        raise VolumeError(f"{head_mask}: is not on the grid of {scan}. Make both again")
    inside = volume.data[mask.data > 0.5]
    scale = float(np.percentile(inside, PERCENTILE)) if inside.size else 0.0
    if not scale > 0:
        raise VolumeError(f"{scan}: no signal inside the head mask (its {PERCENTILE}th percentile is {scale:g})")
    record = {
        "scale": scale,
        "offset": 0.0,
        "reference": f"{PERCENTILE}th percentile inside the head mask",
        "source_key": source_key,
        "voxel_mm": [round(float(size), 6) for size in volume.grid.voxel_size],
    }
    sidecar = {"SkullStripped": is_skull_stripped(volume), "headsr": record}
    write_json(sidecar_of(output), sidecar)
    data = volume.data / np.float32(scale)
    save_volume(output, data, volume.grid, description="headsr normalised", forms=volume.forms)
