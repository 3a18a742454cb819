"""The companions of a scan on the grid of its preprocessed volume."""

from __future__ import annotations

import logging
import os

import numpy as np

from headsr.preprocess.transform import resample_through
from headsr.volumes import Grid, Volume, VolumeError, load_volume, save_volume

_log = logging.getLogger(__name__)


def carry_mask(mask: str | os.PathLike[str], scan: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Write a mask that was drawn on a scan (inside above 0.5) as uint8 on the grid of the scan's preprocessed volume.

    A voxel is inside where most of the mask's interpolation is; an empty mask stays empty, and one of lesions that are
    too small for the grid becomes it, with a warning. Raises VolumeError when nothing of a mask lies in the scan: it
    was drawn in another space.
    """
    drawn, grid = load_volume(mask, constant=True), load_volume(scan).grid
    drawn = Volume((drawn.data > 0.5).astype(np.float32), drawn.grid)
    if drawn.data.any() and not _meets(drawn, grid):
        raise VolumeError(f"{mask}: nothing of it lies in {scan}. Give that scan the mask that was drawn on it")
    inside = resample_through(drawn, np.eye(4), grid) >= 0.5
    if drawn.data.any() and not inside.any():
        _log.warning("%s: fills most of no voxel of %s, and is left empty", mask, scan)
    save_volume(output, inside.astype(np.uint8), grid, description="headsr carried mask")


def _meets(mask: Volume, grid: Grid) -> bool:
    """Whether the centre of some voxel of a mask lies in the box of a grid."""
    index = np.linalg.inv(grid.affine) @ mask.grid.affine
    places = np.argwhere(mask.data) @ index[:3, :3].T + index[:3, 3]
    return bool(((places >= -0.5) & (places <= np.array(grid.shape) - 0.5)).all(axis=1).any())
