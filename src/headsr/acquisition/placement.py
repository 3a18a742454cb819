"""How two scans of one head lie against each other: a rigid placement refined through their acquisition operators.

Both scans are explained at once by a head x on a grid around them. Where the moving scan is placed by T, the rest is

    F(T) = min_x |A_1 x - y_1|^2 + |A_2(T) x - y_2|^2 + w |grad x|^2,

and only at the true placement can one head explain both. Comparing one scan with a head made from the other instead is
biased, by up to a tenth of a slice's width: their blurs differ, and so do their aliases.
F is minimised over the six parameters of T by Gauss-Newton with x projected out (Golub and Pereyra 1973, Kaufman 1975).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.least_squares import conjugate_gradients, roughness
from headsr.acquisition.operator import Acquisition
from headsr.volumes import Grid, Volume, cell_average

_FINEST_MM = 2.0  # six parameters need no finer head
_ROUGHNESS = 0.03
_ITERATIONS = 10  # of conjugate gradients
_STEPS = 12
_AT_REST = 0.01  # of a voxel
_LEVER_MM = 50.0  # makes radians as large as millimetres


@dataclass(frozen=True, eq=False)
class PlacedScan:
    """A scan where its grid's affine puts it (mm), and how it samples: ``axis``, ``profile`` and ``thickness`` as in
    Acquisition."""

    volume: Volume
    axis: int | None
    profile: str
    thickness: float | None

    @property
    def extents(self) -> NDArray[np.float64]:
        """How far a sample reaches along each axis of the scan, in mm."""
        extents = self.volume.grid.voxel_size.copy()
        if self.thickness is not None:
            extents[slice(None) if self.axis is None else self.axis] = self.thickness
        return extents

    def operator(self, head: Grid) -> Acquisition:
        """How the scan samples a head on this grid."""
        return Acquisition(head, self.volume.grid, axis=self.axis, profile=self.profile, thickness=self.thickness)

    def moved(self, motion: NDArray[np.float64]) -> PlacedScan:
        """The scan after a motion (4, 4; mm) of its points."""
        grid = self.volume.grid
        return replace(self, volume=Volume(self.volume.data, Grid(grid.shape, motion @ grid.affine)))

    def divided(self, gain: float) -> PlacedScan:
        """The scan with its intensities divided by a gain."""
        return replace(self, volume=Volume(self.volume.data / np.float32(gain), self.volume.grid))

    def coarsened(self, size_mm: float) -> PlacedScan:
        """The scan with the axes that are finer than ``size_mm`` averaged over cells of about that size."""
        fine = self.volume.grid
        grid = fine.at_voxel_size(np.maximum(fine.voxel_size, size_mm))
        thickness = self.thickness
        if thickness is not None and self.axis is not None:
            thickness += float(grid.voxel_size[self.axis] - fine.voxel_size[self.axis])
        return replace(self, volume=Volume(cell_average(self.volume.data, grid.shape), grid), thickness=thickness)


def refine_placement(moving: PlacedScan, reference: PlacedScan) -> NDArray[np.float64]:
    """The small rigid motion (4, 4; mm) of ``moving`` after which one head explains both scans best.

    Both have the same contrast and the same intensities (headsr.acquisition.intensity) and lie within about a slice's
    thickness of their true placement. Raises ValueError when they do not come to rest.
    """
    size = working_size(moving, reference)
    reference, start = reference.coarsened(size), moving.coarsened(size)
    head = grid_around(reference.volume.grid, start.volume.grid, size)
    fixed, measured = reference.operator(head), torch.as_tensor(reference.volume.data)
    centre = start.volume.grid.corners.mean(axis=0)
    motion, estimate, stiffness = np.eye(4), None, None
    for _ in range(_STEPS):
        placed = start.moved(motion)
        operators = fixed, placed.operator(head)
        data = measured, torch.as_tensor(placed.volume.data)
        estimate = _explain(operators, data, start=estimate)
        slopes = _slopes(operators[1], estimate, centre)
        if stiffness is None:
            stiffness = _stiffness(operators, slopes)
        residual = data[1] - operators[1].forward(estimate)
        step = np.linalg.solve(stiffness, [_dot(slope, residual) for slope in slopes])
        motion = rigid_motion(step[:3], step[3:] / _LEVER_MM, centre) @ motion
        if np.abs(step).max() < _AT_REST * size:
            return motion
    raise ValueError(f"the placement still moves by {np.abs(step).max():.2g} mm after {_STEPS} steps")


def working_size(*scans: PlacedScan) -> float:
    """The voxel size in mm at which scans of these slices are compared: half of the thickest slice, or 2 mm."""
    return max(_FINEST_MM, *(float(scan.extents.max()) / 2 for scan in scans))


def grid_around(reference: Grid, moving: Grid, size_mm: float) -> Grid:
    """A grid of voxels of about ``size_mm`` with the axes of ``reference`` that holds both boxes."""
    grid = reference.at_voxel_size(size_mm)
    to_index = np.linalg.inv(grid.affine)
    corners = np.concatenate([box.corners @ to_index[:3, :3].T + to_index[:3, 3] for box in (reference, moving)])
    first, last = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    return grid.block(tuple(first), tuple(last - first + 1))


def rigid_motion(shift: Sequence[float], turn: Sequence[float], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """The motion (4, 4) that turns about ``centre`` by the rotation vector ``turn`` (radians) and shifts by mm."""
    angle = float(np.linalg.norm(turn))
    x, y, z = np.asarray(turn) / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    motion = np.eye(4)
    motion[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    motion[:3, 3] = centre + np.asarray(shift) - motion[:3, :3] @ centre
    return motion


def _explain(operators: Sequence[Acquisition], data: Sequence[Tensor], *, start: Tensor | None) -> Tensor:
    """The head that explains the data best: argmin_x sum |A x - y|^2 + w |grad x|^2."""
    target = sum(operator.adjoint(y) for operator, y in zip(operators, data, strict=True))
    return conjugate_gradients(_normal(operators), target, iterations=_ITERATIONS, start=start)


def _slopes(operator: Acquisition, head: Tensor, centre: NDArray[np.float64]) -> Tensor:
    """How the samples change with the scan's three shifts (mm) and three turns about ``centre`` (mm at the lever)."""
    to_mm = torch.as_tensor(np.linalg.inv(operator.head.affine[:3, :3]).T, dtype=head.dtype)
    gradient = torch.einsum("ij,jxyz->ixyz", to_mm, torch.stack(torch.gradient(head)))
    shifts = operator.forward(gradient)
    scan = operator.scan
    points = np.einsum("ij,j...->i...", scan.affine[:3, :3], np.indices(scan.shape))
    arms = points + (scan.affine[:3, 3] - centre)[:, None, None, None]
    turns = torch.linalg.cross(torch.as_tensor(arms / _LEVER_MM, dtype=head.dtype), shifts, dim=0)
    return torch.cat([shifts, turns])


def _stiffness(operators: Sequence[Acquisition], slopes: Tensor) -> NDArray[np.float64]:
    """Gauss-Newton's matrix (6, 6) once x has followed: C^T (1 - A_2 N^-1 A_2^T) C, N the normal matrix of x."""
    normal = _normal(operators)
    followed = [conjugate_gradients(normal, operators[1].adjoint(slope), iterations=_ITERATIONS) for slope in slopes]
    left = [slope - operators[1].forward(x) for slope, x in zip(slopes, followed, strict=True)]
    matrix = np.array([[_dot(slope, rest) for rest in left] for slope in slopes])
    return (matrix + matrix.T) / 2


def _normal(operators: Sequence[Acquisition]) -> Callable[[Tensor], Tensor]:
    return lambda x: sum(a.adjoint(a.forward(x)) for a in operators) + _ROUGHNESS * roughness(x)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.sum(a.double() * b.double()))
