"""Fields of random weights on an oblique head, and what they are by their definitions, voxel by voxel in float64."""

import itertools
from dataclasses import replace

import numpy as np

from headsr.fields.consistent import ConsistentField
from headsr.fields.dense import DenseField
from headsr.fields.hash_grid import HashField
from headsr.fields.lattice import level_shape
from headsr.fields.siren import SirenField
from headsr.volumes import Grid

SHAPE = (11, 9, 13)
AFFINE = np.array([[0.9, -0.1, 0, -30.3], [0.1, 0.9, 0, 17.77], [0, 0, 1.1, -3.9], [0, 0, 0, 1]])


def head(shape=SHAPE) -> Grid:
    return Grid(shape, AFFINE)


def layers(widths, rng, spread):
    weights = tuple((spread(n) * rng.standard_normal((m, n))).astype(np.float32) for n, m in itertools.pairwise(widths))
    return weights, tuple((0.1 * rng.standard_normal(m)).astype(np.float32) for m in widths[1:])


def siren(widths=(3, 24, 40, 24, 1), *, shape=SHAPE, seed=0, **how) -> SirenField:
    rng = np.random.default_rng(seed)
    weights, biases = layers(widths, rng, lambda n: 0.5 if n == 3 else 2 / n**0.5 / 30)
    weights = (*weights[:-1], 15 * weights[-1])
    return SirenField(head(shape), weights, biases, **how)


def hash_grid(cells=(5.5, 3.0, 1.7, 1.0), *, table=64, shape=SHAPE, seed=0, **how) -> HashField:
    """Small tables, so that all but the coarsest level are hashed and nodes collide."""
    rng = np.random.default_rng(seed)
    nodes = [level_shape(shape, cell) for cell in cells]
    sizes = [(2, *n) if np.prod(n) <= table else (table, 2) for n in nodes]
    levels = tuple(rng.standard_normal(size).astype(np.float32) for size in sizes)
    weights, biases = layers((2 * len(cells), 16, 16, 1), rng, lambda n: n**-0.5)
    return HashField(head(shape), cells, levels, weights, biases, **how)


def dense(cells=(4, 2, 1), features=(2, 1, 2), *, hidden=6, shape=SHAPE, seed=0) -> DenseField:
    rng = np.random.default_rng(seed)

    def draw(*size):
        return rng.standard_normal(size).astype(np.float32)

    return DenseField(
        head(shape),
        cells,
        tuple(draw(n, *level_shape(shape, c)) for n, c in zip(features, cells, strict=True)),
        hidden_weight=draw(hidden, sum(features)),
        hidden_bias=draw(hidden),
        output_weight=draw(hidden),
        output_bias=draw(1)[0],
    )


def consistent(network, *, signed=False, seed=1) -> ConsistentField:
    """A field whose means are noise, nowhere below zero, in a ball: as sharp an edge as there is."""
    places = [np.linspace(-1, 1, n) for n in network.grid.shape]
    inside = sum(p**2 for p in np.meshgrid(*places, indexing="ij")) < 0.7
    voxels = np.where(inside, np.random.default_rng(seed).random(network.grid.shape), 0).astype(np.float32)
    field = ConsistentField.of(network, voxels - np.float32(signed), scale=812.5, offset=-20.0, signed=signed)
    return replace(field, record={"method": "trial"})


def siren_by_definition(field: SirenField, grid: Grid) -> np.ndarray:
    points = _points(field.grid, grid)
    units = (2 * points + 1) / field.grid.shape - 1
    for weight, bias in zip(field.weights[:-1], field.biases[:-1], strict=True):
        units = np.sin(30 * (units @ weight.T.astype(float) + bias))
    return (units @ field.weights[-1][0].astype(float) + field.biases[-1]).reshape(grid.shape)


def hash_grid_by_definition(field: HashField, grid: Grid) -> np.ndarray:
    values = []
    for point in _points(field.grid, grid):
        levels = zip(field.levels, field.cells, strict=True)
        units = np.concatenate([_at(level, cell, point, field) for level, cell in levels])
        for weight, bias in zip(field.weights[:-1], field.biases[:-1], strict=True):
            units = np.maximum(weight.astype(float) @ units + bias, 0)
        values.append(float(field.weights[-1][0].astype(float) @ units + field.biases[-1][0]))
    return np.array(values).reshape(grid.shape)


def _points(head: Grid, grid: Grid) -> np.ndarray:
    """Head indices (voxels, 3), no farther out than the outermost voxel centres."""
    index = np.indices(grid.shape).reshape(3, -1)
    mm = grid.affine[:3, :3] @ index + grid.affine[:3, 3:]
    return np.clip(np.linalg.solve(head.affine[:3, :3], mm - head.affine[:3, 3:]).T, 0, np.array(head.shape) - 1)


def _at(level: np.ndarray, cell: float, point: np.ndarray, field: HashField) -> np.ndarray:
    nodes = [-(-n // cell) for n in field.grid.shape]
    place = [min(max((p + 0.5) / cell - 0.5, 0), n - 1) for p, n in zip(point, nodes, strict=True)]
    total = 0.0
    for corner in itertools.product((0, 1), repeat=3):
        x, y, z = (int(min(int(p) + c, n - 1)) for p, c, n in zip(place, corner, nodes, strict=True))
        share = np.prod([p - int(p) if c else 1 - (p - int(p)) for p, c in zip(place, corner, strict=True)])
        hashed = (x ^ (y * 2654435761) ^ (z * 805459861)) % len(level)
        total = total + share * (level[:, x, y, z] if level.ndim == 4 else level[hashed]).astype(float)
    return total
