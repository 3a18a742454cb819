"""The acquisition operator A of one scan: a linear map from the head's grid to the scan's, wherever the scan lies.

A = W R. W samples along the scan's own axes, one matrix for each: the slice profile along the coarse ones, the mean
over a pixel along the others. Where the axes are parallel to the head's, W works on the head's voxels themselves and R
is the identity. Otherwise R interpolates the head linearly at the cells of a grid along the scan's axes whose cells are
no larger than the head's voxels. Linear interpolation is the mean over a unit cell of voxels that are cells, so both
ways agree where the axes come to be parallel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.profile import profile_matrix, profile_nodes, refuse_unknown, support
from headsr.volumes import Grid, axis_positions

# Of a sample at least this share must lie inside the head's grid, else nothing there explains it.
_LEAST_SHARE = 1e-3
_SLAB = 2_000_000  # points interpolated at once


class Acquisition:
    """How one scan samples the head.

    ``forward`` maps tensors (..., X, Y, Z) on ``head`` to (..., x, y, z) on ``scan``, whose affine may place it
    anywhere; ``adjoint`` is its transpose, and both are differentiable. ``axis`` is the one that the slices are stacked
    along (None: it has no slices) and ``coarse`` are those along which the profile acts: that one or, without slices,
    all three, where nothing else is said. ``thickness`` is in mm along these (the scan's own voxel size when None: no
    gap); along the other axes a sample is the mean over its pixel. A constant stays that constant: a sample that
    reaches outside the head's grid is the mean of what lies inside; one that lies wholly outside is zero, and not
    ``covered``. An integer factor with a box profile is the exact block mean.
    """

    def __init__(
        self,
        head: Grid,
        scan: Grid,
        *,
        axis: int | None,
        profile: str = "box",
        thickness: float | None = None,
        coarse: Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        refuse_unknown(profile)
        self.head, self.scan, self.axis, self.profile, self.thickness = head, scan, axis, profile, thickness
        self.coarse = tuple(coarse) if coarse is not None else (0, 1, 2) if axis is None else (axis,)
        self._profiles = [profile if i in self.coarse else "box" for i in range(3)]
        self.extents = [
            thickness if i in self.coarse and thickness is not None else size for i, size in enumerate(scan.voxel_size)
        ]
        self._interpolation, cells = None, head
        if not _parallel(scan, head):
            cells = self._cells_along_scan()
            self._interpolation = _Interpolation(head.shape, np.linalg.inv(head.affine) @ cells.affine, cells.shape)
        self._matrices = self._sampling(cells, dtype, device)
        self._share = self._share_inside(dtype, device)
        # Samples that all lie wholly inside need no division.
        self._whole = self._share.device.type != "meta" and bool((self._share == 1).all())

    def forward(self, head: Tensor) -> Tensor:
        """Sample the head: (..., X, Y, Z) on the head's grid -> (..., x, y, z) on the scan's grid."""
        return self._normalised(self._sample(_interpolated(head, self._interpolation)))

    def adjoint(self, scan: Tensor) -> Tensor:
        """The transpose of ``forward``: (..., x, y, z) -> (..., X, Y, Z)."""
        data = self._normalised(scan)
        for i, matrix in reversed(self._matrices):
            data = _along(matrix.T, data, i)
        return data if self._interpolation is None else _Spread.apply(data, self._interpolation)

    def within(self, start: Sequence[int], shape: Sequence[int]) -> tuple[Acquisition, tuple[slice, ...]] | None:
        """The operator of the block (X, Y, Z) of the head at ``start``, and the samples of the scan that it has.

        Their box lies wholly inside the block: what they see is all there. None where there are none.
        """
        to_scan = np.linalg.inv(self.scan.affine) @ self.head.affine
        room = np.array(shape) / 2 if self._interpolation is None else (np.array(shape) - 1) / 2
        half = np.abs(to_scan[:3, :3]) @ room
        half *= np.min(room / (np.abs(np.linalg.inv(to_scan[:3, :3])) @ half))
        half -= [
            support(p) * e / s / 2 for p, e, s in zip(self._profiles, self.extents, self.scan.voxel_size, strict=True)
        ]
        middle = to_scan[:3, :3] @ (np.array(start) + (np.array(shape) - 1) / 2) + to_scan[:3, 3]
        first = np.maximum(0, np.ceil(middle - half - 1e-3)).astype(int)
        last = np.minimum(self.scan.shape, np.floor(middle + half + 1e-3).astype(int) + 1)
        if (last <= first).any():
            return None
        operator = Acquisition(
            self.head.block(tuple(start), tuple(shape)),
            self.scan.block(tuple(first), tuple(last - first)),
            axis=self.axis,
            profile=self.profile,
            thickness=self.thickness,
            coarse=self.coarse,
            dtype=self._share.dtype,
            device=self._share.device,
        )
        return operator, tuple(slice(a, b) for a, b in zip(first, last, strict=True))

    @property
    def coarse_in_plane(self) -> bool:
        """Whether the rows or columns of its slices are coarse."""
        return self.axis is not None and any(i != self.axis for i in self.coarse)

    @property
    def covered(self) -> Tensor:
        """Which samples (x, y, z; bool) see something of the head's grid."""
        return self._share > _LEAST_SHARE

    def nodes(self) -> Nodes:
        """The same samples of a continuous field: fixed nodes and weights around every measured voxel."""
        per_axis = [
            profile_nodes(extent / step, profile)
            for extent, step, profile in zip(self.extents, self.steps, self._profiles, strict=True)
        ]
        mm = [offsets * step for (offsets, _), step in zip(per_axis, self.steps, strict=True)]
        along = self.scan.affine[:3, :3] / self.scan.voxel_size
        offsets = np.stack(np.meshgrid(*mm, indexing="ij"), axis=-1).reshape(-1, 3) @ along.T
        weights = np.einsum("i,j,k->ijk", *(weights for _, weights in per_axis)).ravel()
        return Nodes(self.scan, offsets, weights)

    @property
    def steps(self) -> NDArray[np.float64]:
        """How far in mm one goes along each axis of the scan to cross one voxel of the head."""
        along = self.scan.affine[:3, :3] / self.scan.voxel_size
        return 1 / np.linalg.norm(np.linalg.inv(self.head.affine[:3, :3]) @ along, axis=0)

    def _cells_along_scan(self) -> Grid:
        """The scan's box with cells no larger than the head's voxels, and as far around it as the profiles reach."""
        sizes = self.scan.voxel_size
        parts = np.maximum(1, np.ceil(sizes / self.steps - 1e-3)).astype(int)
        wide = [support(profile) * extent for profile, extent in zip(self._profiles, self.extents, strict=True)]
        around = np.maximum(0, np.ceil((wide - sizes) / 2 / (sizes / parts) + 1)).astype(int)
        fine = self.scan.resized(tuple(np.array(self.scan.shape) * parts))
        return fine.block(tuple(-around), tuple(np.array(fine.shape) + 2 * around))

    def _sampling(self, cells: Grid, dtype: torch.dtype, device: torch.device | str) -> list[tuple[int, Tensor]]:
        """W: the axis and the matrix of every axis along which it does something, the greatest reduction first."""
        matrices = []
        for i, centres in enumerate(axis_positions(self.scan, cells)):
            weights = profile_matrix(cells.shape[i], centres, self.extents[i] / cells.voxel_size[i], self._profiles[i])
            if weights.shape[0] != weights.shape[1] or not np.allclose(weights, np.eye(len(weights)), atol=1e-6):
                matrices.append((i, torch.as_tensor(weights, dtype=dtype, device=device)))
        return sorted(matrices, key=lambda pair: pair[1].shape[0] / pair[1].shape[1])

    def _share_inside(self, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """The share of every sample (x, y, z) that lies inside the head's grid; one but for rounding is one."""
        if self._interpolation is None:
            sums = [torch.ones(n, dtype=torch.float64, device=device) for n in self.scan.shape]
            for i, matrix in self._matrices:
                sums[i] = matrix.double().sum(1)
            share = torch.einsum("i,j,k->ijk", *sums).to(dtype)
        else:
            ones = torch.ones(self.head.shape, dtype=dtype, device=device)
            share = self._sample(_interpolated(ones, self._interpolation))
        return torch.where((share - 1).abs() < 8 * torch.finfo(dtype).eps, torch.ones_like(share), share)

    def _sample(self, data: Tensor) -> Tensor:
        for i, matrix in self._matrices:
            data = _along(matrix, data, i)
        return data

    def _normalised(self, scan: Tensor) -> Tensor:
        """Samples divided by their share inside; what is not covered is zero."""
        if self._whole:
            return scan
        share = self._share.to(scan.dtype)
        return torch.where(self.covered, scan / share.clamp_min(_LEAST_SHARE), scan.new_zeros(()))


@dataclass(frozen=True, eq=False)
class Nodes:
    """A measured voxel as a sum over a continuous field: ``offsets`` (Q, 3) in mm around its centre, weights (Q,)."""

    scan: Grid
    offsets: NDArray[np.float64]
    weights: NDArray[np.float64]

    def positions(self, voxels: NDArray[np.integer]) -> NDArray[np.float64]:
        """Where to evaluate the field, in mm (M, Q, 3), for measured ``voxels`` (M, 3; indices on the scan's grid)."""
        centres = voxels @ self.scan.affine[:3, :3].T + self.scan.affine[:3, 3]
        return centres[:, None, :] + self.offsets

    def measure(self, values: Tensor) -> Tensor:
        """What the scan measures, (M,), where the field has ``values`` (M, Q) at the nodes."""
        return values @ torch.as_tensor(self.weights, dtype=values.dtype, device=values.device)


class _Interpolation:
    """R: linear interpolation of the head's voxels at the cells of another grid, a slab of cells at a time.

    ``index`` (4, 4) takes indices of the cells to indices of the head. Cells outside the head's box are zero; between
    its outermost voxel centres and its faces the outermost voxels are kept.
    """

    def __init__(self, head: Sequence[int], index: NDArray[np.float64], cells: Sequence[int]) -> None:
        self.head, self.index, self.cells = tuple(head), index, tuple(cells)

    def gather(self, head: Tensor) -> Tensor:
        """Values (..., X, Y, Z) of the head -> (..., a, b, c) at the cells."""
        flat = head.reshape(1, -1, *self.head)
        result = flat.new_zeros(1, flat.shape[1], *self.cells)
        for rows, block, points, inside in self._slabs(flat):
            values = torch.nn.functional.grid_sample(
                flat[(..., *block)], points, mode="bilinear", padding_mode="border", align_corners=False
            )
            result[:, :, rows] = values * inside
        return result.reshape(*head.shape[:-3], *self.cells)

    def spread(self, cells: Tensor) -> Tensor:
        """The transpose of ``gather``: (..., a, b, c) -> (..., X, Y, Z)."""
        flat = cells.reshape(1, -1, *self.cells)
        result = flat.new_zeros(1, flat.shape[1], *self.head)
        for rows, block, points, inside in self._slabs(flat):
            part = result[(..., *block)]
            gradient, _ = torch.ops.aten.grid_sampler_3d_backward(
                (flat[:, :, rows] * inside).contiguous(), torch.empty_like(part), points, 0, 1, False, [True, False]
            )
            part += gradient
        return result.reshape(*cells.shape[:-3], *self.head)

    def _slabs(self, like: Tensor) -> Iterator[tuple[slice, tuple[slice, ...], Tensor, Tensor]]:
        """Slabs of cells: their rows, the block of the head around them, their points in it, and which lie inside."""
        thickness = max(1, _SLAB // (self.cells[1] * self.cells[2]))
        for start in range(0, self.cells[0], thickness):
            rows = slice(start, min(start + thickness, self.cells[0]))
            block = self._block_around(rows)
            if any(part.start >= part.stop for part in block):
                continue
            yield rows, block, *self._points(rows, block, like)

    def _block_around(self, rows: slice) -> tuple[slice, ...]:
        last = [(rows.start, rows.stop - 1), (0, self.cells[1] - 1), (0, self.cells[2] - 1)]
        corners = np.array(np.meshgrid(*last, indexing="ij")).reshape(3, -1)
        index = self.index[:3, :3] @ corners + self.index[:3, 3:]
        low, high = np.floor(index.min(1)).astype(int) - 1, np.ceil(index.max(1)).astype(int) + 2
        return tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, self.head, strict=True))

    def _points(self, rows: slice, block: tuple[slice, ...], like: Tensor) -> tuple[Tensor, Tensor]:
        """Points (1, a, b, c, 3) as grid_sample takes them: last axis first, -1 to 1 in the block. Which lie inside."""
        cells = [np.arange(rows.start, rows.stop), np.arange(self.cells[1]), np.arange(self.cells[2])]
        points, inside = [], None
        for axis, part in reversed(list(enumerate(block))):
            steps = [self.index[axis, i] * cells[i] for i in range(3)]
            steps[0] = steps[0] + self.index[axis, 3] - part.start
            a, b, c = (torch.as_tensor(step, dtype=like.dtype, device=like.device) for step in steps)
            position = a[:, None, None] + b[None, :, None] + c[None, None, :]
            low, high = -0.5 - part.start, self.head[axis] - 0.5 - part.start
            within = (position >= low - 1e-4) & (position <= high + 1e-4)
            inside = within if inside is None else inside & within
            points.append((2 * position + 1) / (part.stop - part.start) - 1)
        return torch.stack(points, dim=-1)[None], inside.to(like.dtype)


class _Gather(torch.autograd.Function):
    """R with R^T as its derivative."""

    @staticmethod
    def forward(ctx: Any, head: Tensor, interpolation: _Interpolation) -> Tensor:
        ctx.interpolation = interpolation
        return interpolation.gather(head)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(gradient, ctx.interpolation), None


class _Spread(torch.autograd.Function):
    """R^T with R as its derivative."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, interpolation: _Interpolation) -> Tensor:
        ctx.interpolation = interpolation
        return interpolation.spread(cells)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(gradient, ctx.interpolation), None


def _interpolated(head: Tensor, interpolation: _Interpolation | None) -> Tensor:
    return head if interpolation is None else _Gather.apply(head, interpolation)


def _parallel(scan: Grid, head: Grid) -> bool:
    try:
        axis_positions(scan, head)
    except ValueError:
        return False
    return True


def _along(matrix: Tensor, data: Tensor, axis: int) -> Tensor:
    """A matrix applied along one of the last three axes."""
    return torch.movedim(torch.movedim(data, axis - 3, -1) @ matrix.to(data.dtype).T, -1, axis - 3)
