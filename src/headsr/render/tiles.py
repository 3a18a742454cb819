"""Which task writes which shard: volumes are cut into tiles, and a tile is one whole shard.

A shard is one file. Two tasks that write into one shard lose each other's voxels without a word (zarr-python issue
3682, dask issue 12583), so a plan in which tiles share a shard is refused. Everything here is in the order of the
head's axes (x, y, z).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CHUNK = 128  # voxels a side: what is evaluated, compressed and read at once
SHARD = 512  # voxels a side: one file; 4096 x 4096 x 4096 with its pyramid is 588 files

Triple = tuple[int, int, int]


class TileError(ValueError):
    """A plan would let two tasks write one shard."""


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

    @property
    def voxels(self) -> int:
        """How many voxels the box holds."""
        return math.prod(self.shape)

    def blocks(self, size: Triple) -> Iterator[Tile]:
        """Cut the box into blocks of at most ``size`` voxels, in the order of the file: x runs fastest."""
        z, y, x = (range(a, b, n) for a, b, n in zip(self.start[::-1], self.stop[::-1], size[::-1], strict=True))
        for reverse in itertools.product(z, y, x):
            start = reverse[::-1]
            stop = (min(a + n, b) for a, n, b in zip(start, size, self.stop, strict=True))
            yield Tile(start, tuple(b - a for a, b in zip(start, stop, strict=True)))

    def cells(self, size: Triple) -> Tile:
        """The cells of ``size`` voxels that the box touches, as a box of cells."""
        start = tuple(a // n for a, n in zip(self.start, size, strict=True))
        stop = tuple(math.ceil(b / n) for b, n in zip(self.stop, size, strict=True))
        return Tile(start, tuple(b - a for a, b in zip(start, stop, strict=True)))


@dataclass(frozen=True)
class Layout:
    """How one array lies on disk: its ``shape`` in chunks of ``chunk`` voxels, ``shard`` voxels to a file."""

    shape: Triple
    chunk: Triple
    shard: Triple

    @property
    def whole(self) -> Tile:
        """The box of all voxels."""
        return Tile((0, 0, 0), self.shape)

    @property
    def tiles(self) -> list[Tile]:
        """One tile per shard."""
        return list(self.whole.blocks(self.shard))

    @property
    def chunks(self) -> Triple:
        """How many chunks there are along each axis."""
        return self.whole.cells(self.chunk).shape

    def key(self, level: int, tile: Tile) -> str:
        """Where the shard of a tile lies in the store: ``0/c/3/0/1`` (level, then z, y, x)."""
        index = (str(a // n) for a, n in zip(tile.start[::-1], self.shard[::-1], strict=True))
        return "/".join([str(level), "c", *index])


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
