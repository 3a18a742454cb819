"""Publish a volume that fits in memory: OME-Zarr, NIfTI preview and JSON sidecar, in the scan's own units."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headsr.files import partials_of, sidecar_of, write_json
from headsr.render import store as stores
from headsr.render.describe import RESEARCH_ONLY, describe_volume
from headsr.render.ours import DESCRIPTION, is_ours
from headsr.render.plan import PlannedVolume, plan_volume
from headsr.render.preview import write_preview
from headsr.render.pyramid import halve, preview_level
from headsr.render.shard import Written, compress, write_shard
from headsr.render.store import StoreError, writing
from headsr.volumes import SCANNER, Forms, Grid, Storage, save_volume


@dataclass(frozen=True)
class Outputs:
    """Where one published volume goes.

    ``store`` is the root ``zarr.json`` inside ``X.ome.zarr`` (written last: it says that the volume is whole),
    ``preview`` the NIfTI beside it, ``sidecar`` its JSON, ``unprojected`` the NIfTI from before the projection and
    ``uncertainty`` that of its foretold errors (None: not kept). Strings are taken too.
    """

    store: Path
    preview: Path
    sidecar: Path
    unprojected: Path | None = None
    uncertainty: Path | None = None

    def __post_init__(self) -> None:
        for name in ("store", "preview", "sidecar", "unprojected", "uncertainty"):
            value: str | os.PathLike[str] | None = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))

    @classmethod
    def of_rule(cls, output: Any) -> Outputs:
        """Of the named outputs of a rule of Snakemake, which names the sidecar of each NIfTI as well."""
        return cls(**{name: path for name, path in output.items() if not name.endswith("_sidecar")})

    @property
    def name(self) -> str:
        """The volume's name without endings: ``sub-01_res-hi_desc-sr_T1w``."""
        return self.store.parent.name.removesuffix(".ome.zarr")

    @property
    def beside(self) -> list[Path]:
        """The files beside the store that go with it."""
        kept = [path for path in (self.unprojected, self.uncertainty) if path is not None]
        return [self.preview, self.sidecar, *kept, *map(sidecar_of, kept)]


def outputs_beside(store: str | os.PathLike[str]) -> Outputs:
    """The outputs of a volume whose store is the folder ``X.ome.zarr``: preview and sidecar lie beside it."""
    root = Path(store)
    if not root.name.endswith(".ome.zarr") or root.name == ".ome.zarr":
        raise ValueError(f"{store}: a volume's folder must be named X.ome.zarr")
    name = root.name.removesuffix(".ome.zarr")
    return Outputs(root / "zarr.json", root.with_name(f"{name}.nii.gz"), root.with_name(f"{name}.json"))


def publish_volume(
    volume: NDArray[np.float32],
    unprojected: NDArray[np.float32] | None,
    grid: Grid,
    outputs: Outputs,
    *,
    scale: float,
    offset: float,
    record: dict[str, Any],
    uncertainty: NDArray[np.float32] | None = None,
    forms: Forms = SCANNER,
) -> None:
    """Write a volume (X, Y, Z) in normalised intensities as OME-Zarr, NIfTI and JSON, in scan units.

    ``record`` says how the volume came to be (method, degradation, source key, residuals, seed, model hash: plain JSON
    values); it becomes part of the sidecar's ``headsr`` object. ``unprojected`` is the volume before the projection,
    ``uncertainty`` half of the interval that holds 90 % of its errors; each and its path in ``outputs`` come together.
    The same input gives the same bytes.
    Raises ValueError for a shape that is not the grid's, FloatingPointError for values that are not finite, StoreError
    for a folder that is not to be replaced and for a file that headsr did not write where one of the outputs goes,
    HeldError where another process writes.
    """
    data = _in_scan_units(volume, grid, outputs.name, scale, offset)
    beside = {}
    for label, kept, path, shift in (
        ("unprojected", unprojected, outputs.unprojected, offset),
        ("uncertainty", uncertainty, outputs.uncertainty, 0.0),
    ):
        if (kept is None) != (path is None):
            raise ValueError(f"{outputs.name}: the {label} volume and its path must be given together")
        if kept is not None:
            beside[label] = path, _in_scan_units(kept, grid, outputs.name, scale, shift)
    plan = plan_volume(grid, Storage())
    fingerprint = hashlib.sha256(data.tobytes() + grid.affine.tobytes()).hexdigest()
    with writing(outputs.store):
        discard_partials(outputs)
        begin_outputs(outputs, fingerprint)
        for label, (path, kept) in beside.items():
            _write_beside(path, kept, grid, label, scale=scale, offset=offset, record=record, forms=forms)
        shards = _write_levels(data, plan, outputs)
        publish_beside(plan, outputs, scale=scale, offset=offset, record=record, forms=forms)
        stores.commit(
            outputs.store,
            list(plan.grids),
            shards,
            name=outputs.name,
            storage=plan.storage,
            fingerprint=fingerprint,
            record=RESEARCH_ONLY,
            forms=forms,
        )


def publish_unprojected(
    path: str | os.PathLike[str],
    volume: NDArray[np.float32],
    grid: Grid,
    *,
    scale: float,
    offset: float,
    record: dict[str, Any],
    forms: Forms = SCANNER,
) -> None:
    """Write a volume from before the projection alone, as NIfTI and JSON; arguments and errors as publish_volume."""
    data = _in_scan_units(volume, grid, _name_of(Path(path)), scale, offset)
    _write_beside(Path(path), data, grid, "unprojected", scale=scale, offset=offset, record=record, forms=forms)


def begin_outputs(outputs: Outputs, fingerprint: str, *, replace: bool = True) -> None:
    """Begin the store (``headsr.render.store.begin``); what lies beside it goes with the volume that it shows."""
    refuse_foreign(outputs.beside)
    if stores.begin(outputs.store, fingerprint, replace=replace):
        for path in outputs.beside:
            path.unlink(missing_ok=True)


def refuse_foreign(paths: Iterable[Path]) -> None:
    """StoreError where something lies at one of these paths that headsr did not publish."""
    for path in paths:
        if os.path.lexists(path) and not is_ours(path):
            raise StoreError(
                f"{path}: is in the way: headsr did not write it and will not overwrite it. Choose another name for "
                "the volume, or move it away"
            )


def publish_beside(
    volume: PlannedVolume,
    outputs: Outputs,
    *,
    scale: float,
    offset: float,
    record: dict[str, Any],
    forms: Forms = SCANNER,
    workers: int = 1,
) -> None:
    """Write the JSON sidecar, then the NIfTI preview, of a volume whose levels are in its store."""
    refuse_foreign([outputs.sidecar, outputs.preview])
    level = preview_level(list(volume.grids))
    preview = volume.grids[level]
    sidecar = describe_volume(volume.grids[0], preview=preview, scale=scale, offset=offset, record=record, label="sr")
    write_json(outputs.sidecar, sidecar)
    write_preview(outputs.preview, outputs.store, level, preview, volume.storage, forms=forms, workers=workers)


def discard_partials(outputs: Outputs) -> None:
    """Delete what a kill left half-written beside the store; nobody else writes these outputs."""
    for path in outputs.beside:
        for partial in partials_of(path):
            partial.unlink()


def _write_beside(
    path: Path,
    data: NDArray[np.float32],
    grid: Grid,
    label: str,
    *,
    scale: float,
    offset: float,
    record: dict[str, Any],
    forms: Forms,
) -> None:
    refuse_foreign([path, sidecar_of(path)])
    sidecar = describe_volume(grid, preview=grid, scale=scale, offset=offset, record=record, label=label)
    write_json(sidecar_of(path), sidecar)
    save_volume(path, data, grid, description=DESCRIPTION, forms=forms)


def _write_levels(data: NDArray[np.float32], volume: PlannedVolume, outputs: Outputs) -> dict[str, Written]:
    levels = [data]
    for _ in volume.grids[1:]:
        levels.append(halve(levels[-1]))
    for level, layout in enumerate(volume.layouts):
        stores.create_level(outputs.store, level, layout, volume.storage, volume.fill)
    shards = {}
    for key, (level, tile) in volume.tiles.items():
        layout = volume.layouts[level]
        blocks = (levels[level][block.slices] for block in tile.blocks(layout.chunk))
        chunks = (compress(block, layout.chunk, volume.storage, volume.fill) for block in blocks)
        shards[key] = write_shard(outputs.store.parent / key, tile, layout, chunks)
    return shards


def _name_of(nifti: Path) -> str:
    return nifti.name.removesuffix(".gz").removesuffix(".nii")


def _in_scan_units(
    data: NDArray[np.float32], grid: Grid, name: str, scale: float, offset: float
) -> NDArray[np.float32]:
    if data.shape != grid.shape:
        raise ValueError(f"{name}: a volume of shape {data.shape} does not fit the grid {grid.shape}")
    data = data.astype(np.float32) * np.float32(scale) + np.float32(offset)
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise FloatingPointError(f"{name}: {bad} of {data.size} voxels are not finite; nothing was written")
    return data
