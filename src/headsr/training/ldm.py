"""Training of the latent diffusion model in resumable segments, and its export."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE
from headsr.files import sha256_of
from headsr.losses.composite import refuse_unknown_terms
from headsr.losses.pixel import psnr
from headsr.losses.wavelet import wavelet_loss
from headsr.networks.autoencoder import KLAutoencoder, decode, encode
from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.recipes import Model, plain
from headsr.stages import STAGE_VERSIONS
from headsr.training.loop import Plan, choose_device, constant_rate, finite, forget_rolling, generator_of, train
from headsr.training.pairs import Pairs, SlicePairs, training_keys
from headsr.training.state import (
    StateError,
    TrainedModel,
    load_model,
    load_state,
    new_state,
    save_model,
    save_state,
    without_length,
    write_history,
)
from headsr.training.whole_run import with_last_line, write_recipe

_VALIDATION_TIMES = (0.1, 0.3, 0.6)  # fractions of the chain at which the denoiser is validated
_SAMPLING_STEPS = 10


@dataclass
class DenoisingTask:
    """Velocity loss of the denoiser on the latents of clean slices; PSNR of its one-step estimate, decoded."""

    recipe: Model
    autoencoder: KLAutoencoder
    pairs: SlicePairs
    validation: Pairs

    def terms(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Unweighted losses of one batch at random time steps: ``velocity``, and ``wavelet`` on the clean latents."""
        pairs = self.pairs.batch(step)
        latents, generator = self._latents(pairs.clean), generator_of(self.recipe.seed, "diffusion", step)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        times = torch.randint(SCHEDULE.steps, (len(latents),), generator=generator).to(latents.device)
        noisy = SCHEDULE.add_noise(latents, noise, times)
        velocity = module(noisy, times, pairs.degraded, pairs.planes).float()
        terms = {"velocity": F.mse_loss(velocity, SCHEDULE.velocity(latents, noise, times))}
        if "wavelet" in self.recipe.losses:
            # Weighted by the signal, since little is known of the details behind much noise (methods_2d, 8.3).
            signal, _ = SCHEDULE.signal_and_noise(times, latents)
            terms["wavelet"] = wavelet_loss(signal * SCHEDULE.clean(noisy, velocity, times), signal * latents)
        return terms

    @torch.no_grad()
    def validate(self, module: nn.Module) -> dict[str, float]:
        """Velocity loss and PSNR in dB (peak 1.0, whole crops) of one-step estimates at fixed times, fixed noise."""
        clean, degraded, planes = self.validation
        latents = self._latents(clean)
        noise = torch.randn(latents.shape, generator=generator_of(self.recipe.seed, "validation")).to(latents)
        measures = {"val_psnr_spline": psnr(degraded, clean), "val_psnr_autoencoder": psnr(self._image(latents), clean)}
        for fraction in _VALIDATION_TIMES:
            times = torch.full((len(latents),), SCHEDULE.timestep_at(fraction), device=latents.device)
            estimate = predict_clean(module, SCHEDULE.add_noise(latents, noise, times), times, degraded, planes)
            measures[f"val_psnr_at_{fraction:g}"] = psnr(self._image(estimate), clean)
        return measures

    @torch.no_grad()
    def sampled(self, module: nn.Module) -> dict[str, float]:
        """PSNR in dB of validation slices sampled from pure noise, given the degraded slice."""
        clean, degraded, planes = self.validation
        shape = self._latents(clean).shape
        noise = torch.randn(shape, generator=generator_of(self.recipe.seed, "sampling")).to(clean)
        latents = sample(module, noise, degraded, planes, steps=_SAMPLING_STEPS)
        return {"val_psnr_sampled": psnr(self._image(latents), clean)}

    @torch.no_grad()
    def _latents(self, images: Tensor) -> Tensor:
        return encode(self.autoencoder, images).float()

    def _image(self, latents: Tensor) -> Tensor:
        return decode(self.autoencoder, latents)


def train_ldm_segment(
    recipe: Model,
    index: str | os.PathLike[str],
    *,
    autoencoder: str | os.PathLike[str],
    previous: str | os.PathLike[str] | None,
    segment: int,
    state: str | os.PathLike[str],
    history: str | os.PathLike[str],
    scratch: str | os.PathLike[str],
) -> None:
    """Train segment number ``segment`` (from 0): ``budget.steps`` steps on from the ``previous`` state, into ``state``.

    k segments of n steps give the bytes of one of k n steps, and further segments can be added later, because nothing
    here depends on the number of segments. ``history`` gets the JSON lines of all segments so far.
    """
    trained, device = load_model(autoencoder, device=choose_device()), choose_device()
    task, identity = _task(recipe, index, trained, device), _identity(recipe, index, autoencoder)
    module, steps = _denoiser(recipe, device), recipe.budget.steps
    LatentDiffusion(module, trained.module)  # refuses a pair that does not fit, before the training and not after it
    plan = Plan(
        label=f"{Path(state).parent.name}, segment {segment}",
        recipe=recipe,
        identity=identity,
        first=segment * steps,
        last=(segment + 1) * steps,
        rate=constant_rate(recipe.learning_rate),
        scratch=Path(scratch),
        previous=None if previous is None else Path(previous),
    )
    result = train(task, module, plan)
    write_history(history, result.history)
    save_state(state, result, identity=identity)
    forget_rolling(plan)


def export_ldm(
    recipe: Model,
    index: str | os.PathLike[str],
    *,
    autoencoder: str | os.PathLike[str],
    state: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    history: str | os.PathLike[str],
    recipe_copy: str | os.PathLike[str],
) -> None:
    """Write the averaged denoiser of the last segment's ``state`` with its frozen autoencoder, in one file.

    The last line of ``history`` holds the PSNR of validation slices sampled with it, beside that of the spline.
    """
    trained, device = load_model(autoencoder, device=choose_device()), choose_device()
    task, identity = _task(recipe, index, trained, device), _identity(recipe, index, autoencoder)
    last = new_state(_denoiser(recipe, device))
    load_state(state, last, identity=identity)
    measures = finite({**task.validate(last.averaged), **task.sampled(last.averaged)})
    lines = with_last_line(last.history, last.step, measures)
    record = {
        "training_keys": identity["training_keys"],
        "stage": STAGE_VERSIONS["export_ldm"],
        "validation": lines[-1],
        "autoencoder": {"network": plain(trained.recipe.network), "sha256": identity["autoencoder"]},
    }
    write_recipe(recipe_copy, recipe)
    write_history(history, lines)
    save_model(weights, LatentDiffusion(last.averaged, trained.module), recipe, record=record)


def _task(recipe: Model, index: str | os.PathLike[str], trained: TrainedModel, device: torch.device) -> DenoisingTask:
    refuse_unknown_terms(recipe.losses, ("velocity", "wavelet"))
    if trained.kind != "autoencoder":
        raise StateError(
            f"the autoencoder {recipe.autoencoder!r} of this model is a {trained.kind}, not an autoencoder"
        )
    pairs = SlicePairs(recipe, index, split="train", device=device)
    validation = SlicePairs(recipe, index, split="val", device=device).batch(0, 32)
    return DenoisingTask(recipe, trained.module, pairs, validation)


def _denoiser(recipe: Model, device: torch.device) -> nn.Module:
    torch.manual_seed(recipe.seed)
    return build_network(recipe.kind, recipe.network).to(device)


def _identity(recipe: Model, index: str | os.PathLike[str], autoencoder: str | os.PathLike[str]) -> dict[str, Any]:
    """What every segment of one training has in common; the length of the training is not part of it."""
    return {
        "recipe": plain(without_length(recipe)),
        "training_keys": training_keys(index, recipe.suffixes),
        "stage": STAGE_VERSIONS["train_ldm_segment"],
        "autoencoder": sha256_of(autoencoder),
    }
