"""The NIfTI beside a store: the first level of at most 512 voxels a side, copied a few planes at a time."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import numpy as np

from headsr.files import whole
from headsr.render import store as stores
from headsr.render.tiles import CHUNK, Tile
from headsr.volumes import Grid, Storage

_PLANES = 32  # at once: a quarter of a chunk, so that 512 x 512 float32 take 32 MB


def preview_bytes(grid: Grid) -> int:
    """Memory that ``write_preview`` takes: the planes, and a chunk as it is stored, decoded and cut."""
    x, y, z = grid.shape
    return 4 * x * y * min(z, _PLANES) + 3 * 4 * math.prod(min(n, CHUNK) for n in grid.shape)


def write_preview(path: str | os.PathLike[str], store: Path, level: int, grid: Grid, storage: Storage) -> None:
    """Write one level of a store (that may be unfinished) as ``.nii.gz``, whole or not at all."""
    array = stores.open_level(store, level)
    header = stores.nifti_header(grid, storage)
    with (
        whole(path) as partial,
        open(partial, "wb") as raw,
        # No name and no time in the gzip header: same data, same bytes.
        gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=raw, mtime=0) as stream,
    ):
        stream.write(header.binaryblock + b"\0\0\0\0")
        x, y, z = grid.shape
        planes = np.empty((min(z, _PLANES), y, x), header.get_data_dtype())
        for slab in Tile((0, 0, 0), grid.shape).blocks((x, y, _PLANES)):
            # zarr has all chunks that it is asked for in memory at once, as they are stored and as they are decoded.
            for part in slab.blocks((CHUNK, CHUNK, _PLANES)):
                planes[: slab.shape[2], *part.slices[1::-1]] = array[part.slices[::-1]]
            for plane in planes[: slab.shape[2]]:
                stream.write(plane.data)
