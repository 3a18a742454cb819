"""Pairs of a clean slice and its degraded version, made on the fly: a pure function of recipe, slices and step."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from headsr.degrade.pipeline import BlindDegradation
from headsr.files import read_json
from headsr.recipes import Model
from headsr.seeds import seed_of
from headsr.slices.dataset import SliceSampler
from headsr.training.state import fingerprint_of


class Pairs(NamedTuple):
    """Clean and degraded slices (N, 1, H, W) on one grid, in normalised intensity, and their planes (N,)."""

    clean: Tensor
    degraded: Tensor
    planes: Tensor


class SlicePairs:
    """Draws the pairs of a training step from the slices of one split ("train" or "val")."""

    def __init__(self, recipe: Model, index: str | os.PathLike[str], *, split: str, device: torch.device) -> None:
        if recipe.degradation is None:
            raise ValueError(f"a model of kind {recipe.kind} is trained on degraded slices: its degradation is missing")
        self.device, self.size = device, recipe.budget.batch
        self.sampler = SliceSampler(
            index,
            root=Path(index).resolve().parent.parent,
            suffixes=recipe.suffixes,
            split=split,
            crop=recipe.budget.crop,
            seed=seed_of(recipe.seed, recipe.kind, split),
        )
        self.degradation = BlindDegradation(recipe.degradation, device=device)

    def clean(self, step: int, size: int) -> Tensor:
        """Only the clean slices of a step (size, 1, H, W)."""
        return self.sampler.batch(step, size).images.to(self.device)

    @torch.no_grad()
    def batch(self, step: int, size: int | None = None) -> Pairs:
        """The pairs of one step, in fp32 whatever the training's precision, on the device."""
        batch = self.sampler.batch(step, size or self.size)
        clean = batch.images.to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            degraded = self.degradation(clean, batch.pixel_mm, batch.seeds).images
        return Pairs(clean, degraded, batch.planes.to(self.device))


def training_keys(index: str | os.PathLike[str], suffixes: Iterable[str]) -> str:
    """Fingerprint of the scans that a training sees: what the index says of every store of the named suffixes."""
    wanted = set(suffixes)
    return fingerprint_of([store for store in read_json(index)["stores"] if store["suffix"] in wanted])
