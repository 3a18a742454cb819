"""SwinIR (Liang 2021): attention within windows that are shifted by half of their size in every other layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import Checkpointed, conv3, enlarged, zeroed

_EXPANSION = 2  # of the feed-forward block
_TAIL = 4  # the tail makes each side so many times as large, where the network works on one grid
_DEVIATION = 0.02  # of what weights start with
_APART = 100.0  # what pixels of different places lose in the logarithm of their attention
_SLOPE = 0.01  # of the leaky ReLU before pixels are rearranged


class WindowAttention(nn.Module):
    """Attention of every pixel to those of its window, with a learned bias per offset: (N, windows, M * M, C)."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=_DEVIATION)
        self.register_buffer("offsets", offsets_of(window), persistent=False)

    def forward(self, tokens: Tensor, apart: Tensor | None) -> Tensor:
        """The change of the tokens; where ``apart`` (windows, M * M, M * M) is True, no pixel sees the other."""
        n, windows, pixels, channels = tokens.shape
        split = self.queries_keys_values(tokens).view(n, windows, pixels, 3, self.heads, channels // self.heads)
        queries, keys, values = split.permute(3, 0, 1, 4, 2, 5)
        bias = self.bias[self.offsets].permute(2, 0, 1)
        if apart is not None:  # a large number in place of infinity: a softmax of bf16 stays finite
            bias = bias - _APART * apart[:, None].to(bias.dtype)
        # Written out: with a bias that learns torch's own attention does the same, but its products in fp32.
        likeness = queries / queries.shape[-1] ** 0.5 @ keys.transpose(-1, -2) + bias
        mixed = likeness.softmax(dim=-1).to(values.dtype) @ values
        return self.out(mixed.transpose(2, 3).reshape(tokens.shape))


class SwinLayer(Checkpointed):
    """Attention within windows, then a feed-forward block, each on normed features (N, H, W, C) and added to them."""

    def __init__(self, channels: int, heads: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.window, self.shift = window, window // 2 if shifted else 0
        self.norm1, self.attention = nn.LayerNorm(channels), WindowAttention(channels, heads, window)
        self.norm2 = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, _EXPANSION * channels), nn.Linear(_EXPANSION * channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape; height and width are whole windows."""
        features = features + self._attended(self.norm1(features))
        return features + self.narrow(F.gelu(self.wide(self.norm2(features))))

    def _attended(self, features: Tensor) -> Tensor:
        n, height, width, channels = features.shape
        m, shift, apart = self.window, self.shift, None
        if shift:
            features = features.roll((-shift, -shift), dims=(1, 2))
            apart = windows_apart(height, width, m, features.device)
        windows = features.view(n, height // m, m, width // m, m, channels).transpose(2, 3)
        mixed = self.attention(windows.reshape(n, -1, m * m, channels), apart)
        mixed = mixed.view(n, height // m, width // m, m, m, channels).transpose(2, 3)
        return mixed.reshape(n, height, width, channels).roll((shift, shift), dims=(1, 2))


class SwinBlock(nn.Module):
    """Swin layers, every other one shifted, a 3 x 3 convolution and a skip (RSTB): (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, channels: int, depth: int, heads: int, window: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *[SwinLayer(channels, heads, window, shifted=number % 2 == 1) for number in range(depth)]
        )
        self.conv = conv3(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        mixed = self.layers(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return features + self.conv(mixed)


class SwinNetwork(nn.Module):
    """Slices (N, 1, H, W) to slices ``scale`` times as large: 1 (on one grid) or a power of 2.

    ``enlarging`` direct (light: one convolution whose channels become pixels) or stepwise (classical: twice as large at
    a time, from features of ``fine`` channels). Light, channels 60, depths 4 x 6, heads 6: 911,236 parameters at scale
    4, 919,336 on one grid, where pixels are rearranged to channels first as in ``ResidualDenseNetwork``. Classical,
    channels 180, depths 6 x 6: 11,895,805 at scale 4. Masks follow the size of the input and are no part of the
    weights. ``skip`` as there. With ``ones`` the first convolution sees a second channel, 1 in the image and 0 beyond
    its border: what the published networks of three channels do, which take a mean off each before they add zeros
    around it, is then exact on a grey image.
    """

    def __init__(
        self,
        *,
        channels: int = 60,
        depths: Sequence[int] = (6, 6, 6, 6),
        heads: int = 6,
        window: int = 8,
        enlarging: str = "direct",
        fine: int = 64,
        scale: int = 1,
        skip: bool = True,
        ones: bool = False,
    ) -> None:
        super().__init__()
        if scale < 1 or scale & (scale - 1):
            raise ValueError(f"scale {scale}: the network makes slices 1, 2, 4, 8 ... times as large")
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be split into {heads} heads")
        if window < 2:
            raise ValueError(f"window {window}: a window has at least 2 pixels a side")
        self.scale, self.window, self.skip, self.ones = scale, window, skip, ones
        self.unshuffle = _TAIL if scale == 1 else 1
        self.first = conv3((1 + ones) * self.unshuffle**2, channels)
        self.embedding = nn.LayerNorm(channels)
        self.blocks = nn.Sequential(*[SwinBlock(channels, depth, heads, window) for depth in depths])
        self.norm, self.after = nn.LayerNorm(channels), conv3(channels, channels)
        self.tail = _TAILS[enlarging](channels, fine, scale * self.unshuffle)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_DEVIATION)
                nn.init.zeros_(module.bias)
        if skip:
            zeroed([module for module in self.tail.modules() if isinstance(module, nn.Conv2d)][-1])

    def forward(self, images: Tensor) -> Tensor:
        """Super-resolved slices in the intensities of the input."""
        seen = _mirrored(images, self.window * self.unshuffle)
        seen = torch.cat([seen, torch.ones_like(seen)], dim=1) if self.ones else seen
        features = self.first(F.pixel_unshuffle(seen, self.unshuffle))
        mixed = _along_channels(self.norm, self.blocks(_along_channels(self.embedding, features)))
        made = self.tail(features + self.after(mixed))
        height, width = (self.scale * n for n in images.shape[-2:])
        made = made[..., :height, :width]
        return made + enlarged(images, self.scale) if self.skip else made


def _direct(channels: int, fine: int, factor: int) -> nn.Module:
    return nn.Sequential(conv3(channels, factor**2), nn.PixelShuffle(factor))


def _stepwise(channels: int, fine: int, factor: int) -> nn.Module:
    steps = [nn.Sequential(conv3(fine, 4 * fine), nn.PixelShuffle(2)) for _ in range(int(math.log2(factor)))]
    return nn.Sequential(conv3(channels, fine), nn.LeakyReLU(_SLOPE), *steps, conv3(fine, 1))


_TAILS = {"direct": _direct, "stepwise": _stepwise}


def _along_channels(norm: nn.LayerNorm, features: Tensor) -> Tensor:
    """A norm over the channels of features (N, C, H, W)."""
    return norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _mirrored(images: Tensor, multiple: int) -> Tensor:
    """Images continued below and to the right by their mirror image, as often as it takes, to whole multiples."""
    height, width = images.shape[-2:]
    rows, columns = (_mirror_index(n, n + -n % multiple, images.device) for n in (height, width))
    return images[..., rows, :][..., columns]


def _mirror_index(n: int, length: int, device: torch.device) -> Tensor:
    """Which of n pixels stand in ``length`` places, the border not repeated: 0 1 2 1 0 1 ..."""
    place = torch.arange(length, device=device) % max(1, 2 * (n - 1))
    return torch.minimum(place, 2 * (n - 1) - place) if n > 1 else torch.zeros_like(place)


def offsets_of(window: int) -> Tensor:
    """Which bias belongs to each pair of a window's pixels, (M * M, M * M): one for each way to lie to each other."""
    rows, columns = (place.flatten() for place in torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij"))
    down, right = (place[:, None] - place + window - 1 for place in (rows, columns))
    return down * (2 * window - 1) + right


@lru_cache(maxsize=16)
def windows_apart(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Which pixels of a shifted window do not belong together, (windows, M * M, M * M): shifting joined opposite rims.

    Of a window at a rim the last half of the rows, or columns, comes from the other side.
    """
    part = [_part_of(n, window, device) for n in (height, width)]
    regions = (part[0][:, None] * 3 + part[1]).view(height // window, window, width // window, window)
    regions = regions.transpose(1, 2).reshape(-1, window * window)
    return regions[:, :, None] != regions[:, None]


def _part_of(n: int, window: int, device: torch.device) -> Tensor:
    """Of shifted places along an axis: 0 in whole windows, 1 in the first half of the last one, 2 in its second."""
    place = torch.arange(n, device=device)
    return (place >= n - window).long() + (place >= n - window // 2).long()
