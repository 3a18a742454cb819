"""Blocks of preprocessed heads, drawn from their axial slices by (seed, step) alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.seeds import seed_of
from headsr.slices.dataset import open_plane, scans_in


@dataclass(frozen=True, eq=False)
class BlockBatch:
    """Blocks (N, 1, X, Y, Z) in normalised intensities, their voxel sizes (N, 3) in mm, and their scans."""

    blocks: Tensor
    voxel_mm: Tensor
    scans: list[str]


class BlockSampler:
    """Draws blocks of ``shape`` voxels: a scan, each equally likely, then a place in it, flipped left to right or not.

    Only the slices that a block crosses are read, when it is drawn. A head that is smaller is mirrored at its borders.
    """

    def __init__(self, index: str | os.PathLike[str], *, split: str, shape: tuple[int, int, int], seed: int) -> None:
        self.shape, self.seed, self.split = shape, seed, split
        self._scans, self._folder = scans_in(index, split), Path(index).parent

    def batch(self, step: int, size: int) -> BlockBatch:
        """The blocks of one step; fewer blocks of the same step are the first ones."""
        drawn = [self._draw(seed_of(self.seed, self.split, "block", step, i)) for i in range(size)]
        blocks, scans = zip(*drawn, strict=True)
        return BlockBatch(
            blocks=torch.from_numpy(np.stack(blocks)[:, None]),
            voxel_mm=torch.tensor([_voxel_mm(scan) for scan in scans], dtype=torch.float32),
            scans=[scan["name"] for scan in scans],
        )

    def _draw(self, seed: int) -> tuple[NDArray, dict[str, Any]]:
        generator = np.random.default_rng(seed)
        scan = self._scans[generator.integers(len(self._scans))]
        slices = open_plane(self._folder / scan["store"] / "axial")
        windows = [_window(n, size, generator) for n, size in zip(slices.shape, self.shape[::-1], strict=True)]
        block = slices[tuple(inside for inside, _ in windows)].transpose()
        block = np.pad(block, [around for _, around in windows[::-1]], mode="symmetric")
        return np.ascontiguousarray(block[::-1] if generator.random() < 0.5 else block, dtype=np.float32), scan


def _window(length: int, size: int, generator: np.random.Generator) -> tuple[slice, tuple[int, int]]:
    """What to read of an axis, and how much to add before and after it."""
    missing = max(0, size - length)
    before, start = int(generator.integers(missing + 1)), int(generator.integers(max(0, length - size) + 1))
    return slice(start, start + min(size, length)), (before, missing - before)


def _voxel_mm(scan: dict[str, Any]) -> list[float]:
    """Along x, y and z: rows and columns of axial slices are y and x, rows of coronal ones z."""
    y, x = scan["pixel_mm"]["axial"]
    return [x, y, scan["pixel_mm"]["coronal"][0]]
