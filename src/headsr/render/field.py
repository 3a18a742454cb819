"""Render a continuous field on a grid of any size, one tile at a time, into an OME-Zarr store.

The whole volume is never in memory: a tile (one shard) is evaluated chunk by chunk, written, and forgotten; each level
of the pyramid is then built from the level below in the same way. Tiles run in parallel with Dask, and neither their
number nor their order changes a byte. A render that was killed goes on with the shards that it had written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headsr.files import sha256_of
from headsr.inr.field import load_field
from headsr.render import store as stores
from headsr.render.describe import RESEARCH_ONLY
from headsr.render.publish import Outputs, publish_beside
from headsr.render.pyramid import level_grids, preview_level, tile_of_level
from headsr.render.tiles import CHUNK, SHARD, Layout, Tile, lay_out, run_tiles, workers_within
from headsr.stages import STAGE_VERSIONS
from headsr.volumes import Grid

_COPIES_OF_A_PREVIEW = 3  # the array, the NIfTI file in memory, and what gzip makes of it


class Field(Protocol):
    """Anything that has a normalised intensity everywhere: scan units = normalised * scale + offset.

    ``grid`` is the grid it was fitted on, ``record`` how it came to be (plain JSON values, for the sidecar).
    """

    grid: Grid
    scale: float
    offset: float
    record: dict[str, Any]

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Normalised intensities (X, Y, Z) at the voxel centres of a grid."""
        ...


def render_field(
    field: str | os.PathLike[str],
    outputs: Outputs,
    *,
    grid: Grid | None = None,
    workers: int = 1,
    memory_mb: int | None = None,
    chunk: int = CHUNK,
    shard: int = SHARD,
) -> None:
    """Render a fitted field (the safetensors of ``fit_inr``) and publish it; see ``render``."""
    how = {"workers": workers, "memory_mb": memory_mb, "chunk": chunk, "shard": shard}
    render(load_field(field), outputs, identity=sha256_of(field), grid=grid, **how)


def render(
    field: Field,
    outputs: Outputs,
    *,
    identity: str,
    grid: Grid | None = None,
    workers: int = 1,
    memory_mb: int | None = None,
    chunk: int = CHUNK,
    shard: int = SHARD,
) -> None:
    """Evaluate ``field`` on ``grid`` (its own where None) and publish OME-Zarr, preview and sidecar, in scan units.

    ``identity`` names the field's content: shards on disk are reused only if they were rendered from the same. At most
    ``workers`` tiles are in memory at once, fewer where ``memory_mb`` asks for it; TileError where one is too many.
    Prints what it will do before it starts, then how far it is. FloatingPointError for values that are not finite.
    """
    grid = field.grid if grid is None else grid
    grids = level_grids(grid)
    layouts = [lay_out(level.shape, chunk=chunk, shard=shard) for level in grids]
    workers = workers_within(layouts[0], workers, None if memory_mb is None else memory_mb * 2**20)
    _announce(outputs, grids, layouts, workers)
    stores.begin(outputs.store, _fingerprint(field, grid, layouts, identity))
    for level, layout in enumerate(layouts):
        _render_level(field, grid, outputs, level=level, layout=layout, workers=workers)
    preview = stores.read_level(outputs.store, preview_level(grids))
    publish_beside(preview, grid, outputs, scale=field.scale, offset=field.offset, record=field.record)
    stores.commit(outputs.store, grids, name=outputs.name, record=RESEARCH_ONLY)


def expected_memory(grids: list[Grid], layouts: list[Layout], workers: int) -> int:
    """Bytes that rendering takes beside the field itself: the tiles in work, or the NIfTI preview if that is larger."""
    preview = 4 * math.prod(grids[preview_level(grids)].shape)
    return max(workers * layouts[0].tile_bytes, _COPIES_OF_A_PREVIEW * preview)


def _render_level(field: Field, grid: Grid, outputs: Outputs, *, level: int, layout: Layout, workers: int) -> None:
    array = stores.create_level(outputs.store, level, layout)
    finer = stores.open_level(outputs.store, level - 1) if level else None

    def work(tile: Tile) -> None:
        if stores.is_written(outputs.store, level, layout, tile):
            return
        data = tile_of_level(finer, tile, layout) if level else _evaluate(field, grid, tile, layout)
        stores.write_tile(array, tile, data)

    run_tiles(work, layout.tiles, layout, workers=workers, label=f"{outputs.name}, level {level}")


def _evaluate(field: Field, grid: Grid, tile: Tile, layout: Layout) -> NDArray[np.float32]:
    """One tile in scan units. It lies in memory as the store has it on disk, so that writing it needs no copy."""
    data = np.empty(tile.shape, np.float32, order="F")
    scale, offset = np.float32(field.scale), np.float32(field.offset)
    for block in tile.blocks(layout.chunk):
        inside = tuple(slice(a - o, b - o) for a, b, o in zip(block.start, block.stop, tile.start, strict=True))
        data[inside] = field.evaluate(grid.block(block.start, block.shape)) * scale + offset
    if not np.isfinite(data).all():
        raise FloatingPointError(f"the field is not finite everywhere between voxels {tile.start} and {tile.stop}")
    return data


def _fingerprint(field: Field, grid: Grid, layouts: list[Layout], identity: str) -> str:
    """What the bytes of a store follow from."""
    parts = [
        identity,
        STAGE_VERSIONS["render_volume"],
        [grid.shape, grid.affine.tolist(), field.scale, field.offset],
        [[layout.shape, layout.chunk, layout.shard] for layout in layouts],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _announce(outputs: Outputs, grids: list[Grid], layouts: list[Layout], workers: int) -> None:
    voxels = sum(math.prod(grid.shape) for grid in grids)
    files = sum(len(layout.tiles) for layout in layouts)
    print(
        f"{outputs.name}: rendering {_by(grids[0].shape)} voxels, {len(grids)} levels, "
        f"{4 * voxels / 1e9:.3g} GB before compression in {files} files; "
        f"{workers} tiles of {_by(layouts[0].shard)} at once, "
        f"{expected_memory(grids, layouts, workers) / 1e9:.2g} GB of memory beside the field",
        flush=True,
    )


def _by(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))
