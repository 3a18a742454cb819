"""Volumes on grids: geometry, and NIfTI files read and written safely.

One convention everywhere (docs/decisions.md): voxels are cells. Index i of an axis with factor k sits at
(i + 0.5)/k - 0.5 on the coarse grid, and a resampled volume keeps the same field-of-view box. Volumes are float32
arrays (X, Y, Z) in the canonical RAS orientation nearest to the file's own; affines map voxel indices to mm. How a file
keeps its intensities (a CT: integers, slope and intercept) is read with them and can be written again.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage

from headsr.files import NotAFileError, open_file, whole
from headsr.machine import free_memory

AXES = {
    "sagittal": 0,
    "coronal": 1,
    "axial": 2,
}  # the array axis (RAS) that a view's slices are stacked along
_FORMS_TOLERANCE_MM = 0.1
_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_AT_ONCE = 131072  # voxels converted at once: a MiB of float64 stays in the cache, and fewer keep other threads waiting
_SHEARED = 1e-4  # of the cosine between two axes: float32 and rotations in a few digits stay below
_LONGER = 1e-4  # of the square of a quaternion: float32 and tools that compute in it come to some 1e-6
_LAST_FORM_CODE = 5  # NIFTI_XFORM_TEMPLATE_OTHER
_ENDINGS = (".nii", ".nii.gz")
# It says without a file's name what it repairs; what of that matters is refused here by name.
nib.imageglobals.logger.setLevel(logging.CRITICAL)
_GZIP, _TOLD_BY, _DICOM_AT = b"\x1f\x8b", 512, 128  # bytes
_CONVERT = "Convert it to NIfTI"
_OTHER_KINDS = {  # by what they begin with, and the way out
    b"BZh": ("packed by bzip2", "Unpack it (bunzip2), and pack it with gzip"),
    b"PK\x03\x04": ("a zip archive", "Unpack it (unzip), and name the image in it"),
    b"\xfd7zXZ": ("packed by xz", "Unpack it (unxz), and pack it with gzip"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "Unpack it (unzstd), and pack it with gzip"),
    b"NRRD": ("an NRRD file", _CONVERT),
    b"\x89HDF": ("an HDF5 file, as MINC 2 is", _CONVERT),
    b"CDF\x01": ("a NetCDF file, as MINC 1 is", _CONVERT),
    b"\x89PNG": ("a picture (PNG)", "Convert the DICOM files that it was made of"),
    b"\xff\xd8\xff": ("a picture (JPEG)", "Convert the DICOM files that it was made of"),
}
_MOST_PACKED = 1040  # bytes that a byte of gzip can hold: a little more than deflate's 1032
_BYTES_OF_A_VOXEL = 8  # in memory beside the file: its intensity as float32, and once more turned to RAS
_HEAD_VOXEL_MM = (0.005, 100.0)  # a head's voxels outside of these are a wrong unit or a wrong header


class Forms(NamedTuple):
    """What the two forms of a NIfTI header place voxels in: 1 scanner, 2 aligned, 3 Talairach, 4 MNI, 5 template."""

    sform: int
    qform: int


SCANNER = Forms(1, 1)


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
        if not np.isfinite(self.affine).all():
            raise ValueError("the affine of a grid must be finite")
        if np.abs(self.affine[3] - [0, 0, 0, 1]).max() > 1e-6:
            raise ValueError(f"the last row of the affine of a grid must be 0 0 0 1, not {self.affine[3]}")
        # A voxel sheared to a millionth of its upright volume is flat.
        if abs(np.linalg.det(self.affine[:3, :3])) <= 1e-6 * np.prod(self.voxel_size) or not _inverts(self.affine):
            raise ValueError("the affine of a grid must be invertible")

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """Voxel size in mm per axis: the column norms of the affine, never its diagonal."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))

    @property
    def is_of_a_head(self) -> bool:
        """Whether its voxels may be those of a head: none of a wrong unit, or of a wrong affine."""
        return bool(self.voxel_size.min() >= _HEAD_VOXEL_MM[0] and self.voxel_size.max() <= _HEAD_VOXEL_MM[1])

    @property
    def is_sheared(self) -> bool:
        """Whether its axes are not at right angles, as those of a tilted gantry are; ITK reads no such file."""
        directions = self.affine[:3, :3] / self.voxel_size
        return bool(np.abs(directions.T @ directions - np.eye(3)).max() > _SHEARED)

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
        return self.resized(_nearest_shape(np.array(self.shape) * self.voxel_size / _positive(size_mm)))

    def scaled(self, factor: float | NDArray[np.float64]) -> Grid:
        """The grid with the same box and about ``factor`` (one number, or one per axis) times as many voxels."""
        return self.resized(_nearest_shape(np.array(self.shape) * _positive(factor)))

    def block(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """The part of the grid that starts at voxel ``start``."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ np.array(start, dtype=np.float64)
        return Grid(shape, affine)

    def thick(self, axis: int, factor: float, thickness: float | None = None) -> Grid:
        """The grid of slices along ``axis`` that begin ``factor`` voxels apart, the first one at the box's first face.

        ``thickness`` in voxels is ``factor`` when None: no gap, no overlap. The last slice may reach beyond the box
        where ``factor`` does not divide the size.
        """
        shape = list(self.shape)
        shape[axis] = int(np.ceil(self.shape[axis] / factor - 1e-9))
        affine = self.affine.copy()
        affine[:3, axis] *= factor
        affine[:3, 3] += self.affine[:3, axis] * (0.5 * (factor if thickness is None else thickness) - 0.5)
        return Grid(tuple(shape), affine)

    def zoomed(self, axis: int, factor: float) -> Grid:
        """The grid that ``scipy.ndimage.zoom`` makes by 1/``factor`` along ``axis``: the outermost centres stay.

        Its box is not this grid's, by up to (factor - 1)/2 voxels at each end.
        """
        n = self.shape[axis]
        shape = list(self.shape)
        shape[axis] = max(1, round(n / factor))
        affine = self.affine.copy()
        affine[:3, axis] *= (n - 1) / max(1, shape[axis] - 1)
        return Grid(tuple(shape), affine)

    def same_as(self, other: Grid, tolerance_voxel: float = 0.01) -> bool:
        """Whether both grids have one shape and no corner differs by more than ``tolerance_voxel``."""
        limit = tolerance_voxel * min(self.voxel_size)
        return self.shape == other.shape and bool(np.abs(self.corners - other.corners).max() <= limit)


@dataclass(frozen=True)
class Storage:
    """How a file keeps intensities: the numbers n of type ``dtype`` that stand for n * ``slope`` + ``intercept``.

    Slope and intercept are rounded to float32, which is what NIfTI-1 keeps of them.
    """

    dtype: str = "float32"
    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        kind = np.dtype(self.dtype)
        object.__setattr__(self, "dtype", kind.newbyteorder("=").name)
        object.__setattr__(self, "slope", float(np.float32(self.slope)))
        object.__setattr__(self, "intercept", float(np.float32(self.intercept)))
        if kind.kind not in "iuf" or not np.isfinite([self.slope, self.intercept]).all() or self.slope == 0:
            raise ValueError(f"numbers with a finite slope that is not 0 store intensities, not {self}")

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest intensity that can be stored, to clip to (floating point: no limits)."""
        if np.dtype(self.dtype).kind == "f":
            return -math.inf, math.inf
        ends = np.iinfo(self.dtype)
        low, high = sorted(float(end) * self.slope + self.intercept for end in (ends.min, ends.max))
        return low, high

    def decode(self, stored: NDArray) -> NDArray[np.float32]:
        """The intensities that stored numbers stand for, each rounded once, to float32."""
        if (self.slope, self.intercept) == (1, 0):
            return stored.astype(np.float32)
        data = np.empty(stored.shape, np.float32, order="F")
        for k in range(stored.shape[-1]):
            data[..., k] = stored[..., k] * np.float64(self.slope) + self.intercept
        return data

    def encode(self, data: NDArray[np.float32]) -> NDArray:
        """The numbers nearest to intensities: for integers, what ``decode`` was given, each and every one.

        Raises ValueError for integers where an intensity is not finite or beyond ``limits`` (clip to them first, if the
        loss is meant), and where float32 is too coarse to tell one number from the next (beyond 2^23 steps from zero).
        """
        if np.dtype(self.dtype).kind != "f":
            self._refuse_what_does_not_fit(data)
        elif (self.slope, self.intercept) == (1, 0):
            return data.astype(self.dtype, order="F")
        stored = np.empty(data.shape, self.dtype, order="F")
        for planes in _planes(data.shape):
            numbers = data[..., planes] - np.float64(self.intercept)
            numbers /= self.slope
            stored[..., planes] = numbers if stored.dtype.kind == "f" else np.rint(numbers, out=numbers)
        return stored

    def _refuse_what_does_not_fit(self, data: NDArray[np.float32]) -> None:
        (least, greatest), (low, high), step = (data.min(), data.max()), self.limits, abs(self.slope)
        said = f"{self.dtype} with slope {self.slope:g} and intercept {self.intercept:g}"
        if not (low - step / 2 < least and greatest < high + step / 2):
            raise ValueError(
                f"intensities from {least:g} to {greatest:g} do not fit into {said}, which holds {low:g} to {high:g}. "
                "Clip them to these limits, or store float32"
            )
        if np.spacing(np.float32(max(-least, greatest))) >= step:
            raise ValueError(f"float32 cannot tell apart the steps of {said} at {greatest:g}. Store float32 instead")


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities, float32 (X, Y, Z), on their grid, and how the file that they come from stored them.

    ``axes`` are the directions that the file's own axes point to, in its order: ``LAS``, or ``PIR`` of sagittal slices.
    ``forms`` are the codes of its header; where one of them is 0, which is no place, the other's stand for both.
    """

    data: NDArray[np.float32]
    grid: Grid
    storage: Storage = Storage()
    axes: str = "RAS"
    forms: Forms = SCANNER


@np.errstate(over="ignore", invalid="ignore")  # what a damaged file makes infinite or NaN is refused by name
def load_volume(path: str | os.PathLike[str], *, constant: bool = False) -> Volume:
    """Read a NIfTI scan into the RAS orientation nearest to its own, in its own units (slope and intercept applied).

    NIfTI-1 and NIfTI-2, .nii and .nii.gz, either byte order. Affines in metres and microns become mm; an unknown unit
    is taken for mm. Integers beyond 2^24 are rounded to float32. ``constant`` allows one value everywhere, as in an
    empty mask.
    Raises VolumeError for a damaged or cut file (the gzip stream is read to its end, which nibabel alone does not do),
    for what is no file, for 4-D, RGB, complex, empty, constant or non-finite data, for more than memory takes, for
    sform and qform that disagree or are both missing, codes, qfac and slope that mean nothing, and for voxels that are
    not a head's.
    """
    header, content = _read_whole(path)
    shape = _shape(path, header)
    affine = _affine_in_mm(path, header, shape)
    stored, storage = _stored(path, header, content)
    orientation = nib.io_orientation(affine)
    data = nib.apply_orientation(storage.decode(stored.reshape(shape, order="F")), orientation)
    data = np.ascontiguousarray(data)
    _refuse_unusable(path, data, constant=constant)
    grid = Grid(data.shape, affine @ nib.orientations.inv_ornt_aff(orientation, shape))
    return Volume(data, grid, storage, "".join(nib.orientations.ornt2axcodes(orientation)), _forms_of(header))


def save_volume(
    path: str | os.PathLike[str],
    data: NDArray,
    grid: Grid,
    *,
    description: str = "headsr",
    storage: Storage | None = None,
    axes: str = "RAS",
    forms: Forms = SCANNER,
) -> None:
    """Write a NIfTI volume whole or not at all, with equal sform and qform in mm and the same bytes every time.

    Without ``storage`` the data are kept as they are; ``axes`` are the directions that the file's axes point to,
    ``forms`` what its header says that they are in.
    Raises ValueError where they do not fit the grid or the storage.
    """
    if data.shape != grid.shape:
        raise ValueError(f"{path}: data of shape {data.shape} do not fit the grid {grid.shape}")
    if axes != "RAS":
        data, grid = _turned(data, grid, axes)
    image = nib.Nifti1Image(data if storage is None else _encoded(path, data, storage), grid.affine)
    if storage is not None:
        image.header.set_slope_inter(storage.slope, storage.intercept)
    image.header["descrip"] = description.encode()[:79]
    place(image.header, grid, forms)
    with whole(path) as partial:
        content = image.to_bytes()
        if partial.suffix == ".gz":
            # No name and no time in the gzip header: same data, same bytes.
            content = gzip.compress(content, compresslevel=4, mtime=0)
        partial.write_bytes(content)


def place(header: nib.Nifti1Header, grid: Grid, forms: Forms) -> None:
    """Say in a header where a grid lies, in mm, as sform and as qform.

    A sheared grid (gantry tilt) is no rotation: a qform cannot say it and does not claim to.
    """
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code=forms.sform)
    header.set_qform(grid.affine, code=forms.qform)
    if not Grid(grid.shape, header.get_qform()).same_as(grid):
        header["qform_code"] = 0


def _inverts(affine: NDArray[np.float64]) -> bool:
    """Whether floats can say the inverse of an affine: voxels of 1e-300 mm have one on paper alone."""
    try:
        return bool(np.isfinite(np.linalg.inv(affine)).all())
    except np.linalg.LinAlgError:
        return False


def _turned(data: NDArray, grid: Grid, axes: str) -> tuple[NDArray, Grid]:
    """The same voxels in the same places, with array axes that point to other directions."""
    ras, wanted = (nib.orientations.axcodes2ornt(codes) for codes in ("RAS", axes))
    turn = nib.orientations.ornt_transform(ras, wanted)
    affine = grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape)
    data = nib.apply_orientation(data, turn)
    return data, Grid(data.shape, affine)


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

    The natural spline (Unser, IEEE Signal Process. Mag. 16(6), 1999), which has no curvature at its ends: a linear ramp
    stays that ramp. Beyond the outermost sample the nearest sample is kept; a constant stays that constant.
    """
    positions = np.clip(np.asarray(positions, dtype=np.float64), 0, m - 1)
    distance = np.abs(positions[:, None] - np.arange(-1, m + 1))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far) @ _spline_coefficients(np.eye(m), axis=0)


def spline_resample(volume: Volume, target: Grid) -> NDArray[np.float32]:
    """Interpolate a volume by the cubic B-splines of ``spline_matrix`` at the voxel centres of any grid.

    One axis at a time where the axes are parallel, whatever their order and direction; else plane by plane.
    """
    index = np.linalg.inv(volume.grid.affine) @ target.affine
    along = np.abs(index[:3, :3]).argmax(axis=0)
    data = volume.data
    if sorted(along) == [0, 1, 2]:
        data, index = data.transpose(along), index[[*along, 3]]
    if not _is_parallel(index, target.shape):
        return _interpolate(data, index, target.shape)
    for axis, positions in enumerate(_positions(index, target.shape)):
        if len(positions) != data.shape[axis] or np.abs(positions - np.arange(len(positions))).max() > 1e-6:
            data = _along(spline_matrix(positions, data.shape[axis]), data, axis)
    return np.array(data, dtype=np.float32, order="C")


def axis_positions(target: Grid, source: Grid) -> list[NDArray[np.float64]]:
    """Where the voxel centres of ``target`` lie on each axis of ``source``, in fractional source indices.

    Raises ValueError when the two grids' axes are not parallel within 0.01 voxel over the whole target.
    """
    index = np.linalg.inv(source.affine) @ target.affine
    if not _is_parallel(index, target.shape):
        raise ValueError("the grids are rotated against each other; headsr resamples along common axes only")
    return _positions(index, target.shape)


def _is_parallel(index: NDArray[np.float64], shape: tuple[int, int, int]) -> bool:
    cross = index[:3, :3] - np.diag(np.diag(index[:3, :3]))
    return bool(np.abs(cross @ np.diag(shape)).max() <= 0.01)


def _positions(index: NDArray[np.float64], shape: tuple[int, int, int]) -> list[NDArray[np.float64]]:
    return [index[axis, axis] * np.arange(shape[axis]) + index[axis, 3] for axis in range(3)]


def _interpolate(
    samples: NDArray[np.float32], index: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Values (of ``shape``) of the spline through samples at ``index`` @ (i, j, k, 1), in fractional sample indices."""
    coefficients = samples
    for axis in range(3):
        coefficients = _spline_coefficients(coefficients, axis)
    last = np.array(samples.shape).reshape(3, 1, 1) - 1
    j, k = np.arange(shape[1])[:, None], np.arange(shape[2])
    first_plane = index[:3, 1, None, None] * j + index[:3, 2, None, None] * k + index[:3, 3, None, None]
    values = np.empty(shape, np.float32)
    for i in range(shape[0]):
        points = np.clip(first_plane + i * index[:3, 0, None, None], 0, last) + 1
        ndimage.map_coordinates(coefficients, points, output=values[i], order=3, mode="mirror", prefilter=False)
    return values


def _spline_coefficients(samples: NDArray, axis: int) -> NDArray:
    """Coefficients of the natural cubic B-spline through samples along an axis, with one more at either end."""
    bands = np.full((3, samples.shape[axis]), 1 / 6, dtype=samples.dtype)
    bands[1] = 2 / 3
    # No curvature at an end: the coefficient there is the sample, and the one beyond continues the line.
    bands[1, [0, -1]], bands[0, 1:2], bands[2, -2:-1] = 1, 0, 0
    columns = np.moveaxis(samples, axis, 0)
    inner = linalg.solve_banded((1, 1), bands, columns.reshape(len(columns), -1)).reshape(columns.shape)
    beyond = [(1, 1)] + [(0, 0)] * (inner.ndim - 1)
    return np.moveaxis(np.pad(inner, beyond, mode="reflect", reflect_type="odd"), 0, axis)


def _along(matrix: NDArray[np.float64], data: NDArray, axis: int) -> NDArray:
    return np.moveaxis(np.tensordot(matrix.astype(np.float32), data, axes=(1, axis)), 0, axis)


def _positive(value: float | NDArray[np.float64]) -> NDArray[np.float64]:
    value = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(value).all() and (value > 0).all()):
        raise ValueError(f"a voxel size or a factor must be positive, not {value}")
    return value


def _nearest_shape(sizes: NDArray[np.float64]) -> tuple[int, int, int]:
    return tuple(np.maximum(1, np.rint(sizes)).astype(int))


def _planes(shape: tuple[int, ...]) -> Iterator[slice]:
    """The last axis in parts of some planes, to be converted one after the other."""
    step = max(1, _AT_ONCE // max(1, math.prod(shape[:-1])))
    return (slice(k, k + step) for k in range(0, shape[-1], step))


def _encoded(path: str | os.PathLike[str], data: NDArray[np.float32], storage: Storage) -> NDArray:
    try:
        return storage.encode(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_whole(path: str | os.PathLike[str]) -> tuple[nib.Nifti1Header, bytes]:
    """Read every byte of a file: the CRC at the end of the gzip stream is what proves the content.

    The header comes first, and no more is read than it says, and one byte that must not be there: 20 MB of gzip may
    hold 20 GB.
    """
    _refuse_name(path)
    try:
        with open_file(path) as file:
            begin = file.read(_TOLD_BY)
            _refuse_other_kinds(path, begin)
            packed = begin.startswith(_GZIP)  # the name may lie
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if packed else nullcontext(file) as stream:
                begin = stream.read(nib.Nifti2Header.template_dtype.itemsize)
                if packed:
                    _refuse_other_kinds(path, begin)
                if begin.startswith(_GZIP):
                    raise VolumeError(f"{path}: is packed twice by gzip. Unpack it once (gunzip)")
                header = read_header(path, begin)
                _refuse_voxels_in_header(path, type(header)(begin[: header.template_dtype.itemsize], check=False))
                size = _bytes_of(header)
                _shape(path, header)
                _refuse_size(path, header, os.fstat(file.fileno()).st_size * (_MOST_PACKED if packed else 1))
                return header, begin + stream.read(max(0, size - len(begin)) + 1)
    except NotAFileError as error:
        raise VolumeError(str(error)) from None
    except FileNotFoundError:
        raise VolumeError(f"{path}: does not exist. If it is annexed, get its content with: datalad get") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise VolumeError(f"{path}: is damaged or cut short ({error}). Fetch it again") from error
    except OSError as error:  # that says nothing of its content
        raise VolumeError(
            f"{path}: cannot be read ({error.strerror or error}). Name a file that you may read, on a disk that answers"
        ) from error


def _refuse_name(path: str | os.PathLike[str]) -> None:
    name = os.path.basename(path)
    if name.endswith(_ENDINGS):
        return
    if name.lower().endswith(_ENDINGS):
        ending = next(ending for ending in _ENDINGS if name.lower().endswith(ending))
        raise VolumeError(f"{path}: headsr reads names that end in {ending}. Rename it: {name[: -len(ending)]}{ending}")
    raise VolumeError(
        f"{path}: is not named .nii or .nii.gz. Convert it: Analyze and .hdr/.img pairs, MGH and MINC with "
        "nibabel.save(nibabel.load(...), 'scan.nii.gz'), DICOM with dcm2niix"
    )


def _refuse_other_kinds(path: str | os.PathLike[str], begin: bytes) -> None:
    """VolumeError for what often lies where an image should, by how it begins: each has its own way out."""
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n").lower().replace(b"\\", b"/")
    if not begin:
        raise VolumeError(f"{path}: is empty (0 bytes), not a readable NIfTI volume. Fetch or convert it again")
    if b"annex/objects/" in text and b"\0" not in text:  # a pointer, or a link where the file system has none
        raise VolumeError(
            f"{path}: is not the image but a text that git-annex keeps in its place. Get the content, in its dataset: "
            f"datalad get {os.path.basename(path)}. Where it was copied as text, get it from the dataset itself"
        )
    if text.startswith(b"version https://git-lfs"):
        raise VolumeError(
            f"{path}: is not the image but a text that Git LFS keeps in its place. Get the content, in its "
            "repository: git lfs pull"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"{")):
        raise VolumeError(
            f"{path}: is not the image but a page or a message of the server that it was asked of. Read it, most often "
            "it asks to log in, and fetch the image again"
        )
    for mark, (kind, way_out) in _OTHER_KINDS.items():
        if begin.startswith(mark):
            raise VolumeError(f"{path}: is {kind}, whatever its name says. {way_out}")
    if begin[_DICOM_AT:].startswith(b"DICM"):
        raise VolumeError(f"{path}: is a DICOM file. Convert its whole folder with dcm2niix")


def _bytes_of(header: nib.Nifti1Header) -> int:
    """What a file has of bytes according to its header, unpacked."""
    return header.get_data_offset() + _count(header) * header.get_data_dtype().itemsize


def _count(header: nib.Nifti1Header) -> int:
    return math.prod(_lengths(header))


def _refuse_size(path: str | os.PathLike[str], header: nib.Nifti1Header, most: int) -> None:
    """VolumeError where a file that can hold ``most`` bytes lacks some, and where memory cannot take the volume."""
    size, free = _bytes_of(header), free_memory()
    if not 0 <= size <= most:
        raise VolumeError(
            f"{path}: is damaged or cut short (its header says {size} bytes, and it holds at most {most}). Fetch it "
            "again"
        )
    needed = size + _BYTES_OF_A_VOXEL * _count(header)
    if needed > free:
        raise VolumeError(
            f"{path}: takes {needed / 1e9:.3g} GB of memory by its header, and {free / 1e9:.3g} GB are free. Use a "
            "machine with more memory, or resample the scan to larger voxels"
        )


def _refuse_voxels_in_header(path: str | os.PathLike[str], said: nib.Nifti1Header) -> None:
    """VolumeError for a file whose voxels would begin before its header has ended; nibabel repairs that in silence."""
    if said["vox_offset"] < said.single_vox_offset:
        raise VolumeError(
            f"{path}: is not a readable NIfTI volume (its voxels would begin at byte {said['vox_offset']:g}, inside of "
            "its header). Fetch or convert it again"
        )


def read_header(path: str | os.PathLike[str], content: bytes) -> nib.Nifti1Header:
    """The NIfTI header that ``content`` begins with. VolumeError where it is none, or says what nothing can mean."""
    kind = next((kind for kind in (nib.Nifti1Header, nib.Nifti2Header) if kind.may_contain_header(content)), None)
    if kind is None:
        raise VolumeError(f"{path}: is not a readable NIfTI volume (no such header). Fetch or convert it again")
    block = content[: kind.template_dtype.itemsize]
    try:
        header, said = (_with_unit_quaternion(one) for one in (kind(block), kind(block, check=False)))
        # nibabel repairs all of these in silence. A damaged type makes other intensities, a voxel size of 0 is 1 mm.
        if int(said["bitpix"]) != 8 * header.get_data_dtype().itemsize:
            raise ValueError(f"{said['bitpix']} bits per voxel are not those of {header.get_data_dtype()}")
        if said["qform_code"] > 0 and not said["pixdim"][1:4].all():
            raise ValueError(f"voxel sizes {said['pixdim'][1:4]}")
        if header["magic"].item().startswith(b"ni"):
            raise ValueError("the header of a .hdr/.img pair, whose data lie in another file")
        header.get_data_offset(), header.get_slope_inter(), header.get_xyzt_units()
    except (nib.spatialimages.HeaderDataError, ValueError, OverflowError, KeyError) as error:
        raise VolumeError(f"{path}: is not a readable NIfTI volume ({error}). Fetch or convert it again") from error
    _refuse_unclear(path, said)
    return header


def _with_unit_quaternion(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """The header with a quaternion that rounding has made a little longer than 1 cut to 1, as NIfTI's own library does.

    nibabel refuses it. Of a half turn, which scanners' axes often are, nothing is left beside b, c and d.
    """
    parts = [f"quatern_{part}" for part in "bcd"]
    square = sum(float(header[part]) ** 2 for part in parts)
    if 1 < square <= 1 + _LONGER:
        for part in parts:
            header[part] = float(header[part]) / math.sqrt(square)
    return header


def _refuse_unclear(path: str | os.PathLike[str], said: nib.Nifti1Header) -> None:
    """VolumeError for fields on which left and right, or the intensities, depend and which mean nothing as they are.

    Readers then guess, each in its own way; nibabel drops a form with such a code, and with it the check that it says
    the same as the other.
    """
    for name in ("sform_code", "qform_code"):
        if not 0 <= said[name] <= _LAST_FORM_CODE:
            raise VolumeError(
                f"{path}: its {name} is {said[name]}, which is none of 0 to {_LAST_FORM_CODE}, so where its voxels lie "
                "(and which side is left) is not known. If you know, set the code: 1 where that form holds, else 0"
            )
    # The standard takes 0, which should not occur, for 1, and nibabel does too.
    if said["qform_code"] > 0 and said["pixdim"][0] not in (-1, 0, 1):
        raise VolumeError(
            f"{path}: its pixdim[0] is {said['pixdim'][0]:g} and must be 1 or -1: it says which side is left in the "
            "qform. If you know, set it, or copy a right sform over the qform with: fslorient -copysform2qform"
        )
    if said["qform_code"] > 0 and said["sform_code"] == 0 and (said["pixdim"][1:4] < 0).any():
        raise VolumeError(
            f"{path}: its voxel sizes are {' x '.join(f'{mm:g}' for mm in said['pixdim'][1:4])} mm, and a qform alone "
            "says where they lie. Below zero they once meant a mirrored image, and readers differ in what they make "
            "of that. If you know which side is left, write an sform, for example with nibabel: "
            "image.set_sform(affine, code='scanner')"
        )
    if not np.isfinite(said["scl_slope"]):
        raise VolumeError(
            f"{path}: its scl_slope is {said['scl_slope']:g}, so what its numbers stand for is not known. If they are "
            "the intensities themselves, set it to 1 and scl_inter to 0"
        )


def _shape(path: str | os.PathLike[str], header: nib.Nifti1Header) -> tuple[int, int, int]:
    shape = _lengths(header)
    said = f"{path}: is {len(shape)}-D ({'x'.join(map(str, shape))}), headsr needs one 3-D volume. "
    if sum(length > 1 for length in shape) > 3:
        raise VolumeError(
            f"{said}Keep one volume of it, for example with nibabel.four_to_three, and name that file instead"
        )
    if len(shape) > 3 and min(shape) > 0:  # the affine is that of the first three axes, whatever lies along them
        raise VolumeError(
            f"{said}Take its axis of one voxel out (numpy.squeeze), with the affine that the axes left then have"
        )
    if len(shape) != 3:
        raise VolumeError(f"{said}Fetch or convert it again")
    if min(shape) < 2:
        raise VolumeError(f"{path}: is empty or flat ({'x'.join(map(str, shape))} voxels), not a volume")
    return shape


def _lengths(header: nib.Nifti1Header) -> tuple[int, ...]:
    """How long the axes are, without those after the third that hold one volume: of length 1, which some write as 0."""
    lengths = tuple(map(int, header.get_data_shape()))
    while len(lengths) > 3 and lengths[-1] in (0, 1):
        lengths = lengths[:-1]
    return lengths


def _stored(path: str | os.PathLike[str], header: nib.Nifti1Header, content: bytes) -> tuple[NDArray, Storage]:
    """The numbers in a file, flat, and what they stand for."""
    kind, start, count, size = header.get_data_dtype(), header.get_data_offset(), _count(header), _bytes_of(header)
    if kind.fields is not None:
        raise VolumeError(f"{path}: holds RGB colours, not one intensity per voxel. Convert it to grey values first")
    if kind.kind not in "iuf":
        raise VolumeError(f"{path}: holds {kind} numbers, not intensities. Take the magnitude of a complex image first")
    if len(content) != size:
        found = "more" if len(content) > size else len(content)
        raise VolumeError(
            f"{path}: is damaged or cut short (its header says {size} bytes, and it holds {found}). Fetch it again"
        )
    slope, intercept = header.get_slope_inter()
    try:
        storage = Storage(kind) if slope is None else Storage(kind, slope, intercept)
    except ValueError as error:
        raise VolumeError(f"{path}: {error}. Repair scl_slope and scl_inter in its header") from error
    return np.frombuffer(content, kind, count, start), storage


def _affine_in_mm(
    path: str | os.PathLike[str], header: nib.Nifti1Header, shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    sform, qform = (_form(path, header, name, shape) for name in ("sform", "qform"))
    grid = sform or qform
    if grid is None:
        # Nothing says which side is left, and readers guess differently.
        raise VolumeError(
            f"{path}: neither sform nor qform says where its voxels lie and which side is left. If you know, say it "
            "there, for example with nibabel: image.set_sform(affine, code='scanner')"
        )
    if not grid.is_of_a_head:
        size = " x ".join(f"{mm:g}" for mm in grid.voxel_size)
        raise VolumeError(
            f"{path}: voxels of {size} mm (unit in the header: {header.get_xyzt_units()[0]}) are not those of a head. "
            "Correct the unit, for example with nibabel: image.header.set_xyzt_units('mm'), or the affine"
        )
    if sform and qform:
        distance = np.abs(sform.corners - qform.corners).max()
        if distance > _FORMS_TOLERANCE_MM and not _is_one_quaternion(header):
            raise VolumeError(
                f"{path}: sform and qform disagree by {distance:.1f} mm, so where voxels lie (and which side is left) "
                "is not known. Copy the right one over the other, for example fslorient -copysform2qform"
            )
    return grid.affine


def _forms_of(header: nib.Nifti1Header) -> Forms:
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    return Forms(sform or qform, qform or sform)


def _is_one_quaternion(header: nib.Nifti1Header) -> bool:
    """Whether the qform of a header is what float32 can keep of its sform.

    The scalar part of the quaternion is not stored. Near a half turn, which is what scanners' axes often are, it is
    small, and a tilt that follows from it is off by up to a thousandth of a radian: 0.3 mm at the far end of a head.
    """
    sform, rounded = header.get_sform(), header.copy()
    rounded.set_qform(sform)  # of a sheared sform (gantry tilt) the nearest rotation, which is all that it can say
    turns = [np.array([h[f"quatern_{part}"] for part in "bcd"], dtype=np.float64) for h in (header, rounded)]
    places = [np.array([*h["pixdim"][:4], *(h[f"qoffset_{axis}"] for axis in "xyz")]) for h in (header, rounded)]
    turned = min(np.abs(turns[0] - turns[1]).max(), np.abs(turns[0] + turns[1]).max())
    return bool(turned < 1e-6 and np.allclose(*places, rtol=1e-5, atol=1e-3 * places[0][1]))


def _form(
    path: str | os.PathLike[str], header: nib.Nifti1Header, name: str, shape: tuple[int, int, int]
) -> Grid | None:
    """The grid that the sform or the qform of a header says, in mm; None where it says nothing."""
    try:
        affine, code = getattr(header, f"get_{name}")(coded=True)
        if not code:
            return None
        affine[:3] *= _MM[header.get_xyzt_units()[0]]
        return Grid(shape, affine)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise VolumeError(
            f"{path}: its {name} places no voxels ({error}). Repair it with: fslorient or nibabel"
        ) from error


def _refuse_unusable(path: str | os.PathLike[str], data: NDArray[np.float32], *, constant: bool) -> None:
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise VolumeError(f"{path}: {bad} of {data.size} voxels are NaN or infinite. Repair or leave out this scan")
    if data.min() == data.max() and not constant:
        raise VolumeError(
            f"{path}: every voxel is {data.flat[0]:g}; there is no head in it. Fetch it again or leave it out"
        )
