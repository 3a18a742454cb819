"""Features of slices, learned from what is known of every slice without labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import PlainBlock, conv3, padded

PLANES = 3
DEGRADATIONS = 3  # what training.data.marked_slices knows of a degraded slice


class Answers(NamedTuple):
    """What is said of N slices: scores of the planes (N, 3), the position (N, 1), the degradation (N, 3)."""

    planes: Tensor
    positions: Tensor
    degradations: Tensor


class SliceEncoder(nn.Module):
    """Slices (N, 1, H, W) of any size to features, and these to answers.

    Pixels are first gathered in squares of ``unshuffle``; every level but the last halves both sizes. ``channels`` per
    level, finest first; ``blocks`` residual blocks per level. Every layer is local and features are averaged over the
    slice only at the end, so that crops and whole slices have features of one kind. No norm: brightness tells where in
    the head a slice is. The averages get the scale that the answers need from the buffers ``first_mean`` and
    ``first_deviation`` (D,), measured before training, and that of an embedding from ``last_mean`` and
    ``last_deviation``, measured after it.
    """

    def __init__(self, *, channels: Sequence[int], blocks: int, unshuffle: int = 2) -> None:
        super().__init__()
        self.unshuffle, self.multiple = unshuffle, unshuffle * 2 ** (len(channels) - 1)
        self.first = conv3(unshuffle**2, channels[0])
        self.levels = nn.ModuleList([_level(width, blocks) for width in channels])
        self.down = nn.ModuleList([conv3(fine, coarse, stride=2) for fine, coarse in pairwise(channels)])
        for when in ("first", "last"):
            self.register_buffer(f"{when}_mean", torch.zeros(channels[-1]))
            self.register_buffer(f"{when}_deviation", torch.ones(channels[-1]))
        self.hidden = nn.Linear(channels[-1], channels[-1])
        self.last = nn.Linear(channels[-1], PLANES + 1 + DEGRADATIONS)

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps of every level, finest first."""
        maps = [self.levels[0](self.first(F.pixel_unshuffle(padded(images, self.multiple), self.unshuffle)))]
        for down, level in zip(self.down, self.levels[1:], strict=True):
            maps.append(level(down(maps[-1])))
        return maps

    def pooled(self, images: Tensor) -> Tensor:
        """The features of the last level averaged over each slice (N, D), D its channels."""
        return self.features(images)[-1].mean(dim=(2, 3))

    def embedding(self, images: Tensor) -> Tensor:
        """One vector per slice (N, D) in units of what training crops have: mean 0 and deviation 1."""
        return (self.pooled(images) - self.last_mean) / self.last_deviation

    def forward(self, images: Tensor) -> Answers:
        """What the slices are taken for."""
        scaled = (self.pooled(images) - self.first_mean) / self.first_deviation
        answers = self.last(F.relu(self.hidden(scaled)))
        return Answers(*answers.split([PLANES, 1, DEGRADATIONS], dim=1))


def _level(channels: int, blocks: int) -> nn.Sequential:
    """Residual blocks between rectifiers, without which the average over a slice would see no texture at first."""
    return nn.Sequential(nn.ReLU(), *[PlainBlock(channels) for _ in range(blocks)], nn.ReLU())
