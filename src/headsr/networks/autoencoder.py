"""The KL autoencoder between slices and latents, and its latents normalised to mean 0 and deviation 1.

Own code, not diffusers' AutoencoderKL: its GroupNorms pool over the whole crop, so that a tile decodes otherwise than
the slice it was cut from. Here every layer is local.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import PixelNorm, ResidualBlock, Upsample, conv3, zeroed

_FIRST_LOG_VARIANCE = -10.0


class Posterior(NamedTuple):
    """A Gaussian per latent element: its mean and the logarithm of its variance, both (N, C, h, w)."""

    mean: Tensor
    log_variance: Tensor


class KLAutoencoder(nn.Module):
    """Slices (N, 1, H, W) to latents (N, latent_channels, H/f, W/f) and back, without attention.

    f = unshuffle * 2 ** (levels - 1): the pixels are first gathered in squares of ``unshuffle``, then every level but
    the last halves both sizes. ``channels`` per level, finest first; ``blocks`` residual blocks per level. A linear
    path beside the layers (Chen 2025, DC-AE) starts as a cosine transform of f x f blocks that keeps the lowest
    frequencies, and the layers start at zero beside it. The buffers ``latent_mean`` and ``latent_deviation`` (per
    channel) are measured after training and used by encode and decode below.
    """

    def __init__(self, *, channels: Sequence[int], blocks: int, latent_channels: int = 4, unshuffle: int = 1) -> None:
        super().__init__()
        self.factor, self.latent_channels, self.unshuffle = (
            unshuffle * 2 ** (len(channels) - 1),
            latent_channels,
            unshuffle,
        )
        coarsest, finest = channels[-1], channels[0]
        encoder: list[nn.Module] = [conv3(unshuffle**2, finest)]
        decoder: list[nn.Module] = [conv3(latent_channels, coarsest)]
        for width, wider in pairwise(channels):
            encoder += [*_level(width, blocks), conv3(width, wider, stride=2)]
        encoder += [
            *_level(coarsest, blocks),
            PixelNorm(coarsest),
            nn.SiLU(),
            zeroed(conv3(coarsest, 2 * latent_channels)),
        ]
        for width, narrower in pairwise(channels[::-1]):
            decoder += [*_level(width, blocks), Upsample(width, narrower)]
        decoder += [*_level(finest, blocks), PixelNorm(finest), nn.SiLU(), zeroed(conv3(finest, unshuffle**2))]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.analysis = nn.Conv2d(self.factor**2, latent_channels, 1)
        self.synthesis = nn.Conv2d(latent_channels, self.factor**2, 1)
        self._begin_as_cosine_transform()
        self.register_buffer("latent_mean", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("latent_deviation", torch.ones(latent_channels, 1, 1))

    @torch.no_grad()
    def _begin_as_cosine_transform(self) -> None:
        waves = block_cosines(self.factor, self.latent_channels)
        self.analysis.weight.copy_(waves[:, :, None, None] / self.factor)
        self.synthesis.weight.copy_(waves.T[:, :, None, None] * self.factor)
        nn.init.zeros_(self.analysis.bias)
        nn.init.zeros_(self.synthesis.bias)
        # Latents start with little noise: with the usual deviation of 1 nothing can be learned until it has shrunk.
        self.encoder[-1].bias[self.latent_channels :] = _FIRST_LOG_VARIANCE

    def posterior(self, images: Tensor) -> Posterior:
        """Distribution of the latents of slices in normalised intensity; height and width must be multiples of f."""
        if images.shape[-2] % self.factor or images.shape[-1] % self.factor:
            raise ValueError(
                f"slices of {tuple(images.shape[-2:])} pixels: both sizes must be multiples of {self.factor}"
            )
        images = 2 * images - 1
        mean, log_variance = self.encoder(F.pixel_unshuffle(images, self.unshuffle)).chunk(2, dim=1)
        return Posterior(mean + self.analysis(F.pixel_unshuffle(images, self.factor)), log_variance.clamp(-30, 20))

    def images(self, latents: Tensor) -> Tensor:
        """Slices of latents that are not normalised."""
        detail = F.pixel_shuffle(self.decoder(latents), self.unshuffle)
        return (detail + F.pixel_shuffle(self.synthesis(latents), self.factor) + 1) / 2

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps of slices after every level of the encoder, finest first."""
        maps, current = [], F.pixel_unshuffle(2 * images - 1, self.unshuffle)
        for layer in self.encoder[:-1]:
            if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
                maps.append(current)
            current = layer(current)
        return [*maps, current]

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


def block_cosines(size: int, count: int) -> Tensor:
    """The ``count`` lowest-frequency patterns (count, size * size) of the orthonormal 2-D cosine transform (DCT-II)."""
    place = torch.arange(size) + 0.5
    waves = torch.cos(torch.pi / size * place * torch.arange(size)[:, None]) * (2 / size) ** 0.5
    waves[0] /= 2**0.5
    lowest = sorted((u + v, abs(u - v), u, v) for u in range(size) for v in range(size))[:count]
    return torch.stack([torch.outer(waves[u], waves[v]).flatten() for _, _, u, v in lowest])


def _level(channels: int, blocks: int) -> list[nn.Module]:
    return [ResidualBlock(channels, channels, norm=PixelNorm) for _ in range(blocks)]
