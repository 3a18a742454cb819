"""The noise schedule: how much of a clean latent is left at a time step."""

from __future__ import annotations

import torch
from torch import Tensor


class Schedule:
    """Variance-preserving chain whose betas are linear in their square root (LDM's "linear", diffusers' scaled_linear).

    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) e, for t = 0 .. steps - 1.
    """

    def __init__(self, *, steps: int = 1000, first_beta: float = 0.0015, last_beta: float = 0.0195) -> None:
        betas = torch.linspace(first_beta**0.5, last_beta**0.5, steps, dtype=torch.float64) ** 2
        self.steps = steps
        self.alphas_bar = torch.cumprod(1 - betas, dim=0)

    def signal_and_noise(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), each (N, 1, 1, 1), on the device and in the type of ``like``."""
        alphas_bar = self.alphas_bar.to(timesteps.device)[timesteps].reshape(-1, 1, 1, 1)
        return alphas_bar.sqrt().to(like), (1 - alphas_bar).sqrt().to(like)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents z_t (N, C, h, w) at integer time steps (N,)."""
        signal, deviation = self.signal_and_noise(timesteps, latents)
        return signal * latents + deviation * noise

    def posterior(self, noisy: Tensor, mean: Tensor, deviation: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of z_0 given z_t, if z_0 was normal with ``mean`` and ``deviation`` (Wiener)."""
        signal, noise = self.signal_and_noise(timesteps, noisy)
        total = (signal * deviation).square() + noise.square()
        gain = signal * deviation.square() / total
        return mean + gain * (noisy - signal * mean), deviation * noise * total.rsqrt()

    def timestep_at(self, fraction: float) -> int:
        """The integer time step nearest to a fraction 0 .. 1 of the chain."""
        return round(min(max(fraction, 0.0), 1.0) * (self.steps - 1))


SCHEDULE = Schedule()
"""The one chain that headsr trains on and samples from."""
