"""Heads with the scans simulated from each, operator and data: a pure function of recipe and step.

One acquisition is drawn per step and shared by its batch, so that one operator serves all. Lengths are in voxels: heads
of any voxel size can be in one batch. A block is a head of its own: what its scans see of it is all inside, as at the
faces of a whole head, so nothing around it is missed.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.acquisition.evidence import Evidence
from headsr.acquisition.operator import Acquisition
from headsr.acquisition.placement import rigid_motion
from headsr.devices import generator_of
from headsr.recipes import Blind, Model
from headsr.recipes.models import Measured
from headsr.seeds import seed_of
from headsr.slices.blocks import BlockSampler
from headsr.training.data.anatomies import AnatomySampler
from headsr.volumes import Grid

_PROFILES = {"box": 0.7, "gaussian": 0.3}
# Most protocols have whole factors, slices as thick as far apart, and scans that are alike and parallel to the head;
# everything else is drawn often enough to be learned. A step with turned scans takes five times as long.
_WHOLE_FACTOR, _ALIKE, _NO_GAP, _NO_NOISE, _TURNED = 0.4, 0.75, 0.7, 0.25, 0.05
_THICKNESS = (0.6, 1.5)  # of the distance of slices, where there are gaps or overlaps
_LEAST_NOISE = 0.002
_SHORT = (0.4, 0.9)  # share of its slices that a scan has which ends within the head


@dataclass(frozen=True, eq=False)
class StudyBatch:
    """Heads (N, 1, X, Y, Z) without noise, what was measured of them, and the part of each voxel that is lesion.

    ``voxel_mm`` (N, 3) are their voxels along x, y and z. ``lesions`` has the shape of the heads; it is None where
    nobody knows of lesions.
    """

    heads: Tensor
    evidence: Evidence
    voxel_mm: Tensor
    lesions: Tensor | None = None


class StudySampler:
    """Draws the studies of a training step from the heads of one split ("train" or "val")."""

    def __init__(
        self, recipe: Model, index: str | os.PathLike[str], *, split: str, blind: Blind | None, device: torch.device
    ) -> None:
        self.data, self.device, self.size = recipe.data, device, recipe.budget.batch
        self.seed, self.split = seed_of(recipe.seed, recipe.kind, split), split
        shape = tuple(recipe.data.block)
        if recipe.data.source == "labels":
            self.sampler = AnatomySampler(
                index, split=split, shape=shape, suffixes=self.data.suffixes, seed=self.seed, device=device
            )
        else:
            self.sampler = BlockSampler(index, split=split, shape=shape, seed=self.seed)

    @staticmethod
    def blank(recipe: Model, size: int) -> StudyBatch:
        """Studies without numbers (meta device): one axial scan of each head."""
        grid = Grid(tuple(recipe.data.block), np.eye(4))
        operator = Acquisition(grid, grid.thick(2, recipe.data.factor[0]), axis=2, device="meta")
        scan = torch.empty(size, 1, *operator.scan.shape, device="meta")
        heads, voxel_mm = (torch.empty(size, *shape, device="meta") for shape in ((1, *grid.shape), (3,)))
        return StudyBatch(heads, Evidence([operator], [scan], [0.0]), voxel_mm)

    @torch.no_grad()
    def batch(self, step: int, size: int | None = None) -> StudyBatch:
        """The studies of one step, on the device: noise is drawn on the CPU, the same on any device."""
        # A training's bf16 is for its network: what a scan measures of a head is exact.
        with torch.autocast(self.device.type, enabled=False):
            drawn = self.sampler.batch(step, size or self.size)
            lesions = drawn.lesions if self.data.source == "labels" else None
            return self._study(drawn.blocks.to(self.device), drawn.voxel_mm, lesions, step)

    def _study(self, heads: Tensor, voxel_mm: Tensor, lesions: Tensor | None, step: int) -> StudyBatch:
        generator = np.random.default_rng(seed_of(self.seed, self.split, "acquisition", step))
        operators, noise = draw_acquisitions(self.data, generator, self.device)
        scans = []
        for number, (operator, deviation) in enumerate(zip(operators, noise, strict=True)):
            scan = operator.forward(heads)
            drawn = torch.randn(scan.shape, generator=generator_of(self.seed, self.split, "noise", step, number))
            scans.append(torch.where(operator.covered, scan + deviation * drawn.to(scan), torch.zeros_like(scan)))
        evidence = Evidence(operators, scans, noise, voxel_mm=_mean_size(voxel_mm))
        return StudyBatch(heads, evidence, _along_axes(voxel_mm), lesions)


def draw_acquisitions(
    data: Measured, generator: np.random.Generator, device: torch.device
) -> tuple[list[Acquisition], list[float]]:
    """The scans of one study and the deviation of the noise of each: along another axis each while there are any."""
    head = Grid(tuple(data.block), np.eye(4))
    number = int(generator.integers(data.scans[0], data.scans[1] + 1))
    axes = [int(axis) for _ in range(-(-number // 3)) for axis in generator.permutation(3)][:number]
    alike, factors = generator.random() < _ALIKE, [_draw_factor(data, generator) for _ in axes]
    profile = str(generator.choice(list(_PROFILES), p=list(_PROFILES.values())))
    gap = 1.0 if generator.random() < _NO_GAP else generator.uniform(*_THICKNESS)
    turned = data.tilt_degrees if generator.random() < _TURNED else 0.0
    operators = [
        _draw_acquisition(head, axis, factors[0] if alike else own, profile, gap, turned, data.short, generator, device)
        for axis, own in zip(axes, factors, strict=True)
    ]
    return operators, _draw_noise(data, number, generator)


def _draw_factor(data: Measured, generator: np.random.Generator) -> float:
    """The distance of slices in voxels: every octave equally likely."""
    factor = math.exp(generator.uniform(*np.log(data.factor)))
    whole = float(np.clip(round(factor), *data.factor))
    return whole if generator.random() < _WHOLE_FACTOR else factor


def _draw_noise(data: Measured, scans: int, generator: np.random.Generator) -> list[float]:
    """The noise of scans of one session: none, or any order of magnitude equally likely, within 20 % of each other."""
    if data.noise[1] == 0 or generator.random() < _NO_NOISE:
        return [data.noise[0]] * scans
    least = max(data.noise[0], min(_LEAST_NOISE, data.noise[1]))
    noise = math.exp(generator.uniform(math.log(least), math.log(data.noise[1])))
    return [noise * float(generator.uniform(0.9, 1.1)) for _ in range(scans)]


def _draw_acquisition(
    head: Grid,
    axis: int,
    factor: float,
    profile: str,
    gap: float,
    turned: float,
    short: float,
    generator: np.random.Generator,
    device: torch.device,
) -> Acquisition:
    """Slices that cover the head, the first beginning up to one slice before it, turned about its middle.

    With probability ``short`` they cover a part of it.
    """
    before = np.zeros(3)
    before[axis] = factor * generator.uniform()
    longer = [n + int(np.ceil(before[axis])) if i == axis else n for i, n in enumerate(head.shape)]
    slices = Grid(tuple(longer), _shift(-before)).thick(axis, factor)
    thickness = None if gap == 1.0 else factor * gap
    affine = slices.affine
    if turned:
        around = generator.standard_normal(3)
        angle = np.deg2rad(turned) * generator.uniform()
        middle = (np.array(head.shape) - 1) / 2
        affine = rigid_motion(np.zeros(3), angle * around / np.linalg.norm(around), middle) @ affine
    scan = Grid(slices.shape, affine)
    if short and generator.random() < short:
        scan = _some_slices(scan, axis, generator)
    return Acquisition(head, scan, axis=axis, profile=profile, thickness=thickness, device=device)


def _some_slices(scan: Grid, axis: int, generator: np.random.Generator) -> Grid:
    """A run of a scan's slices."""
    shape, start = list(scan.shape), [0, 0, 0]
    shape[axis] = max(1, round(scan.shape[axis] * generator.uniform(*_SHORT)))
    start[axis] = int(generator.integers(scan.shape[axis] - shape[axis] + 1))
    return scan.block(tuple(start), tuple(shape))


def _shift(by: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = np.eye(4)
    moved[:3, 3] = by
    return moved


def _mean_size(voxel_mm: Tensor) -> Tensor:
    """One size (N,) for each head, of sizes (N,) or (N, 3) along its axes."""
    return voxel_mm if voxel_mm.ndim == 1 else voxel_mm.log().mean(1).exp()


def _along_axes(voxel_mm: Tensor) -> Tensor:
    """Sizes (N, 3) along the axes, of sizes (N,) or (N, 3)."""
    return voxel_mm if voxel_mm.ndim == 2 else voxel_mm[:, None].expand(-1, 3)
