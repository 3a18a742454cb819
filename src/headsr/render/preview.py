"""The NIfTI beside a store: the first level of at most 512 voxels a side, copied a few planes at a time."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np

from headsr.files import whole
from headsr.render import store as stores
from headsr.volumes import Grid, Storage

_PLANES = 32  # at once: a quarter of a chunk, so that 512 x 512 float32 take 32 MB


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
        for z in range(0, array.shape[0], _PLANES):
            planes = np.ascontiguousarray(array[z : z + _PLANES], dtype=header.get_data_dtype())
            stream.write(planes.data)
