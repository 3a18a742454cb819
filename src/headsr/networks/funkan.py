"""Functional Kolmogorov-Arnold blocks: whole feature maps are expanded in Hermite functions of deformed coordinates.

FunKAN (Penkin and Krylov 2025, arXiv 2509.13508) as a feed-forward block, and MetaFunKAN, which makes its coefficients
from prompts as MetaKAN does. A basis map is psi_ik = h_k(U_i) h_k(V_i): U_i and V_i are the coordinates of the map, in
rows and columns, moved by what a small network makes of it. Basis maps are computed in fp32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.networks.blocks import PixelNorm, conv3, group_norm, in_full_precision, zeroed
from headsr.networks.hermite import hermite_functions, reach
from headsr.networks.kan import MetaLearner, Prompts, along_edges

MODES = 6  # Hermite functions, the paper's choice
_TEMPLATE = 3  # orders a side of what MetaFunKAN makes templates of


class FunKanFeedForward(nn.Module):
    """FunKAN on features (N, C, H, W): ``grid``² C + 46 C² + 10 C parameters.

    Each channel is a mean of its basis maps, weighted by a softmax of their inner products with a learned template; a
    1 x 1 convolution mixes channels. Its template, of one size in the paper, is interpolated to the map's, with inner
    products that are means, so that any map fits. Group norms stand in for batch norms. Coordinates are absolute: the
    same pixels give something else in a tile.
    """

    def __init__(self, channels: int, *, grid: int = 32) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(channels), conv3(channels, channels)
        self.norm2, self.conv2 = group_norm(channels), conv3(channels, 2 * channels)
        self.norm_skip, self.skip = group_norm(channels), nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.templates = nn.Parameter(torch.empty(channels, grid * grid))
        nn.init.orthogonal_(self.templates)
        with torch.no_grad():  # rows of the paper's unit norm, in means over the map
            self.templates.mul_(grid)
        self.grid = grid
        self.mix = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Change of the features, of their shape."""
        moved = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(features))))))
        with in_full_precision(features.device):
            basis = _deformed_basis((moved + self.skip(self.norm_skip(features))).float(), 1.0)
            templates = self.templates.view(1, -1, self.grid, self.grid)
            templates = F.interpolate(templates, features.shape[-2:], mode="bilinear", align_corners=False)
            shares = (basis * templates[:, :, None]).mean(dim=(-2, -1)).softmax(dim=2)
            mixed = (basis * shares[..., None, None]).sum(dim=2)
        return self.mix(mixed)


class MetaFunKanFeedForward(nn.Module):
    """FunKAN's basis maps under coefficients that small networks make of prompts; the values of the map pass by SiLU.

    y_j = bias_j + sum_i [ b_ji SiLU(x_i) + sum_k c_jik g_ik psi_ik ], times a gain a channel that starts at 0. g_ik are
    FunKAN's shares with templates made of Hermite functions, so that they have any size. Without ``coordinates`` the
    pixel's own place is left out of U and V: they follow from content alone, and a tile agrees with the whole map but
    for its shares, to some tenths of a percent. With d = ``prompt`` numbers an edge and a template and h = ``hidden``
    of the networks: d C² + d C + 23 C + 2 (d + 1) h + 16 (h + 1) parameters.
    """

    def __init__(self, channels: int, *, prompt: int = 1, hidden: int = 32, coordinates: bool = False) -> None:
        super().__init__()
        self.channels, self.coordinates = channels, coordinates
        self.norm = PixelNorm(channels)
        self.offsets = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels)
        self.prompts, self.coefficients = Prompts(channels * channels, prompt), MetaLearner(prompt, hidden, MODES + 1)
        self.template_prompts = Prompts(channels, prompt)
        self.template_coefficients = MetaLearner(prompt, hidden, _TEMPLATE**2)
        self.bias, self.gain = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Change of the features, of their shape."""
        normed = self.norm(features)
        moved = self.offsets(normed).view(-1, self.channels, 2, *features.shape[-2:]).transpose(1, 2).flatten(1, 2)
        weight = self.coefficients.cached(self._weight, self.prompts)
        with in_full_precision(features.device):
            basis = _deformed_basis(torch.tanh(moved.float()), float(self.coordinates))
            basis = basis * (MODES * self._shares(basis))[..., None, None]
            stacked = torch.cat([F.silu(normed.float()), basis.transpose(1, 2).flatten(1, 2)], dim=1)
        return self.gain[:, None, None] * (along_edges(stacked, weight) + self.bias[:, None, None])

    def _weight(self) -> Tensor:
        """What each channel takes of the stacked maps, (C, (MODES + 1) C): SiLU's, then mode by mode."""
        made = self.coefficients(self.prompts()).view(self.channels, self.channels, MODES + 1)
        return made.transpose(1, 2).reshape(self.channels, -1) / math.sqrt(self.channels * (MODES + 1))

    def _shares(self, basis: Tensor) -> Tensor:
        """The softmax over modes of the basis maps' inner products with the templates, (N, C, MODES)."""
        rows, columns = (
            hermite_functions(p, _TEMPLATE) for p in _coordinates(basis.shape[-2:], basis.device, _TEMPLATE)
        )
        made = self.template_coefficients.cached(self._template_weight, self.template_prompts)
        # Templates are sums of products of rows and columns: so are the inner products.
        along_rows = torch.einsum("nckhw,ah->nckaw", basis, torch.stack(rows))
        products = torch.einsum("nckaw,bw->nckab", along_rows, torch.stack(columns)) / basis[0, 0, 0].numel()
        return torch.einsum("nckab,cab->nck", products, made.view(-1, _TEMPLATE, _TEMPLATE)).softmax(dim=2)

    def _template_weight(self) -> Tensor:
        return self.template_coefficients(self.template_prompts())


def _deformed_basis(moved: Tensor, own_place: float) -> Tensor:
    """Basis maps (N, C, MODES, H, W) of offsets (N, 2 C, H, W): of rows first, then of columns.

    A map spans -1 to 1 before it is scaled to where the functions oscillate.
    """
    down, right = moved.chunk(2, dim=1)
    scale = reach(MODES)
    rows, columns = _coordinates(moved.shape[-2:], moved.device, MODES)
    along_rows = hermite_functions(scale * down + own_place * rows[:, None], MODES)
    along_columns = hermite_functions(scale * right + own_place * columns, MODES)
    return torch.stack([u * v for u, v in zip(along_rows, along_columns, strict=True)], dim=2)


def _coordinates(shape: torch.Size, device: torch.device, number: int) -> list[Tensor]:
    """The centres of a map's rows (H,) and columns (W,), from end to end as far as Hermite functions reach."""
    return [reach(number) * ((2 * torch.arange(n, device=device) + 1) / n - 1) for n in shape]
