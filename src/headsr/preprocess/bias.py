"""Bias field correction: N4 (Tustison et al. 2010) on a coarse copy, since the field is smooth."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headsr.preprocess.ants_process import run_ants
from headsr.preprocess.mask import foreground
from headsr.volumes import Volume, cell_average, load_volume, save_volume, spline_resample

_COARSE_MM = 7.0  # a field with control points 75 mm apart has nothing finer to show
_ITERATIONS = "40x30"
_KNOTS_MM = 150


def correct_bias(
    scan: str | os.PathLike[str], output: str | os.PathLike[str], *, voxel_mm: float | None = None
) -> None:
    """Divide a scan by its bias field and write it (NIfTI, scan units).

    Axes finer than ``voxel_mm`` are first averaged over cells of about that size; thick slices stay as they are, and
    None keeps the scan's own grid. The field has geometric mean 1 inside the head, so the units stay.
    Raises VolumeError for a scan that cannot be used, AntsError when N4 fails.
    """
    volume = coarsened(load_volume(scan), voxel_mm)
    corrected = volume.data / bias_field_of(volume, name=str(scan))
    save_volume(output, corrected.astype(np.float32), volume.grid, description="headsr bias-corrected")


def coarsened(volume: Volume, voxel_mm: float | None) -> Volume:
    """The volume with the axes that are finer than ``voxel_mm`` averaged over cells of about that size."""
    if voxel_mm is None:
        return volume
    grid = volume.grid.at_voxel_size(np.maximum(volume.grid.voxel_size, voxel_mm))
    return Volume(cell_average(volume.data, grid.shape), grid)


def bias_field_of(volume: Volume, *, name: str) -> NDArray[np.float32]:
    """The bias field (X, Y, Z) of a scan, geometric mean 1 over its foreground; ``name`` is for error messages."""
    coarse = coarsened(volume, _COARSE_MM)
    mask = foreground(coarse)
    with tempfile.TemporaryDirectory(prefix="headsr-n4-") as folder:
        image, region, corrected, field = (Path(folder) / f"{part}.nii" for part in ("scan", "mask", "out", "field"))
        # N4 works on logarithms and treats what is not positive as outside.
        save_volume(image, np.maximum(coarse.data, 0), coarse.grid)
        save_volume(region, mask.astype(np.uint8), coarse.grid)
        arguments = ["-d", "3", "-i", str(image), "-x", str(region), "-s", "1", "-b", f"[{_KNOTS_MM}]"]
        arguments += ["-c", f"[{_ITERATIONS},1e-5]", "-o", f"[{corrected},{field}]"]
        run_ants("N4BiasFieldCorrection", arguments, output=field, scan=name)
        found = load_volume(field)
    log_field = np.log(np.maximum(found.data, 1e-3))
    log_field -= log_field[mask].mean()
    return np.exp(spline_resample(Volume(log_field, coarse.grid), volume.grid))
