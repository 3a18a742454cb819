"""Publish a volume that fits in memory: OME-Zarr, NIfTI preview and JSON sidecar, in the scan's own units."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headsr.files import write_json
from headsr.render import store as stores
from headsr.render.describe import RESEARCH_ONLY, describe_volume
from headsr.render.pyramid import halve, level_grids, preview_level
from headsr.render.tiles import lay_out
from headsr.volumes import Grid, save_volume


@dataclass(frozen=True)
class Outputs:
    """Where one published volume goes.

    ``store`` is the root ``zarr.json`` inside ``X.ome.zarr`` (written last: it says that the volume is whole),
    ``preview`` the NIfTI beside it, ``sidecar`` its JSON, ``unprojected`` the NIfTI from before the projection (None:
    not kept). Strings are taken too.
    """

    store: Path
    preview: Path
    sidecar: Path
    unprojected: Path | None = None

    def __post_init__(self) -> None:
        for name in ("store", "preview", "sidecar", "unprojected"):
            value: str | os.PathLike[str] | None = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))

    @property
    def name(self) -> str:
        """The volume's name without endings: ``sub-01_res-hi_desc-sr_T1w``."""
        return self.store.parent.name.removesuffix(".ome.zarr")


def publish_volume(
    volume: NDArray[np.float32],
    unprojected: NDArray[np.float32] | None,
    grid: Grid,
    outputs: Outputs,
    *,
    scale: float,
    offset: float,
    record: dict[str, Any],
) -> None:
    """Write a volume (X, Y, Z) in normalised intensities as OME-Zarr, NIfTI and JSON, in scan units.

    ``record`` says how the volume came to be (method, degradation, source key, residuals, seed, model hash: plain JSON
    values); it becomes part of the sidecar's ``headsr`` object. ``unprojected`` is the volume before the projection; it
    and ``outputs.unprojected`` come together. The same input gives the same bytes.
    Raises ValueError for a shape that is not the grid's, FloatingPointError for values that are not finite.
    """
    if (unprojected is None) != (outputs.unprojected is None):
        raise ValueError(f"{outputs.name}: the volume before projection and its path must be given together")
    data = _in_scan_units(volume, grid, outputs, scale, offset)
    before = None if unprojected is None else _in_scan_units(unprojected, grid, outputs, scale, offset)
    stores.begin(outputs.store, fingerprint=None)
    if before is not None:
        _publish_unprojected(before, grid, outputs, scale=scale, offset=offset, record=record)
    levels = _write_levels(data, grid, outputs)
    publish_beside(levels[preview_level(level_grids(grid))], grid, outputs, scale=scale, offset=offset, record=record)
    stores.commit(outputs.store, level_grids(grid), name=outputs.name, record=RESEARCH_ONLY)


def publish_beside(
    preview: NDArray[np.float32], grid: Grid, outputs: Outputs, *, scale: float, offset: float, record: dict[str, Any]
) -> None:
    """Write the JSON sidecar, then the NIfTI preview (scan units), of the volume on ``grid``."""
    grids = level_grids(grid)
    level = preview_level(grids)
    sidecar = describe_volume(
        outputs.name, grid, preview=grids[level], scale=scale, offset=offset, record=record, projected=True
    )
    write_json(outputs.sidecar, sidecar)
    save_volume(outputs.preview, preview, grids[level], description="headsr research use only")


def _publish_unprojected(
    data: NDArray[np.float32], grid: Grid, outputs: Outputs, *, scale: float, offset: float, record: dict[str, Any]
) -> None:
    path = outputs.unprojected
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    sidecar = describe_volume(name, grid, preview=grid, scale=scale, offset=offset, record=record, projected=False)
    write_json(path.with_name(f"{name}.json"), sidecar)
    save_volume(path, data, grid, description="headsr research use only")


def _write_levels(data: NDArray[np.float32], grid: Grid, outputs: Outputs) -> list[NDArray[np.float32]]:
    levels = [data]
    for _ in level_grids(grid)[1:]:
        levels.append(halve(levels[-1]))
    for number, level in enumerate(levels):
        layout = lay_out(level.shape)
        array = stores.create_level(outputs.store, number, layout)
        for tile in layout.tiles:
            stores.write_tile(array, tile, level[tile.slices])
    return levels


def _in_scan_units(
    data: NDArray[np.float32], grid: Grid, outputs: Outputs, scale: float, offset: float
) -> NDArray[np.float32]:
    if data.shape != grid.shape:
        raise ValueError(f"{outputs.name}: a volume of shape {data.shape} does not fit the grid {grid.shape}")
    data = data.astype(np.float32) * np.float32(scale) + np.float32(offset)
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise FloatingPointError(f"{outputs.name}: {bad} of {data.size} voxels are not finite; nothing was written")
    return data
