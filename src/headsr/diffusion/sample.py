"""From noisy latents to clean ones: in one step, or along the deterministic chain of DDIM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from headsr.diffusion.schedule import SCHEDULE, Schedule

Denoiser = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def predict_clean(
    unet: Denoiser,
    latent_noisy: Tensor,
    t: Tensor | int,
    condition: Tensor,
    plane: Tensor,
    *,
    schedule: Schedule = SCHEDULE,
) -> Tensor:
    """The mean clean latent (N, C, h, w) that the network expects behind noisy ones at integer time steps ``t`` (N,).

    ``condition`` is the degraded slice (N, 1, f h, f w) in normalised intensity, ``plane`` (N,) its number
    in networks.unet2d.PLANES.
    """
    timesteps = torch.as_tensor(t, device=latent_noisy.device).expand(len(latent_noisy))
    velocity = unet(latent_noisy, timesteps, condition, plane).to(latent_noisy.dtype)
    return schedule.clean(latent_noisy, velocity, timesteps)


@torch.no_grad()
def sample(
    unet: Denoiser,
    noise: Tensor,
    condition: Tensor,
    plane: Tensor,
    *,
    steps: int,
    start: int | None = None,
    schedule: Schedule = SCHEDULE,
) -> Tensor:
    """Clean latents (N, C, h, w) by DDIM with eta = 0 (Song 2021, equation 12), in ``steps`` network calls.

    ``noise`` is z at time step ``start`` (the end of the chain when None, where it is standard normal). Time steps are
    trailing: the first call is at ``start`` itself, which few-step sampling needs.
    """
    last = schedule.steps - 1 if start is None else start
    times = torch.linspace(last, -1, steps + 1).round().long().tolist()[:-1]
    latents = noise
    for now, after in zip(times, [*times[1:], None], strict=True):
        timesteps = torch.full((len(latents),), now, device=latents.device)
        velocity = unet(latents, timesteps, condition, plane).to(latents.dtype)
        clean = schedule.clean(latents, velocity, timesteps)
        if after is None:
            return clean
        residual = schedule.noise(latents, velocity, timesteps)
        latents = schedule.add_noise(clean, residual, torch.full_like(timesteps, after))
    return latents
