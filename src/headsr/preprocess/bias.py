"""Bias field correction: N4 (Tustison et al. 2010) on a coarse copy, since the field is smooth."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from headsr.files import temporary_folder
from headsr.preprocess.ants_process import AntsError, refuse_full, run_ants
from headsr.preprocess.load import load_scan
from headsr.preprocess.outline import foreground
from headsr.volumes import Grid, Volume, cell_average, save_volume, spline_resample

# N4 looks at every n-th voxel, at least this far apart. Averaging instead would blur the tissues' peaks in the
# histogram that it sharpens: on simulated heads (field +-20 %) twice as much of the field was left.
_SAMPLES_MM = 6.2
_QUIET_MM = 2.0  # finer voxels are averaged to this size first, against their noise
_SETTINGS = ("-s", "1", "-b", "[150]", "-c", "[40x30,1e-5]", "-t", "[0.2,0.01,200]")


def correct_bias(
    scan: str | os.PathLike[str], output: str | os.PathLike[str], *, voxel_mm: float | None = None
) -> None:
    """Divide a scan by its bias field and write it (NIfTI, scan units).

    Axes finer than ``voxel_mm`` are first averaged over cells of about that size; thick slices stay as they are, and
    None keeps the scan's own grid. The field has geometric mean 1 inside the head, so the units stay.
    Raises VolumeError for a scan that cannot be used, AntsError when N4 fails.
    """
    volume = coarsened(load_scan(scan), voxel_mm)
    corrected = volume.data / bias_field_of(volume, name=str(scan))
    corrected, said = corrected.astype(np.float32), "headsr bias-corrected"
    save_volume(output, corrected, volume.grid, description=said, forms=volume.forms)


def coarsened(volume: Volume, voxel_mm: float | None) -> Volume:
    """The volume with the axes that are finer than ``voxel_mm`` averaged over cells of about that size."""
    if voxel_mm is None:
        return volume
    grid = volume.grid.at_voxel_size(np.maximum(volume.grid.voxel_size, voxel_mm))
    return Volume(cell_average(volume.data, grid.shape), grid, forms=volume.forms)


def bias_field_of(volume: Volume, *, name: str) -> NDArray[np.float32]:
    """The bias field (X, Y, Z) of a scan, geometric mean 1 over its foreground; ``name`` is for error messages."""
    samples = _sampled(coarsened(volume, _QUIET_MM), _SAMPLES_MM)
    mask = foreground(samples)
    with temporary_folder("n4") as folder:
        image, region, corrected, field = (folder / f"{part}.nii" for part in ("scan", "mask", "out", "field"))
        # N4 works on logarithms and treats what is not positive as outside. It needs to know how far voxels are apart.
        grid = _upright(samples.grid) if samples.grid.is_sheared else samples.grid
        save_volume(image, np.maximum(samples.data, 0), grid)
        save_volume(region, mask.astype(np.uint8), grid)
        names = f"[{corrected.name},{field.name}]"
        arguments = ["-d", "3", "-i", image.name, "-x", region.name, *_SETTINGS, "-o", names]
        run_ants("N4BiasFieldCorrection", arguments, output=field, scan=name)
        log_field = np.log(np.maximum(_read_field(field, samples), 1e-3))
    log_field -= log_field[mask].mean()
    return np.exp(spline_resample(Volume(log_field, samples.grid), volume.grid))


def _sampled(volume: Volume, spacing_mm: float) -> Volume:
    """Every n-th voxel of each axis, at least ``spacing_mm`` apart (but four per axis), centred in the box."""
    step = np.ceil(spacing_mm / volume.grid.voxel_size - 0.01).astype(int)
    step = np.minimum(step, np.maximum(1, np.array(volume.grid.shape) // 4))
    start = (np.array(volume.grid.shape) - 1) % step // 2
    data = np.ascontiguousarray(volume.data[tuple(slice(a, None, n) for a, n in zip(start, step, strict=True))])
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    affine[:3, :3] *= step
    return Volume(data, Grid(data.shape, affine))


def _upright(grid: Grid) -> Grid:
    """The same voxels with their axes at right angles."""
    return Grid(grid.shape, np.diag([*grid.voxel_size, 1.0]))


def _read_field(path: Path, samples: Volume) -> NDArray[np.float32]:
    """N4's field; a scan without any bias gives a field of ones, which load_volume would refuse as constant."""
    try:
        field = np.asarray(nib.load(path).dataobj, dtype=np.float32)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError):  # empty or cut
        field = np.empty(0, np.float32)
    if field.shape != samples.grid.shape or not np.isfinite(field).all():
        refuse_full(path)
        raise AntsError(f"{path}: N4 gave no usable field. Run again")
    return field
