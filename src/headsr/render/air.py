"""The air around the head: chunks that are not evaluated and not written, and read as one value.

A head fills about half of its box, and at 4096 voxels a side the other half is tens of gigabytes of noise. What counts
as air is decided by samples of the field, cautiously, and checked on chunks that are rendered in full: where the check
finds more than air, nothing is skipped.
"""

from __future__ import annotations

import base64
import math
import os
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headsr.recipes.convert import Range
from headsr.render.ahead import Lanes
from headsr.render.pyramid import halve
from headsr.render.tiles import Layout, Tile, Triple
from headsr.typed_json import read_as
from headsr.volumes import Grid

SAMPLES = 8  # per side of a chunk: one voxel in 4,096 of the default chunk is evaluated to look for air
TOLERANCE = 0.05  # of the robust maximum: what lies nearer to the background is air (methods g.4)
CHECKED = 0.01  # the share of the skipped chunks that is rendered in full, and at least so many:
_CHECKED_LEAST = 4
_BLOCK = 64  # samples a side at once
_Chunks = Annotated[int, Range(1)]
_ROBUST = 99.5  # percentile


@dataclass(frozen=True, eq=False)
class Air:
    """Which chunks (X, Y, Z) of a volume are all air, and its intensity there, normalised.

    ``checked`` of them were rendered in full; means over 4 x 4 x 4 voxels differed from ``background`` by at most
    ``worst``, where ``tolerance`` was allowed.
    """

    empty: NDArray[np.bool_]
    background: float
    tolerance: float = 0.0
    checked: int = 0
    worst: float = 0.0

    @property
    def share(self) -> float:
        """Which part of the chunks is empty."""
        return float(self.empty.mean())

    def as_json(self) -> dict[str, Any]:
        """Plain JSON that ``read_air`` reads."""
        packed = base64.b64encode(np.packbits(self.empty).tobytes()).decode()
        numbers = {name: getattr(self, name) for name in ("background", "tolerance", "checked", "worst")}
        return {"shape": list(self.empty.shape), "empty": packed, **numbers}


@dataclass(frozen=True, kw_only=True)
class _Noted:
    """Air as JSON has it: ``empty`` are packed bits in base64."""

    shape: tuple[_Chunks, _Chunks, _Chunks]
    empty: str
    background: float
    tolerance: float
    checked: int
    worst: float

    def __post_init__(self) -> None:
        if len(self.bits) != -(-math.prod(self.shape) // 8):
            raise ValueError(f"empty: {len(self.bits)} bytes are not those of {self.shape} chunks")

    @property
    def bits(self) -> bytes:
        """A bit for every chunk, eight in a byte."""
        return base64.b64decode(self.empty, validate=True)


def read_air(path: str | os.PathLike[str]) -> Air:
    """The air that was noted as ``Air.as_json``. UnreadableError names a file that is no such note."""
    said: _Noted = read_as(_Noted, path)
    bits = np.unpackbits(np.frombuffer(said.bits, np.uint8), count=math.prod(said.shape))
    return Air(bits.astype(bool).reshape(said.shape), said.background, said.tolerance, said.checked, said.worst)


def no_air(layout: Layout) -> Air:
    """Every chunk is written."""
    return Air(np.zeros(layout.chunks, bool), background=0.0)


def find_air(field: Any, grid: Grid, layout: Layout, *, seed: int, workers: int = 1) -> Air:
    """The chunks of ``grid``, the whole head's, in which the field is nothing but background, outside the head.

    Background is the median on the six faces of the box. Samples that differ from it by more than 5 % of the robust
    maximum are the head, closed, filled and grown by one sample on every side; dark tissue inside is head as well.
    1 % of the empty chunks and at least 4, chosen by ``seed``, are evaluated in full; where a mean over 4 x 4 x 4
    voxels (of the field, not of its noise) differs by more than that, the samples were too coarse and nothing is empty.
    ``workers`` blocks are evaluated at once. Raises FloatingPointError for intensities that are not finite.
    """
    lanes = Lanes(workers)
    shape = tuple(math.ceil(n * SAMPLES / chunk) for n, chunk in zip(grid.shape, layout.chunk, strict=True))
    samples = _samples(field, grid.resized(shape), lanes)
    background = float(np.median(_faces(samples)))
    distance = np.abs(samples - background, out=samples)
    tolerance = TOLERANCE * float(np.percentile(distance, _ROBUST))
    empty = _without(_head(distance > tolerance), layout)
    chosen = _chosen(empty, seed)
    worst = max(lanes.in_order(lambda index: _deviation(field, grid, layout, index, background), chosen), default=0.0)
    if worst > tolerance:
        empty = np.zeros_like(empty)
    return Air(empty, background, tolerance, len(chosen), worst)


def sampling_bytes(layout: Layout) -> int:
    """Memory that ``find_air`` takes beside the evaluation of one block: samples, and masks made of them."""
    samples = math.prod(math.ceil(n * SAMPLES / c) for n, c in zip(layout.shape, layout.chunk, strict=True))
    return 16 * samples


def coarser(empty: NDArray[np.bool_], fine: Layout, coarse: Layout, below: Any) -> NDArray[np.bool_]:
    """Which chunks of the next level are empty: those made of empty chunks alone. ``below`` is the pyramid's."""
    result = np.zeros(coarse.chunks, bool)
    if not empty.any():
        return result
    for block in coarse.whole.blocks(coarse.chunk):
        index = block.cells(coarse.chunk).start
        result[index] = empty[below(block, fine.shape).cells(fine.chunk).slices].all()
    return result


def _samples(field: Any, grid: Grid, lanes: Lanes) -> NDArray[np.float32]:
    samples = np.empty(grid.shape, np.float32)

    def fill(block: Tile) -> None:
        samples[block.slices] = _evaluated(field, grid.block(block.start, block.shape))

    for _ in lanes.in_order(fill, Tile((0, 0, 0), grid.shape).blocks((_BLOCK,) * 3)):
        pass
    return samples


def _faces(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([np.take(samples, end, axis=axis).ravel() for axis in range(3) for end in (0, -1)])


def _head(above: NDArray[np.bool_]) -> NDArray[np.bool_]:
    around = np.ones((3, 3, 3), bool)
    padded = np.pad(above, 1)  # at the box's faces closing must not eat what it grew
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(padded, around))
    return ndimage.binary_dilation(closed, around)[1:-1, 1:-1, 1:-1]


def _without(head: NDArray[np.bool_], layout: Layout) -> NDArray[np.bool_]:
    empty = np.empty(layout.chunks, bool)
    for block in layout.whole.blocks(layout.chunk):
        touched = tuple(
            slice(a * m // n, math.ceil(b * m / n))
            for a, b, m, n in zip(block.start, block.stop, head.shape, layout.shape, strict=True)
        )
        empty[block.cells(layout.chunk).start] = not head[touched].any()
    return empty


def _chosen(empty: NDArray[np.bool_], seed: int) -> list[Triple]:
    indices = np.argwhere(empty)
    count = max(_CHECKED_LEAST, math.ceil(CHECKED * len(indices)))
    chosen = np.random.Generator(np.random.Philox(seed)).permutation(len(indices))[:count]
    return [tuple(int(i) for i in indices[k]) for k in sorted(chosen)]


def _deviation(field: Any, grid: Grid, layout: Layout, index: Triple, background: float) -> float:
    start = tuple(i * n for i, n in zip(index, layout.chunk, strict=True))
    shape = tuple(min(n, m - a) for n, m, a in zip(layout.chunk, layout.shape, start, strict=True))
    values = _evaluated(field, grid.block(start, shape))
    return float(np.abs(halve(halve(values)) - background).max())


def _evaluated(field: Any, grid: Grid) -> NDArray[np.float32]:
    values = field.evaluate(grid)
    if not np.isfinite(values).all():  # no comparison holds for NaN: all would be air
        raise FloatingPointError("not all intensities of the field are finite")
    return values
