"""A continuous field: position in mm -> intensity. Evaluated in NumPy alone, so that rendering needs no torch.

f(p) = carried(p) + MLP([level_1(p), ..., level_n(p)]): dense feature grids of several cell sizes and one voxel grid
that carries what the fit started from and the correction that makes the field agree with the measurement. All grids
are interpolated trilinearly with cell-centred nodes: node i of a level of cell c lies at head index (i + 0.5) c - 0.5.

A voxel's value is the same, bit for bit, however a grid is cut into tiles: positions are snapped to a lattice and every
sum is written as element-wise operations in one order. A matrix product would round differently with the tile's shape.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

from headsr.files import whole
from headsr.volumes import Grid, axis_positions

_KEY = "headsr"
# Positions are snapped to 2^-16 head voxels. The shift keeps the rounding edges away from all positions that simple
# scale factors give, whose last bits depend on where a tile starts.
_LATTICE = 2.0**16
_SHIFT = 0.5 + 0.0618033988749895
_CHUNK = 8192  # voxels whose hidden layer stays in the processor's cache


class FieldError(ValueError):
    """A file does not hold a field. The message names the file and the way out."""


@dataclass(frozen=True)
class FieldDesign:
    """The ``field`` block of a fit's recipe.

    ``cells`` are the cell sizes of the feature grids in head voxels, ``features`` the features of each, ``hidden`` the
    width of the MLP's one layer, ``start`` what the field is added to: the fused ``average`` of the scans, or ``none``.
    """

    cells: tuple[int, ...] = (8, 4, 2, 1)
    features: tuple[int, ...] = (2, 2, 2, 2)
    hidden: int = 16
    start: str = "average"

    def __post_init__(self) -> None:
        if len(self.cells) != len(self.features) or not self.cells or min(*self.cells, *self.features, self.hidden) < 1:
            raise ValueError(
                f"field: cells {self.cells}, features {self.features} and hidden must be positive and pair up"
            )
        if self.start not in ("average", "none"):
            raise ValueError(f"field.start {self.start!r} is not known; choose average or none")


@dataclass(frozen=True, eq=False)
class Field:
    """A fitted field on the head's ``grid``: normalised intensity * ``scale`` + ``offset`` gives the scan's units.

    ``levels`` are (features, x, y, z) per cell size; ``hidden_weight`` (H, all features), ``hidden_bias`` (H,),
    ``output_weight`` (H,), ``output_bias`` (); ``carried`` (X, Y, Z). All float32. ``record`` is plain JSON.
    """

    grid: Grid
    scale: float
    offset: float
    cells: tuple[int, ...]
    levels: tuple[NDArray[np.float32], ...]
    hidden_weight: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    output_weight: NDArray[np.float32]
    output_bias: NDArray[np.float32]
    carried: NDArray[np.float32]
    record: dict[str, Any] = field(default_factory=dict)

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Normalised intensities (X, Y, Z) at the voxel centres of ``grid``, any block of any size of voxel.

        The axes of ``grid`` must be parallel to the head's (ValueError). Outside the outermost head voxel centres the
        field continues with its value there.
        """
        positions = [np.floor(p * _LATTICE + _SHIFT) / _LATTICE for p in axis_positions(grid, self.grid)]
        features = [_trilinear(level, cell, positions) for cell, level in zip(self.cells, self.levels, strict=True)]
        flat = [channel.reshape(-1) for level in features for channel in level]
        result = _trilinear(self.carried[None], 1, positions)[0]
        values = result.reshape(-1)
        for start in range(0, values.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            values[part] += self._network([channel[part] for channel in flat])
        return result

    def _network(self, features: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The MLP at (n,) voxels from their features, one (n,) array each."""
        hidden = np.repeat(self.hidden_bias[:, None], features[0].size, axis=1)
        product = np.empty_like(hidden)
        for weight, channel in zip(self.hidden_weight.T, features, strict=True):
            hidden += np.multiply(weight[:, None], channel, out=product)
        np.maximum(hidden, 0, out=hidden)
        hidden *= self.output_weight[:, None]
        total = np.full(features[0].size, self.output_bias, dtype=np.float32)
        for unit in hidden:
            total += unit
        return total


def level_shape(shape: Sequence[int], cell: int) -> tuple[int, ...]:
    """Nodes per axis of the feature grid of one cell size: enough cells to cover the head."""
    return tuple(-(-n // cell) for n in shape)


def linear_nodes(
    positions: NDArray[np.float64], cell: int, nodes: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The two nodes beside each position (head index) along one axis, and the share of the second."""
    place = np.clip((positions + 0.5) / cell - 0.5, 0, nodes - 1)
    below = np.minimum(place.astype(np.intp), max(nodes - 2, 0))
    return below, np.minimum(below + 1, nodes - 1), (place - below).astype(np.float32)


def save_field(path: str | os.PathLike[str], field: Field) -> None:
    """Write a field as safetensors, whole or not at all; grid, scale, cells and record are one JSON text inside."""
    tensors = {name: np.ascontiguousarray(getattr(field, name)) for name in _TENSORS}
    tensors |= {f"level_{index}": np.ascontiguousarray(level) for index, level in enumerate(field.levels)}
    content = {
        "shape": list(field.grid.shape),
        "affine": field.grid.affine.tolist(),
        "scale": field.scale,
        "offset": field.offset,
        "cells": list(field.cells),
        "record": field.record,
    }
    with whole(path) as partial:
        save_file(tensors, partial, {_KEY: json.dumps(content, sort_keys=True, allow_nan=False)})


def load_field(path: str | os.PathLike[str]) -> Field:
    """Read a field that save_field wrote. FieldError names a damaged or foreign file."""
    try:
        with safetensors.safe_open(path, framework="numpy") as stream:
            content = json.loads(stream.metadata()[_KEY])
            cells = tuple(content["cells"])
            tensors = {name: stream.get_tensor(name) for name in _TENSORS}
            levels = tuple(stream.get_tensor(f"level_{index}") for index in range(len(cells)))
        grid = Grid(content["shape"], content["affine"])
        return Field(grid, content["scale"], content["offset"], cells, levels, **tensors, record=content["record"])
    except FileNotFoundError:
        raise FieldError(f"{path}: does not exist. Fit the field first") from None
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FieldError(f"{path}: is damaged or holds no field ({error}). Delete it and fit again") from error


_TENSORS = ("hidden_weight", "hidden_bias", "output_weight", "output_bias", "carried")


def _trilinear(level: NDArray[np.float32], cell: int, positions: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """A feature grid (features, x, y, z) at the separable ``positions`` (head indices): (features, X, Y, Z).

    Only the nodes that are needed are touched; z goes first and x last, so that the largest step copies whole planes.
    """
    nodes = [linear_nodes(p, cell, n) for p, n in zip(positions, level.shape[1:], strict=True)]
    first = [int(below.min()) for below, _, _ in nodes]
    level = level[
        (slice(None), *(slice(f, int(above.max()) + 1) for f, (_, above, _) in zip(first, nodes, strict=True)))
    ]
    for axis in (2, 1, 0):
        below, above, share = nodes[axis]
        share = share.reshape([-1 if i == axis else 1 for i in range(3)])
        upper = np.take(level, above - first[axis], axis=axis + 1)
        upper *= share
        level = np.take(level, below - first[axis], axis=axis + 1)
        level *= 1 - share
        level += upper
    return level
