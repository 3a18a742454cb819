"""The trainable side of a field: its feature grids and its MLP as a torch module, on the head's voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsr.fields.dense import DenseField
from headsr.fields.lattice import level_shape, linear_nodes
from headsr.recipes import GridField
from headsr.volumes import Grid

_START = 1e-4  # features start nearly at zero (methods e.7), so the field starts as what it is added to
_CHUNK = {"cpu": 16384, "cuda": 4194304}  # voxels at once: on a CPU the hidden layer stays in the cache


class GridNetwork(nn.Module):
    """Dense feature grids of several cell sizes and a one-layer MLP, evaluated at every head voxel at once."""

    def __init__(self, shape: tuple[int, int, int], design: GridField, *, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.design = shape, design
        total = sum(design.features)
        grids = [(count, *level_shape(shape, cell)) for count, cell in zip(design.features, design.cells, strict=True)]
        self.levels = nn.ParameterList(_START * (2 * torch.rand(size, generator=generator) - 1) for size in grids)
        self.hidden_weight = nn.Parameter(torch.randn(design.hidden, total, generator=generator) * (2 / total) ** 0.5)
        self.hidden_bias = nn.Parameter(0.1 * torch.randn(design.hidden, 1, generator=generator))
        self.output_weight = nn.Parameter(torch.randn(1, design.hidden, generator=generator) * design.hidden**-0.5)
        self.output_bias = nn.Parameter(torch.zeros(1, 1))
        for index, cell in enumerate(design.cells):
            for axis, n in enumerate(shape):
                self.register_buffer(f"_weights_{index}_{axis}", _interpolation(n, cell), persistent=False)
        self._start_at_zero()

    def forward(self) -> Tensor:
        """Values (X, Y, Z) at the head's voxel centres."""
        features = torch.cat([self._at_voxels(index).flatten(1) for index in range(len(self.levels))])
        weights = self.hidden_weight, self.hidden_bias, self.output_weight, self.output_bias
        return _PointwiseNetwork.apply(features, *weights).view(self.shape)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Adam's groups: the feature grids at the full rate, the MLP, which every voxel shares, at a fifth of it."""
        shared = [self.hidden_weight, self.hidden_bias, self.output_weight, self.output_bias]
        return [{"params": list(self.levels), "lr": learning_rate}, {"params": shared, "lr": learning_rate / 5}]

    @torch.no_grad()
    def as_field(self, grid: Grid) -> DenseField:
        """The field as it is now."""

        def array(tensor: Tensor) -> np.ndarray:
            return tensor.detach().cpu().numpy().copy()

        return DenseField(
            grid,
            tuple(self.design.cells),
            tuple(array(level) for level in self.levels),
            hidden_weight=array(self.hidden_weight),
            hidden_bias=array(self.hidden_bias[:, 0]),
            output_weight=array(self.output_weight[0]),
            output_bias=array(self.output_bias[0, 0]),
        )

    @torch.no_grad()
    def _start_at_zero(self) -> None:
        """Let the output bias cancel what the MLP says of empty features."""
        self.output_bias -= self.output_weight @ F.relu(self.hidden_bias)

    def _at_voxels(self, index: int) -> Tensor:
        level = self.levels[index]
        if self.design.cells[index] == 1:
            return level
        for axis in (2, 1, 0):
            weights = self.get_buffer(f"_weights_{index}_{axis}")
            level = torch.movedim(torch.movedim(level, axis + 1, -1) @ weights.T, -1, axis + 1)
        return level


class _PointwiseNetwork(torch.autograd.Function):
    """W2 relu(W1 x + b1) + b2 for features x (F, voxels), in chunks, the hidden layer computed anew for the gradient.

    What autograd would keep (two arrays of hidden width for all voxels) costs three times the time on a CPU, where it
    does not fit the cache, and several times the memory of the features.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        ctx.save_for_backward(features, w1, b1, w2)
        parts = features.split(_CHUNK[features.device.type], dim=1)
        return torch.cat([torch.addmm(b2, w2, torch.addmm(b1, w1, part).relu_()) for part in parts], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        features, w1, b1, w2 = ctx.saved_tensors
        size = _CHUNK[features.device.type]
        to_features, to_w1, to_b1, to_w2 = (torch.zeros_like(tensor) for tensor in (features, w1, b1, w2))
        for part, out, slope in zip(*(t.split(size, dim=1) for t in (features, to_features, gradient)), strict=True):
            hidden = torch.addmm(b1, w1, part).relu_()
            to_w2 += slope @ hidden.T
            to_hidden = (w2.T @ slope).mul_(hidden > 0)
            to_b1 += to_hidden.sum(dim=1, keepdim=True)
            to_w1 += to_hidden @ part.T
            out.copy_(w1.T @ to_hidden)
        return to_features, to_w1, to_b1, to_w2, gradient.sum().view(1, 1)


def _interpolation(n: int, cell: int) -> Tensor:
    """Linear interpolation from the nodes of one axis to its n voxels, as a matrix (n, nodes)."""
    (nodes,) = level_shape((n,), cell)
    below, above, share = linear_nodes(np.arange(n, dtype=np.float64), cell, nodes)
    matrix = np.zeros((n, nodes), dtype=np.float32)
    np.add.at(matrix, (np.arange(n), below), 1 - share)
    np.add.at(matrix, (np.arange(n), above), share)
    return torch.from_numpy(matrix)
