"""A trained latent diffusion model in one piece: the denoiser and the frozen autoencoder whose latents it lives in."""

from __future__ import annotations

from torch import nn

from headsr.networks.autoencoder import KLAutoencoder
from headsr.networks.unet2d import LatentUnet


class LatentDiffusion(nn.Module):
    """Holds ``unet`` and ``autoencoder``; how they are used is in headsr.diffusion.sample."""

    def __init__(self, unet: LatentUnet, autoencoder: KLAutoencoder) -> None:
        super().__init__()
        if unet.latent_channels != autoencoder.latent_channels:
            raise ValueError(
                f"the denoiser expects {unet.latent_channels} latent channels, the autoencoder makes "
                f"{autoencoder.latent_channels}: network.latent_channels of both models must agree"
            )
        if unet.condition_factor != autoencoder.factor:
            raise ValueError(
                f"the denoiser expects latents {unet.condition_factor} times smaller than the slice, "
                f"the autoencoder makes them {autoencoder.factor} times smaller"
            )
        self.unet, self.autoencoder = unet, autoencoder
