"""Pairs of a clean slice and its degraded version, made on the fly: a pure function of recipe, slices and step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headsr.degrade.pipeline import BlindDegradation
from headsr.files import read_json
from headsr.recipes import Model, RecipeError
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
        self._pool = None
        if recipe.degradation.pool and split == "train":
            self._pool = PairPool(
                lambda step: self._fresh(step, self.size),
                pairs=recipe.degradation.pool,
                batch=self.size,
                seed=seed_of(recipe.seed, recipe.kind, "pool"),
            )

    def clean(self, step: int, size: int) -> Tensor:
        """Only the clean slices of a step (size, 1, H, W), without the bias field that a pair may have."""
        return self.sampler.batch(step, size).images.to(self.device)

    @torch.no_grad()
    def batch(self, step: int, size: int | None = None) -> Pairs:
        """The pairs of one step, in fp32 whatever the training's precision, on the device.

        A training batch (no ``size``) comes from the pool where the recipe has one.
        """
        if size is None and self._pool is not None:
            return self._pool.batch(step)
        return self._fresh(step, size or self.size)

    def _fresh(self, step: int, size: int) -> Pairs:
        batch = self.sampler.batch(step, size)
        with torch.autocast(self.device.type, enabled=False):
            degraded = self.degradation(batch.images, batch.pixel_mm, batch.seeds)
        return Pairs(degraded.clean, degraded.images, batch.planes.to(self.device))


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
            raise RecipeError(f"degradation.pool: {pairs} pairs must be a multiple of budget.batch, {batch}")
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


def training_keys(index: str | os.PathLike[str], suffixes: Iterable[str]) -> str:
    """Fingerprint of the scans that a training sees: what the index says of every store of the named suffixes."""
    wanted = set(suffixes)
    return fingerprint_of([store for store in read_json(index)["stores"] if store["suffix"] in wanted])
