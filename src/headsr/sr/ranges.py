"""What the shipped weights were trained on, and in what a study lies outside of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headsr.acquisition.measurement import Study
from headsr.recipes.models import Studies
from headsr.sr.given import GivenScan

VOXEL_MM = (0.5, 2.0)  # headsr.training.data.anatomies paints no others
THICKNESS = (0.6, 1.5)  # of the distance of slices; headsr.training.data.studies draws no others
_SIDE_VOXELS = 24  # half a block of the training
_IN_PLANE = 1.25  # times finer than the pixels of the scan
_TOLERANCE = 0.02


def outside_of(training: Studies, study: Study, scans: Sequence[GivenScan]) -> list[str]:
    """In what a study is none that the weights were trained on, in words; empty where it is one."""
    found = []
    low, high = VOXEL_MM
    size = study.head.voxel_size
    if not _within(size.min(), low, np.inf) or not _within(size.max(), 0, high):
        found.append(f"voxels of {_times(size)} mm (trained: {low:g} to {high:g})")
    if min(study.head.shape) < _SIDE_VOXELS:
        found.append(f"a field of view of {_times(study.head.shape)} voxels (trained: {_SIDE_VOXELS} and more a side)")
    for given, scan in zip(scans, study.scans, strict=True):
        found += _of_scan(training, given, scan.operator.extents, scan.operator.scan.voxel_size, scan.operator.steps)
        if scan.noise > (1 + _TOLERANCE) * training.noise[1]:
            found.append(f"{scan.view}: noise of {scan.noise:.1%} of the range (trained: to {training.noise[1]:.0%})")
        turned = _degrees(scan.operator.scan.affine, study.head.affine)
        if turned > training.tilt_degrees:
            found.append(
                f"{scan.view}: turned by {turned:.0f} degrees against the first (trained: to {training.tilt_degrees:g})"
            )
    if study.offset or any(given.metadata.get("Modality") == "CT" for given in scans):
        found.append("a computed tomography (trained: magnetic resonance)")
    return found


def _of_scan(
    training: Studies,
    given: GivenScan,
    extents: Sequence[float],
    sizes: NDArray[np.float64],
    steps: NDArray[np.float64],
) -> list[str]:
    found, (low, high), axis = [], training.factor, given.axis
    factor = sizes[axis] / steps[axis]
    if not _within(factor, low, high):
        found.append(f"{given.plane}: slices {factor:.3g} voxels of the result apart (trained: {low:g} to {high:g})")
    share = extents[axis] / sizes[axis]
    if not _within(share, *THICKNESS):
        found.append(
            f"{given.plane}: slices {share:.2g} times as thick as they are apart (trained: {THICKNESS[0]:g} to "
            f"{THICKNESS[1]:g})"
        )
    finer = max(sizes[i] / steps[i] for i in range(3) if i != axis)
    if finer > _IN_PLANE:
        found.append(f"{given.plane}: voxels {finer:.3g} times finer than its pixels (trained: as fine as they)")
    return found


def _within(value: float, low: float, high: float) -> bool:
    return bool(low * (1 - _TOLERANCE) <= value <= high * (1 + _TOLERANCE))


def _degrees(scan: NDArray[np.float64], head: NDArray[np.float64]) -> float:
    """How far the axes of a scan are turned from those of the head that they are nearest to, at most."""
    axes = [affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in (scan, head)]
    nearest = np.abs(axes[1].T @ axes[0]).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(nearest, 0, 1))).max())


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
