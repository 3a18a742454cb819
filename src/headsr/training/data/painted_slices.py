"""Training crops painted from label maps: the counterpart of slices cut from preprocessed heads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headsr.seeds import seed_of
from headsr.training.data.anatomies import AnatomySampler

_AXIAL = 2


class PaintedSlices(NamedTuple):
    """Crops (N, 1, c, c) without noise, rows being the direction to make thick; their pixels (N, 2) in mm, rows and
    columns; their planes (N,) as array axes (``volumes.AXES``); seeds for whatever is done to the crops."""

    images: Tensor
    pixel_mm: Tensor
    planes: Tensor
    seeds: list[int]


class PaintedSliceSampler:
    """Draws crops of ``crop`` pixels: each a block one voxel thick, of a head painted for it alone in a contrast of
    ``suffixes``, or in any where there are none.

    A pure function of (seed, split, step, number in the batch).
    """

    def __init__(
        self,
        index: str | os.PathLike[str],
        *,
        split: str,
        crop: int,
        suffixes: Sequence[str] = (),
        seed: int,
        device: torch.device,
    ) -> None:
        self.seed, self.split = seed, split
        shapes = [tuple(1 if axis == plane else crop for axis in range(3)) for plane in range(3)]
        self._samplers = [
            AnatomySampler(index, split=split, shape=one, suffixes=suffixes, seed=seed, device=device) for one in shapes
        ]

    def batch(self, step: int, size: int) -> PaintedSlices:
        """The crops of one step; fewer crops of the same step are the first ones."""
        images, pixels, planes = zip(*[self._draw(step, number) for number in range(size)], strict=True)
        return PaintedSlices(
            images=torch.stack(images)[:, None],
            pixel_mm=torch.tensor(pixels, dtype=torch.float32)[:, None].expand(-1, 2),
            planes=torch.tensor(planes),
            seeds=[seed_of(self.seed, self.split, "degradation", step, number) for number in range(size)],
        )

    def _draw(self, step: int, number: int) -> tuple[Tensor, float, int]:
        """A crop (rows, columns), the edge of its square pixels, and its plane."""
        generator = np.random.default_rng(seed_of(self.seed, self.split, "plane", step, number))
        plane, transpose = int(generator.integers(3)), generator.random() < 0.5
        painted = self._samplers[plane].draw(step, number)
        columns_first = painted.block.squeeze(plane)  # (x, z), (y, z) or (x, y): rows are z, or y
        image = columns_first if transpose and plane == _AXIAL else columns_first.T
        return image, painted.voxel_mm, plane
