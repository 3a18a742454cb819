"""Training of the KL autoencoder on clean and degraded slices."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from headsr.devices import choose_device, generator_of
from headsr.losses.composite import IMAGE_LOSSES, image_terms, refuse_unknown_terms
from headsr.losses.pixel import psnr
from headsr.networks.autoencoder import KLAutoencoder, decode, encode, kl_divergence
from headsr.networks.build import build_network
from headsr.recipes import Model
from headsr.stages import STAGE_VERSIONS
from headsr.training.pairs import Pairs, SlicePairs
from headsr.training.whole_run import Outputs, run_whole

_LATENT_BATCHES, _LATENT_BATCH = 16, 32  # crops behind the latents' mean and deviation


@dataclass
class AutoencoderTask:
    """Image losses of the reconstruction and the divergence of the latents; PSNR of the reconstruction."""

    recipe: Model
    pairs: SlicePairs
    validation: Pairs

    def terms(self, module: KLAutoencoder, step: int) -> dict[str, Tensor]:
        """Unweighted losses of one batch, every second slice of it degraded: both kinds will be encoded."""
        pairs = self.pairs.batch(step)
        images = pairs.clean.clone()
        images[1::2] = pairs.degraded[1::2]
        n, _, height, width = images.shape
        size = (n, module.latent_channels, height // module.factor, width // module.factor)
        noise = torch.randn(size, generator=generator_of(self.recipe.seed, "posterior", step)).to(images.device)
        reconstructed, posterior = module(images, noise)
        terms = image_terms(self.recipe.losses, reconstructed, images)
        return terms | ({"kl": kl_divergence(posterior)} if "kl" in self.recipe.losses else {})

    @torch.no_grad()
    def validate(self, module: KLAutoencoder) -> dict[str, float]:
        """PSNR in dB (peak 1.0, whole crops) of clean and of degraded validation slices through the latents."""
        clean, degraded, _ = self.validation
        through = {"clean": clean, "degraded": degraded}
        return {f"val_psnr_{k}": psnr(decode(module, encode(module, x)), x) for k, x in through.items()}


def train_autoencoder(
    recipe: Model,
    index: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str],
    history: str | os.PathLike[str],
    recipe_copy: str | os.PathLike[str],
    scratch: str | os.PathLike[str],
) -> None:
    """Train an autoencoder of ``recipe`` on the training slices of ``index`` and write its averaged weights.

    The weights hold the mean and deviation of the latents per channel, measured on training slices. ``history`` gets
    JSON lines, ``recipe_copy`` the recipe as YAML; ``scratch`` is a folder for the rolling state.
    """
    refuse_unknown_terms(recipe.losses, (*IMAGE_LOSSES, "kl"))
    device = choose_device()
    pairs = SlicePairs(recipe, index, split="train", device=device)
    validation = SlicePairs(recipe, index, split="val", device=device).batch(0, 32)
    outputs = Outputs(Path(weights), Path(history), Path(recipe_copy), Path(scratch))
    task, stage = AutoencoderTask(recipe, pairs, validation), STAGE_VERSIONS["train_autoencoder"]
    torch.manual_seed(recipe.seed)
    module = build_network(recipe.kind, recipe.network).to(device)

    def finish(averaged: nn.Module) -> None:
        measure_latents(averaged, pairs)

    run_whole(task, module, recipe, index=index, stage=stage, outputs=outputs, finish=finish)


@torch.no_grad()
def measure_latents(autoencoder: KLAutoencoder, pairs: SlicePairs) -> None:
    """Set the latents' mean and deviation per channel from some hundred clean training crops."""
    count, total, squares = 0, 0.0, 0.0
    for step in range(_LATENT_BATCHES):
        latents = autoencoder.posterior(pairs.clean(step, _LATENT_BATCH)).mean.double()
        count += latents[:, 0].numel()
        total = total + latents.sum(dim=(0, 2, 3))
        squares = squares + latents.square().sum(dim=(0, 2, 3))
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
    autoencoder.latent_mean.copy_(mean[:, None, None])
    autoencoder.latent_deviation.copy_(deviation[:, None, None])
