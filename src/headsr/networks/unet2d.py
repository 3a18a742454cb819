"""The denoiser of the latent diffusion model: a U-Net on latents, told what scans show of a slice and how it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.attention import TransformerBlock
from headsr.networks.blocks import ResidualBlock, Upsample, conv3, group_norm, in_full_precision, padded, zeroed
from headsr.networks.condition import Condition

_LENGTHS = 3  # rows, columns, thickness
PLANES = ("sagittal", "coronal", "axial")  # a plane's number is the array axis (RAS) its slices are stacked along


class _Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention where the level has it."""

    def __init__(self, widths: Sequence[tuple[int, int]], *, embedding: int, attention: dict | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(i, o, embedding=embedding) for i, o in widths])
        self.transformers = nn.ModuleList([TransformerBlock(o, **attention) for _, o in widths] if attention else [])

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            features = block(features, embedding)
            if len(self.transformers):
                features = self.transformers[index](features)
        return features


class LatentUnet(nn.Module):
    """Denoises latents (N, latent_channels, h, w); what its output means is said in headsr.diffusion.sample.

    The image of the ``Condition`` enters by pixel-unshuffle with f = ``condition_factor`` (lossless, at latent size),
    concatenated to the latents, with the number of scans that show each pixel; its plane as a class embedding and its
    lengths by two layers, both added to the embedding of the time step. Where nothing is shown the same weights are a
    prior of slices. ``channels`` per level, finest first; ``attention`` says at which levels pixels attend to each
    other. The linear ``estimate`` of the latents from the image is not learned but measured before training: three
    buffers hold it.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        blocks: int,
        attention: Sequence[bool],
        head_width: int = 32,
        feedforward: str = "geglu",
        latent_channels: int = 4,
        condition_factor: int = 4,
    ) -> None:
        super().__init__()
        if len(attention) != len(channels):
            raise ValueError(f"{len(channels)} levels of channels but {len(attention)} of attention")
        self.latent_channels, self.condition_factor, width = latent_channels, condition_factor, 4 * channels[0]
        transformer = {"head_width": head_width, "feedforward": feedforward}
        kinds = [{"embedding": width, "attention": transformer if on else None} for on in attention]
        self.time_width = channels[0]
        self.time = nn.Sequential(nn.Linear(self.time_width, width), nn.SiLU(), nn.Linear(width, width))
        self.plane = nn.Embedding(len(PLANES), width)
        self.lengths = nn.Sequential(nn.Linear(_LENGTHS, width), nn.SiLU(), zeroed(nn.Linear(width, width)))
        self.register_buffer("estimate_weight", torch.zeros(latent_channels, condition_factor**2, 3, 3))
        self.register_buffer("estimate_bias", torch.zeros(latent_channels))
        self.register_buffer("estimate_deviation", torch.ones(latent_channels, 1, 1))
        self.first = conv3(2 * latent_channels + condition_factor**2 + 1, channels[0])
        narrow = [channels[0], *channels[:-1]]
        ways_down = [[(i, o)] + [(o, o)] * (blocks - 1) for i, o in zip(narrow, channels, strict=True)]
        self.down = nn.ModuleList([_Level(w, **kind) for w, kind in zip(ways_down, kinds, strict=True)])
        self.shrink = nn.ModuleList([conv3(c, c, stride=2) for c in channels[:-1]])
        self.grow = nn.ModuleList([Upsample(below, c) for c, below in pairwise(channels)])
        ways_up = [[(2 * c, c)] + [(c, c)] * (blocks - 1) for c in channels[:-1]]
        self.up = nn.ModuleList([_Level(w, **kind) for w, kind in zip(ways_up, kinds, strict=False)])
        self.norm, self.last = group_norm(channels[0]), zeroed(conv3(channels[0], latent_channels))

    def estimate(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """Mean and deviation (N, C, h, w) of clean latents from the condition alone, in fp32; 0 and 1 of any slice."""
        with in_full_precision(condition.image.device):
            gathered = F.pixel_unshuffle(condition.image.float(), self.condition_factor)
            mean = F.conv2d(gathered, self.estimate_weight, self.estimate_bias, padding=1)
            known = self.shown(condition).float() > 0
            return mean * known, torch.where(known, self.estimate_deviation, 1.0)

    def shown(self, condition: Condition) -> Tensor:
        """How many scans show what a latent is of, (N, 1, h, w)."""
        return F.avg_pool2d(condition.shown, self.condition_factor)

    def forward(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """Output of the shape of ``latents``; ``timesteps`` are integers (N,)."""
        _refuse_misfit(latents, condition.image, self.condition_factor)
        embedding = self.time(sinusoids(timesteps, self.time_width)) + self.plane(condition.plane)
        embedding = embedding + self.lengths(_lengths(condition))
        gathered = F.pixel_unshuffle(condition.image, self.condition_factor)
        features = torch.cat([latents, self.estimate(condition)[0], gathered, self.shown(condition)], dim=1)
        height, width = latents.shape[-2:]
        features = self.first(padded(features, 2 ** len(self.shrink)))
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=False):
            skips.append(level(features, embedding))
            features = shrink(skips[-1])
        features = self.down[-1](features, embedding)
        for level, grow, skip in reversed(list(zip(self.up, self.grow, skips, strict=True))):
            features = level(torch.cat([grow(features), skip], dim=1), embedding)
        return self.last(F.silu(self.norm(features)))[..., :height, :width]


def _lengths(condition: Condition) -> Tensor:
    """What lengths say (N, _LENGTHS): logarithms of the pixels in mm and of thickness in rows, 0 where unknown."""
    rows = condition.pixel_mm[:, :1]
    thickness = torch.where(condition.thickness_mm[:, None] > 0, condition.thickness_mm[:, None], rows)
    return torch.cat([condition.pixel_mm.log(), (thickness / rows).log()], dim=1)


def sinusoids(timesteps: Tensor, width: int) -> Tensor:
    """Sines and cosines (N, width) of time steps (N,) at periods from 2 pi to 20000 pi (Vaswani 2017, section 3.5)."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=timesteps.device) / half)
    angles = timesteps[:, None].float() * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width - 2 * half))


def _refuse_misfit(latents: Tensor, condition: Tensor, factor: int) -> None:
    if tuple(condition.shape[-2:]) != tuple(factor * n for n in latents.shape[-2:]):
        raise ValueError(
            f"a condition of {tuple(condition.shape[-2:])} pixels does not fit latents of {tuple(latents.shape[-2:])}: "
            f"it must be {factor} times as large"
        )
