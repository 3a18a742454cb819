"""The parts that the networks share: norms, residual blocks and changes of resolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Norm = Callable[[int], nn.Module]


class Checkpointed(nn.Module):
    """A block of a network that, told to, keeps its inputs alone and computes the rest again in the backward pass.

    Only in training, and only where there are gradients. A block must compute the same when it is called twice: no
    running statistics, no power iteration. Names and values of its weights are as without.
    """

    checkpointing = False

    def __call__(self, *inputs: Any) -> Any:
        """What the block makes of its inputs."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)


def checkpoint_blocks(network: nn.Module) -> None:
    """Tell every block of a network that can do it (Checkpointed) to compute again what it would keep.

    ValueError for a network that has none.
    """
    blocks = [module for module in network.modules() if isinstance(module, Checkpointed)]
    if not blocks:
        raise ValueError(f"checkpointing: {type(network).__name__} has no blocks to compute again; leave it out")
    for block in blocks:
        block.checkpointing = True


class PixelNorm(nn.Module):
    """Divide each pixel's feature vector by its root mean square; learned gain per channel, (N, C, H, W).

    It sees one pixel only, so a crop gives what the whole slice gives there. A GroupNorm would pool over the crop,
    which is half air in one place and none in another.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))  # of one dimension: gains do not decay

    def forward(self, features: Tensor) -> Tensor:
        """Normalised features of the same shape."""
        return features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + 1e-6) * self.gain[:, None, None]


def group_norm(channels: int) -> nn.Module:
    """GroupNorm with at least four channels a group, since one channel alone would lose its mean."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 4)), channels)


def in_full_precision(device: torch.device) -> AbstractContextManager[None]:
    """What is computed inside is not cast, whatever the training's precision; the meta device has no casts."""
    casts = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if casts else nullcontext()


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3 x 3 convolution that keeps the size (or halves it, with stride 2)."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def padded(images: Tensor, multiple: int) -> Tensor:
    """Images continued below and to the right by their edge values until both sizes are multiples of ``multiple``."""
    below, right = -images.shape[-2] % multiple, -images.shape[-1] % multiple
    return F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images


def channels_last(features: Tensor) -> Tensor:
    """Features (N, C, ...) with their channels side by side in memory, as convolutions are fastest; same values."""
    layout = torch.channels_last if features.ndim == 4 else torch.channels_last_3d
    return features.contiguous(memory_format=layout)


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Images (N, 1, H, W) interpolated to ``scale`` times as many pixels a side, in the same field of view."""
    return images if scale == 1 else F.interpolate(images, scale_factor=float(scale), mode="bicubic")


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all its parameters zero: a branch that begins as no change."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ResidualBlock(Checkpointed):
    """Norm, SiLU, 3 x 3 convolution, twice, and a skip: (N, inputs, H, W) to (N, outputs, H, W).

    With ``embedding`` features, a vector (N, embedding) scales and shifts the second norm (FiLM).
    """

    def __init__(self, inputs: int, outputs: int, *, norm: Norm = group_norm, embedding: int = 0) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv3(inputs, outputs)
        self.norm2, self.conv2 = norm(outputs), zeroed(conv3(outputs, outputs))
        self.film = zeroed(nn.Linear(embedding, 2 * outputs)) if embedding else None
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, features: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Features of the same height and width."""
        hidden = self.norm2(self.conv1(F.silu(self.norm1(features))))
        if self.film is not None and embedding is not None:
            scale, shift = self.film(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return self.skip(features) + self.conv2(F.silu(hidden))


class PlainBlock(Checkpointed):
    """Convolution, ReLU, convolution, skip; no norm, which would wash out intensities (EDSR, Lim 2017, section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3(channels, channels), conv3(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        return features + self.conv2(F.relu(self.conv1(features)))


class Upsample(nn.Module):
    """Double height and width by nearest neighbours, then a 3 x 3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv3(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, 2H, 2W)."""
        return self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))
