"""Which tile writes which shard, what that costs in memory and files, and running the tiles with Dask.

A shard is the unit of writing: two tasks that write into one shard lose each other's voxels without a word (zarr-python
issue 3682, dask issue 12583). So a tile *is* one whole shard, and a plan in which tiles share a shard is refused.
Everything here is in the order of the head's axes (x, y, z).
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

CHUNK = 128  # voxels a side: what a viewer reads at once
SHARD = 512  # voxels a side: one file; 4096 x 4096 x 4096 with its pyramid is 588 files
# Measured for noise, the worst that there is to compress: the tile, its compressed chunks, and the shard that they are
# joined to; and per chunk the eight below it with their means, or what a field makes while it is evaluated.
_COPIES_OF_A_TILE, _COPIES_OF_A_CHUNK = 3, 16
_SECONDS_BETWEEN_LINES = 10.0

Triple = tuple[int, int, int]


class TileError(ValueError):
    """Tiles cannot be written, or not in the memory that was promised."""


@dataclass(frozen=True)
class Tile:
    """A box of voxels: where it starts and how large it is."""

    start: Triple
    shape: Triple

    @property
    def stop(self) -> Triple:
        """One past the last voxel of each axis."""
        return tuple(a + n for a, n in zip(self.start, self.shape, strict=True))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def blocks(self, size: Triple) -> Iterator[Tile]:
        """Cut the box into blocks of at most ``size`` voxels."""
        starts = [range(a, b, n) for a, b, n in zip(self.start, self.stop, size, strict=True)]
        for start in itertools.product(*starts):
            stop = (min(a + n, b) for a, n, b in zip(start, size, self.stop, strict=True))
            yield Tile(start, tuple(b - a for a, b in zip(start, stop, strict=True)))


@dataclass(frozen=True)
class Layout:
    """How one array lies on disk: its ``shape`` in chunks of ``chunk`` voxels, ``shard`` voxels to a file."""

    shape: Triple
    chunk: Triple
    shard: Triple

    @property
    def tiles(self) -> list[Tile]:
        """One tile per shard."""
        return list(Tile((0, 0, 0), self.shape).blocks(self.shard))

    @property
    def tile_bytes(self) -> int:
        """Memory that writing one tile takes, in bytes (float32)."""
        return 4 * (_COPIES_OF_A_TILE * math.prod(self.shard) + _COPIES_OF_A_CHUNK * math.prod(self.chunk))


def lay_out(shape: Triple, *, chunk: int = CHUNK, shard: int = SHARD) -> Layout:
    """Chunks and shards for a shape: ``chunk`` and ``shard`` voxels a side, smaller where the volume is smaller.

    A volume of at most ``shard`` voxels a side is one shard; larger ones are cut into equal shards of whole chunks.
    """
    chunks, shards = [], []
    for n in shape:
        chunks.append(min(chunk, n))
        count = math.ceil(n / shard)
        shards.append(math.ceil(n / count / chunks[-1]) * chunks[-1])
    return Layout(tuple(shape), tuple(chunks), tuple(shards))


def refuse_shared_shards(tiles: Sequence[Tile], layout: Layout) -> None:
    """Raise TileError unless every tile is exactly one whole shard of the layout and no shard has two tiles."""
    whole = set(layout.tiles)
    seen: set[Tile] = set()
    for tile in tiles:
        if tile not in whole:
            raise TileError(
                f"the tile from {tile.start} to {tile.stop} is not one whole shard of {layout.shard} voxels: "
                "two tasks would write into one file and lose voxels"
            )
        if tile in seen:
            raise TileError(f"two tasks would write the shard at {tile.start}")
        seen.add(tile)


def workers_within(layout: Layout, threads: int, memory_bytes: int | None) -> int:
    """How many tiles may be in work at once: at most ``threads``, the number of tiles and what the memory holds.

    Raises TileError where not even one tile fits. The layout never depends on it, so neither do the bytes written.
    """
    workers = max(1, min(threads, len(layout.tiles)))
    if memory_bytes is None:
        return workers
    if memory_bytes < layout.tile_bytes:
        raise TileError(
            f"rendering needs {layout.tile_bytes / 2**20:.0f} MiB for one tile of {'x'.join(map(str, layout.shard))} "
            f"voxels, but only {memory_bytes / 2**20:.0f} MiB are allowed. Allow more memory for this job"
        )
    return min(workers, memory_bytes // layout.tile_bytes)


def run_tiles(
    work: Callable[[Tile], object],
    tiles: Sequence[Tile],
    layout: Layout,
    *,
    workers: int = 1,
    label: str = "",
) -> None:
    """Call ``work`` once per tile, ``workers`` at a time, and say how far it is. The order does not matter.

    Raises TileError before any work when two tiles share a shard.
    """
    refuse_shared_shards(tiles, layout)
    said = _Progress(label, len(tiles))

    def one(tile: Tile) -> None:
        work(tile)
        said.one_more()

    if workers == 1 or len(tiles) == 1:
        for tile in tiles:
            one(tile)
        return
    import dask  # a third of a second that the many small volumes do not need

    tasks = [dask.delayed(one, pure=False, traverse=False)(tile) for tile in tiles]
    dask.compute(*tasks, scheduler="threads", num_workers=workers, optimize_graph=False)


class _Progress:
    """A line now and then: how many tiles are written and how long the rest takes."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._begun = self._said = time.monotonic()
        self._lock = threading.Lock()

    def one_more(self) -> None:
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if not self._label or (now - self._said < _SECONDS_BETWEEN_LINES and self._done < self._total):
                return
            self._said = now
            left = (now - self._begun) / self._done * (self._total - self._done)
            print(f"{self._label}: {self._done} of {self._total} tiles, {left:.0f} s left", flush=True)
