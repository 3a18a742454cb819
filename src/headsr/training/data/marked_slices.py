"""Crops of slices and what is known of them without labels: plane, position in the head, degradation."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headsr.degrade.pipeline import BlindDegradation
from headsr.recipes import Blind, Model
from headsr.seeds import seed_of
from headsr.slices.dataset import SliceSampler, Visit, scans_in

_NOISE_UNIT = 0.05  # of the range: noise that is as much as a blur of 1 mm, or slices of two


class MarkedBatch(NamedTuple):
    """Crops (N, 1, c, c), every second one degraded, their planes (N,), positions (N, 1) and degradations (N, 3).

    A position is the slice's place among those of its plane that show head, from 0 to 1; of sagittal slices it is the
    distance from the middle one, since left and right look alike. A degradation is ``severity``, 0 of clean slices.
    """

    images: Tensor
    planes: Tensor
    positions: Tensor
    degradations: Tensor


class MarkedSampler:
    """Draws the crops of a training step from the slices of one split ("train" or "val")."""

    def __init__(
        self, recipe: Model, index: str | os.PathLike[str], *, split: str, blind: Blind, device: torch.device
    ) -> None:
        self.device, self.size = device, recipe.budget.batch
        seed = seed_of(recipe.seed, recipe.kind, split)
        self.sampler = SliceSampler(index, split=split, crop=recipe.data.crop, seed=seed)
        self.counts = {scan["name"]: scan["counts"] for scan in scans_in(index, split)}
        self.degradation = BlindDegradation(blind, device=device)

    @staticmethod
    def blank(recipe: Model, size: int) -> MarkedBatch:
        """Crops without numbers (meta device): what a batch of the recipe looks like."""
        shapes = (size, 1, recipe.data.crop, recipe.data.crop), (size,), (size, 1), (size, 3)
        images, planes, positions, degradations = (torch.empty(shape, device="meta") for shape in shapes)
        return MarkedBatch(images, planes.long(), positions, degradations)

    @torch.no_grad()
    def batch(self, step: int, size: int | None = None) -> MarkedBatch:
        """The crops of one step, in fp32 whatever the training's precision, on the device."""
        batch = self.sampler.batch(step, size or self.size)
        images, severities = batch.images.to(self.device), torch.zeros(len(batch.images), 3)
        with torch.autocast(self.device.type, enabled=False):
            degraded = self.degradation(images[1::2], batch.pixel_mm[1::2], batch.seeds[1::2])
        images[1::2] = degraded.images
        severities[1::2] = torch.tensor([severity(sample["stages"]) for sample in degraded.metadata])
        positions = torch.tensor([[self._position(visit)] for visit in batch.visits])
        return MarkedBatch(images, *(marks.to(self.device) for marks in (batch.planes, positions, severities)))

    def _position(self, visit: Visit) -> float:
        place = (visit.number + 0.5) / self.counts[visit.scan][visit.plane]
        return abs(2 * place - 1) if visit.plane == "sagittal" else place


def severity(stages: Iterable[Mapping[str, Any]]) -> list[float]:
    """What was drawn for a slice: width of its blur in mm, binary logarithm of its thickness, noise in twentieths.

    Several stages add up as variances do. A low-pass has no width in mm and counts as none.
    """
    blur = noise = thickness = 0.0
    for stage in stages:
        blur += sum(sigma**2 for sigma in (stage["blur"] or {}).get("sigma_mm", ())) / 2
        thickness += math.log2(stage["thick"]["factor"]) if stage["thick"] else 0.0
        noise += _noise_variance(stage["noise"]) if stage["noise"] else 0.0
    return [math.sqrt(blur), thickness, math.sqrt(noise) / _NOISE_UNIT]


def _noise_variance(noise: Mapping[str, Any]) -> float:
    """At intensity 1, in units of the range squared."""
    return 1 / noise["photons"] if "photons" in noise else noise["sigma"] ** 2
