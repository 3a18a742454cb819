"""The grid of the result: the box of the scan, in the voxels that a person asks for or those that the scan allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headsr.sr.given import GivenScan
from headsr.volumes import Grid, Volume, VolumeError, cell_average

_FINEST_MM = 0.5
_FINEST_SLICE = 1 / 8  # of the distance of slices
_SAME = 0.02  # voxels this near in size are the same


@dataclass(frozen=True)
class Size:
    """The voxels asked for: their size in mm, how many times as many, or how many; one number or three, one of them.

    Three numbers are along the result's own axes in RAS order.
    """

    voxel_mm: Sequence[float] | None = None
    scale: Sequence[float] | None = None
    shape: Sequence[int] | None = None

    def __post_init__(self) -> None:
        said = {name: value for name, value in vars(self).items() if value is not None}
        if len(said) > 1:
            raise ValueError(f"{' and '.join(said)}: say the result's voxels in one way")
        for name, value in said.items():
            if len(value) not in (1, 3):
                raise ValueError(f"{name}: one number or three, not {len(value)}")

    @property
    def is_said(self) -> bool:
        """Whether anything was asked for."""
        return any(value is not None for value in vars(self).values())


def target_of(scan: GivenScan, size: Size) -> Grid:
    """The grid of the result, in the box of ``scan``.

    Where nothing is asked for its voxels are cubes as large as the largest of the finest pixel, an eighth of the
    distance of slices and 0.5 mm. Raises VolumeError where the scan has no thick slices, and nothing was asked for.
    """
    grid = scan.volume.grid
    if size.shape is not None:
        return grid.resized(tuple(_three(size.shape)))
    if size.voxel_mm is not None:
        return grid.at_voxel_size(np.array(_three(size.voxel_mm)))
    if size.scale is not None:
        return grid.scaled(np.array(_three(size.scale)))
    if not scan.is_thick:
        voxels = " x ".join(f"{mm:.3g}" for mm in grid.voxel_size)
        raise VolumeError(
            f"{scan.path}: its voxels of {voxels} mm are about as thick as they are wide, so it has no thick slices to "
            "refine. For smaller voxels all the same, which the weights were not trained for: --scale 2 --force"
        )
    return grid.at_voxel_size(default_voxel(scan))


def default_voxel(scan: GivenScan) -> float:
    """The edge in mm of the cubes that a scan allows."""
    finest = float(np.delete(scan.volume.grid.voxel_size, scan.axis).min())
    return max(finest, scan.spacing * _FINEST_SLICE, _FINEST_MM)


def as_fine_as(scan: Volume, axis: int, target: Grid) -> Volume:
    """The scan with its pixels averaged to those of the result where they are finer; its slices stay.

    The result cannot show more than its own voxels do.
    """
    wanted = _towards(scan.grid, target)
    shape = list(scan.grid.shape)
    for i in set(range(3)) - {axis}:
        length = scan.grid.shape[i] * scan.grid.voxel_size[i]
        if wanted[i] > (1 + _SAME) * scan.grid.voxel_size[i]:
            shape[i] = max(1, round(length / wanted[i]))
    if tuple(shape) == scan.grid.shape:
        return scan
    return Volume(
        cell_average(scan.data, tuple(shape)), scan.grid.resized(tuple(shape)), scan.storage, scan.axes, scan.forms
    )


def _towards(scan: Grid, target: Grid) -> NDArray[np.float64]:
    """The voxel size in mm of the result along each axis of a scan, wherever that points."""
    along = scan.affine[:3, :3] / scan.voxel_size
    nearest = np.abs(np.linalg.inv(target.affine[:3, :3] / target.voxel_size) @ along).argmax(axis=0)
    return target.voxel_size[nearest]


def _three(values: Sequence[float]) -> list[float]:
    return list(values) * 3 if len(values) == 1 else list(values)
