"""Affine registration of a head, or of its brain, to the template: rigid, then affine, by mutual information (ANTs)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from headsr.files import temporary_folder, whole
from headsr.preprocess.ants_process import run_ants
from headsr.preprocess.bias import coarsened
from headsr.preprocess.skull import is_skull_stripped
from headsr.preprocess.transform import resample_through
from headsr.volumes import Grid, Volume, load_volume, save_volume

_FINEST_MM = 3.0  # twelve parameters need no finer image
_SCHEDULE = {"-f": "4x2x1", "-s": "2x1x0vox"}


def register_to_template(
    scan: str | os.PathLike[str],
    template: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    template_brain: str | os.PathLike[str] | None = None,
) -> None:
    """Write the affine (ITK ``.mat``) that maps the template's points to the scan's, which moves the scan to MNI152.

    ``scan`` is bias-corrected, ``template`` a whole head. A skull-stripped scan is registered to the part of it inside
    ``template_brain`` (mask); where that is None, every scan is taken for a whole head. The same bytes every time.
    Raises VolumeError for a file that cannot be used, AntsError when ANTs fails.
    """
    shown, whole_head = load_volume(scan), load_volume(template)
    stripped = template_brain is not None and is_skull_stripped(shown)
    target = _within(whole_head, load_volume(template_brain)) if stripped else whole_head
    with temporary_folder("register") as folder:
        fixed, moving = folder / "template.nii", folder / "scan.nii"
        for volume, copy in ((target, fixed), (shown, moving)):
            save_for_ants(copy, coarsened(volume, _FINEST_MM))
        found = folder / "to-template0GenericAffine.mat"
        run_ants("antsRegistration", _arguments(fixed.name, moving.name, "to-template"), output=found, scan=str(scan))
        with whole(output) as partial:
            shutil.copyfile(found, partial)


def save_for_ants(path: Path, volume: Volume) -> None:
    """Write a volume for a registration by mutual information: without its few very bright voxels (vessels, fat).

    They would leave too few of the histogram's bins for the rest. What is sheared is resampled on axes at right angles.
    """
    if volume.grid.is_sheared:
        volume = _upright(volume)
    save_volume(path, np.clip(volume.data, 0, np.percentile(volume.data, 99.5)), volume.grid)


def _upright(volume: Volume) -> Volume:
    """The volume on a grid along the mm axes that covers its box, with voxels as large as its own smallest."""
    low, high = volume.grid.corners.min(axis=0), volume.grid.corners.max(axis=0)
    size = volume.grid.voxel_size.min()
    shape = np.ceil((high - low) / size).astype(int)
    grid = Grid(tuple(shape), nib.affines.from_matvec(np.eye(3) * size, low + size / 2))
    return Volume(resample_through(volume, np.eye(4), grid), grid)


def _within(volume: Volume, mask: Volume) -> Volume:
    return Volume(volume.data * (mask.data > 0.5), volume.grid)


def _arguments(fixed: str, moving: str, prefix: str) -> list[str]:
    arguments = ["-d", "3", "--float", "1", "--random-seed", "1", "-r", f"[{fixed},{moving},1]"]
    for transform, iterations in (("Rigid[0.1]", "300x150x0"), ("Affine[0.1]", "300x150x50")):
        arguments += ["-m", f"Mattes[{fixed},{moving},1,32,Regular,0.25]", "-t", transform]
        arguments += ["-c", f"[{iterations},1e-6,10]", *(word for pair in _SCHEDULE.items() for word in pair)]
    return [*arguments, "-o", prefix]
