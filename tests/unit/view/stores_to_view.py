"""Stores as headsr publishes them, written here with zarr alone: small chunks, any type, any level count."""

import json

import nibabel as nib
import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from headsr.render.pyramid import halve, level_grids

CHUNK, SHARD = 16, 32


def write_store(root, data, grid, *, dtype="float32", slope=1.0, intercept=0.0, fill=0.0, write=True):
    """``data`` (X, Y, Z) as its pyramid in ``root``; returns each level's stored numbers. ``write``: all the shards."""
    levels = [data.astype(np.float32)]
    while len(levels) < len(level_grids(grid)):
        levels.append(halve(levels[-1]))
    stored = [((level - intercept) / slope).astype(dtype) for level in levels]
    for number, numbers in enumerate(stored):
        array = zarr.create_array(
            root / str(number),
            shape=numbers.shape[::-1],
            chunks=(CHUNK,) * 3,
            shards=(SHARD,) * 3,
            dtype=dtype,
            compressors=ZstdCodec(level=1, checksum=True),
            fill_value=fill,
        )
        if write:
            array[:] = numbers.T
    header = nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_data_dtype("float32" if dtype == "float16" else dtype)
    header.set_slope_inter(slope, intercept)
    header.set_sform(grid.affine, code="scanner")
    raw = np.frombuffer(header.binaryblock, np.uint8)
    zarr.create_array(root / "nifti", shape=raw.shape, dtype="uint8", compressors=None)[:] = raw
    datasets = [{"path": str(number)} for number in range(len(stored))]
    shards = [path for number in range(len(stored)) for path in root.glob(f"{number}/c/*/*/*")]
    held = {"shards": {path.relative_to(root).as_posix(): path.stat().st_size for path in shards}}
    attributes = {"ome": {"version": "0.5", "multiscales": [{"datasets": datasets}]}, "headsr": held}
    (root / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    return stored
