"""Training of the latent diffusion model in resumable segments, and its export."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.devices import choose_device, generator_of
from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE
from headsr.files import sha256_of
from headsr.history import read_history, write_history
from headsr.losses.composite import refuse_unknown_terms
from headsr.losses.pixel import psnr
from headsr.losses.wavelet import wavelet_loss
from headsr.networks.autoencoder import KLAutoencoder, decode, encode
from headsr.networks.build import build_network
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.networks.unet2d import LatentUnet
from headsr.recipes import Model, plain
from headsr.stages import STAGE_VERSIONS
from headsr.training.loop import Plan, constant_rate, finite, forget_rolling, train
from headsr.training.pairs import Pairs, SlicePairs, training_keys
from headsr.training.state import (
    load_state,
    new_state,
    save_state,
    without_length,
)
from headsr.training.whole_run import with_last_line, write_recipe
from headsr.weights import StateError, TrainedModel, load_model, read_metadata, save_model

_VALIDATION_TIMES = (0.1, 0.3, 0.6)  # fractions of the chain at which the denoiser is validated
_SAMPLING_STEPS = 10
_ESTIMATE_BATCHES, _ESTIMATE_BATCH = 16, 32  # pairs behind the linear estimate


@dataclass
class DenoisingTask:
    """Denoising loss on the latents of clean slices; PSNR of the one-step estimate of the clean latents, decoded."""

    recipe: Model
    autoencoder: KLAutoencoder
    pairs: SlicePairs
    validation: Pairs

    def terms(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Unweighted losses of one batch at random time steps: ``denoising``, and ``wavelet`` on the clean latents."""
        pairs = self.pairs.batch(step)
        latents, generator = self.latents(pairs.clean), generator_of(self.recipe.seed, "diffusion", step)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        times = torch.randint(SCHEDULE.steps, (len(latents),), generator=generator).to(latents.device)
        noisy = SCHEDULE.add_noise(latents, noise, times)
        mean, deviation = SCHEDULE.posterior(noisy, *module.estimate(pairs.degraded), times)
        output = module(noisy, times, pairs.degraded, pairs.planes).float()
        terms = {"denoising": F.mse_loss(output, (latents - mean) / deviation)}
        if "wavelet" in self.recipe.losses:
            # Weighted by the signal, since little is known of the details behind much noise (methods_2d, 8.3).
            signal, _ = SCHEDULE.signal_and_noise(times, latents)
            terms["wavelet"] = wavelet_loss(signal * (mean + deviation * output), signal * latents)
        return terms

    @torch.no_grad()
    def validate(self, module: nn.Module) -> dict[str, float]:
        """PSNR in dB (peak 1.0, whole crops) of one-step estimates at fixed times, with fixed noise."""
        clean, degraded, planes = self.validation
        latents = self.latents(clean)
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
        shape = self.latents(clean).shape
        noise = torch.randn(shape, generator=generator_of(self.recipe.seed, "sampling")).to(clean)
        latents = sample(module, noise, degraded, planes, steps=_SAMPLING_STEPS)
        return {"val_psnr_sampled": psnr(self._image(latents), clean)}

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Normalised latents of slices, in fp32."""
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
    here depends on the number of segments. ``history`` gets the JSON lines of this segment, the last of them with the
    PSNR of sampled validation slices.
    """
    trained, device = load_model(autoencoder, device=choose_device()), choose_device()
    task, identity = denoising_task(recipe, index, trained, device), _identity(recipe, index, autoencoder)
    torch.manual_seed(recipe.seed)
    module, steps = build_network(recipe.kind, recipe.network).to(device), recipe.budget.steps
    LatentDiffusion(module, trained.module)  # refuses a pair that does not fit, before the training and not after it
    if previous is None:
        measure_estimate(module, task)
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
    measures = finite({**task.validate(result.averaged), **task.sampled(result.averaged)})
    lines = with_last_line(result.history, result.step, measures)
    write_history(history, [line for line in lines if line["step"] > plan.first or plan.first == 0])
    save_state(state, result, identity=identity)
    forget_rolling(plan)


def export_ldm(
    recipe: Model,
    state: str | os.PathLike[str],
    *,
    autoencoder: str | os.PathLike[str],
    histories: Sequence[str | os.PathLike[str]],
    weights: str | os.PathLike[str],
    history: str | os.PathLike[str],
    recipe_copy: str | os.PathLike[str],
) -> None:
    """Write the averaged denoiser of the last segment's ``state`` with its frozen autoencoder, in one file.

    ``histories`` of all segments, in order, become one ``history``. StateError if the state is not of this recipe and
    this autoencoder.
    """
    trained, identity = load_model(autoencoder), read_metadata(state).get("identity", {})
    identity |= {"recipe": plain(without_length(recipe)), "autoencoder": sha256_of(autoencoder)}
    last = new_state(build_network(recipe.kind, recipe.network))
    load_state(state, last, identity=identity)
    lines = [line for path in histories for line in read_history(path)]
    record = {
        "training_keys": identity["training_keys"],
        "stage": STAGE_VERSIONS["export_ldm"],
        "validation": lines[-1],
        "autoencoder": {"network": plain(trained.recipe.network), "sha256": identity["autoencoder"]},
    }
    write_recipe(recipe_copy, recipe)
    write_history(history, lines)
    save_model(weights, LatentDiffusion(last.averaged, trained.module), recipe, record=record)


@torch.no_grad()
def measure_estimate(unet: LatentUnet, task: DenoisingTask) -> None:
    """Set the denoiser's linear estimate of clean latents from degraded slices: least squares over 3 x 3 latents.

    The deviation per channel is that of its residuals; solved by normal equations in fp64, with a trace of ridge.
    """
    gram, cross, squares, count = 0.0, 0.0, 0.0, 0
    for step in range(_ESTIMATE_BATCHES):
        clean, degraded, _ = task.pairs.batch(step, _ESTIMATE_BATCH)
        gathered = F.pixel_unshuffle(degraded, unet.condition_factor)
        inputs = F.unfold(F.pad(gathered, (1, 1, 1, 1)), 3).transpose(1, 2).flatten(0, 1).double()
        inputs = F.pad(inputs, (0, 1), value=1.0)
        targets = task.latents(clean).permute(0, 2, 3, 1).flatten(0, 2).double()
        gram, cross = gram + inputs.mT @ inputs, cross + inputs.mT @ targets
        squares, count = squares + targets.square().sum(dim=0), count + len(inputs)
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
    solution = torch.linalg.solve(gram + ridge, cross)
    error = squares - 2 * (solution * cross).sum(dim=0) + (solution * (gram @ solution)).sum(dim=0)
    unet.estimate_weight.copy_(solution[:-1].mT.reshape(unet.estimate_weight.shape))
    unet.estimate_bias.copy_(solution[-1])
    unet.estimate_deviation.copy_((error / count).clamp_min(1e-8).sqrt()[:, None, None])


def denoising_task(
    recipe: Model, index: str | os.PathLike[str], trained: TrainedModel, device: torch.device
) -> DenoisingTask:
    """The task of a recipe on the slices of ``index``, in the latents of a trained autoencoder."""
    refuse_unknown_terms(recipe.losses, ("denoising", "wavelet"))
    if trained.kind != "autoencoder":
        raise StateError(
            f"the autoencoder {recipe.autoencoder!r} of this model is a {trained.kind}, not an autoencoder"
        )
    pairs = SlicePairs(recipe, index, split="train", device=device)
    validation = SlicePairs(recipe, index, split="val", device=device).batch(0, 32)
    return DenoisingTask(recipe, trained.module, pairs, validation)


def _identity(recipe: Model, index: str | os.PathLike[str], autoencoder: str | os.PathLike[str]) -> dict[str, Any]:
    """What every segment of one training has in common; the length of the training is not part of it."""
    return {
        "recipe": plain(without_length(recipe)),
        "training_keys": training_keys(index, recipe.suffixes),
        "stage": STAGE_VERSIONS["train_ldm_segment"],
        "autoencoder": sha256_of(autoencoder),
    }
