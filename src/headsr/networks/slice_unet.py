"""A U-Net on slices already interpolated to the fine grid (Ronneberger 2015), with residual blocks and no norms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import PlainBlock, Upsample, channels_last, conv3, padded, zeroed


class SliceUnet(nn.Module):
    """Adds a learned residual to an interpolated slice: (N, 1, H, W) to (N, 1, H, W), any height and width.

    ``channels`` per level, finest first, each level at half the resolution of the one before it; ``blocks`` on the way
    down and on the way up. The last layer starts at zero, so that training starts from the interpolated slice itself.
    """

    def __init__(self, *, channels: Sequence[int], blocks: int = 1) -> None:
        super().__init__()
        self.first = conv3(1, channels[0])
        self.encoders = nn.ModuleList([_blocks(width, blocks) for width in channels])
        self.down = nn.ModuleList([conv3(fine, coarse, stride=2) for fine, coarse in pairwise(channels)])
        self.up = nn.ModuleList([Upsample(coarse, fine) for fine, coarse in pairwise(channels)])
        self.merge = nn.ModuleList([conv3(2 * fine, fine) for fine in channels[:-1]])
        self.decoders = nn.ModuleList([_blocks(width, blocks) for width in channels[:-1]])
        self.last = zeroed(conv3(channels[0], 1))

    def forward(self, images: Tensor) -> Tensor:
        """Super-resolved slices in the intensities of the input."""
        features, levels = F.relu(channels_last(self.first(padded(images, 2 ** len(self.down))))), []
        for encoder, down in zip(self.encoders, self.down, strict=False):
            levels.append(encoder(features))
            features = F.relu(down(levels[-1]))
        features = self.encoders[-1](features)
        for level in reversed(range(len(levels))):
            joined = torch.cat([F.relu(self.up[level](features)), levels[level]], dim=1)
            features = self.decoders[level](F.relu(self.merge[level](joined)))
        return images + self.last(features)[..., : images.shape[-2], : images.shape[-1]]


def _blocks(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(*[PlainBlock(channels) for _ in range(number)])
