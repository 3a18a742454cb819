"""One person's shape: a smooth invertible deformation and a pose that map their head onto the template's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from headsr.simulate.imaging import smooth_field
from headsr.volumes import Grid, Volume, spline_resample

_SPACING_MM = 4.0
_SQUARINGS = 6
_PERIOD = 5.4  # correlation lengths: the random fields repeat, and in a smaller box they are all but constant
Scales = tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Warp:
    """Subject position p (mm) -> template position ``matrix`` @ (p + u(p)) + ``offset``.

    ``displacement`` holds u (3, X, Y, Z) in mm on ``grid``.
    """

    grid: Grid
    displacement: NDArray[np.float32]
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    def positions(self, target: Grid) -> NDArray[np.float32]:
        """Template positions (3, X, Y, Z) in mm of the voxel centres of ``target`` (axes parallel to mm axes)."""
        axes = [target.affine[a, a] * np.arange(n) + target.affine[a, 3] for a, n in enumerate(target.shape)]
        moved = np.empty((3, *target.shape), dtype=np.float32)
        for axis, points in enumerate(np.ix_(*axes)):
            moved[axis] = spline_resample(Volume(self.displacement[axis], self.grid), target) + points
        matrix = self.matrix.astype(np.float32)
        return np.tensordot(matrix, moved, axes=1) + self.offset.astype(np.float32)[:, None, None, None]


def random_warp(box: Grid, *, scales_mm: Scales, rng: np.random.Generator) -> Warp:
    """Draw a person: scaling and squaring of a smooth random velocity, some degrees of turn, some percent of size.

    ``box`` is the field of view that the deformation must cover (axes parallel to mm axes), ``scales_mm`` pairs of a
    correlation length and a root-mean-square displacement.
    Arsigny et al. 2006, A log-Euclidean framework for statistics on diffeomorphisms.
    """
    grid = _widened(box.at_voxel_size(_SPACING_MM), _PERIOD * max(length for length, _ in scales_mm))
    velocity = sum(
        size * np.stack([smooth_field(grid.shape, sigma=length / _SPACING_MM, rng=rng) for _ in range(3)])
        for length, size in scales_mm
    )
    angles = np.clip(rng.standard_normal(3), -2, 2) * 3.0
    size = 1 + 0.03 * np.clip(rng.standard_normal(3), -2, 2)
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(size)
    centre = grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]
    shift = np.clip(rng.standard_normal(3), -2, 2) * 1.5
    return Warp(grid, exponential(velocity, grid), matrix, centre - matrix @ centre + shift)


def _widened(grid: Grid, least_mm: float) -> Grid:
    """The grid with as many voxels on both sides as make every edge at least ``least_mm``."""
    missing = np.maximum(0, least_mm - np.array(grid.shape) * grid.voxel_size)
    more = np.ceil(missing / 2 / grid.voxel_size - 1e-6).astype(int)
    return grid.block(tuple(-more), tuple(np.array(grid.shape) + 2 * more))


def exponential(velocity: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """Displacement (3, X, Y, Z) in mm after one unit of time along a steady velocity (mm), by scaling and squaring."""
    step = velocity / 2**_SQUARINGS / grid.voxel_size.astype(np.float32)[:, None, None, None]
    index = np.indices(grid.shape, dtype=np.float32)
    for _ in range(_SQUARINGS):
        step = step + np.stack([ndimage.map_coordinates(u, index + step, order=1, mode="nearest") for u in step])
    return step * grid.voxel_size.astype(np.float32)[:, None, None, None]
