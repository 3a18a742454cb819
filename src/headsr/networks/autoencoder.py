"""The KL autoencoder between slices and latents, and its latents normalised to mean 0 and deviation 1.

Own code, not diffusers' AutoencoderKL: importing that costs 4 to 7 s in every job that uses the prior, and its
GroupNorms pool over the whole crop, so that a tile decodes otherwise than the slice it was cut from. Here every layer
is local.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from headsr.networks.blocks import PixelNorm, ResidualBlock, Upsample, conv3


class Posterior(NamedTuple):
    """A Gaussian per latent element: its mean and the logarithm of its variance, both (N, C, h, w)."""

    mean: Tensor
    log_variance: Tensor


class KLAutoencoder(nn.Module):
    """Slices (N, 1, H, W) to latents (N, latent_channels, H/f, W/f) and back, f = 2 ** (levels - 1), no attention.

    ``channels`` per level, finest first; ``blocks`` residual blocks per level. The buffers ``latent_mean`` and
    ``latent_deviation`` (per channel) are measured after training and used by encode and decode below.
    """

    def __init__(self, *, channels: Sequence[int], blocks: int, latent_channels: int = 4) -> None:
        super().__init__()
        self.factor, self.latent_channels = 2 ** (len(channels) - 1), latent_channels
        encoder: list[nn.Module] = [conv3(1, channels[0])]
        decoder: list[nn.Module] = [conv3(latent_channels, channels[-1])]
        for width, wider in pairwise(channels):
            encoder += [*_level(width, blocks), conv3(width, wider, stride=2)]
        encoder += _level(channels[-1], blocks)
        for width, narrower in pairwise(channels[::-1]):
            decoder += [*_level(width, blocks), Upsample(width, narrower)]
        decoder += _level(channels[0], blocks)
        self.encoder = nn.Sequential(
            *encoder, PixelNorm(channels[-1]), nn.SiLU(), conv3(channels[-1], 2 * latent_channels)
        )
        self.decoder = nn.Sequential(*decoder, PixelNorm(channels[0]), nn.SiLU(), conv3(channels[0], 1))
        self.register_buffer("latent_mean", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("latent_deviation", torch.ones(latent_channels, 1, 1))

    def posterior(self, images: Tensor) -> Posterior:
        """Distribution of the latents of slices in normalised intensity; height and width must be multiples of f."""
        if images.shape[-2] % self.factor or images.shape[-1] % self.factor:
            raise ValueError(
                f"slices of {tuple(images.shape[-2:])} pixels: both sizes must be multiples of {self.factor}"
            )
        mean, log_variance = self.encoder(2 * images - 1).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30, 20))

    def images(self, latents: Tensor) -> Tensor:
        """Slices of latents that are not normalised."""
        return (self.decoder(latents) + 1) / 2

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Posterior]:
        """Reconstruction from latents drawn with standard normal ``noise``, and their posterior."""
        posterior = self.posterior(images)
        return self.images(posterior.mean + torch.exp(0.5 * posterior.log_variance) * noise), posterior


def encode(autoencoder: KLAutoencoder, images: Tensor) -> Tensor:
    """Normalised latents (N, C, H/f, W/f), the posterior mean, of slices (N, 1, H, W)."""
    return (autoencoder.posterior(images).mean - autoencoder.latent_mean) / autoencoder.latent_deviation


def decode(autoencoder: KLAutoencoder, latents: Tensor) -> Tensor:
    """Slices (N, 1, f h, f w) of normalised latents (N, C, h, w)."""
    return autoencoder.images(latents * autoencoder.latent_deviation + autoencoder.latent_mean)


def kl_divergence(posterior: Posterior) -> Tensor:
    """Divergence from the standard normal, averaged over every latent element (mean form, not CompVis's sum).

    The weight 1e-6 of the summed form corresponds to 1e-6 * C / f^2 here: 2.5e-7 for 4 channels and f = 4.
    """
    mean, log_variance = (part.float() for part in posterior)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def _level(channels: int, blocks: int) -> list[nn.Module]:
    return [ResidualBlock(channels, channels, norm=PixelNorm) for _ in range(blocks)]
