"""The KL autoencoder, on clean and degraded slices; alone, or against a discriminator of what it reconstructs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from headsr.devices import generator_of
from headsr.losses.pixel import psnr
from headsr.networks.autoencoder import KLAutoencoder, decode, encode
from headsr.training.task import OneNetwork, Setting
from headsr.training.tasks.adversarial import judged

_LATENT_BATCHES, _LATENT_BATCH = 16, 32  # crops behind the latents' mean and deviation


class AutoencoderTask(OneNetwork):
    """Image losses of the reconstruction, the divergence of the latents and, where the recipe has a discriminator, its
    verdicts; PSNR of the reconstruction."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.turns = tuple(setting.recipe.networks())

    def networks(self) -> dict[str, nn.Module]:
        """The autoencoder and, where the recipe has one, the discriminator."""
        return {turn: self.setting.build(block, turn) for turn, block in self.setting.recipe.networks().items()}

    def terms(self, turn: str, networks: Mapping[str, nn.Module], step: int) -> dict[str, Tensor]:
        """Losses of one batch, every second slice of it degraded: both kinds will be encoded."""
        pairs, network = self.setting.batch(step), networks["network"]
        images = pairs.clean.clone()
        images[1::2] = pairs.degraded[1::2]
        n, _, height, width = images.shape
        size = (n, network.latent_channels, height // network.factor, width // network.factor)
        noise = torch.randn(size, generator=generator_of(self.setting.recipe.seed, "posterior", step))
        with torch.set_grad_enabled(turn == "network"):
            reconstructed, posterior = network(images, noise.to(images.device))
        if len(self.turns) == 1:
            return self.setting.losses({"images": (reconstructed, images), "posterior": posterior})
        offered = judged(turn, networks["discriminator"], reconstructed, images)
        return self.setting.losses(offered | ({"posterior": posterior} if turn == "network" else {}))

    @torch.no_grad()
    def validate(self, network: KLAutoencoder) -> dict[str, float]:
        """PSNR in dB (peak 1.0, whole crops) of clean and of degraded validation slices through the latents."""
        clean, degraded, _ = self.setting.validation
        through = {"clean": clean, "degraded": degraded}
        return {f"val_psnr_{k}": psnr(decode(network, encode(network, x)), x) for k, x in through.items()}

    @torch.no_grad()
    def finish(self, network: KLAutoencoder) -> dict[str, float]:
        """Set the latents' mean and deviation per channel from some hundred clean training crops."""
        count, total, squares = 0, 0.0, 0.0
        for step in range(_LATENT_BATCHES):
            latents = network.posterior(self.setting.train.clean(step, _LATENT_BATCH)).mean.double()
            count += latents[:, 0].numel()
            total = total + latents.sum(dim=(0, 2, 3))
            squares = squares + latents.square().sum(dim=(0, 2, 3))
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
        network.latent_mean.copy_(mean[:, None, None])
        network.latent_deviation.copy_(deviation[:, None, None])
        return {}
