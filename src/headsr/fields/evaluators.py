"""The torch sides of the fields that are networks of matrix products. Imported when evaluation begins, not before.

A matrix product rounds by its shape and by the number of threads that share it, so both are fixed here: every product
has one number of rows (the last one of a block is filled up) and one thread. That each of its rows is computed alike
wherever it stands, and whatever the others hold, is a property of the library's kernels: tested, not proven.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.fields.arithmetic import Layers
from headsr.fields.lattice import Stencil

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_entering = threading.Lock()
_inside = 0
_threads_before = 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread and without gradients inside; several threads may be inside at a time.

    Workers that evaluate side by side would otherwise fight for the cores, and products would be cut by how many there
    are. The last one to leave puts back how many threads torch had before.
    """
    global _inside, _threads_before
    with _entering:
        if _inside == 0:
            _threads_before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)  # OpenMP keeps the number per calling thread: each one has to say it
    try:
        with torch.inference_mode():
            yield
    finally:
        with _entering:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_threads_before)


class SirenEvaluator:
    """The layers behind the first, in their precision on their device, ``omega`` multiplied into the weights."""

    def __init__(
        self, weights: Layers, biases: Layers, *, omega: float, rows: int, device: str, precision: str
    ) -> None:
        self.device, self.type, self.rows = _present(device), _TYPES[precision], rows
        self.widths, factor = (weights[0].shape[1], *map(len, biases)), np.float32(omega)
        layers = list(zip(weights, biases, strict=True))
        self.hidden = [
            (_moved((factor * weight).T, self.type, self.device), _moved(factor * bias, self.type, self.device))
            for weight, bias in layers[1:-1]
        ]
        self.last_weight, self.last_bias = (_moved(array.T, torch.float32, self.device) for array in layers[-1])

    def values(self, tables: Sequence[NDArray[np.float32]], shape: tuple[int, int, int]) -> NDArray[np.float32]:
        """The network's output (X, Y, Z) from each axis' table (voxels, units) of the first layer's argument."""
        on_device = [torch.from_numpy(table).to(self.device) for table in tables]
        result = torch.empty(math.prod(shape), dtype=torch.float32, device=self.device)
        # Two buffers, from one to the other and back: layers run in place in what stays in the cache.
        exact = [self._buffer(torch.float32) for _ in range(2)]
        low = exact if self.type == torch.float32 else [self._buffer(self.type) for _ in range(2)]
        for start in range(0, len(result), self.rows):
            voxel = torch.arange(start, start + self.rows, device=self.device).clamp_(max=len(result) - 1)
            units = self._first_layer(on_device, _unravel(voxel, shape), exact)
            if self.type != torch.float32:
                units = self._part(low[0], self.widths[1]).copy_(units)
            for layer, (weight, bias) in enumerate(self.hidden, start=1):
                units = torch.addmm(bias, units, weight, out=self._part(low[layer % 2], self.widths[layer + 1])).sin_()
            values = torch.addmm(self.last_bias, units.float(), self.last_weight)
            result[start : start + self.rows] = values[: len(result) - start, 0]
        return result.view(shape).cpu().numpy()

    def _first_layer(self, tables: list[Tensor], index: Sequence[Tensor], buffers: list[Tensor]) -> Tensor:
        units, summand = (self._part(buffer, self.widths[1]) for buffer in buffers)
        torch.index_select(tables[0], 0, index[0], out=units)
        for table, place in zip(tables[1:], index[1:], strict=True):
            units += torch.index_select(table, 0, place, out=summand)
        return units.sin_()

    def _buffer(self, kind: torch.dtype) -> Tensor:
        return torch.empty(self.rows * max(self.widths), dtype=kind, device=self.device)

    def _part(self, buffer: Tensor, width: int) -> Tensor:
        return buffer[: self.rows * width].view(self.rows, width)


class HashEvaluator:
    """The nodes and the network of a hash grid on their device."""

    def __init__(
        self,
        levels: Sequence[NDArray[np.float32]],
        weights: Layers,
        biases: Layers,
        *,
        rows: int,
        device: str,
        precision: str,
    ) -> None:
        self.device, self.type, self.rows = _present(device), _TYPES[precision], rows
        self.levels = [self._nodes(level) for level in levels]
        layers = [(weight, bias[:, None]) for weight, bias in zip(weights, biases, strict=True)]
        self.hidden = [tuple(_moved(array, self.type, self.device) for array in layer) for layer in layers[:-1]]
        self.last_weight, self.last_bias = (_moved(array, torch.float32, self.device) for array in layers[-1])

    def values(self, stencils: Sequence[Stencil]) -> NDArray[np.float32]:
        """The field (X, Y, Z) on a tile, from where each of its levels is read there.

        Levels are brought to the tile's voxels along z and y at once. What is left, the features' planes at each
        level's nodes along x, are the rows of one matrix: the step along x is one for all levels, and is followed by
        the network, a few planes of voxels at a time.
        """
        shape = tuple(len(share) for _, _, share in stencils[0].between)
        planes, (below, above, share) = self._planes(stencils, shape)
        result = self._empty(*shape)
        depth = self.rows // planes.shape[1]
        work = self._empty(2, len(below) * depth, planes.shape[1])
        layers = [self._empty(len(bias), self.rows, kind=self.type) for _, bias in self.hidden]
        columns = torch.zeros(len(below), self.rows, dtype=torch.float32, device=self.device)
        for part in (slice(first, first + depth) for first in range(0, shape[0], depth)):
            target = result[part]
            nodes = [array[:, part].reshape(-1) for array in (below, above, share)]
            units = _interpolate(planes, 0, nodes, out=work[:, : len(nodes[0])]).view(len(below), -1)
            if target.numel() < self.rows:  # a tile's end: filled up, for all products have one shape
                columns[:, : target.numel()] = units
                units = columns
            target[:] = self._network(units, layers)[: target.numel()].view_as(target)
        return result.cpu().numpy()

    def _planes(self, stencils: Sequence[Stencil], shape: tuple[int, int, int]) -> tuple[Tensor, list[Tensor]]:
        """Features at nodes along x (all nodes of all features, Y Z); the two nodes and the share of each (feature, x).

        Along z first, while nodes are few. Each step copies whole rows or planes, never single numbers.
        """
        counts = [len(level) if level.ndim == 4 else 2 for level in self.levels]
        ends = np.cumsum([count * len(stencil.nodes[0]) for count, stencil in zip(counts, stencils, strict=True)])
        planes, along_x = self._empty(int(ends[-1]), shape[1] * shape[2]), []
        for level, count, stencil, end in zip(self.levels, counts, stencils, ends, strict=True):
            nodes = len(stencil.nodes[0])
            x, y, z = ([torch.from_numpy(array).to(self.device) for array in axis] for axis in stencil.between)
            rows = planes[end - count * nodes : end].view(count, nodes, *shape[1:])
            along_z = _interpolate(_box(level, stencil), 0, z).permute(3, 1, 2, 0).contiguous()
            _interpolate(along_z, 2, y, out=(rows, None))
            first = (end - nodes * torch.arange(count, 0, -1, device=self.device))[:, None]
            along_x.append([first + x[0], first + x[1], x[2].expand(count, -1)])
        return planes, [torch.cat(arrays) for arrays in zip(*along_x, strict=True)]

    def _network(self, units: Tensor, layers: Sequence[Tensor]) -> Tensor:
        units = units.to(self.type)
        for (weight, bias), layer in zip(self.hidden, layers, strict=True):
            units = torch.addmm(bias, weight, units, out=layer).relu_()
        return torch.addmm(self.last_bias, self.last_weight, units.float())[0]

    def _nodes(self, level: NDArray[np.float32]) -> Tensor:
        # A hashed node is one number of 8 bytes: both features are fetched as fast as one.
        level = np.ascontiguousarray(level)
        return torch.from_numpy(level if level.ndim == 4 else level.view(np.int64)[:, 0]).to(self.device)

    def _empty(self, *shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=kind, device=self.device)


def _box(level: Tensor, stencil: Stencil) -> Tensor:
    """A level's nodes that a tile touches: (z, x, y, features). Of a hashed level, each node is fetched once."""
    if level.ndim == 4:
        for axis, nodes in enumerate(stencil.nodes, start=1):
            if nodes[-1] - nodes[0] == len(nodes) - 1:
                level = level.narrow(axis, int(nodes[0]), len(nodes))
            else:
                level = level.index_select(axis, torch.from_numpy(nodes).to(level.device))
        return level.permute(3, 1, 2, 0).contiguous()
    x, y, z = (torch.from_numpy(places).to(level.device) for places in stencil.hashed(len(level)))
    places = z[:, None, None] ^ x[:, None] ^ y
    return level.index_select(0, places.view(-1)).view(torch.float32).view(*places.shape, 2)


def _interpolate(
    nodes: Tensor, axis: int, between: Sequence[Tensor], *, out: Sequence[Tensor | None] = (None, None)
) -> Tensor:
    """Linear interpolation along an axis; ``out`` are the memory of the result and of its second term.

    By products and sums that round once each, so that how the library cuts its loops is no matter.
    """
    below, above, share = between
    share = share.view([-1 if i == axis else 1 for i in range(nodes.ndim)])
    lower = torch.index_select(nodes, axis, below, out=out[0]).mul_(1 - share)
    return lower.add_(torch.index_select(nodes, axis, above, out=out[1]).mul_(share))


def _unravel(voxel: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    row = torch.div(voxel, shape[2], rounding_mode="floor")
    return torch.div(row, shape[1], rounding_mode="floor"), row % shape[1], voxel % shape[2]


def _present(name: str) -> torch.device:
    """The device of this name; ValueError where this machine has none such."""
    device = torch.device(name)
    if device.type == "cuda" and (count := torch.cuda.device_count()) <= (device.index or 0):
        has = f"no CUDA device but cuda:0 to cuda:{count - 1}" if count else "no CUDA device"
        raise ValueError(f"device {name}: this machine has {has}; use --device cpu, or run where there is one")
    return device


def _moved(array: NDArray[np.float32], kind: torch.dtype, device: torch.device) -> Tensor:
    """A contiguous copy on the device, aligned as torch does it: kernels may differ by alignment, and files do."""
    return torch.tensor(np.ascontiguousarray(array), dtype=kind, device=device)
