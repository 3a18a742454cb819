"""Cut a preprocessed scan into axial, coronal and sagittal slices, kept in one Zarr store per scan.

Root ``zarr.json`` is the commit mark: it is removed first and written last, so a store without it is not one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from headsr.files import sidecar_of, tree_hash, unwritable, write_json
from headsr.typed_json import read_as
from headsr.volumes import Volume, VolumeError, load_volume

# plane -> the volume's axes in the order slice, row, column.
LAYOUT = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
# A slice is kept when the head fills at least this share of it.
HEAD_SHARE = 0.05


def extract_slices(
    volume: str | os.PathLike[str], head_mask: str | os.PathLike[str], output: str | os.PathLike[str]
) -> None:
    """Write the slices of a preprocessed scan that show a head; ``output`` is the path of the store's root zarr.json.

    The store holds float32 arrays axial (z, y, x), coronal (y, z, x) and sagittal (x, z, y), each a file of chunks of
    one slice, so that a training reads the slices that it draws and no other; and, as attributes, ``source_key``,
    ``pixel_mm`` (row and column spacing), ``counts`` per plane and ``content``, the hash of all slices.
    Same scan, same bytes.
    Raises VolumeError when the mask does not fit the scan or leaves no slice.
    """
    scan, mask = load_volume(volume), load_volume(head_mask, constant=True)
    if not mask.grid.same_as(scan.grid):
        raise VolumeError(f"{head_mask}: is not on the grid of {volume}. Make both again")
    planes = {plane: slices_of(scan, mask.data > 0.5, plane) for plane in LAYOUT}
    for plane, slices in planes.items():
        if not len(slices):
            raise VolumeError(f"{head_mask}: no {plane} slice shows a head in at least {HEAD_SHARE:.0%} of its area")
    attributes = {
        "source_key": read_as(str, sidecar_of(volume), "headsr", "source_key"),
        "pixel_mm": {plane: pixel_size(scan, plane) for plane in LAYOUT},
        "counts": {plane: len(slices) for plane, slices in planes.items()},
    }
    _write_store(Path(output), planes, attributes)


def slices_of(scan: Volume, head: NDArray[np.bool_], plane: str) -> NDArray[np.float32]:
    """The slices (n, rows, columns) of one plane that show a head."""
    shown = head.transpose(LAYOUT[plane]).mean(axis=(1, 2)) >= HEAD_SHARE
    return np.ascontiguousarray(scan.data.transpose(LAYOUT[plane])[shown])


def pixel_size(scan: Volume, plane: str) -> list[float]:
    """Row and column spacing in mm of a plane's slices."""
    return [float(scan.grid.voxel_size[axis]) for axis in LAYOUT[plane][1:]]


def _write_store(mark: Path, planes: dict[str, NDArray[np.float32]], attributes: dict) -> None:
    store = mark.parent
    if mark.name != "zarr.json" or store.suffix != ".zarr":
        raise ValueError(f"{mark}: a store of slices is named by its root, NAME.zarr/zarr.json")
    mark.unlink(missing_ok=True)
    if store.exists():
        shutil.rmtree(store)
    try:
        for plane, slices in planes.items():
            array = zarr.create_array(
                store=str(store / plane),
                shape=slices.shape,
                dtype="float32",
                chunks=(1, *slices.shape[1:]),
                shards=slices.shape,
                compressors=zarr.codecs.ZstdCodec(level=3),
            )
            array[:] = slices
        # With the hash of what it stands for, the mark changes whenever a slice does: Snakemake compares its bytes.
        attributes["content"] = tree_hash(store)
        write_json(mark, {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    except BaseException as error:
        shutil.rmtree(store, ignore_errors=True)
        if said := unwritable(error, store):
            raise said from error
        raise
