"""Weights over their largest singular value, found by power iteration (Miyato 2018, section 2.1 and algorithm 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from headsr.networks.blocks import in_full_precision

_AT_FIRST = 15  # iterations


class SpectralNorm(nn.Module):
    """A parametrisation: the weights (outputs, ...) of a layer, as a matrix divided by its largest singular value.

    Its estimate moves when it is told to (iterate_spectral_norms) and not with every forward pass, as torch's own does:
    what a step computes then does not depend on how many batches it is made of, or how many of them another process
    sees.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.register_buffer("left", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(columns), dim=0))
        self.iterate(weight, _AT_FIRST)

    @torch.no_grad()
    def iterate(self, weight: Tensor, times: int = 1) -> None:
        """Come nearer to the singular vectors of these weights."""
        for _ in range(times):
            self.left.copy_(F.normalize(weight.flatten(1).mv(self.right), dim=0))
            self.right.copy_(F.normalize(weight.flatten(1).T.mv(self.left), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """The weights, none of which stretches anything by more than about 1."""
        with in_full_precision(weight.device):
            return weight / self.left.dot(weight.flatten(1).mv(self.right))


def spectrally_normed(layer: nn.Module) -> nn.Module:
    """The layer, its weight under a SpectralNorm."""
    return parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))


def iterate_spectral_norms(network: nn.Module) -> None:
    """One power iteration of every SpectralNorm of a network: once after each step of its weights."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            weights = module.parametrizations.weight
            for norm in (one for one in weights if isinstance(one, SpectralNorm)):
                norm.iterate(weights.original)
