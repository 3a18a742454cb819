"""Self-attention over the pixels of a feature map, with the feed-forward block that plain diffusion U-Nets lack."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import Checkpointed, PixelNorm, zeroed
from headsr.networks.feedforward import FEED_FORWARDS


class SelfAttention(nn.Module):
    """Multi-head attention of every pixel to every pixel, as a change of (N, C, H, W) features."""

    def __init__(self, channels: int, *, head_width: int) -> None:
        super().__init__()
        if channels % head_width:
            raise ValueError(f"attention on {channels} channels cannot be split into heads of width {head_width}")
        self.heads = channels // head_width
        self.queries_keys_values = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Change of the features, of their shape."""
        n, c, h, w = features.shape
        tokens = self.queries_keys_values(features).reshape(n, 3, self.heads, c // self.heads, h * w)
        queries, keys, values = tokens.transpose(-1, -2).unbind(dim=1)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.out(mixed.transpose(-1, -2).reshape(n, c, h, w))


class TransformerBlock(Checkpointed):
    """Attention, then a feed-forward block, each on normalised features and added to them (N, C, H, W)."""

    def __init__(self, channels: int, *, head_width: int, feedforward: str) -> None:
        super().__init__()
        if feedforward not in FEED_FORWARDS:
            raise ValueError(f"unknown feedforward {feedforward!r}; known: {', '.join(FEED_FORWARDS)}")
        self.norm1, self.attention = PixelNorm(channels), SelfAttention(channels, head_width=head_width)
        self.norm2, self.feedforward = PixelNorm(channels), FEED_FORWARDS[feedforward](channels)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        features = features + self.attention(self.norm1(features))
        return features + self.feedforward(self.norm2(features))
