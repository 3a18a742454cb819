"""Kolmogorov-Arnold layers as feed-forward blocks: a learned function of one number on every edge of two layers.

phi_ji(x) = b_ji SiLU(x) + sum_k c_jik B_k(x) and y_j = sum_i phi_ji(x_i) (Liu et al. 2024, KAN, equations 2.10 to 2.12)
on the channels of each pixel. The basis is computed once a channel and multiplied by one matrix: as many numbers as
channels times basis functions are kept, not one an edge.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import in_full_precision

INTERVALS, ORDER = 5, 3  # of the splines, as in the paper
BASIS = INTERVALS + ORDER  # spline functions of an edge; beside them SiLU
_RANGE = 3.0  # features come normed, so that most lie within three deviations; beyond it SiLU alone is left
_FASTER = 10.0  # prompts move so many times as fast as other parameters (MetaKAN, its trainings)


class KanFeedForward(nn.Module):
    """One layer of edges from C channels to C, a change of features (N, C, H, W): C² (BASIS + 1) weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, (BASIS + 1) * channels))

    def forward(self, features: Tensor) -> Tensor:
        """Change of the features, of their shape."""
        return along_edges(kan_basis(features), self.weight)


class MetaKanFeedForward(nn.Module):
    """The same with its coefficients made by a small network from one prompt an edge (MetaKAN, Zhao et al. 2025).

    With d = ``prompt`` numbers an edge and h = ``hidden`` of the network: d C² + (d + 1) h + (h + 1) (BASIS + 1)
    parameters.
    """

    def __init__(self, channels: int, *, prompt: int = 1, hidden: int = 32) -> None:
        super().__init__()
        self.channels = channels
        self.prompts = Prompts(channels * channels, prompt)
        self.coefficients = MetaLearner(prompt, hidden, BASIS + 1)
        nn.init.zeros_(self.coefficients.last.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Change of the features, of their shape."""
        return along_edges(kan_basis(features), self.coefficients.cached(self._weight, self.prompts))

    def _weight(self) -> Tensor:
        made = self.coefficients(self.prompts()).view(self.channels, self.channels, BASIS + 1)
        return made.transpose(1, 2).reshape(self.channels, -1)


class Prompts(nn.Module):
    """What a meta-learner makes coefficients of: (number, width), free parameters."""

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.width = width
        # Of one dimension, so that they do not decay; kept smaller than they are, so that the optimiser's steps, which
        # are alike for all parameters, move them more.
        self.values = nn.Parameter(torch.randn(number * width) / _FASTER)

    def forward(self) -> Tensor:
        """The prompts (number, width)."""
        return _FASTER * self.values.view(-1, self.width)


class MetaLearner(nn.Module):
    """Coefficients from prompts: two layers, d + 1 times h and h + 1 times D parameters, with a ReLU between them."""

    def __init__(self, prompt: int, hidden: int, made: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(prompt, hidden), nn.Linear(hidden, made)
        for layer in (self.first, self.last):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self._kept: tuple[list[tuple[int, int, torch.dtype]], Tensor] | None = None

    def forward(self, prompts: Tensor) -> Tensor:
        """Coefficients (number, made) in fp32: they are weights."""
        with in_full_precision(prompts.device):
            return self.last(F.relu(self.first(prompts.float())))

    def cached(self, make: Callable[[], Tensor], *of: nn.Module) -> Tensor:
        """``make()``, which depends on these modules and this one: kept while none of their parameters changes.

        Made anew each time where gradients are asked for.
        """
        if torch.is_grad_enabled():
            self._kept = None
            return make()
        state = [(p.data_ptr(), p._version, p.dtype) for module in (self, *of) for p in module.parameters()]
        if self._kept is None or self._kept[0] != state:
            self._kept = state, make()
        return self._kept[1]


def kan_basis(features: Tensor) -> Tensor:
    """SiLU and the splines of every channel in fp32, (N, (BASIS + 1) C, H, W): all of SiLU, then spline by spline.

    Uniform cubic B-splines on [-3, 3]: every one is the same bump, at its place.
    """
    with in_full_precision(features.device):
        x = features.float()
        step = 2 * _RANGE / INTERVALS
        places = [-_RANGE + (k - ORDER // 2) * step for k in range(BASIS)]
        return torch.cat([F.silu(x), *(_cubic_bump((x - place) / step) for place in places)], dim=1)


def along_edges(basis: Tensor, weight: Tensor) -> Tensor:
    """What edges with ``weight`` (C', channels of the basis) make of a basis (N, B, H, W): (N, C', H, W)."""
    return F.conv2d(basis, weight[:, :, None, None])


def _cubic_bump(t: Tensor) -> Tensor:
    """The cubic B-spline with knots at -2, -1, 0, 1, 2: 2/3 at 0, nothing beyond 2."""
    away = t.abs()
    near = 2 / 3 - away.square() * (1 - away / 2)
    far = (2 - away).clamp_min(0) ** 3 / 6
    return torch.where(away < 1, near, far)
