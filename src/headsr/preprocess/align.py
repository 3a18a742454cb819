"""Rigid placement of one scan against another of the same head, of any contrast: mutual information (ANTs)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headsr.files import temporary_folder
from headsr.preprocess.ants_process import run_ants
from headsr.preprocess.bias import coarsened
from headsr.preprocess.register import save_for_ants
from headsr.preprocess.transform import read_affine, resample_through
from headsr.volumes import Grid, Volume

_FINEST_MM = 2.0
_BINS = 32
_SCHEDULE = ("-c", "[300x150x50,1e-6,10]", "-f", "4x2x1", "-s", "2x1x0vox")


def rigid_placement(moving: Volume, reference: Volume, *, name: str) -> NDArray[np.float64]:
    """The rigid motion (4, 4) that takes the points of ``moving`` to those of ``reference`` (mm, RAS+).

    Two starts are tried, the scanner's coordinates as both files have them and the two centres of mass put together,
    and the one with the greater mutual information in the end is kept. The same numbers every time. ``name`` is what
    errors call the moving scan. Raises AntsError when ANTs fails.
    """
    # ANTs turns about the origin, which a file may put far from the head.
    to_middle = np.eye(4)
    to_middle[:3, 3] = -reference.grid.corners.mean(axis=0)
    fixed, other = (_moved(coarsened(volume, _FINEST_MM), to_middle) for volume in (reference, moving))
    with temporary_folder("align") as folder:
        images = "reference.nii", "moving.nii"
        for image, volume in zip(images, (fixed, other), strict=True):
            save_for_ants(folder / image, volume)
        found = []
        for start, initial in (("scanner", []), ("centres", ["-r", f"[{images[0]},{images[1]},1]"])):
            output = folder / f"{start}0GenericAffine.mat"
            run_ants("antsRegistration", _arguments(*images, initial, start), output=output, scan=name)
            found.append(np.linalg.inv(read_affine(output)))
    best = max(found, key=lambda motion: mutual_information(other, fixed, motion))
    return np.linalg.inv(to_middle) @ best @ to_middle


def mutual_information(moving: Volume, reference: Volume, motion: NDArray[np.float64]) -> float:
    """Mutual information in nats of two scans' voxels on the grid of ``reference``; what one lacks counts as air."""
    moved = resample_through(moving, motion, reference.grid)
    counts, _, _ = np.histogram2d(reference.data.ravel(), moved.ravel(), bins=_BINS)
    joint = counts / counts.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    present = joint > 0
    return float(np.sum(joint[present] * np.log(joint[present] / independent[present])))


def _moved(volume: Volume, motion: NDArray[np.float64]) -> Volume:
    return Volume(volume.data, Grid(volume.grid.shape, motion @ volume.grid.affine))


def _arguments(reference: str, moving: str, initial: list[str], prefix: str) -> list[str]:
    metric = f"Mattes[{reference},{moving},1,{_BINS},Regular,0.25]"
    seeded = ["-d", "3", "--float", "1", "--random-seed", "1"]
    return [*seeded, *initial, "-m", metric, "-t", "Rigid[0.1]", *_SCHEDULE, "-o", prefix]
