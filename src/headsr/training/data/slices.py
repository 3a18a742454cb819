"""Pairs of a clean slice and its degraded version, made on the fly: a pure function of recipe, slices and step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headsr.degrade.pipeline import BlindDegradation
from headsr.networks.condition import Condition
from headsr.recipes import Blind, Model, RecipeError
from headsr.seeds import seed_of
from headsr.slices.dataset import SliceSampler
from headsr.training.data.painted_slices import PaintedSliceSampler


class Pairs(NamedTuple):
    """Clean slices (N, 1, H, W) and degraded ones, in normalised intensity, and how they lie.

    Both are on one grid, but for networks that make slices larger themselves: theirs have so many fewer pixels a side.
    ``planes`` (N,) are array axes, ``pixel_mm`` (N, 2) the clean slices' rows and columns, ``thickness_mm`` (N,) how
    thick the slices are along the rows that the degraded ones are of.
    """

    clean: Tensor
    degraded: Tensor
    planes: Tensor
    pixel_mm: Tensor
    thickness_mm: Tensor

    @property
    def condition(self) -> Condition:
        """What the degraded slices say, which one scan shows all over."""
        return Condition.of_one_scan(self.degraded, self.planes, self.pixel_mm, self.thickness_mm)


class SlicePairs:
    """Draws the pairs of a training step from the slices of one split ("train" or "val")."""

    def __init__(
        self, recipe: Model, index: str | os.PathLike[str], *, split: str, blind: Blind, device: torch.device
    ) -> None:
        self.device, self.size, self.view = device, recipe.budget.batch, recipe.data.view
        self.scale = recipe.scale
        seed = seed_of(recipe.seed, recipe.kind, split)
        if recipe.data.source == "labels":
            self.sampler = PaintedSliceSampler(
                index,
                split=split,
                crop=recipe.data.crop,
                suffixes=recipe.data.suffixes,
                visits=recipe.data.visits,
                seed=seed,
                device=device,
            )
        else:
            self.sampler = SliceSampler(index, split=split, crop=recipe.data.crop, seed=seed)
        self.degradation = BlindDegradation(blind, device=device)
        self._pool = None
        if blind.pool and split == "train":
            self._pool = PairPool(
                lambda step: self._fresh(step, self.size),
                pairs=blind.pool,
                batch=self.size,
                seed=seed_of(recipe.seed, recipe.kind, "pool"),
            )

    @staticmethod
    def blank(recipe: Model, size: int) -> Pairs:
        """Pairs without numbers (meta device): what a batch of the recipe looks like."""
        crops = (recipe.data.crop, recipe.data.crop // recipe.scale)
        clean, degraded = (torch.empty(size, 1, pixels, pixels, device="meta") for pixels in crops)
        planes = torch.empty(size, dtype=torch.long, device="meta")
        return Pairs(clean, degraded, planes, torch.empty(size, 2, device="meta"), torch.empty(size, device="meta"))

    def clean(self, step: int, size: int) -> Tensor:
        """Only the clean slices of a step (size, 1, H, W), without the bias field that a pair may have."""
        return self.sampler.batch(step, size).images.to(self.device)

    @torch.no_grad()
    def batch(self, step: int, size: int | None = None) -> Pairs:
        """The pairs of one step, in fp32 whatever the training's precision, on the device.

        A training batch (no ``size``) comes from the pool where the degradation has one.
        """
        if size is None and self._pool is not None:
            return self._pool.batch(step)
        return self._fresh(step, size or self.size)

    def _fresh(self, step: int, size: int) -> Pairs:
        # A training's bf16 is for its network: in it, positions in a head would be off by millimetres.
        with torch.autocast(self.device.type, enabled=False):
            batch = self.sampler.batch(step, size)
            draws = self.degradation.draws(batch.pixel_mm, batch.seeds)
            if self.scale > 1:
                _coarsen_to(draws, self.scale)
            if self.view == "in_plane":
                _coarsen_columns(draws)
            degraded = self.degradation.replay(batch.images, draws)
        rows_mm = [_thickness(sample) for sample in draws]
        lying = batch.planes, batch.pixel_mm, torch.tensor(rows_mm, dtype=torch.float32)
        return Pairs(degraded.clean, degraded.images, *(tensor.to(self.device) for tensor in lying))


def _thickness(draws: dict[str, Any]) -> float:
    """How thick along the rows in mm the slices are that a sample's draws make."""
    factors = [stage["thick"]["factor"] for stage in draws["stages"] if stage["thick"]]
    return draws["pixel_mm"][0] * max(factors, default=1.0)


def _coarsen_to(draws: Sequence[dict[str, Any]], scale: int) -> None:
    """Make slices coarse once, by ``scale``, and leave them so: what else is drawn happens at that resolution.

    Their pixels are whole blocks of fine ones, as they are in the slices that a network makes of them.
    """
    for first, *later in (sample["stages"] for sample in draws):
        profile = first["thick"]["profile"] if first["thick"] else "box"
        first["thick"] = {"factor": float(scale), "phase": 0.0, "profile": profile}
        first["interpolated"] = False
        for stage in later:
            stage["thick"] = None


def _coarsen_columns(draws: Sequence[dict[str, Any]]) -> None:
    """Make columns as coarse as thick slices make rows: right after these, a pixel is the mean over its cell."""
    for stage in (stage for sample in draws for stage in sample["stages"]):
        if stage["thick"]:
            stage["resize"] = {"scale": 1 / stage["thick"]["factor"], "mode": "area"}
            stage["order"].remove("resize")
            stage["order"].insert(stage["order"].index("thick") + 1, "resize")


class PairPool:
    """Batches mixed from the pairs of many steps: the random-eviction pool of Wang et al. (2021), Real-ESRGAN.

    While it fills, a step's own pairs pass through and are kept as well. Once it is full, a step takes the pairs at
    random places and leaves its own there. There it serves to mix draws that a whole batch shares; here every sample
    has its own, so the batches are as mixed without it, and it is for comparison with trainings that had one.

    What the pool holds is a function of seed and step: after a restart, or any other jump, it is filled again with the
    pairs that it would hold. These are made in the batches that made them first, so they are the same to the bit.
    """

    def __init__(self, fresh: Callable[[int], Pairs], *, pairs: int, batch: int, seed: int) -> None:
        """``fresh`` makes the ``batch`` pairs of a step. Raises RecipeError unless ``pairs`` is a multiple of that."""
        if pairs % batch:
            raise RecipeError(f"pool: {pairs} pairs must be a multiple of budget.batch, {batch}")
        self._fresh, self._size, self._batch, self._seed = fresh, pairs, batch, seed
        self._held: Pairs | None = None
        self._next = 0

    def batch(self, step: int) -> Pairs:
        """The pairs to train on at a step, counted from 0."""
        if step != self._next:
            self._fill(step)
        fresh, places = self._fresh(step), self._places(step)
        taken = fresh if self._passes(step) else Pairs(*(held[places.to(held.device)] for held in self._held))
        self._keep(fresh, places, torch.arange(self._batch))
        self._next = step + 1
        return taken

    def _passes(self, step: int) -> bool:
        return step < self._size // self._batch

    def _places(self, step: int) -> Tensor:
        """Where the pairs of a step are put."""
        if self._passes(step):
            return torch.arange(step * self._batch, (step + 1) * self._batch)
        generator = np.random.Generator(np.random.Philox(key=seed_of(self._seed, step)))
        return torch.from_numpy(generator.permutation(self._size)[: self._batch])

    def _fill(self, step: int) -> None:
        """Hold what is held before ``step``: from the latest steps back, until every place is taken."""
        free = torch.ones(self._size, dtype=torch.bool)
        for earlier in reversed(range(step)):
            places = self._places(earlier)
            last = free[places].nonzero()[:, 0]
            if len(last):
                self._keep(self._fresh(earlier), places[last], last)
                free[places] = False
            if not free.any():
                return

    def _keep(self, pairs: Pairs, places: Tensor, which: Tensor) -> None:
        if self._held is None:
            self._held = Pairs(*(tensor.new_empty(self._size, *tensor.shape[1:]) for tensor in pairs))
        for held, tensor in zip(self._held, pairs, strict=True):
            held[places.to(held.device)] = tensor[which.to(held.device)]
