"""The denoiser of the latent diffusion model, in the latents of a frozen autoencoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.devices import generator_of
from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE
from headsr.losses.pixel import psnr
from headsr.networks.autoencoder import KLAutoencoder, decode, encode
from headsr.networks.condition import Condition
from headsr.networks.latent_diffusion import LatentDiffusion
from headsr.networks.unet2d import LatentUnet
from headsr.training.data.slices import Pairs
from headsr.training.data.study_slices import StudySlices
from headsr.training.task import OneNetwork, Setting

_VALIDATION_TIMES = (0.1, 0.3, 0.6)  # fractions of the chain at which the denoiser is validated
_SAMPLING_STEPS = 10
_MOST_SNR = 5.0  # what a time step counts at most (Hang et al. 2023, Min-SNR, section 3.4)
_ESTIMATE_BATCHES, _ESTIMATE_BATCH = 16, 32  # pairs behind the linear estimate


class DenoisingTask(OneNetwork):
    """Denoising loss on the latents of clean slices, some of them without a condition: the same weights are a prior of
    slices of which nothing is known. PSNR of the one-step estimate of the clean latents, decoded."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.autoencoder: KLAutoencoder = setting.companions[setting.recipe.autoencoder].module

    def networks(self) -> dict[str, nn.Module]:
        """The denoiser alone; ValueError where it does not fit the autoencoder."""
        unet = self.setting.build(self.setting.recipe.network)
        LatentDiffusion(unet, self.autoencoder)
        return {"network": unet}

    @torch.no_grad()
    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Take the weights of the denoiser that the recipe names; where it names none, set the linear estimate.

        It is that of clean latents from the images of conditions, least squares over 3 x 3 latents of which something
        is shown. The deviation per channel is that of its residuals; solved by normal equations in fp64, with a trace
        of ridge.
        """
        unet: LatentUnet = networks["network"]
        if name := self.setting.recipe.denoiser:
            unet.load_state_dict(self._started_from(name).state_dict())
            return
        gram, cross, squares, count = 0.0, 0.0, 0.0, 0
        for step in range(_ESTIMATE_BATCHES):
            pairs = self.setting.train.batch(step, _ESTIMATE_BATCH)
            known = unet.shown(pairs.condition).double().gt(0).flatten()[:, None]
            targets = self.latents(pairs.clean).permute(0, 2, 3, 1).flatten(0, 2).double() * known
            gathered = F.pixel_unshuffle(pairs.condition.image, unet.condition_factor)
            inputs = F.unfold(F.pad(gathered, (1, 1, 1, 1)), 3).transpose(1, 2).flatten(0, 1).double()
            inputs = F.pad(inputs, (0, 1), value=1.0) * known
            gram, cross = gram + inputs.mT @ inputs, cross + inputs.mT @ targets
            squares, count = squares + targets.square().sum(dim=0), count + known.sum()
        ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
        solution = torch.linalg.solve(gram + ridge, cross)
        error = squares - 2 * (solution * cross).sum(dim=0) + (solution * (gram @ solution)).sum(dim=0)
        unet.estimate_weight.copy_(solution[:-1].mT.reshape(unet.estimate_weight.shape))
        unet.estimate_bias.copy_(solution[-1])
        unet.estimate_deviation.copy_((error / count).clamp_min(1e-8).sqrt()[:, None, None])

    def terms(self, turn: str, networks: Mapping[str, nn.Module], step: int) -> dict[str, Tensor]:
        """Losses of one batch at random time steps: on the network's output, and on the clean latents behind it."""
        pairs, unet = self.setting.train.batch(step), networks["network"]
        latents, generator = self.latents(pairs.clean), generator_of(self.setting.recipe.seed, "diffusion", step)
        condition = self._condition(pairs, step)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        times = torch.randint(SCHEDULE.steps, (len(latents),), generator=generator).to(latents.device)
        noisy = SCHEDULE.add_noise(latents, noise, times)
        mean, deviation = SCHEDULE.posterior(noisy, *unet.estimate(condition), times)
        output = unet(noisy, times, condition).float()
        # Weighted by the signal, since little is known of the details behind much noise.
        (signal, grain), clean = SCHEDULE.signal_and_noise(times, latents), mean + deviation * output
        residuals = output, (latents - mean) / deviation
        if self.setting.recipe.weighting == "min_snr":
            weight = (signal / grain).clamp_max(_MOST_SNR**0.5)
            residuals = weight * clean, weight * latents
        return self.setting.losses({"residuals": residuals, "images": (signal * clean, signal * latents)})

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """PSNR in dB (peak 1.0, whole crops) of one-step estimates at fixed times, with fixed noise."""
        pairs = self.setting.validation
        clean, latents = pairs.clean, self.latents(pairs.clean)
        noise = torch.randn(latents.shape, generator=generator_of(self.setting.recipe.seed, "validation")).to(latents)
        measures = {
            f"val_psnr_{self.setting.recipe.data.told}": psnr(pairs.condition.image, clean),
            "val_psnr_autoencoder": psnr(self._image(latents), clean),
        }
        for fraction in _VALIDATION_TIMES:
            times = torch.full((len(latents),), SCHEDULE.timestep_at(fraction), device=latents.device)
            estimate = predict_clean(network, SCHEDULE.add_noise(latents, noise, times), times, pairs.condition)
            measures[f"val_psnr_at_{fraction:g}"] = psnr(self._image(estimate), clean)
        return measures

    @torch.no_grad()
    def finish(self, network: nn.Module) -> dict[str, float]:
        """PSNR in dB of validation slices sampled from pure noise, given what scans show of them."""
        pairs = self.setting.validation
        shape = self.latents(pairs.clean).shape
        noise = torch.randn(shape, generator=generator_of(self.setting.recipe.seed, "sampling")).to(pairs.clean)
        latents = sample(network, noise, pairs.condition, steps=_SAMPLING_STEPS)
        return {"val_psnr_sampled": psnr(self._image(latents), pairs.clean)}

    def _started_from(self, name: str) -> LatentUnet:
        """A trained denoiser; ValueError where its latents are those of another autoencoder."""
        start, latents_of = self.setting.companions[name].module, self.setting.recipe.autoencoder
        own, other = self.autoencoder.state_dict(), start.autoencoder.state_dict()
        without_numbers = self.setting.device.type == "meta"
        if own.keys() != other.keys() or not all(without_numbers or torch.equal(own[key], other[key]) for key in own):
            raise ValueError(
                f"denoiser: {name!r} lives in the latents of another autoencoder than {latents_of!r}. "
                "Name one of the same"
            )
        return start.unet

    def _condition(self, pairs: Pairs | StudySlices, step: int) -> Condition:
        """What the denoiser is told in a step of training: of some slices nothing is shown."""
        drawn = torch.rand(len(pairs.clean), generator=generator_of(self.setting.recipe.seed, "shown", step))
        return pairs.condition.without((drawn < self.setting.recipe.unconditional).to(pairs.clean.device))

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Normalised latents of slices, in fp32."""
        return encode(self.autoencoder, images).float()

    def _image(self, latents: Tensor) -> Tensor:
        return decode(self.autoencoder, latents)
