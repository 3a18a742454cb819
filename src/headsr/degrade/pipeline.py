"""The blind high-order degradation of training slices, drawn anew for every sample.

One stage blurs, samples thick slices along the rows, cuts k-space, adds Rician noise and compresses; what happens after
the thick slices happens on them, at their low resolution. They are then interpolated by splines back onto the fine
rows, as any real thick scan is before a network sees it. A second, milder stage may follow (Wang et al. 2021,
Real-ESRGAN).

In the fixed order the truncation comes before the noise: both arise in k-space, and the magnitude is taken last. Rows
are the through-plane direction where slices are thick, so there k-space is cut, and noise correlated, along the columns
only: slices are acquired one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headsr.degrade.blur import covariance, gaussian_blur
from headsr.degrade.compression import BLOCK, compress
from headsr.degrade.noise import add_rician, correlate, white_noise
from headsr.degrade.resample import STEPS, ThickSlices, interpolate_rows, sample_thick
from headsr.degrade.ringing import truncate_columns, truncate_rows
from headsr.recipes import Blind, BlindStage, RecipeError
from headsr.seeds import seed_of

FIXED_ORDER = ("blur", "thick", "ringing", "noise", "compression")
ORDERS = ("fixed", "shuffled")
PROFILES = ("box", "gaussian")
# Half of the kernels are round; noise is correlated over this many pixels (Gaussian sigma).
_ISOTROPIC = 0.5
_CORRELATION_PX = (0.5, 1.5)
_DRAWS = 20


@dataclass(frozen=True, eq=False)
class Degraded:
    """Degraded images (N, 1, H, W) on the grid of the slices they came from, and every draw that made each of them."""

    images: Tensor
    metadata: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class _Batch:
    """Images (N, H + 1, W) of which the first ``rows`` (N,) rows count: as many thick slices may cover H rows."""

    images: Tensor
    rows: Tensor
    pixel_mm: Tensor
    fine_rows: int

    def at(self, index: Tensor) -> _Batch:
        """The part of the batch with these samples."""
        return replace(self, images=self.images[index], rows=self.rows[index], pixel_mm=self.pixel_mm[index])


_Operation = Callable[[_Batch, Sequence[dict[str, Any]]], _Batch]


class BlindDegradation:
    """Degrades training slices. The thick direction is the rows.

    A sample's draws, and so its result, depend on its own seed and nothing else in the batch.
    """

    def __init__(self, recipe: Blind, *, device: torch.device | str = "cpu") -> None:
        if recipe.order not in ORDERS:
            raise RecipeError(f"degradation.order: {recipe.order!r} must be one of {', '.join(ORDERS)}")
        _check_probability("degradation.second_probability", recipe.second_probability)
        for name in ("first", "second"):
            _check_stage(f"degradation.{name}", getattr(recipe, name))
        self.recipe = recipe
        self.device = torch.device(device)

    def __call__(self, slices: Tensor, pixel_mm: Tensor, seeds: Sequence[int]) -> Degraded:
        """Degrade slices (N, 1, H, W) whose pixels are ``pixel_mm`` (N, 2; rows, columns), one seed per sample."""
        metadata = [
            {"seed": int(seed), "pixel_mm": [float(size) for size in pixel], "stages": self._draw(int(seed))}
            for seed, pixel in zip(seeds, pixel_mm.tolist(), strict=True)
        ]
        return Degraded(self.replay(slices, metadata), metadata)

    def replay(self, slices: Tensor, metadata: Sequence[dict[str, Any]]) -> Tensor:
        """Degrade slices (N, 1, H, W) again by draws made before: (N, 1, H, W)."""
        images = slices[:, 0].to(self.device, torch.float32)
        pixel_mm = torch.tensor([sample["pixel_mm"] for sample in metadata], device=self.device)
        for stage in range(2):
            drawn = [i for i, sample in enumerate(metadata) if len(sample["stages"]) > stage]
            if drawn:
                index = torch.tensor(drawn, device=self.device)
                draws = [metadata[i]["stages"][stage] for i in drawn]
                images = images.index_put((index,), _run_stage(images[index], pixel_mm[index], draws))
        return images[:, None]

    def _draw(self, seed: int) -> list[dict[str, Any]]:
        generator = np.random.default_rng(seed)
        first, second = (_draw_stage(stage, generator) for stage in (self.recipe.first, self.recipe.second))
        stages = [first, second] if generator.random() < self.recipe.second_probability else [first]
        for number, stage in enumerate(stages):
            stage["order"] = list(FIXED_ORDER)
            if self.recipe.order == "shuffled":
                stage["order"] = _thick_before_noise(list(generator.permutation(FIXED_ORDER).tolist()))
            if stage["noise"]:
                stage["noise"]["seed"] = seed_of(seed, "noise", number)
        return stages


def _draw_stage(stage: BlindStage, generator: np.random.Generator) -> dict[str, Any]:
    """All draws of one stage but their order; an operation that does not happen is None."""
    uniform = iter(generator.random(_DRAWS).tolist())

    def between(limits: tuple[float, float]) -> float:
        return limits[0] + (limits[1] - limits[0]) * next(uniform)

    def below(n: int) -> int:
        return int(n * next(uniform))

    def perhaps(probability: float, draws: dict[str, Any]) -> dict[str, Any] | None:
        return draws if next(uniform) < probability else None

    sigma, second_sigma, angle = between(stage.blur_sigma_mm), between(stage.blur_sigma_mm), between((0.0, np.pi))
    if next(uniform) < _ISOTROPIC:
        second_sigma, angle = sigma, 0.0
    factor = round(between(stage.thick_factor) * STEPS) / STEPS
    correlation = between(_CORRELATION_PX)
    if next(uniform) >= stage.correlated_noise_probability:
        correlation = 0.0
    # Every number is drawn whether it is used or not: changing one probability changes nothing else.
    return {
        "blur": perhaps(stage.blur_probability, {"sigma_mm": [sigma, second_sigma], "angle": angle}),
        "thick": perhaps(
            stage.thick_probability,
            {"factor": factor, "phase": below(STEPS) / STEPS, "profile": PROFILES[below(len(PROFILES))]},
        ),
        "ringing": perhaps(stage.ringing_probability, {"cutoff": between(stage.ringing_cutoff)}),
        "noise": perhaps(stage.noise_probability, {"sigma": between(stage.noise_sigma), "correlation_px": correlation}),
        "compression": perhaps(
            stage.compression_probability,
            {"quality": between(stage.compression_quality), "offset": [below(BLOCK), below(BLOCK)]},
        ),
    }


def _thick_before_noise(order: list[str]) -> list[str]:
    """Noise belongs to the measured samples: whatever the order, it is added at the low resolution."""
    first, second = sorted((order.index("thick"), order.index("noise")))
    order[first], order[second] = "thick", "noise"
    return order


def _run_stage(images: Tensor, pixel_mm: Tensor, draws: Sequence[dict[str, Any]]) -> Tensor:
    """One stage on images (N, H, W): every operation at once on all samples whose turn it is, then back to H rows."""
    height = images.shape[1]
    rows = torch.full((len(images),), height, device=images.device)
    batch = _Batch(torch.nn.functional.pad(images, (0, 0, 0, 1)), rows, pixel_mm, height)
    for turn in range(len(FIXED_ORDER)):
        for name, operation in _OPERATIONS.items():
            drawn = [i for i, draw in enumerate(draws) if draw["order"][turn] == name and draw[name]]
            if drawn:
                batch = _apply(batch, drawn, operation, [draws[i] for i in drawn])
    drawn = [i for i, draw in enumerate(draws) if draw["thick"]]
    if drawn:
        batch = _apply(batch, drawn, _interpolate, [draws[i] for i in drawn])
    return batch.images[:, :height]


def _apply(batch: _Batch, drawn: Sequence[int], operation: _Operation, draws: Sequence[dict[str, Any]]) -> _Batch:
    if len(drawn) == len(batch.images):
        return operation(batch, draws)
    index = torch.tensor(drawn, device=batch.images.device)
    part = batch.at(index)
    result = operation(part, draws)
    changed = {}
    for name in ("images", "rows", "pixel_mm"):
        values = getattr(result, name)
        if values is not getattr(part, name):
            changed[name] = getattr(batch, name).index_put((index,), values)
    return replace(batch, **changed)


def _blur(batch: _Batch, draws: Sequence[dict[str, Any]]) -> _Batch:
    spread = covariance(_drawn(draws, "blur", "sigma_mm", batch), _drawn(draws, "blur", "angle", batch))
    return replace(batch, images=gaussian_blur(batch.images, batch.rows, pixel_mm=batch.pixel_mm, covariance_mm=spread))


def _thick(batch: _Batch, draws: Sequence[dict[str, Any]]) -> _Batch:
    slices = [ThickSlices(**draw["thick"]) for draw in draws]
    factor = _drawn(draws, "thick", "factor", batch)
    return replace(
        batch,
        images=sample_thick(batch.images, batch.fine_rows, slices),
        rows=torch.tensor([thick.rows(batch.fine_rows) for thick in slices], device=batch.rows.device),
        pixel_mm=torch.stack([batch.pixel_mm[:, 0] * factor, batch.pixel_mm[:, 1]], 1),
    )


def _interpolate(batch: _Batch, draws: Sequence[dict[str, Any]]) -> _Batch:
    slices = [ThickSlices(**draw["thick"]) for draw in draws]
    return replace(batch, images=interpolate_rows(batch.images, batch.fine_rows, slices))


def _ringing(batch: _Batch, draws: Sequence[dict[str, Any]]) -> _Batch:
    cutoff = _drawn(draws, "ringing", "cutoff", batch)
    images = truncate_columns(batch.images, cutoff)
    in_plane = [i for i, draw in enumerate(draws) if not draw["thick"]]
    if in_plane:
        index = torch.tensor(in_plane, device=images.device)
        images = images.index_put((index,), truncate_rows(images[index], batch.fine_rows, cutoff[index]))
    return replace(batch, images=images)


def _noise(batch: _Batch, draws: Sequence[dict[str, Any]]) -> _Batch:
    noise = white_noise([draw["noise"]["seed"] for draw in draws], tuple(batch.images.shape[1:]), batch.images.device)
    correlated = [i for i, draw in enumerate(draws) if draw["noise"]["correlation_px"]]
    if correlated:
        index = torch.tensor(correlated, device=noise.device)
        width = _drawn([draws[i] for i in correlated], "noise", "correlation_px", batch)
        in_plane = torch.tensor([not draws[i]["thick"] for i in correlated], device=noise.device)
        noise = noise.index_put((index,), correlate(noise[index], torch.stack([width * in_plane, width], 1)))
    sigma = _drawn(draws, "noise", "sigma", batch)[:, None, None, None]
    return replace(batch, images=add_rician(batch.images, noise * sigma))


def _compression(batch: _Batch, draws: Sequence[dict[str, Any]]) -> _Batch:
    quality = _drawn(draws, "compression", "quality", batch)
    offset = torch.tensor([draw["compression"]["offset"] for draw in draws], device=batch.images.device)
    return replace(batch, images=compress(batch.images, batch.rows, quality=quality, offset=offset))


_OPERATIONS: dict[str, _Operation] = dict(
    zip(FIXED_ORDER, (_blur, _thick, _ringing, _noise, _compression), strict=True)
)


def _drawn(draws: Sequence[dict[str, Any]], operation: str, key: str, batch: _Batch) -> Tensor:
    return torch.tensor([draw[operation][key] for draw in draws], dtype=torch.float32, device=batch.images.device)


def _check_probability(where: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise RecipeError(f"{where}: {value} is not a probability between 0 and 1")


def _check_stage(where: str, stage: BlindStage) -> None:
    """Every range must be ordered and physical; the error names the key."""
    limits = {
        "blur_sigma_mm": (0.0, np.inf),
        "thick_factor": (1.0, np.inf),
        "noise_sigma": (0.0, np.inf),
        "ringing_cutoff": (0.05, 1.0),
        "compression_quality": (1.0, 95.0),
    }
    for key in ("blur", "thick", "noise", "correlated_noise", "ringing", "compression"):
        _check_probability(f"{where}.{key}_probability", getattr(stage, f"{key}_probability"))
    for key, (low, high) in limits.items():
        first, last = getattr(stage, key)
        if not low <= first <= last <= high:
            raise RecipeError(f"{where}.{key}: {[first, last]} must rise and lie within {low:g} to {high:g}")
