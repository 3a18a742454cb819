"""Render a continuous field on a grid of any size, one shard at a time, into an OME-Zarr store.

The whole volume is never in memory, and neither is a shard: chunks are evaluated, compressed and appended to the
shard's file, and each level of the pyramid is made from the level below as soon as its shards are there. Neither the
number of workers nor their order changes a byte. A render that was killed goes on with the shards that are complete,
once their bytes have been compared with what was noted of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from headsr.fields.field import Field
from headsr.files import head_mask_of, sha256_of, sidecar_of, write_json
from headsr.machine import cores
from headsr.render import store as stores
from headsr.render.agreement import Scans, agreement_of, refuse_other_scans
from headsr.render.ahead import Lanes
from headsr.render.air import Air, find_air, no_air, read_air
from headsr.render.describe import RESEARCH_ONLY
from headsr.render.disk import kept_when_full, refuse_small_disk
from headsr.render.plan import (
    PlannedVolume,
    RenderCost,
    announce,
    estimate,
    is_whole,
    plan_volume,
    target_grid,
)
from headsr.render.progress import RenderProgress, Silent
from headsr.render.publish import Outputs, begin_outputs, discard_partials, publish_beside, refuse_foreign
from headsr.render.pyramid import mean_of_below
from headsr.render.schedule import Scheduler, ShardTask, run_tasks
from headsr.render.shard import Written, compress, write_shard
from headsr.render.source import FieldFile, in_scan_units, intensities, opened, share_one_heap
from headsr.render.tiles import CHUNK, SHARD, Layout, Tile, lay_out
from headsr.stages import STAGE_VERSIONS
from headsr.volumes import Grid, Storage

# Of the range of the head's voxels, what uint16 holds beyond it on either side: within a voxel that is brighter than
# all around it a render goes up to three quarters higher.
_MARGIN = 0.8


@dataclass(frozen=True)
class Manner:
    """How a field is rendered, apart from where; ValueError for what makes no sense.

    ``dtype`` (float32, float16 or uint16) and ``skip_air`` decide what is stored; ``workers``, ``memory_bytes`` and the
    ``scheduler`` (threads, local, slurm) change no byte. ``part`` (index from 1, number) renders only every so many-th
    shard and leaves the store unfinished.
    """

    dtype: str = "float32"
    skip_air: bool = False
    chunk: int = CHUNK
    shard: int = SHARD
    workers: int = 1
    memory_bytes: int | None = None
    scheduler: str = "threads"
    part: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16", "uint16"):
            raise ValueError(f"dtype {self.dtype!r}: a volume is stored as float32, float16 or uint16")
        if self.scheduler not in get_args(Scheduler):
            raise ValueError(f"scheduler {self.scheduler!r}: must be one of {', '.join(get_args(Scheduler))}")
        if min(self.chunk, self.workers) < 1 or self.shard < self.chunk:
            raise ValueError(f"{self}: chunk and workers must be at least 1, and a shard at least a chunk")
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise ValueError(f"part {self.part[0]}/{self.part[1]}: must be I/N with 1 <= I <= N")


def render_unit(
    field: str | os.PathLike[str],
    outputs: Outputs,
    *,
    scans: Scans,
    larger: Mapping[str, Any],
    chunk: int,
    shard: int,
    scheduler: str,
    workers: int,
    memory_mb: int,
) -> None:
    """Render a field as the workflow does: on its own grid as it is, or ``larger`` (size and dtype) without the air.

    On its own grid it is compared with its scans, and what was measured of the air stays measured. With ``scans`` it
    says of a larger volume how well that agrees with them. ``memory_mb`` is for this job; each job that it has SLURM
    start may take as much.
    """
    size = {key: value for key, value in larger.items() if key != "dtype"}
    manner = Manner(
        dtype=larger.get("dtype", "float32"),
        skip_air=bool(size),
        chunk=chunk,
        shard=shard,
        workers=workers,
        memory_bytes=memory_mb * 2**20 * (workers if scheduler == "slurm" else 1),
        scheduler=scheduler,
    )
    render_field(field, outputs, scans=scans, manner=manner, **size)


def render_field(
    field: str | os.PathLike[str],
    outputs: Outputs,
    *,
    scans: Scans = (),
    manner: Manner = Manner(),
    device: str = "cpu",
    precision: str = "fp32",
    **size: Sequence[float] | None,
) -> None:
    """Render a fitted field from its file and publish it; see ``render``, and ``target_grid`` for ``size``."""
    identity = sha256_of(field)
    source = FieldFile(os.fspath(field), device, precision, identity)
    grid = target_grid(source.open().grid, **size)
    render(source, outputs, identity=identity, grid=grid, scans=scans, manner=manner)


def render(
    source: Field | FieldFile,
    outputs: Outputs,
    *,
    identity: str,
    grid: Grid | None = None,
    scans: Scans = (),
    manner: Manner = Manner(),
) -> None:
    """Evaluate a field on ``grid`` (its own where None) and publish OME-Zarr, preview and sidecar, in scan units.

    ``identity`` names the field's content: shards on disk are reused only if they were rendered from the same, in the
    same way, and are whole. The sidecar says how well the volume agrees with the head's low-resolution ``scans``, where
    it is not the projected volume that says so (``agreement_of``). Says what it will do before it starts, then how far
    it is. RenderPlanError for what cannot fit; DiskFullError, after which the same call goes on; FloatingPointError for
    intensities that are not finite or that uint16 or float16 cannot hold; StoreError for a folder that is not to be
    replaced, and a file that headsr did not write; HeldError where another process writes; ValueError for scans of
    another head.
    """
    share_one_heap()
    field = opened(source)
    refuse_other_scans(field, scans)
    storage = choose_storage(field, manner.dtype)
    with kept_when_full(outputs), stores.writing(outputs.store, shared=manner.part is not None):
        _render(source, outputs, field.grid if grid is None else grid, storage, identity, scans, manner)


def _render(
    source: Field | FieldFile,
    outputs: Outputs,
    grid: Grid,
    storage: Storage,
    identity: str,
    scans: Scans,
    manner: Manner,
) -> None:
    field = opened(source)
    fingerprint = _fingerprint(field, grid, storage, manner, identity, scans)
    if stores.is_finished(outputs.store, fingerprint):
        shutil.rmtree(stores.work_folder(outputs.store), ignore_errors=True)  # a kill right after the commit left it
        if not (outputs.preview.exists() and outputs.sidecar.exists()):
            held = stores.read_record(outputs.store)
            rendered = {key: held[key] for key in ("render", "consistency") if key in held}
            _publish_beside(field, outputs, plan_volume(grid, storage), rendered, workers=manner.workers)
        print(f"{outputs.name}: is finished")
        return
    refuse_foreign(outputs.beside)  # before hours of work
    # What cannot be evaluated or cannot fit is refused before another volume is replaced; finding the air makes the
    # estimate smaller, not larger.
    if outputs.store.exists():
        _evaluate_one(field, grid)
    whole = _volume(field, grid, storage, no_air(_layout(grid, manner)), manner)
    workers = min(_estimate(field, whole, manner, scans).workers, cores())
    air = _air(field, grid, outputs, fingerprint, manner, workers)
    volume = _volume(field, grid, storage, air, manner)
    expected = _estimate(field, volume, manner, scans)
    found = air if manner.skip_air else None
    print(announce(outputs.name, volume, expected, air=found, head=field.grid, part=manner.part), flush=True)
    begin_outputs(outputs, fingerprint, replace=manner.part is None)
    write_json(_air_file(outputs), air.as_json())
    for level, layout in enumerate(volume.layouts):
        stores.create_level(outputs.store, level, layout, storage, volume.fill)
    shards = _render_shards(source, outputs, volume, expected, fingerprint, manner)
    if manner.part is None:
        how = {"air": air, "scans": scans, "fingerprint": fingerprint, "workers": expected.workers}
        _finish(field, outputs, volume, shards, **how)


def plan_render(
    field: Field,
    name: str,
    *,
    grid: Grid | None = None,
    scans: Scans = (),
    manner: Manner = Manner(),
) -> str:
    """What ``render`` would do, as text, where all chunks are written; RenderPlanError for what memory cannot hold."""
    grid = field.grid if grid is None else grid
    volume = _volume(field, grid, Storage(manner.dtype), no_air(_layout(grid, manner)), manner)
    expected = _estimate(field, volume, manner, scans)
    return announce(name, volume, expected, air=None, head=field.grid, part=manner.part)


def choose_storage(field: Field, dtype: str) -> Storage:
    """How intensities are stored: floats as they are; uint16 with a slope that covers 1.8 to 2.6 times their range.

    The range is that of the projected volume. Rounding to uint16 is off by at most half the slope, 1/72000 of the range
    of magnitudes and 1/50000 of others; to float16 by at most 1/2048 of the intensity. Intensities that lie beyond are
    refused when they are met. Magnitudes are stored from zero on, so that none is rounded to below it.
    """
    if np.dtype(dtype).kind == "f":
        return Storage(dtype)
    ends = np.array([field.projected.min(), field.projected.max()], np.float32)
    low, high = map(float, in_scan_units(field, ends))
    if not np.isfinite([low, high]).all():
        raise FloatingPointError("not all intensities of the field are finite")
    # Where all is one value, a range must still be told apart from it in float32.
    margin = _MARGIN * max(high - low, max(-low, high, 1e-30) / 16)
    intercept = low - margin if field.signed else max(low - margin, field.offset)
    return Storage(dtype, slope=(high + margin - intercept) / 65535, intercept=intercept)


@dataclass(frozen=True)
class RenderShard:
    """The work of one task: write one shard, note it, and return that note. The same bytes each time.

    Whichever process does it computes as ``arithmetic`` says, and the folder is still becoming ``fingerprint``.
    """

    source: Field | FieldFile
    arithmetic: str
    outputs: Outputs
    fingerprint: str
    volume: PlannedVolume
    lanes: Lanes
    progress: RenderProgress | Silent

    def __call__(self, key: str) -> dict[str, Any]:
        """Write the shard of a key; as many of its chunks are in work at once as find a lane."""
        if not stores.holds(self.outputs.store, self.fingerprint):
            raise stores.StoreError(f"{self.outputs.store.parent}: is no longer what this render began")
        level, tile = self.volume.tiles[key]
        layout = self.volume.layouts[level]
        stores.await_shards(self.outputs.store, self.volume.needs(level, tile))
        make = self._evaluated() if level == 0 else self._averaged(level)
        chunks = self.lanes.in_order(lambda block: self._chunk(level, block, make), tile.blocks(layout.chunk))
        with closing(chunks):  # a disk that is full must not keep the lanes
            written = write_shard(self.outputs.store.parent / key, tile, layout, chunks)
        return stores.record_shard(self.outputs.store, key, written)

    def _chunk(self, level: int, block: Tile, make: Callable[[Tile], NDArray[np.float32]]) -> bytes | None:
        if self.volume.is_empty(level, block):
            return None
        chunk = self.volume.layouts[level].chunk
        try:
            content = compress(make(block), chunk, self.volume.storage, self.volume.fill)
        except FloatingPointError as error:
            place = f"level {level}, voxels {block.start} to {block.stop}"
            raise FloatingPointError(f"{self.outputs.name}, {place}: {error}") from None
        self.progress.add(block.voxels if level == 0 else 0)
        return content

    def _evaluated(self) -> Callable[[Tile], NDArray[np.float32]]:
        field, grid = opened(self.source), self.volume.grids[0]
        if field.arithmetic != self.arithmetic:
            raise ValueError(
                f"{socket.gethostname()} computes with {field.arithmetic} and this render with {self.arithmetic}: the "
                "last bits differ. Let it run on nodes of one kind (on SLURM: --constraint)"
            )
        return lambda block: intensities(field, grid.block(block.start, block.shape))

    def _averaged(self, level: int) -> Callable[[Tile], NDArray[np.float32]]:
        finer, storage = stores.open_level(self.outputs.store, level - 1), self.volume.storage
        shape, chunk = self.volume.layouts[level - 1].shape, self.volume.layouts[level].chunk
        piece = tuple(2 * max(1, n // 2) for n in chunk)  # a chunk of the level below: a part of it takes as long

        def read(part: Tile) -> NDArray:
            return finer[part.slices[::-1]].T

        return lambda block: mean_of_below(block, shape, piece, read, storage.decode)


def _render_shards(
    source: Field | FieldFile,
    outputs: Outputs,
    volume: PlannedVolume,
    expected: RenderCost,
    fingerprint: str,
    manner: Manner,
) -> dict[str, Written]:
    """Write every shard that is not there yet; all shards of the volume, those that were there included."""
    shards = _intact(outputs, volume)
    tasks = _left(volume, shards, manner)
    field = opened(source)
    refuse_small_disk(field, outputs, volume, [volume.tiles[task.key] for task in tasks])
    before, ours = (sum(map(volume.evaluated_for, keys)) for keys in (shards, [task.key for task in tasks]))
    progress = RenderProgress(outputs.name, before + ours, done=before)
    in_threads = manner.scheduler == "threads"
    lanes = Lanes(expected.workers if in_threads else 1)
    said = progress if in_threads else Silent()
    work = RenderShard(source, field.arithmetic, outputs, fingerprint, volume, lanes, said)

    def note(done: dict[str, Any]) -> None:
        key = done["key"]
        shards[key] = Written(done["sha256"], done["size"])
        if not in_threads:
            progress.add(volume.evaluated_for(key))

    try:
        run_tasks(
            work,
            tasks,
            scheduler=manner.scheduler,
            workers=min(expected.workers, len(tasks)) or 1,
            memory_bytes=expected.memory_bytes,
            on_done=note,
            stop=lanes.stop,
        )
    finally:
        progress.end()
    return shards


def _intact(outputs: Outputs, volume: PlannedVolume) -> dict[str, Written]:
    """The shards that an earlier render completed and whose bytes are still what it noted."""
    noted = {key: shard for key, shard in stores.recorded_shards(outputs.store).items() if key in volume.tiles}
    if noted:
        print(f"{outputs.name}: comparing {len(noted)} shards that are there with what was noted of them", flush=True)
    with ThreadPoolExecutor(cores()) as pool:
        whole = pool.map(lambda item: stores.is_intact(outputs.store, *item), noted.items())
        return {key: shard for (key, shard), good in zip(noted.items(), whole, strict=True) if good}


def _left(volume: PlannedVolume, shards: dict[str, Written], manner: Manner) -> list[ShardTask]:
    """The tasks still to do; a part has its share of the finest level's, and the pyramid is made when all are there."""
    return [
        ShardTask(task.key, tuple(need for need in task.needs if need not in shards))
        for task in volume.tasks_of(manner.part)
        if task.key not in shards
    ]


def _finish(
    field: Field,
    outputs: Outputs,
    volume: PlannedVolume,
    shards: dict[str, Written],
    *,
    air: Air,
    scans: Scans,
    fingerprint: str,
    workers: int,
) -> None:
    if lacking := volume.tiles.keys() - shards.keys():
        raise stores.StoreError(
            f"{outputs.store.parent}: {len(lacking)} of {len(volume.tiles)} shards were not written"
        )
    print(f"{outputs.name}: comparing its means with the head's voxels", flush=True)
    agreement = agreement_of(field, volume, outputs.store, scans=scans, workers=workers)
    how = {
        "arithmetic": field.arithmetic,
        "storage": dataclasses.asdict(volume.storage),
        "air": {"share": air.share, "checked_chunks": air.checked, "largest_difference": air.worst * field.scale},
        "means": agreement.pop("means"),
    }
    rendered = {"render": how, **agreement}
    discard_partials(outputs)
    _publish_beside(field, outputs, volume, rendered, workers=workers)
    stores.commit(
        outputs.store,
        list(volume.grids),
        shards,
        name=outputs.name,
        storage=volume.storage,
        fingerprint=fingerprint,
        record={**RESEARCH_ONLY, **rendered},
        forms=field.forms,
    )


def _publish_beside(
    field: Field, outputs: Outputs, volume: PlannedVolume, rendered: dict[str, Any], *, workers: int
) -> None:
    record = {**field.record, **rendered}
    publish_beside(
        volume, outputs, scale=field.scale, offset=field.offset, record=record, forms=field.forms, workers=workers
    )


def _air(field: Field, grid: Grid, outputs: Outputs, fingerprint: str, manner: Manner, workers: int) -> Air:
    """Where there is only air. It is looked for once: a render that goes on, or is one part of many, reads it.

    In a box within the head it is not looked for: what is on its faces is no air.
    """
    layout = _layout(grid, manner)
    if not manner.skip_air or not is_whole(grid, field.grid):
        return no_air(layout)
    if stores.holds(outputs.store, fingerprint) and _air_file(outputs).exists():
        return read_air(_air_file(outputs))
    print(f"{outputs.name}: looking for the air around the head", flush=True)
    seed = int.from_bytes(hashlib.sha256(outputs.name.encode()).digest()[:8])
    return find_air(field, grid, layout, seed=seed, workers=workers)


def _air_file(outputs: Outputs) -> Path:
    return stores.work_folder(outputs.store) / "air.json"


def _volume(field: Field, grid: Grid, storage: Storage, air: Air, manner: Manner) -> PlannedVolume:
    fill = 0.0
    if manner.skip_air:
        fill = float(np.float32(air.background) * np.float32(field.scale) + np.float32(field.offset))
    fill = float(np.clip(fill, *storage.limits))
    return plan_volume(grid, storage, air, fill=fill, chunk=manner.chunk, shard=manner.shard)


def _layout(grid: Grid, manner: Manner) -> Layout:
    return lay_out(grid.shape, chunk=manner.chunk, shard=manner.shard)


def _estimate(field: Field, volume: PlannedVolume, manner: Manner, scans: Scans) -> RenderCost:
    return estimate(
        volume,
        field,
        workers=manner.workers,
        memory_bytes=manner.memory_bytes,
        processes=manner.scheduler != "threads",
        skips_air=manner.skip_air,
        own_cores=manner.scheduler == "slurm",
        scans=len(scans),
    )


def _fingerprint(field: Field, grid: Grid, storage: Storage, manner: Manner, identity: str, scans: Scans) -> str:
    """What the bytes of a store follow from."""
    parts = [
        identity,
        STAGE_VERSIONS["render_volume"],
        field.arithmetic,
        [grid.shape, grid.affine.tolist(), field.scale, field.offset],
        [storage.dtype, storage.slope, storage.intercept],
        [manner.chunk, manner.shard, manner.skip_air],
        [sha256_of(part) for scan in scans for part in (scan, sidecar_of(scan), head_mask_of(scan))],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _evaluate_one(field: Field, grid: Grid) -> None:
    """Evaluate one voxel: where the field's device is not there, or its library, that says so."""
    field.evaluate(grid.block((0, 0, 0), (1, 1, 1)))
