"""The field of dense feature grids and a small network: position -> intensity. Evaluated in NumPy alone.

f(p) = MLP([level_1(p), ..., level_n(p)]): dense feature grids of several cell sizes, interpolated trilinearly with
cell-centred nodes: node i of a level of cell c lies at head index (i + 0.5) c - 0.5.

A voxel's value is the same, bit for bit, however a grid is cut into tiles: positions are snapped to a lattice and every
sum is element-wise, of products in one order. A matrix product would round differently with the tile's shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headsr.fields.arithmetic import least_seconds
from headsr.fields.lattice import boxes, level_shape, positions_in, touched_nodes
from headsr.volumes import Grid

_TENSORS = ("hidden_weight", "hidden_bias", "output_weight", "output_bias")
_CHUNK = 16384  # voxels whose hidden layer stays in the processor's cache; even, see _values
_BOX = {"voxels": 262144, "plane": 16384}  # what is interpolated at once
_HUGE_PAGES = 4 * 2**20  # the system may give an array two more of 2 MiB than it needs, at its ends


@dataclass(frozen=True, eq=False)
class DenseField:
    """A fitted field of normalised intensities on the head's ``grid``.

    ``levels`` are (features, x, y, z) per cell size; ``hidden_weight`` (H, all features), ``hidden_bias`` (H,),
    ``output_weight`` (H,), ``output_bias`` (). All float32.
    """

    grid: Grid
    cells: tuple[int, ...]
    levels: tuple[NDArray[np.float32], ...]
    hidden_weight: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    output_weight: NDArray[np.float32]
    output_bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        for cell, level in zip(self.cells, self.levels, strict=True):
            nodes = level_shape(self.grid.shape, cell) if cell > 0 else None
            if level.ndim != 4 or level.shape[1:] != nodes:
                raise ValueError(f"a level of cell {cell} has {nodes} nodes of some features, not {level.shape}")
        features, units = sum(len(level) for level in self.levels), self.hidden_bias.size
        network = [self.hidden_weight, self.hidden_bias, self.output_weight, self.output_bias]
        shapes, needed = [array.shape for array in network], [(units, features), (units,), (units,), ()]
        if not features or shapes != needed:
            raise ValueError(f"a network of {features} features is of arrays of {needed}, not of {shapes}")
        if {array.dtype for array in self.tensors.values()} != {np.dtype(np.float32)}:
            raise ValueError("a field's tensors are float32")

    @property
    def arithmetic(self) -> str:
        """What the bits of a value follow from beside the field itself: IEEE products and sums, rounded alike."""
        return f"cpu fp32 element-wise, {_products()}"

    @property
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What a file keeps, by name."""
        levels = {f"level_{index}": level for index, level in enumerate(self.levels)}
        return {name: getattr(self, name) for name in _TENSORS} | levels

    @property
    def description(self) -> dict[str, Any]:
        """What a file says of its tensors (JSON)."""
        return {"cells": list(self.cells)}

    @classmethod
    def from_file(cls, grid: Grid, content: dict[str, Any], tensors: dict[str, NDArray[np.float32]]) -> DenseField:
        """The field that a file describes."""
        cells = tuple(content["cells"])
        levels = tuple(tensors[f"level_{index}"] for index in range(len(cells)))
        named = {name: tensors[name] for name in _TENSORS}
        named["output_bias"] = named["output_bias"].reshape(())  # one number, which files keep as (1,)
        return cls(grid, cells, levels, **named)

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Normalised intensities (X, Y, Z) at the voxel centres of ``grid``, any block of any size of voxel.

        The axes of ``grid`` must be parallel to the head's (ValueError). Outside the outermost head voxel centres the
        field continues with its value there.
        """
        positions = positions_in(self.grid, grid)
        result = np.empty(grid.shape, np.float32)
        for box in boxes(grid.shape, **_BOX):
            result[box] = self._values([place[part] for place, part in zip(positions, box, strict=True)])
        return result

    def evaluation_bytes(self, shape: tuple[int, int, int]) -> int:
        """The most memory in bytes that evaluating a block of so many voxels takes in a thread, beside the field."""
        widest = max(level.shape[0] for level in self.levels)
        box = [part.stop for part in next(boxes(shape, **_BOX))]
        # A voxel has two nodes per axis. The step along z makes three arrays of as many as there are along x and y.
        values = math.prod(box) * (sum(level.shape[0] for level in self.levels) + 2 + 3 * 4 * widest)
        hidden = min(math.prod(box), _CHUNK) * (len(self.hidden_bias) + 1)
        return 4 * (math.prod(shape) + values + hidden) + 100 * sum(shape) + _HUGE_PAGES

    def seconds_per_voxel(self) -> float:
        """About how long one core takes for a voxel: a box of the head's own, timed now."""
        shape = tuple(part.stop for part in next(boxes(self.grid.shape, **_BOX)))
        block = self.grid.block(tuple((n - s) // 2 for n, s in zip(self.grid.shape, shape, strict=True)), shape)
        return least_seconds(lambda: self.evaluate(block)) / math.prod(shape)

    def _values(self, positions: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
        shape = tuple(map(len, positions))
        voxels = math.prod(shape)
        # An odd voxel gets a neighbour: einsum would sum the products of a single one in another order.
        features = np.ones((1 + self.hidden_weight.shape[1], voxels + voxels % 2), np.float32)
        first = 1  # after the ones that biases are the weights of
        for cell, level in zip(self.cells, self.levels, strict=True):
            channels = features[first : first + len(level), :voxels]
            _trilinear(level, cell, positions, out=channels.reshape(len(level), *shape))
            first += len(level)
        return self._network(features)[:voxels].reshape(shape)

    def _network(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The MLP at (n,) voxels from ones and their features, (1 + features, n).

        Sums are einsum's: bias, then product after product, as one would write them one by one, but in two calls.
        Threads that need the interpreter for many short ones wait more for each other than they compute.
        """
        into_hidden = np.concatenate([self.hidden_bias[:, None], self.hidden_weight], axis=1)
        into_output = np.concatenate([self.output_bias[None], self.output_weight])
        units = np.ones((len(into_output), min(features.shape[1], _CHUNK)), np.float32)
        total = np.empty(features.shape[1], np.float32)
        for start in range(0, len(total), _CHUNK):
            part = slice(start, start + _CHUNK)
            channels, out = features[:, part], total[part]
            hidden = units[1:, : len(out)]
            np.einsum("uf,fn->un", into_hidden, channels, out=hidden)
            np.maximum(hidden, 0, out=hidden)
            np.einsum("u,un->n", into_output, units[:, : len(out)], out=out)
        return total


@cache
def _products() -> str:
    """Whether einsum rounds a product before it adds it, as on x86, or not, where NumPy is built to fuse the two."""
    factor = np.float32(1 + 2**-12)
    ones = np.ones(16, np.float32)
    left = np.einsum("f,fn->n", np.stack([-factor * factor, factor]), np.stack([ones, factor * ones]))
    return "products fused" if left.any() else "products rounded"


def _trilinear(
    level: NDArray[np.float32], cell: int, positions: Sequence[NDArray[np.float64]], *, out: NDArray[np.float32]
) -> None:
    """A feature grid (features, x, y, z) at the separable ``positions`` (head indices), into (features, X, Y, Z).

    Only the nodes that are needed are touched; z goes first and x last, so that the largest step copies whole planes.
    """
    nodes = [touched_nodes(p, cell, n) for p, n in zip(positions, level.shape[1:], strict=True)]
    along_z = partial(_touched_along_z, [touched for touched, *_ in nodes])
    for axis, at in ((2, along_z), (1, partial(np.take, axis=2)), (0, partial(np.take, axis=1))):
        _, below, above, share = nodes[axis]
        share = share.reshape([-1 if i == axis else 1 for i in range(3)])
        upper = at(level, above)
        upper *= share
        level = at(level, below)
        level *= 1 - share
        np.add(level, upper, out=out if axis == 0 else level)


def _touched_along_z(
    touched: Sequence[slice | NDArray[np.intp]], level: NDArray[np.float32], places: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The nodes of a level that are touched along x and y, at ``places`` among those that are touched along z.

    Never whole axes of the level, nor all that is touched: where voxels are larger than cells, that is twice as much.
    """
    if all(isinstance(nodes, slice) for nodes in touched):
        return np.take(level[:, *touched], places, axis=3)
    x, y, z = (np.arange(n)[nodes] for nodes, n in zip(touched, level.shape[1:], strict=True))
    return level[np.ix_(range(len(level)), x, y, z[places])]
