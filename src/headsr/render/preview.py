"""The NIfTI beside a store: the first level of at most 512 voxels a side, copied a few planes at a time."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from headsr.files import whole
from headsr.render import store as stores
from headsr.render.ahead import Lanes
from headsr.render.tiles import CHUNK, Tile
from headsr.volumes import SCANNER, Forms, Grid, Storage

_SLAB = 32 * 2**20  # bytes of float32 in the planes that are read at once; they are compressed one by one
_HEAD = bytes((31, 139, 8, 0, 0, 0, 0, 0, 0, 255))  # gzip without name and time: same data, same bytes


def preview_bytes(grid: Grid, workers: int) -> int:
    """Memory that ``write_preview`` takes: planes before and after compression, and a chunk that they are cut from."""
    x, y, z = grid.shape
    # zlib has what it wrote twice. One plane more than there are workers waits, one is written and one is prepared.
    planes = min(z, _planes(grid)) + 3 * (workers + 1) + 4
    return 4 * x * y * planes + 3 * 4 * math.prod(min(n, CHUNK) for n in grid.shape)


def write_preview(
    path: str | os.PathLike[str],
    store: Path,
    level: int,
    grid: Grid,
    storage: Storage,
    *,
    forms: Forms = SCANNER,
    workers: int = 1,
) -> None:
    """Write one level of a store (that may be unfinished) as ``.nii.gz``, whole or not at all.

    ``workers`` threads compress; their pieces are one gzip stream, as every reader takes it (RFC 1952), and the same
    bytes for any number of them.
    """
    header = stores.nifti_header(grid, storage, forms)
    checksum = size = 0
    with whole(path) as partial, open(partial, "wb") as stream:
        stream.write(_HEAD)
        for piece, content in Lanes(workers).in_order(_deflated, _pieces(store, level, grid, header)):
            checksum, size = zlib.crc32(piece, checksum), size + len(piece)
            stream.write(content)
        stream.write(_packed(b"", zlib.Z_FINISH))
        stream.write(checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little"))


def _pieces(store: Path, level: int, grid: Grid, header: nib.Nifti1Header) -> Iterator[bytes]:
    """The NIfTI file's content: its header, then its planes."""
    yield header.binaryblock + b"\0\0\0\0"
    array, (x, y, z), deep = stores.open_level(store, level), grid.shape, _planes(grid)
    planes = np.empty((min(z, deep), y, x), header.get_data_dtype())
    for slab in Tile((0, 0, 0), grid.shape).blocks((x, y, deep)):
        # zarr has all chunks that it is asked for in memory at once, as they are stored and as they are decoded.
        for part in slab.blocks((CHUNK, CHUNK, deep)):
            planes[: slab.shape[2], *part.slices[1::-1]] = array[part.slices[::-1]]
        for plane in planes[: slab.shape[2]]:
            yield plane.tobytes()


def _planes(grid: Grid) -> int:
    """How many planes are read at once: a chunk's depth or a part of it, as each part decodes the whole chunk."""
    x, y, _ = grid.shape
    return next((n for n in (CHUNK, CHUNK // 2, CHUNK // 4) if 4 * x * y * n <= _SLAB), CHUNK // 8)


def _deflated(piece: bytes) -> tuple[bytes, bytes]:
    """A piece, and its part of a deflate stream, which ends at a byte's edge so that another can follow."""
    return piece, _packed(piece, zlib.Z_FULL_FLUSH)


def _packed(piece: bytes, ending: int) -> bytes:
    """A piece as raw deflate that looks for runs alone: the air.

    Looking for what an image's noise repeats takes twice as long and finds nothing: float32 gets no smaller by it, and
    uint16 without noise by 7 %.
    """
    packer = zlib.compressobj(1, zlib.DEFLATED, -15, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return packer.compress(piece) + packer.flush(ending)
