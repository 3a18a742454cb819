"""A field of hashed feature grids and a small network: position -> intensity (Mueller et al., ACM TOG 41(4), 2022).

Nothing fits such a field yet.

f(p) = network([level_1(p), ..., level_n(p)]): pairs of features at the nodes of grids of falling cell
size, interpolated trilinearly, with nodes as those of ``headsr.fields.dense``: node i of a level of cell c lies at head
index (i + 0.5) c - 0.5. A level whose nodes fit in a table has them all; of a finer one, several nodes share a place,
(x * 1) xor (y * 2654435761) xor (z * 805459861), modulo the size of the table.

A point needs eight nodes of each level, but a tile is a box of a separable grid: each level, hashed or not, is read
once as the box of nodes that the tile touches and then interpolated one axis at a time.

A voxel's value is the same, bit for bit, however a grid is cut into tiles (``headsr.fields.evaluators``).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headsr.fields.arithmetic import (
    LIBRARY_BYTES,
    arithmetic_of,
    check_arithmetic,
    check_layers,
    layer_tensors,
    layers_of,
    least_seconds,
    seconds_of_layers,
)
from headsr.fields.lattice import Stencil, boxes, level_shape, positions_in
from headsr.volumes import Grid

if TYPE_CHECKING:
    from headsr.fields.evaluators import HashEvaluator

FEATURES = 2  # per node and level
# Voxels per matrix product, one or more planes of a tile, and how many such products a tile is: on a CPU the nodes of a
# tile stay in the last cache, the features of a product nearly in the second; a graphics card must be full.
_ROWS = {"cpu": 8192, "cuda": 131072}
_TILE = 32
_PASSES = 10  # over the features and hidden units of a voxel, beside the products: about what was measured
_MOVING = threading.Lock()


@dataclass(frozen=True, eq=False)
class HashField:
    """A fitted hash grid on the head's ``grid``, of normalised intensities.

    ``cells`` are the levels' cell sizes in head voxels. A level is (2, x, y, z) where all its nodes are kept and
    (table size, 2) where they are hashed. ``weights`` (units, inputs) and ``biases`` (units,) are those of a network
    with ReLU between its layers, whose inputs are the levels' features in order. All float32. ``precision`` is that of
    the network's hidden layers; features and the last layer's sum are float32 always.
    """

    grid: Grid
    cells: tuple[float, ...]
    levels: tuple[NDArray[np.float32], ...]
    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    device: str = "cpu"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_arithmetic(self.device, self.precision)
        for cell, level in zip(self.cells, self.levels, strict=True):
            dense = (FEATURES, *level_shape(self.grid.shape, cell)) if cell > 0 else None
            hashed = level.ndim == 2 and level.shape[1] == FEATURES and level.shape[0].bit_count() == 1
            if not hashed and level.shape != dense:
                raise ValueError(
                    f"a level of cell {cell} is {dense} or (a power of two, {FEATURES}), not {level.shape}"
                )
        check_layers(self.weights, self.biases, inputs=FEATURES * len(self.levels))
        if {array.dtype for array in self.tensors.values()} != {np.dtype(np.float32)}:
            raise ValueError("a field's tensors are float32")

    @property
    def arithmetic(self) -> str:
        """What the bits of a value follow from beside the field itself."""
        return arithmetic_of(self.device, self.precision)

    @property
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What a file keeps, by name."""
        levels = {f"level_{index}": level for index, level in enumerate(self.levels)}
        return levels | layer_tensors(self.weights, self.biases)

    @property
    def description(self) -> dict[str, Any]:
        """What a file says of its tensors (JSON)."""
        return {"kind": "hash_grid", "cells": list(self.cells), "layers": len(self.weights)}

    @classmethod
    def from_file(cls, grid: Grid, content: dict[str, Any], tensors: dict[str, NDArray[np.float32]]) -> HashField:
        """The field that a file describes."""
        cells = tuple(content["cells"])
        levels = tuple(tensors[f"level_{index}"] for index in range(len(cells)))
        return cls(grid, cells, levels, *layers_of(tensors, content["layers"]))

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Normalised intensities (X, Y, Z) at the voxel centres of ``grid``, any block of any size of voxel.

        The axes of ``grid`` must be parallel to the head's (ValueError). Outside the outermost head voxel centres the
        field continues with its value there.
        """
        positions = positions_in(self.grid, grid)
        levels = self._cells_and_nodes
        finest = min(cell for cell, _ in levels)
        coarse = any(np.abs(np.diff(place)).max(initial=0) > finest for place in positions)
        from headsr.fields.evaluators import one_thread  # and with it torch, once there is something to compute

        result = np.empty(grid.shape, np.float32)
        with one_thread():
            for tile in boxes(grid.shape, **self._tiles[coarse]):
                places = [place[part] for place, part in zip(positions, tile, strict=True)]
                result[tile] = self._evaluator.values([Stencil.of(places, *level) for level in levels])
        return result

    def evaluation_bytes(self, shape: tuple[int, int, int]) -> int:
        """The most memory in bytes that evaluating a block of so many voxels takes in a thread, beside the field.

        A tile of t voxels a side touches at most t + 1 nodes of cells that are no smaller than the voxels, and at most
        2 t of smaller ones, for which there are smaller tiles.
        """
        fine, coarse = ([part.stop for part in next(boxes(shape, **tiles))] for tiles in self._tiles)
        tile = max(self._tile_bytes(fine, [n + 1 for n in fine]), self._tile_bytes(coarse, [2 * n for n in coarse]))
        channels, widest = FEATURES * len(self.levels), max(len(bias) for bias in self.biases)
        product = 4 * self._rows * (4 * channels + 3 * widest)
        return 4 * math.prod(shape) + tile + product + 200 * sum(shape) * len(self.levels) + LIBRARY_BYTES

    def seconds_per_voxel(self) -> float:
        """About how long one core (or a graphics card) takes for a voxel: the network's products and interpolation."""
        widths = (FEATURES * len(self.levels), *(len(bias) for bias in self.biases))
        if self.device != "cpu":
            return seconds_of_layers(widths, self.device)
        feature = np.zeros(2**16, np.float32)
        one_pass = least_seconds(lambda: np.add(feature, feature, out=feature)) / feature.size
        return seconds_of_layers(widths, self.device) + _PASSES * sum(widths[:-1]) * one_pass

    def _tile_bytes(self, tile: Sequence[int], touched: Sequence[int]) -> int:
        """What reading all levels on a tile takes, where at most so many of their nodes per axis are touched."""
        y, z = tile[1:]
        nodes = [[min(n, t) for n, t in zip(shape, touched, strict=True)] for _, shape in self._cells_and_nodes]
        planes = 4 * FEATURES * y * z * sum(n[0] for n in nodes)
        # A level's nodes, with their places in a table; then what interpolating along z and along y makes of them.
        boxes_of_nodes = max(math.prod(n) * (3 * 4 + 2 * 4 * FEATURES) for n in nodes)
        steps = max(4 * FEATURES * (4 * n[0] * n[1] * z + 3 * n[0] * y * z) for n in nodes)
        return planes + boxes_of_nodes + steps + 4 * math.prod(tile)

    @property
    def _cells_and_nodes(self) -> list[tuple[float, tuple[int, ...]]]:
        return [(cell, level_shape(self.grid.shape, cell)) for cell in self.cells]

    @property
    def _rows(self) -> int:
        return _ROWS[self.device.partition(":")[0]]

    @property
    def _tiles(self) -> tuple[dict[str, int], dict[str, int]]:
        """How a block is cut where no cell is smaller than the voxels, and where one is: an eighth of it at once."""
        voxels, plane = _TILE * self._rows, self._rows
        return {"voxels": voxels, "plane": plane}, {"voxels": voxels // 8, "plane": plane // 4}

    @property
    def _evaluator(self) -> HashEvaluator:
        from headsr.fields.evaluators import HashEvaluator

        with _MOVING:  # to the device once, whichever thread comes first
            if "_moved" not in self.__dict__:
                self.__dict__["_moved"] = HashEvaluator(
                    self.levels,
                    self.weights,
                    self.biases,
                    rows=self._rows,
                    device=self.device,
                    precision=self.precision,
                )
            return self.__dict__["_moved"]
