"""Slices of blocks, each with what least squares makes of it from simulated scans: a function of recipe and step.

A block is painted, measured and solved once for several slices in all three planes: see docs/decisions.md for what that
takes.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from torch import Tensor

from headsr.devices import generator_of
from headsr.networks.condition import Condition
from headsr.recipes import Blind, Model
from headsr.reconstruct.study_planes import StudyPlanes
from headsr.seeds import seed_of
from headsr.slices.dataset import HEAD_LEVEL, HEAD_SHARE
from headsr.training.data.studies import StudyBatch, StudySampler


class StudySlices(NamedTuple):
    """Clean slices (N, 1, c, c) in normalised intensity, and what the scans of their studies say of them."""

    clean: Tensor
    condition: Condition


class StudySlicePairs:
    """Draws the slices of a training step from blocks of the heads of one split ("train" or "val")."""

    def __init__(
        self, recipe: Model, index: str | os.PathLike[str], *, split: str, blind: Blind | None, device: torch.device
    ) -> None:
        self.size, self.per_block = recipe.budget.batch, recipe.data.per_block
        self.seed = seed_of(recipe.seed, recipe.kind, split)
        self.studies = StudySampler(recipe, index, split=split, blind=blind, device=device)

    @staticmethod
    def blank(recipe: Model, size: int) -> StudySlices:
        """Slices without numbers (meta device)."""
        crop, device = recipe.data.crop, torch.device("meta")
        clean, image, shown = (torch.empty(size, 1, crop, crop, device=device) for _ in range(3))
        planes = torch.empty(size, dtype=torch.long, device=device)
        lengths = torch.empty(size, 2, device=device), torch.empty(size, device=device)
        return StudySlices(clean, Condition(image, shown, planes, *lengths))

    @torch.no_grad()
    def batch(self, step: int, size: int | None = None) -> StudySlices:
        """The slices of one step, on the device: ``per_block`` of each block, fewer of the last one."""
        size = size or self.size
        counts = [min(self.per_block, size - first) for first in range(0, size, self.per_block)]
        blocks = [self._of_block(step, number, count) for number, count in enumerate(counts)]
        clean, conditions = zip(*blocks, strict=True)
        return StudySlices(torch.cat(clean), Condition(*map(torch.cat, zip(*conditions, strict=True))))

    def _of_block(self, step: int, number: int, count: int) -> StudySlices:
        study = self.studies.batch(seed_of("block", step, number), 1)
        # A training's bf16 is for its network.
        with torch.autocast(study.heads.device.type, enabled=False):
            clean, condition = _all_slices(study)
        chosen = _chosen(clean, count, generator_of(self.seed, "slices", step, number))
        return StudySlices(clean[chosen], condition.of(chosen))


def _all_slices(study: StudyBatch) -> tuple[Tensor, Condition]:
    """Every slice of a block in all planes, and what its scans say of them."""
    planes = StudyPlanes(study.evidence, study.voxel_mm[0].tolist())
    clean = torch.cat([study.heads[0, 0].permute(planes.order(plane))[:, None] for plane in range(3)])
    conditions = [planes.condition(plane) for plane in range(3)]
    return clean, Condition(*map(torch.cat, zip(*conditions, strict=True)))


def _chosen(slices: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The numbers of ``count`` different slices, those that are mostly air only where there are no others."""
    shows = (slices > HEAD_LEVEL).float().mean(dim=(1, 2, 3)).cpu() >= HEAD_SHARE
    drawn = torch.randperm(len(slices), generator=generator)
    return torch.cat([drawn[shows[drawn]], drawn[~shows[drawn]]])[:count]
