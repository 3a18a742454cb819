"""What a render is going to write and what that takes: shards and their order, files, bytes, memory and time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from headsr.fields.lattice import whole_scales
from headsr.machine import cores
from headsr.render.air import Air, coarser, sampling_bytes
from headsr.render.preview import preview_bytes
from headsr.render.pyramid import below, level_grids, preview_level
from headsr.render.schedule import PROCESS_BYTES, ShardTask
from headsr.render.tiles import CHUNK, SHARD, Layout, Tile, Triple, lay_out, refuse_shared_shards
from headsr.volumes import Grid, Storage

# Seconds of a core for each voxel: compressed, hashed, read again for the pyramid. Measured on a head as uint16.
_WRITING = 6e-8
# Arrays of one chunk beside what the field takes, measured: intensities, their copy as stored, Blosc's two buffers,
# the compressed chunk that waits for its turn; a pyramid's chunk has the decoded piece below it and its means instead.
_FLOATS_OF_A_CHUNK, _STORED_OF_A_CHUNK = 3, 4
_FLOATS_OF_A_MEAN = 6
_TORCH = 200 * 2**20  # what importing torch adds to a process, for fields that are evaluated with it
_LONGEST = 32767
_EXTREME = 1e6  # of a shape, a size in mm or a scale, and its inverse: beyond, a voxel's place is lost in rounding
_EDGE = 1e-6  # of a voxel: a box that ends on a voxel's edge does not touch the next one
# To compare a render with the head's voxels: seconds of a core for each voxel of it, bytes for each that is averaged at
# once, for each of the head's that these reach in a row of chunks, and for each of the head's: of whole scales, of
# others, and of others with scans.
_COMPARING = 1e-8
_OF_AVERAGED, _OF_REACHED, _OF_MASKS, _OF_COMPARED, _OF_SEEN = 24, 20, 1, 5, 80
_INDEX_OF_A_STORE = 40 * 2**20  # zarr's event loop and threads, Dask's graph, the list of shards


class RenderPlanError(ValueError):
    """A render cannot fit into what is there. The message says what it needs."""


@dataclass(frozen=True, eq=False)
class PlannedVolume:
    """A volume to write: its levels (the finest first), how intensities are stored, and where there is only air.

    ``fill`` is the intensity of the air in scan units.
    """

    grids: tuple[Grid, ...]
    layouts: tuple[Layout, ...]
    storage: Storage
    empty: tuple[NDArray[np.bool_], ...]
    fill: float

    def is_empty(self, level: int, block: Tile) -> bool:
        """Whether a block (within one chunk) is all air."""
        return bool(self.empty[level][block.cells(self.layouts[level].chunk).start])

    @cached_property
    def tiles(self) -> dict[str, tuple[int, Tile]]:
        """Level and tile of every shard that is written, by its key; those that are all air are not."""
        written = {}
        for level, layout in enumerate(self.layouts):
            tiles = layout.tiles
            refuse_shared_shards(tiles, layout)
            for tile in tiles:
                if not self.empty[level][tile.cells(layout.chunk).slices].all():
                    written[layout.key(level, tile)] = (level, tile)
        return written

    @cached_property
    def tasks(self) -> list[ShardTask]:
        """One task per shard, each after those that it is made of: the pyramid grows as the volume does."""
        done: dict[str, ShardTask] = {}

        def add(key: str) -> None:
            if key in done:
                return
            level, tile = self.tiles[key]
            needs = self.needs(level, tile)
            for need in needs:
                add(need)
            done[key] = ShardTask(key, needs)

        for key, (level, _) in self.tiles.items():
            if level == len(self.layouts) - 1:
                add(key)
        return list(done.values())

    def tasks_of(self, part: tuple[int, int] | None) -> list[ShardTask]:
        """The tasks of one part (index from 1, number): every so many-th shard of the finest level. None: all tasks."""
        if part is None:
            return self.tasks
        index, number = part
        return [task for task in self.tasks if not task.needs][index - 1 :: number]

    def evaluated(self, tile: Tile) -> int:
        """How many voxels of a tile (whole chunks of the finest level) are evaluated."""
        chunk = self.layouts[0].chunk
        full = ~self.empty[0][tile.cells(chunk).slices]
        for axis, (a, b, n) in enumerate(zip(tile.start, tile.stop, chunk, strict=True)):
            lengths = np.diff([*range(a, b, n), b])
            full = full * lengths.reshape([-1 if i == axis else 1 for i in range(3)])
        return int(full.sum())

    def evaluated_for(self, key: str) -> int:
        """How many voxels are evaluated for a shard: none for those of the pyramid."""
        level, tile = self.tiles[key]
        return self.evaluated(tile) if level == 0 else 0

    def needs(self, level: int, tile: Tile) -> tuple[str, ...]:
        """The keys of the shards that a tile's shard is the mean of, those that are all air left out."""
        if level == 0:
            return ()
        finer = self.layouts[level - 1]
        sources = below(tile, finer.shape).cells(finer.shard)
        starts = (Tile(index.start, (1, 1, 1)) for index in sources.blocks((1, 1, 1)))
        keys = (
            finer.key(level - 1, Tile(tuple(i * n for i, n in zip(one.start, finer.shard, strict=True)), one.shape))
            for one in starts
        )
        return tuple(key for key in keys if key in self.tiles)


def plan_volume(
    grid: Grid, storage: Storage, air: Air | None = None, *, fill: float = 0.0, chunk: int = CHUNK, shard: int = SHARD
) -> PlannedVolume:
    """The pyramid of ``grid`` in chunks and shards; without ``air`` every chunk is written."""
    grids = level_grids(grid)
    layouts = [lay_out(level.shape, chunk=chunk, shard=shard) for level in grids]
    empty = [np.zeros(layouts[0].chunks, bool) if air is None else air.empty]
    for fine, coarse in itertools.pairwise(layouts):
        empty.append(coarser(empty[-1], fine, coarse, below))
    return PlannedVolume(tuple(grids), tuple(layouts), storage, tuple(empty), fill)


def target_grid(
    head: Grid,
    *,
    shape: Sequence[int] | None = None,
    voxel_mm: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
    box_mm: Sequence[float] | None = None,
) -> Grid:
    """The grid with the head's box that has a shape, a voxel size or a scale (one number or three); else the head's.

    ``box_mm`` (xmin, ymin, zmin, xmax, ymax, zmax in the scanner's mm, RAS) cuts it down to the voxels that touch that
    box. RenderPlanError for a shape beyond what NIfTI can index once the box is cut out, or a box outside the head's.
    """
    grid = head
    if shape is not None:
        grid = head.resized(tuple(_triple(shape, "shape")))
    elif voxel_mm is not None:
        grid = head.at_voxel_size(np.array(_triple(voxel_mm, "voxel")))
    elif scale is not None:
        grid = head.scaled(np.array(_triple(scale, "scale")))
    if box_mm is not None:
        grid = _within(grid, np.array(box_mm, dtype=np.float64))
    if max(grid.shape) > _LONGEST:
        raise RenderPlanError(
            f"{_by(grid.shape)} voxels: a NIfTI header holds at most {_LONGEST} a side. Render a smaller box (--roi)"
        )
    return grid


def is_whole(grid: Grid, head: Grid) -> bool:
    """Whether a grid reaches over the head's whole box: to within a voxel of it."""
    return bool(np.abs(grid.corners - head.corners).max() < max(grid.voxel_size))


def averaged_at_once(volume: PlannedVolume) -> Triple:
    """How many voxels of a volume are averaged over the head's voxels at once: a chunk, or several small ones."""
    return tuple(n * max(1, CHUNK // 2 // n) for n in volume.layouts[0].chunk)


@dataclass(frozen=True)
class RenderCost:
    """What a render takes, at most: ``memory_bytes`` of all its processes, ``bytes`` before compression."""

    workers: int
    memory_bytes: int
    bytes: int
    files: int
    seconds: float


def estimate(
    volume: PlannedVolume,
    field: Any,
    *,
    workers: int,
    memory_bytes: int | None,
    processes: bool,
    skips_air: bool,
    own_cores: bool = False,
    scans: int = 0,
) -> RenderCost:
    """What writing the volume takes with at most ``workers`` chunks in work at once, and comparing it with ``scans``.

    Fewer work where ``memory_bytes`` asks for it; RenderPlanError where not even one fits. ``processes`` says that each
    worker is a process with a field of its own, ``own_cores`` that it has a core of its own, as a SLURM job does;
    others share this machine's. Neither the layout nor a byte written depends on how many work.
    """
    base, each = _fixed_bytes(volume, field, skips_air), _chunk_bytes(volume, field)
    preview = volume.grids[preview_level(list(volume.grids))]

    def bytes_of(workers: int) -> int:
        own = max(each + base, PROCESS_BYTES) if processes else each
        # The preview follows the comparison, and threads' memory that is free again stays with the process (glibc).
        at_end = preview_bytes(preview, workers) + _comparing_bytes(volume, field.grid, workers, scans)
        return base + max(workers * own, at_end)

    # Threads share the chunks of a shard; a process writes whole ones.
    pieces = len(volume.tiles) if processes else sum(math.prod(layout.chunks) for layout in volume.layouts)
    workers = max(1, min(workers, pieces))
    while memory_bytes is not None and bytes_of(workers) > memory_bytes:
        if workers == 1:
            raise RenderPlanError(
                f"rendering needs {_gb(bytes_of(1))} of memory: {_gb(base)} for Python and the field, the rest for a "
                f"chunk of {_by(volume.layouts[0].chunk)} voxels in work and then for the preview; "
                f"{_gb(memory_bytes)} are allowed. Allow more"
            )
        workers -= 1
    chunk = volume.grids[0].block((0, 0, 0), volume.layouts[0].chunk)
    at_once = workers if own_cores else min(workers, cores())
    evaluated = volume.evaluated(volume.layouts[0].whole) * (field.seconds_per_voxel(chunk) + _WRITING) / at_once
    compared = math.prod(volume.grids[0].shape) * _COMPARING / min(workers, cores())
    return RenderCost(
        workers=workers,
        memory_bytes=bytes_of(workers),
        bytes=np.dtype(volume.storage.dtype).itemsize * sum(math.prod(grid.shape) for grid in volume.grids),
        files=len(volume.tiles) + len(volume.layouts) + 6,  # their metadata, root, header (2), preview, sidecar, notes
        seconds=evaluated + compared,
    )


def announce(
    name: str,
    volume: PlannedVolume,
    expected: RenderCost,
    *,
    air: Air | None,
    head: Grid,
    part: tuple[int, int] | None,
) -> str:
    """The plan in a few lines, to print before anything is written.

    ``head`` is the grid that the field was fitted on, ``part`` (index from 1, number) what of it is rendered now.
    """
    grid = volume.grids[0]
    size = " x ".join(f"{mm:.4g}" for mm in grid.voxel_size)
    skipped = "" if air is None else f", {air.share:.0%} of the chunks are air and skipped ({air.checked} checked)"
    lines = [
        f"{name}: {_by(grid.shape)} voxels of {size} mm, {volume.storage.dtype}, {len(volume.grids)} levels{skipped}",
        f"  at most {expected.files} files and {expected.bytes / 1e9:.3g} GB before compression",
        f"  {expected.workers} workers, at most {_gb(expected.memory_bytes)} of memory, "
        f"about {time_said(expected.seconds)}",
    ]
    if (grid.voxel_size > (1 + _EDGE) * head.voxel_size).any():
        lines.append(
            "  coarser than the head's own voxels: single points, not means. For means, render at --scale 1 and read a "
            "level of the pyramid"
        )
    if None in whole_scales(head, grid):
        lines.append(
            "  no whole number of voxels to each of the head's: their means are not kept. With --scans the sidecar "
            "says how well the scans are met"
        )
    if part is not None:
        lines.append(f"  of this, {_part_said(volume, expected, part)}")
    return "\n".join(lines)


def _part_said(volume: PlannedVolume, expected: RenderCost, part: tuple[int, int]) -> str:
    keys, finest = [task.key for task in volume.tasks_of(part)], sum(level == 0 for level, _ in volume.tiles.values())
    stored = np.dtype(volume.storage.dtype).itemsize * sum(volume.tiles[key][1].voxels for key in keys)
    share = sum(map(volume.evaluated_for, keys)) / max(1, volume.evaluated(volume.layouts[0].whole))
    return (
        f"part {part[0]} of {part[1]}: {len(keys)} of the {finest} shards of the finest level, "
        f"at most {stored / 1e9:.3g} GB before compression, about {time_said(share * expected.seconds)}"
    )


def time_said(seconds: float) -> str:
    """A duration as people say it: ``45 s``, ``12 min``, ``3 h 20 min``, ``8 d 22 h``."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def _triple(numbers: Sequence[float], option: str) -> list[float]:
    if len(numbers) not in (1, 3) or not all(1 / _EXTREME <= n <= _EXTREME for n in numbers):
        raise RenderPlanError(
            f"{option} {' '.join(f'{n:g}' for n in numbers)}: give one positive number "
            f"({1 / _EXTREME:g} to {_EXTREME:g}), or three"
        )
    return list(numbers) * (3 if len(numbers) == 1 else 1)


def _within(grid: Grid, box: NDArray[np.float64]) -> Grid:
    if (np.abs(box) < _EXTREME).all() and (box[:3] < box[3:]).all():
        corners = np.array(list(itertools.product(*zip(box[:3], box[3:], strict=True))))
        inverse = np.linalg.inv(grid.affine)
        # Voxel i reaches from i - 0.5 to i + 0.5.
        index = corners @ inverse[:3, :3].T + inverse[:3, 3] + 0.5
        start = np.maximum(np.floor(index.min(0) + _EDGE), 0).astype(int)
        stop = np.minimum(np.ceil(index.max(0) - _EDGE), grid.shape).astype(int)
        if (start < stop).all():
            return grid.block(tuple(start.tolist()), tuple((stop - start).tolist()))
    low, high = grid.corners.min(0), grid.corners.max(0)
    raise RenderPlanError(
        f"the box {' '.join(f'{mm:g}' for mm in box)} mm holds no voxel: give xmin ymin zmin xmax ymax zmax within "
        f"{' '.join(f'{mm:.1f}' for mm in (*low, *high))}"
    )


def _fixed_bytes(volume: PlannedVolume, field: Any, skips_air: bool) -> int:
    """What the process takes whatever is in work: as it stands with the field in it, and what it will import."""
    torch = _TORCH if "torch" in field.arithmetic else 0  # once too often where it is imported already
    samples = sampling_bytes(volume.layouts[0]) if skips_air else 0
    return psutil.Process().memory_info().rss + torch + samples + _INDEX_OF_A_STORE


def _chunk_bytes(volume: PlannedVolume, field: Any) -> int:
    chunk = volume.layouts[0].chunk
    voxels = math.prod(chunk)
    stored = _STORED_OF_A_CHUNK * np.dtype(volume.storage.dtype).itemsize * voxels
    evaluated = field.evaluation_bytes(volume.grids[0].block((0, 0, 0), chunk)) + 4 * _FLOATS_OF_A_CHUNK * voxels
    return stored + max(evaluated, 4 * _FLOATS_OF_A_MEAN * voxels)


def _comparing_bytes(volume: PlannedVolume, head: Grid, workers: int, scans: int) -> int:
    """What comparing takes: means over the head's voxels, and with scans torch and what their operators make."""
    grid, size, voxels = volume.grids[0], averaged_at_once(volume), math.prod(head.shape)
    whole = None not in whole_scales(head, grid)
    reached = min(head.shape[2], size[2] * grid.voxel_size[2] / head.voxel_size[2] + 2)
    means = workers * _OF_AVERAGED * math.prod(size) + int(_OF_REACHED * math.prod(head.shape[:2]) * reached)
    means += (_OF_MASKS if whole else _OF_COMPARED) * voxels
    return means if whole or not scans else max(means, _TORCH + _OF_SEEN * voxels)


def _gb(number: float) -> str:
    return f"{number / 2**30:.2f} GB"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
