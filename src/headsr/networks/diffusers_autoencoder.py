"""The autoencoder of diffusers behind the interface of headsr's own, for comparison with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from headsr.networks.autoencoder import Posterior

_CHANNELS_A_GROUP = 4


class DiffusersAutoencoder(nn.Module):
    """diffusers' AutoencoderKL without attention: slices (N, 1, H, W) to latents (N, latent_channels, H/f, W/f), back.

    f = 2 ** (levels - 1). Its group norms pool over the whole slice, so that a tile gives other latents than the slice
    that it was cut from; otherwise it is used as KLAutoencoder is.
    """

    def __init__(self, *, channels: Sequence[int], blocks: int, latent_channels: int = 4) -> None:
        super().__init__()
        # Imported here, by the few jobs that compare with it: it takes seconds.
        from diffusers import AutoencoderKL

        if odd := [width for width in channels if width % _CHANNELS_A_GROUP]:
            raise ValueError(
                f"channels {odd[0]}: must be a multiple of {_CHANNELS_A_GROUP}, the channels of a norm's group"
            )
        self.factor, self.latent_channels = 2 ** (len(channels) - 1), latent_channels
        self.autoencoder = AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=tuple(channels),
            layers_per_block=blocks,
            latent_channels=latent_channels,
            norm_num_groups=min(32, math.gcd(*channels) // _CHANNELS_A_GROUP),
            mid_block_add_attention=False,
        )
        self.register_buffer("latent_mean", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("latent_deviation", torch.ones(latent_channels, 1, 1))

    def posterior(self, images: Tensor) -> Posterior:
        """Distribution of the latents of slices in normalised intensity; height and width must be multiples of f."""
        if any(size % self.factor for size in images.shape[-2:]):
            raise ValueError(
                f"slices of {tuple(images.shape[-2:])} pixels: both sizes must be multiples of {self.factor}"
            )
        found = self.autoencoder.encode(2 * images - 1).latent_dist
        return Posterior(found.mean, found.logvar)

    def images(self, latents: Tensor) -> Tensor:
        """Slices of latents that are not normalised."""
        return (self.autoencoder.decode(latents).sample + 1) / 2

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps of slices after every level of the encoder, finest first."""
        maps, current = [], self.autoencoder.encoder.conv_in(2 * images - 1)
        for level in self.autoencoder.encoder.down_blocks:
            for block in level.resnets:
                current = block(current, temb=None)
            maps.append(current)
            for shrink in level.downsamplers or []:
                current = shrink(current)
        return maps

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Posterior]:
        """Reconstruction from latents drawn with standard normal ``noise``, and their posterior."""
        posterior = self.posterior(images)
        return self.images(posterior.mean + torch.exp(0.5 * posterior.log_variance) * noise), posterior
