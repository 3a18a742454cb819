"""Blocks of heads with the scans simulated from each, operator and data: a pure function of recipe and step.

One acquisition is drawn per step and shared by its batch, so that one operator serves all. Lengths are in voxels: heads
of any voxel size can be in one batch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.operator import Acquisition
from headsr.devices import generator_of
from headsr.recipes import Blind, Model
from headsr.recipes.models import Studies
from headsr.seeds import seed_of
from headsr.slices.blocks import BlockSampler
from headsr.training.data.labels import paint
from headsr.volumes import Grid

_PROFILES = ("box", "gaussian")


@dataclass(frozen=True, eq=False)
class StudyBatch:
    """Blocks (N, 1, X, Y, Z) and what was measured of each: one operator and its data (N, 1, x, y, z) for every scan.

    A loss looks at ``blocks[inside]`` alone: around that a slice may reach beyond the block, where nothing is known.
    ``noise`` is the standard deviation of the noise in all scans.
    """

    blocks: Tensor
    operators: list[Acquisition]
    scans: list[Tensor]
    noise: float
    inside: tuple[slice, ...]


class StudySampler:
    """Draws the studies of a training step from the heads of one split ("train" or "val")."""

    def __init__(
        self, recipe: Model, index: str | os.PathLike[str], *, split: str, blind: Blind | None, device: torch.device
    ) -> None:
        self.data, self.device, self.size = recipe.data, device, recipe.budget.batch
        self.seed, self.split = seed_of(recipe.seed, recipe.kind, split), split
        self.sampler = BlockSampler(
            index, split=split, shape=_with_margin(recipe.data), seed=self.seed, source=recipe.data.source
        )

    @staticmethod
    def blank(recipe: Model, size: int) -> StudyBatch:
        """Studies without numbers (meta device): one axial scan of each block."""
        grid = Grid(_with_margin(recipe.data), np.eye(4))
        operator = Acquisition(grid, grid.thick(2, recipe.data.factor[0]), axis=2, device="meta")
        scans = [torch.empty(size, 1, *operator.scan.shape, device="meta")]
        blocks = torch.empty(size, 1, *grid.shape, device="meta")
        return StudyBatch(blocks, [operator], scans, 0.0, _inside(recipe.data))

    @torch.no_grad()
    def batch(self, step: int, size: int | None = None) -> StudyBatch:
        """The studies of one step, on the device: noise is drawn on the CPU, the same on any device."""
        # A training's bf16 is for its network: what a scan measures of a block is exact.
        with torch.autocast(self.device.type, enabled=False):
            return self._study(self._blocks(step, size or self.size), step)

    def _blocks(self, step: int, size: int) -> Tensor:
        """The blocks of one step: heads, or their labels in contrasts that are drawn for this step."""
        drawn = self.sampler.batch(step, size).blocks.to(self.device)
        if self.data.source == "heads":
            return drawn
        return paint(drawn, [seed_of(self.seed, self.split, "contrast", step, i) for i in range(size)])

    def _study(self, blocks: Tensor, step: int) -> StudyBatch:
        generator = np.random.default_rng(seed_of(self.seed, self.split, "acquisition", step))
        operators, noise = draw_acquisitions(self.data, generator, self.device)
        scans = [operator.forward(blocks) for operator in operators]
        noises = [
            torch.randn(scan.shape, generator=generator_of(self.seed, self.split, "noise", step, number))
            for number, scan in enumerate(scans)
        ]
        noisy = [scan + noise * added.to(scan) for scan, added in zip(scans, noises, strict=True)]
        return StudyBatch(blocks, operators, noisy, noise, _inside(self.data))


def draw_acquisitions(
    data: Studies, generator: np.random.Generator, device: torch.device
) -> tuple[list[Acquisition], float]:
    """The scans of one study and the deviation of their noise: each along another axis while there are any."""
    head = Grid(_with_margin(data), np.eye(4))
    number = int(generator.integers(data.scans[0], data.scans[1] + 1))
    axes = [int(axis) for _ in range(-(-number // 3)) for axis in generator.permutation(3)][:number]
    operators = [_draw_acquisition(head, axis, data, generator, device) for axis in axes]
    return operators, float(generator.uniform(*data.noise))


def _draw_acquisition(
    head: Grid, axis: int, data: Studies, generator: np.random.Generator, device: torch.device
) -> Acquisition:
    """Slices that cover the block, the first beginning up to one slice before it, turned about its middle."""
    factor, profile = float(generator.uniform(*data.factor)), _PROFILES[generator.integers(len(_PROFILES))]
    before = np.zeros(3)
    before[axis] = factor * generator.uniform()
    longer = [n + int(np.ceil(before[axis])) if i == axis else n for i, n in enumerate(head.shape)]
    slices = Grid(tuple(longer), _shift(-before)).thick(axis, factor)
    middle = (np.array(head.shape) - 1) / 2
    turn = _shift(middle) @ _rotation(data.tilt_degrees, generator) @ _shift(-middle)
    scan = Grid(slices.shape, turn @ slices.affine)
    return Acquisition(head, scan, axis=axis, profile=profile, device=device)


def _rotation(most_degrees: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A turn (4, 4) by up to so much about a random axis; the identity for none."""
    axis = generator.standard_normal(3)
    angle = np.deg2rad(most_degrees) * generator.uniform()
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(4)
    turn[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn


def _shift(by: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = np.eye(4)
    moved[:3, 3] = by
    return moved


def _with_margin(data: Studies) -> tuple[int, int, int]:
    return tuple(n + 2 * data.margin for n in data.block)


def _inside(data: Studies) -> tuple[slice, ...]:
    """The block without its margin, of tensors (N, 1, X, Y, Z)."""
    return (..., *(slice(data.margin, data.margin + n) for n in data.block))
