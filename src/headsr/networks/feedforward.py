"""Feed-forward blocks of a transformer, on feature maps (N, C, H, W): the slot where variants are compared."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import zeroed
from headsr.networks.funkan import FunKanFeedForward, MetaFunKanFeedForward
from headsr.networks.kan import KanFeedForward, MetaKanFeedForward


class GegluFeedForward(nn.Module):
    """Gated feed-forward of inner width 4C (GEGLU, Shazeer 2020), as 1 x 1 convolutions: 12 C^2 weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 8 * channels, 1)
        self.contract = zeroed(nn.Conv2d(4 * channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Change of the features, of their shape."""
        value, gate = self.expand(features).chunk(2, dim=1)
        return self.contract(value * F.gelu(gate))


FEED_FORWARDS: dict[str, Callable[[int], nn.Module]] = {
    "geglu": GegluFeedForward,
    "kan": KanFeedForward,
    "metakan": MetaKanFeedForward,
    "funkan": FunKanFeedForward,
    "metafunkan": MetaFunKanFeedForward,
}
