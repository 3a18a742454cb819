"""The companions of a scan on the grid of its preprocessed volume."""

from __future__ import annotations

import os

import numpy as np

from headsr.preprocess.transform import resample_through
from headsr.volumes import Volume, VolumeError, load_volume, save_volume


def carry_mask(mask: str | os.PathLike[str], scan: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Write a mask that was drawn on a scan (inside above 0.5) as uint8 on the grid of the scan's preprocessed volume.

    A voxel is inside where most of the mask's interpolation is; an empty mask stays empty. Raises VolumeError when
    nothing of a mask lies in the scan: it was drawn in another space.
    """
    drawn, grid = load_volume(mask, constant=True), load_volume(scan).grid
    drawn = Volume((drawn.data > 0.5).astype(np.float32), drawn.grid)
    inside = resample_through(drawn, np.eye(4), grid) >= 0.5
    if drawn.data.any() and not inside.any():
        raise VolumeError(f"{mask}: nothing of it lies in {scan}. Give that scan the mask that was drawn on it")
    save_volume(output, inside.astype(np.uint8), grid, description="headsr carried mask")
