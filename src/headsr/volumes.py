"""Volumes on grids: geometry, and NIfTI files read and written safely.

One convention everywhere (docs/decisions.md): voxels are cells. Index i of an axis with factor k sits at
(i + 0.5)/k - 0.5 on the coarse grid, and a resampled volume keeps the same field-of-view box. Volumes are float32
arrays (X, Y, Z) in the canonical RAS orientation nearest to the file's own; affines map voxel indices to mm.
"""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.files import whole

AXES = {
    "sagittal": 0,
    "coronal": 1,
    "axial": 2,
}  # the array axis (RAS) that a view's slices are stacked along
_FORMS_TOLERANCE_MM = 0.1


class VolumeError(ValueError):
    """A volume file cannot be used. The message names the file, what is wrong with it and the way out."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid in space: ``shape`` in voxels and the 4 x 4 ``affine`` from voxel indices to mm (RAS+)."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64))
        if len(self.shape) != 3 or min(self.shape) < 1 or self.affine.shape != (4, 4):
            raise ValueError(f"a grid needs three positive sizes and a 4 x 4 affine, not {self.shape}")
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-12:
            raise ValueError("the affine of a grid must be invertible")

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """Voxel size in mm per axis: the column norms of the affine, never its diagonal."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))

    @property
    def corners(self) -> NDArray[np.float64]:
        """The eight corners (8, 3) in mm of the field-of-view box, half a voxel outside the outermost centres."""
        index = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in self.shape], indexing="ij")).reshape(3, -1)
        return (self.affine[:3, :3] @ index + self.affine[:3, 3:]).T

    def resized(self, shape: tuple[int, int, int]) -> Grid:
        """The grid of another shape with the same field-of-view box."""
        factor = np.array(self.shape) / np.array(shape)
        affine = self.affine.copy()
        affine[:3, :3] *= factor
        affine[:3, 3] += self.affine[:3, :3] @ (0.5 * factor - 0.5)
        return Grid(shape, affine)

    def at_voxel_size(self, size_mm: float | NDArray[np.float64]) -> Grid:
        """The grid with the same box whose voxels are nearest to ``size_mm`` (one number, or one per axis)."""
        shape = np.maximum(1, np.rint(np.array(self.shape) * self.voxel_size / size_mm)).astype(int)
        return self.resized(tuple(shape))

    def block(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """The part of the grid that starts at voxel ``start``."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ np.array(start, dtype=np.float64)
        return Grid(shape, affine)

    def thick(self, axis: int, factor: float) -> Grid:
        """The grid of thick slices along ``axis``, ``factor`` voxels apart, from the same first face on.

        The last slice may reach beyond the box when ``factor`` does not divide the size.
        """
        shape = list(self.shape)
        shape[axis] = int(np.ceil(self.shape[axis] / factor - 1e-9))
        affine = self.affine.copy()
        affine[:3, axis] *= factor
        affine[:3, 3] += self.affine[:3, axis] * (0.5 * factor - 0.5)
        return Grid(tuple(shape), affine)

    def same_as(self, other: Grid, tolerance_voxel: float = 0.01) -> bool:
        """Whether both grids have one shape and no corner differs by more than ``tolerance_voxel``."""
        limit = tolerance_voxel * min(self.voxel_size)
        return self.shape == other.shape and bool(np.abs(self.corners - other.corners).max() <= limit)


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities, float32 (X, Y, Z), on their grid."""

    data: NDArray[np.float32]
    grid: Grid


def load_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a NIfTI scan into the RAS orientation nearest to its own, in its own units (slope and intercept applied).

    Raises VolumeError for a damaged or cut file (the gzip stream is read to its end, which nibabel alone does not do),
    for 4-D, RGB, empty, constant or non-finite data, and for sform and qform that disagree.
    """
    image = _open_whole(path)
    if image.get_data_dtype().fields is not None:
        raise VolumeError(f"{path}: holds RGB colours, not one intensity per voxel. Convert it to grey values first")
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise VolumeError(
            f"{path}: is {len(shape)}-D ({'x'.join(map(str, shape))}), headsr needs one 3-D volume. "
            "Keep one volume of it, for example with nibabel.four_to_three, and name that file instead"
        )
    if min(shape) < 2:
        raise VolumeError(f"{path}: is empty or flat ({'x'.join(map(str, shape))} voxels), not a volume")
    _refuse_conflicting_forms(path, image)
    image = nib.as_closest_canonical(nib.Nifti1Image(image.get_fdata(dtype=np.float32).reshape(shape), image.affine))
    data = np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32))
    _refuse_unusable(path, data)
    return Volume(data, Grid(data.shape, image.affine))


def save_volume(path: str | os.PathLike[str], data: NDArray, grid: Grid, *, description: str = "headsr") -> None:
    """Write a NIfTI volume whole or not at all, with equal sform and qform in mm and the same bytes every time."""
    if data.shape != grid.shape:
        raise ValueError(f"{path}: data of shape {data.shape} do not fit the grid {grid.shape}")
    image = nib.Nifti1Image(data, grid.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()[:79]
    image.set_sform(grid.affine, code="scanner")
    image.set_qform(grid.affine, code="scanner")
    if not Grid(grid.shape, image.get_qform()).same_as(grid):
        # A sheared affine (gantry tilt) is no rotation: the qform cannot say it and must not claim to.
        image.set_qform(grid.affine, code="unknown")
    with whole(path) as partial:
        content = image.to_bytes()
        if partial.suffix == ".gz":
            # No name and no time in the gzip header: same data, same bytes.
            content = gzip.compress(content, compresslevel=4, mtime=0)
        partial.write_bytes(content)


def cell_average(data: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Average a volume over the cells of a coarser grid with the same box (any factor, exact for integers)."""
    for axis, size in enumerate(shape):
        if data.shape[axis] != size:
            data = _along(cell_matrix(data.shape[axis], size), data, axis)
    return data.astype(np.float32)


def cell_matrix(n: int, m: int) -> NDArray[np.float64]:
    """Weights (m, n) that average n cells into m cells of the same box; rows sum to one."""
    edges, factor = np.arange(m + 1) * (n / m), n / m
    low, high = edges[:-1, None], edges[1:, None]
    cell = np.arange(n)[None, :]
    return np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None) / factor


def spline_matrix(positions: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    """Cubic B-spline interpolation as weights (len(positions), m) from m samples to fractional ``positions``.

    Beyond the outermost sample the nearest sample is kept; a constant stays that constant.
    """
    positions = np.clip(np.asarray(positions, dtype=np.float64), 0, m - 1)
    if m == 1:
        return np.ones((len(positions), 1))
    unit = np.eye(m)
    order = min(3, m - 1)
    columns = [ndimage.map_coordinates(column, positions[None], order=order, mode="mirror") for column in unit]
    return np.stack(columns, axis=1)


def spline_resample(volume: Volume, target: Grid) -> NDArray[np.float32]:
    """Interpolate a volume by cubic B-splines onto a grid whose axes are parallel to its own (one axis at a time)."""
    data = volume.data
    for axis, positions in enumerate(axis_positions(target, volume.grid)):
        if len(positions) != data.shape[axis] or np.abs(positions - np.arange(len(positions))).max() > 1e-6:
            data = _along(spline_matrix(positions, data.shape[axis]), data, axis)
    return data.astype(np.float32)


def axis_positions(target: Grid, source: Grid) -> list[NDArray[np.float64]]:
    """Where the voxel centres of ``target`` lie on each axis of ``source``, in fractional source indices.

    Raises ValueError when the two grids' axes are not parallel within 0.01 voxel over the whole target.
    """
    index = np.linalg.inv(source.affine) @ target.affine
    cross = index[:3, :3] - np.diag(np.diag(index[:3, :3]))
    if np.abs(cross @ np.diag(target.shape)).max() > 0.01:
        raise ValueError("the grids are rotated against each other; headsr resamples along common axes only")
    return [index[axis, axis] * np.arange(target.shape[axis]) + index[axis, 3] for axis in range(3)]


def _along(matrix: NDArray[np.float64], data: NDArray, axis: int) -> NDArray:
    return np.moveaxis(np.tensordot(matrix.astype(np.float32), data, axes=(1, axis)), 0, axis)


def _open_whole(path: str | os.PathLike[str]) -> nib.Nifti1Image:
    """Read every byte: the CRC at the end of the gzip stream is what proves the content."""
    try:
        content = Path(path).read_bytes()
        if str(path).endswith(".gz"):
            content = gzip.decompress(content)
        image = nib.Nifti1Image.from_bytes(content)
        if image.get_data_dtype().fields is None:
            image.get_fdata(dtype=np.float32, caching="fill")
    except FileNotFoundError:
        raise VolumeError(f"{path}: does not exist. If it is annexed, get its content with: datalad get") from None
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise VolumeError(f"{path}: is damaged or cut short ({error}). Fetch it again") from error
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, ValueError) as error:
        raise VolumeError(f"{path}: is not a readable NIfTI volume ({error}). Fetch or convert it again") from error
    return image


def _refuse_conflicting_forms(path: str | os.PathLike[str], image: nib.Nifti1Image) -> None:
    sform, sform_code = image.get_sform(coded=True)
    try:
        qform, qform_code = image.get_qform(coded=True)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise VolumeError(
            f"{path}: its qform is not a rotation ({error}). Repair it with: fslorient or nibabel"
        ) from error
    if sform_code and qform_code:
        distance = np.abs(Grid(image.shape[:3], sform).corners - Grid(image.shape[:3], qform).corners).max()
        if distance > _FORMS_TOLERANCE_MM:
            raise VolumeError(
                f"{path}: sform and qform disagree by {distance:.1f} mm, so where voxels lie (and which side is left) "
                "is not known. Copy the right one over the other, for example fslorient -copysform2qform"
            )


def _refuse_unusable(path: str | os.PathLike[str], data: NDArray[np.float32]) -> None:
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise VolumeError(f"{path}: {bad} of {data.size} voxels are NaN or infinite. Repair or leave out this scan")
    if data.min() == data.max():
        raise VolumeError(
            f"{path}: every voxel is {data.flat[0]:g}; there is no head in it. Fetch it again or leave it out"
        )
