"""The levels of a finished volume as NIfTI: a whole one, or a box of it around a point, made while it is read.

OME-Zarr cannot say an oblique affine nor a slope and intercept, and browsers' readers leave out float16 (NIfTI has no
such type either), so the page is given NIfTI, whose header says all of it. A NIfTI's voxels follow one another as those
of an array (z, y, x), so a level is sent slab by slab, and a slab and its chunks are all that is held in memory.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from headsr.render import store as stores
from headsr.render.ours import says_store
from headsr.render.pyramid import level_grids
from headsr.render.tiles import Layout, Tile
from headsr.volumes import Grid, read_header

Triple = tuple[int, int, int]
Buffer = bytes | memoryview

SHOWN_FIRST = 2**25  # voxels (320 a side) that every browser takes at once: the finest such level is shown first
SHOWN_WHOLE = 2**27  # voxels (512 a side) that a browser with a graphics card takes; of larger levels it gets a box
BOX = 256  # voxels a side of that box
_SLAB = 2**25  # voxels in memory at once, at most
_BEFORE_VOXELS = 352  # bytes: the header, and four that say that no extension follows
_NAMED = 5  # shards that are gone, in a message
_WINDOW = (0.5, 99.9)  # percentiles of the coarsest level: of a head, from air to fat


class ReplacedError(ValueError):
    """A store is no longer the one that was opened, or no longer whole. The message names it and the way out."""


class DamagedError(ValueError):
    """Voxels of a store are not as they were written. The message names it and the way out."""


class StoredVolume:
    """A finished store, to look at. ``path`` is the folder ``X.ome.zarr`` or the root ``zarr.json`` in it.

    Raises ValueError where that is not a finished volume, where what describes it is not as it was written, and where
    some of its shards are gone, cut short or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = Path(path)
        self.folder = (given.parent if given.name == "zarr.json" else given).resolve()
        self._root = self.folder / "zarr.json"
        if not self.folder.is_dir():
            what = "is a file, which any viewer of NIfTI may show" if self.folder.exists() else "does not exist"
            raise ValueError(f"{given}: {what}. Name a folder X.ome.zarr that headsr wrote")
        self._opened = _identity(self._root)
        if not says_store(self.folder):
            raise ValueError(f"{given}: {_other_kind(self.folder)}")
        if self._opened is None:
            raise ValueError(
                f"{given}: is not finished, for it has no zarr.json yet. Make it with the same command again, which "
                "goes on where it stopped, and then look at it"
            )
        try:
            attributes = stores.attributes_of(self._root)
            count = len(attributes["ome"]["multiscales"][0]["datasets"])
            self._sizes = dict(attributes["headsr"]["shards"])
            self._arrays = [stores.open_level(self._root, level) for level in range(count)]
            header = zarr.open_array(self.folder / "nifti", mode="r")[:].tobytes()
        except (KeyError, IndexError, TypeError, AttributeError, FileNotFoundError) as error:
            raise ValueError(f"{given}: is not a volume that headsr wrote ({error!r}). Publish it anew") from error
        if lost := stores.lost_shards(self.folder, self._sizes):
            named = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
            raise ValueError(
                f"{given}: {len(lost)} of its {len(self._sizes)} shards are gone or cut short, and would be seen as "
                f"empty space: {named}. Make it with the same command again, and then look at it"
            )
        self._header = read_header(self.folder / "nifti", header)
        self.grids = level_grids(Grid(self._arrays[0].shape[::-1], self._header.get_best_affine()))[:count]
        self.window = self._usual_window()

    @property
    def name(self) -> str:
        """The volume's name without endings: ``sub-01_res-hi_desc-sr_T1w``."""
        return self.folder.name.removesuffix(".ome.zarr")

    def describe(self) -> dict[str, Any]:
        """What the page needs to know: name, window, middle (mm), and each level's size and if it is shown whole."""
        first = [level for level, grid in enumerate(self.grids) if math.prod(grid.shape) <= SHOWN_FIRST]
        return {
            "name": self.name,
            "window": self.window,
            "middle_mm": self.grids[0].corners.mean(axis=0).tolist(),
            "first": min(first, default=len(self.grids) - 1),
            "box": BOX,
            "levels": [
                {"shape": grid.shape, "voxel_mm": grid.voxel_size.tolist(), "whole": self.is_shown_whole(level)}
                for level, grid in enumerate(self.grids)
            ],
        }

    def is_shown_whole(self, level: int) -> bool:
        """Whether a level is small enough to be sent whole; of others there are boxes."""
        return math.prod(self.grids[level].shape) <= SHOWN_WHOLE

    def box_around(self, level: int, point: NDArray[np.float64]) -> tuple[Triple, Triple]:
        """Start and shape of the box of at most 256 voxels a side about a point (x, y, z in mm), inside the level."""
        grid = self.grids[level]
        centre = np.linalg.solve(grid.affine, [*point, 1.0])[:3]
        shape = np.minimum(BOX, grid.shape)
        start = np.clip(np.rint(centre) - shape // 2, 0, np.array(grid.shape) - shape)
        return tuple(map(int, start)), tuple(map(int, shape))

    def check_same(self) -> None:
        """Raise ReplacedError unless the store is still the one that was opened.

        What is read of another has other grids than were said, and what is deleted reads as empty space.
        """
        if _identity(self._root) != self._opened:
            raise ReplacedError(f"{self.folder.name}: was replaced or deleted; start headsr view again")

    def check_shards(self, keys: Iterable[str]) -> None:
        """Raise ReplacedError where one of these shards is gone by now: it would be seen as empty space."""
        asked = {key: self._sizes[key] for key in keys if key in self._sizes}
        if lost := stores.lost_shards(self.folder, asked):
            raise ReplacedError(f"{self.folder.name}: its shard {lost[0]} is gone or cut short; make it again")

    def nifti(self, level: int, start: Triple, shape: Triple) -> tuple[int, Iterator[Buffer]]:
        """A box of a level as an uncompressed NIfTI-1 file: how many bytes it has, and these piece by piece.

        A piece holds until the next is asked for: all are read into one buffer. Raises ReplacedError, then or from a
        piece, where the store is no longer the one that was opened.
        """
        self.check_same()
        array, shards = self._arrays[level], self._shards_of(level, start, shape)
        self.check_shards(shards)
        kind = _kind(array)
        size = _BEFORE_VOXELS + math.prod(shape) * kind.itemsize
        (x, y, z), (x_end, y_end, z_end) = start, np.add(start, shape).tolist()
        # As high as a chunk, so that each is decompressed once.
        height = max(1, min(array.chunks[0], _SLAB // (shape[0] * shape[1])))

        def pieces() -> Iterator[Buffer]:
            yield self._header_of(self.grids[level].block(start, shape), kind)
            slab = np.empty((height, shape[1], shape[0]), kind)
            for low, high in _cuts(z, z_end, height):
                for front, back in _cuts(y, y_end, array.chunks[1]):
                    box = slice(low, high), slice(front, back), slice(x, x_end)
                    slab[: high - low, front - y : back - y] = self._read(level, box)
                self.check_same()
                self.check_shards(shards)
                yield slab[: high - low].data.cast("B")

        return size, pieces()

    def _read(self, level: int, box: Any) -> NDArray:
        """Voxels of a level as they are stored. DamagedError where its shards are not as they were written."""
        try:
            return self._arrays[level][box]
        except Exception as error:  # zarr, its codecs and the operating system each raise their own
            raise DamagedError(
                f"{self.folder.name}: level {level} cannot be read ({type(error).__name__}: {error}). Move "
                f"{self._root} away and make it with the same command again"
            ) from error

    def _shards_of(self, level: int, start: Triple, shape: Triple) -> list[str]:
        """The keys of the shards that a box of a level lies in."""
        array = self._arrays[level]
        layout = Layout(array.shape[::-1], array.chunks[::-1], (array.shards or array.chunks)[::-1])
        cells = Tile(start, shape).cells(layout.shard)
        corner = [a * n for a, n in zip(cells.start, layout.shard, strict=True)]
        sizes = [a * n for a, n in zip(cells.shape, layout.shard, strict=True)]
        return [layout.key(level, tile) for tile in Tile(tuple(corner), tuple(sizes)).blocks(layout.shard)]

    def _header_of(self, grid: Grid, kind: np.dtype) -> bytes:
        header = self._header.copy()
        header.set_data_dtype(kind)
        header.set_data_shape(grid.shape)
        header.set_zooms(grid.voxel_size)
        header.set_sform(grid.affine, code="scanner")
        header["qform_code"] = 0
        header["scl_slope"], header["scl_inter"] = self._slope_and_intercept
        header["cal_min"], header["cal_max"] = self.window
        header["vox_offset"] = _BEFORE_VOXELS
        return header.binaryblock.ljust(_BEFORE_VOXELS, b"\0")

    @property
    def _slope_and_intercept(self) -> tuple[float, float]:
        slope, intercept = self._header.get_slope_inter()
        return (1.0, 0.0) if slope is None else (slope, intercept)

    def _usual_window(self) -> tuple[float, float]:
        slope, intercept = self._slope_and_intercept
        values = self._read(len(self._arrays) - 1, ...).astype(np.float32) * slope + intercept
        low, high = (float(f"{value:.3g}") for value in np.percentile(values, _WINDOW))
        return (low, high) if low < high else (low, low + 1)


def _identity(root: Path) -> tuple[int, int, int] | None:
    """What a store's root ``zarr.json``, written last and whole, is known by; None where there is none."""
    try:
        status = root.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _other_kind(folder: Path) -> str:
    """What a folder is that headsr neither wrote nor began, in words."""
    if any((folder / name).exists() for name in (".zgroup", ".zarray", ".zattrs")):
        kind = "is a Zarr v2 store (OME-Zarr 0.4 or earlier)"
    elif (folder / "zarr.json").exists():
        kind = "is a Zarr v3 store"
    else:
        return "holds no volume that headsr wrote or began. Name a folder X.ome.zarr that it wrote"
    return (
        f"{kind}, which headsr did not write. It shows its own volumes, which are OME-Zarr 0.5 (Zarr v3); napari and "
        "other viewers show this one"
    )


def _cuts(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """From ``start`` to ``stop`` in parts that end at multiples of ``step``, as chunks do."""
    return itertools.pairwise([start, *range((start // step + 1) * step, stop, step), stop])


def _kind(array: zarr.Array) -> np.dtype:
    kind = np.dtype(array.dtype)
    return np.dtype("<f4") if kind == np.float16 else kind.newbyteorder("<")
