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
_WIDER = 1.5  # a side of what is painted to be visited more than once, of a crop's


class PaintedSlices(NamedTuple):
    """Crops (N, 1, c, c) without noise, rows being the direction to make thick; their pixels (N, 2) in mm, rows and
    columns; their planes (N,) as array axes (``volumes.AXES``); seeds for whatever is done to the crops."""

    images: Tensor
    pixel_mm: Tensor
    planes: Tensor
    seeds: list[int]


class _Slice(NamedTuple):
    """A painted slice (rows, columns), the edge of its square pixels in mm, and its plane."""

    image: Tensor
    voxel_mm: float
    plane: int


class PaintedSliceSampler:
    """Draws crops of ``crop`` pixels out of slices, each a block one voxel thick, of heads painted in a contrast of
    ``suffixes``, or in any where there are none.

    A slice is painted for one crop alone or, half as wide again, for so many ``visits`` of steps in a row, each to a
    crop of its own (data echoing, Choi et al. 2019): painting takes longer than the step of a small network. The
    numbers of a batch take turns, so that every step paints an equal share of it.

    A pure function of (seed, split, step, number in the batch).
    """

    def __init__(
        self,
        index: str | os.PathLike[str],
        *,
        split: str,
        crop: int,
        suffixes: Sequence[str] = (),
        visits: int = 1,
        seed: int,
        device: torch.device,
    ) -> None:
        self.crop, self.visits, self.seed, self.split = crop, visits, seed, split
        side = crop if visits == 1 else round(_WIDER * crop)
        shapes = [tuple(1 if axis == plane else side for axis in range(3)) for plane in range(3)]
        self._samplers = [
            AnatomySampler(index, split=split, shape=one, suffixes=suffixes, seed=seed, device=device) for one in shapes
        ]
        self._held: dict[int, tuple[int, _Slice]] = {}

    def batch(self, step: int, size: int) -> PaintedSlices:
        """The crops of one step; fewer crops of the same step are the first ones."""
        images, pixels, planes = zip(*[self._visit(step, number) for number in range(size)], strict=True)
        return PaintedSlices(
            images=torch.stack(images)[:, None],
            pixel_mm=torch.tensor(pixels, dtype=torch.float32)[:, None].expand(-1, 2),
            planes=torch.tensor(planes),
            seeds=[seed_of(self.seed, self.split, "degradation", step, number) for number in range(size)],
        )

    def _visit(self, step: int, number: int) -> _Slice:
        """The crop of a step: all of a slice painted for it, or a part of the one that its number holds."""
        if self.visits == 1:
            return self._paint(step, number)
        turn = (step + number) // self.visits
        if self._held.get(number, (None,))[0] != turn:
            self._held[number] = turn, self._paint(turn, number)
        held = self._held[number][1]
        generator = np.random.default_rng(seed_of(self.seed, self.split, "crop", step, number))
        rows, columns = (
            slice(at, at + self.crop) for at in generator.integers(len(held.image) - self.crop + 1, size=2)
        )
        return held._replace(image=held.image[rows, columns])

    def _paint(self, turn: int, number: int) -> _Slice:
        generator = np.random.default_rng(seed_of(self.seed, self.split, "plane", turn, number))
        plane, transpose = int(generator.integers(3)), generator.random() < 0.5
        painted = self._samplers[plane].draw(turn, number)
        columns_first = painted.block.squeeze(plane)  # (x, z), (y, z) or (x, y): rows are z, or y
        image = columns_first if transpose and plane == _AXIAL else columns_first.T
        return _Slice(image, painted.voxel_mm, plane)
