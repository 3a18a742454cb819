"""A volume as OME-Zarr 0.5 (zarr v3) on disk: begun, written shard by shard, and committed by its root ``zarr.json``.

The root metadata is written last, whole or not at all: a store without it is not finished, whatever else lies there.
OME-Zarr 0.5 knows scale and translation only, so the true affine is kept as raw NIfTI header bytes in the array
``nifti`` (the layout of NIfTI-Zarr, whose rule is that the NIfTI header wins), as the anatomical orientation of each
axis (OME-NGFF RFC-4), and in the JSON sidecar. On disk the axes are (z, y, x); here they are (x, y, z).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from headsr.files import read_json, tree_hash, write_json
from headsr.render.tiles import Layout, Tile, TileError
from headsr.volumes import Grid

_FINGERPRINT = "fingerprint.json"
_ORIENTATIONS = {
    "R": "left-to-right",
    "L": "right-to-left",
    "A": "posterior-to-anterior",
    "P": "anterior-to-posterior",
    "S": "inferior-to-superior",
    "I": "superior-to-inferior",
}


def begin(store: Path, fingerprint: str | None) -> None:
    """Take the commit mark off and make room: shards of the same ``fingerprint`` stay, leftovers of another are wiped.

    Without a fingerprint nothing stays. ``store`` is the root ``zarr.json``; the folder that holds it must be named
    ``*.ome.zarr``, since it is emptied.
    """
    root = store.parent
    if not root.name.endswith(".ome.zarr"):
        raise ValueError(f"{store}: a volume is stored in a folder named *.ome.zarr, which headsr may empty")
    store.unlink(missing_ok=True)
    mark = root / _FINGERPRINT
    if fingerprint is None or _said(mark) != fingerprint:
        shutil.rmtree(root, ignore_errors=True)
    for partial in root.rglob("*.partial"):
        partial.unlink()
    write_json(mark, {"fingerprint": fingerprint})


def create_level(store: Path, level: int, layout: Layout) -> zarr.Array:
    """Create the array of one level, or open the one that is there."""
    path = store.parent / str(level)
    if (path / "zarr.json").exists():
        return zarr.open_array(path, mode="r+")
    return zarr.create_array(
        path,
        shape=layout.shape[::-1],
        chunks=layout.chunk[::-1],
        shards=None if layout.shard == layout.chunk else layout.shard[::-1],
        dtype="float32",
        # With its checksum, a flipped bit in a chunk is an error when it is read, not another voxel.
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value=0.0,
        dimension_names=("z", "y", "x"),
        # Every shard becomes a file, so that a file says: this tile is done.
        config={"write_empty_chunks": True},
    )


def is_written(store: Path, level: int, layout: Layout, tile: Tile) -> bool:
    """Whether a tile's shard lies on disk (zarr moves whole files into place, so it is whole)."""
    index = (str(a // n) for a, n in zip(tile.start[::-1], layout.shard[::-1], strict=True))
    return store.parent.joinpath(str(level), "c", *index).exists()


def write_tile(array: zarr.Array, tile: Tile, data: NDArray[np.float32]) -> None:
    """Write one whole shard (x, y, z). Raises TileError when the tile is not exactly one shard of the array."""
    unit = (array.shards or array.chunks)[::-1]
    shape = array.shape[::-1]
    starts = all(a % n == 0 for a, n in zip(tile.start, unit, strict=True))
    stops = all(b == min(a + n, m) for a, b, n, m in zip(tile.start, tile.stop, unit, shape, strict=True))
    if not (starts and stops):
        raise TileError(f"the tile from {tile.start} to {tile.stop} is not one whole shard of {unit} voxels")
    array[tile.slices[::-1]] = data.T


def commit(store: Path, grids: list[Grid], *, name: str, record: dict[str, Any]) -> None:
    """Write the NIfTI header and then the root ``zarr.json``: from now on the store is whole."""
    root = store.parent
    header = np.frombuffer(_nifti_header(grids[0]), dtype=np.uint8)
    layout = {"shape": header.shape, "chunks": header.shape, "dtype": "uint8", "compressors": None}
    zarr.create_array(root / "nifti", **layout, fill_value=0, overwrite=True)[:] = header
    # With the hash of what it stands for, the mark changes whenever a voxel does: Snakemake compares its bytes alone.
    held = {**record, "content": tree_hash(root, leaving_out={_FINGERPRINT})}
    attributes = {"ome": {"version": "0.5", "multiscales": [_multiscale(grids, name)]}, "headsr": held}
    write_json(store, {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    (root / _FINGERPRINT).unlink()


def open_level(store: str | os.PathLike[str], level: int = 0) -> zarr.Array:
    """The array (z, y, x) of one level, to read; its store may still be unfinished."""
    return zarr.open_array(Path(store).parent / str(level), mode="r")


def read_level(store: str | os.PathLike[str], level: int = 0) -> NDArray[np.float32]:
    """One level as (x, y, z) float32, in scan units."""
    return np.ascontiguousarray(open_level(store, level)[:].T)


def read_grid(store: str | os.PathLike[str]) -> Grid:
    """The grid of a finished store, from the NIfTI header in it."""
    shape = open_level(store).shape[::-1]
    header = zarr.open_array(Path(store).parent / "nifti", mode="r")[:].tobytes()
    return Grid(shape, nib.Nifti1Header(header).get_best_affine())


def read_scales(store: str | os.PathLike[str]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Scale and translation (each x, y, z in mm) of every level, as viewers read them."""
    datasets = read_json(store)["attributes"]["ome"]["multiscales"][0]["datasets"]
    steps = [dataset["coordinateTransformations"] for dataset in datasets]
    return [(np.array(s["scale"][::-1]), np.array(t["translation"][::-1])) for s, t in steps]


def scales(grids: list[Grid]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Scale and translation (x, y, z in mm) that OME-Zarr can say about each level.

    For a grid along the scanner's axes this is its affine; an oblique one is turned about the scanner's origin.
    """
    directions = grids[0].affine[:3, :3] / grids[0].voxel_size
    return [(grid.voxel_size, np.linalg.solve(directions, grid.affine[:3, 3])) for grid in grids]


def _multiscale(grids: list[Grid], name: str) -> dict[str, Any]:
    toward = nib.aff2axcodes(grids[0].affine)
    axes = [
        {
            "name": axis,
            "type": "space",
            "unit": "millimeter",
            "orientation": {"type": "anatomical", "value": _ORIENTATIONS[code]},
        }
        for axis, code in zip("xyz", toward, strict=True)
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": scale[::-1].tolist()},
                {"type": "translation", "translation": translation[::-1].tolist()},
            ],
        }
        for level, (scale, translation) in enumerate(scales(grids))
    ]
    return {"name": name, "type": "mean", "axes": axes[::-1], "datasets": datasets}


def _nifti_header(grid: Grid) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_data_dtype(np.float32)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code="scanner")
    header.set_qform(grid.affine, code="scanner")
    if not Grid(grid.shape, header.get_qform()).same_as(grid):
        header["qform_code"] = 0  # a sheared grid: a qform can turn, and cannot shear
    header["descrip"] = b"headsr research use only"
    header["vox_offset"] = 352
    return header.binaryblock


def _said(mark: Path) -> str | None:
    return read_json(mark)["fingerprint"] if mark.exists() else None
