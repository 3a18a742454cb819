"""3-D blocks of preprocessed heads: a pure function of recipe and step."""

from __future__ import annotations

import os

import torch

from headsr.recipes import Blind, Model
from headsr.seeds import seed_of
from headsr.slices.blocks import BlockBatch, BlockSampler


class PatchSampler:
    """Draws the blocks of a training step from the heads of one split ("train" or "val")."""

    def __init__(
        self, recipe: Model, index: str | os.PathLike[str], *, split: str, blind: Blind | None, device: torch.device
    ) -> None:
        self.device, self.size = device, recipe.budget.batch
        seed = seed_of(recipe.seed, recipe.kind, split)
        self.sampler = BlockSampler(index, split=split, shape=recipe.data.block, seed=seed)

    @staticmethod
    def blank(recipe: Model, size: int) -> BlockBatch:
        """Blocks without numbers (meta device)."""
        blocks = torch.empty(size, 1, *recipe.data.block, device="meta")
        return BlockBatch(blocks, torch.empty(size, 3, device="meta"), ["blank"] * size)

    def batch(self, step: int, size: int | None = None) -> BlockBatch:
        """The blocks of one step, on the device."""
        batch = self.sampler.batch(step, size or self.size)
        return BlockBatch(batch.blocks.to(self.device), batch.voxel_mm.to(self.device), batch.scans)
