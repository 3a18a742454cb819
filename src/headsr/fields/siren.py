"""A field that is one network of sines: position -> intensity (Sitzmann et al., NeurIPS 2020; methods e.7 and g).

Nothing fits such a field yet.

Layer i computes sin(30 (W_i h + b_i)), the last one W h + b. Its input is the head index p of each axis of n voxels,
normalised to [-1, 1] over the head's box: u = (2 p + 1) / n - 1.

On a separable grid the first layer's argument is a sum of one table per axis. Each is computed in float64 and reduced
to [-pi, pi] before it is rounded to float32, for low precision cannot even number 4096 positions: with it in the hidden
layers alone, values are 17 dB nearer to those of full precision (methods g.2).

A voxel's value is the same, bit for bit, however a grid is cut into tiles: positions are snapped to a lattice, and
matrix products are all of one shape (``headsr.fields.evaluators``).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headsr.fields.arithmetic import (
    LIBRARY_BYTES,
    arithmetic_of,
    check_arithmetic,
    check_layers,
    layer_tensors,
    layers_of,
    least_seconds,
    seconds_of_layers,
)
from headsr.fields.lattice import positions_in
from headsr.volumes import Grid

if TYPE_CHECKING:
    from headsr.fields.evaluators import SirenEvaluator

OMEGA = 30.0
# Voxels per matrix product. On a CPU two layers' units of them stay in the second cache; a graphics card must be full.
_ROWS = {"cpu": 512, "cuda": 131072}
_MOVING = threading.Lock()


@dataclass(frozen=True, eq=False)
class SirenField:
    """A fitted network of sines on the head's ``grid``, of normalised intensities.

    ``weights`` are (units, inputs) and ``biases`` (units,) per layer, float32, the first of 3 inputs and the last of
    1 unit. ``precision`` is that of the hidden layers' inputs and weights; the first layer's tables and the last
    layer's sum are float32 always.
    """

    grid: Grid
    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    device: str = "cpu"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_arithmetic(self.device, self.precision)
        check_layers(self.weights, self.biases, inputs=3)

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, units of each layer, output."""
        return (3, *(len(bias) for bias in self.biases))

    @property
    def arithmetic(self) -> str:
        """What the bits of a value follow from beside the field itself."""
        return arithmetic_of(self.device, self.precision)

    @property
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """What a file keeps, by name."""
        return layer_tensors(self.weights, self.biases)

    @property
    def description(self) -> dict[str, Any]:
        """What a file says of its tensors (JSON)."""
        return {"kind": "siren", "layers": len(self.weights)}

    @classmethod
    def from_file(cls, grid: Grid, content: dict[str, Any], tensors: dict[str, NDArray[np.float32]]) -> SirenField:
        """The field that a file describes."""
        return cls(grid, *layers_of(tensors, content["layers"]))

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Normalised intensities (X, Y, Z) at the voxel centres of ``grid``, any block of any size of voxel.

        The axes of ``grid`` must be parallel to the head's (ValueError). Outside the outermost head voxel centres the
        field continues with its value there.
        """
        tables = self._tables(grid)
        from headsr.fields.evaluators import one_thread  # and with it torch, once there is something to compute

        with one_thread():
            return self._evaluator.values(tables, grid.shape)

    def evaluation_bytes(self, shape: tuple[int, int, int]) -> int:
        """The most memory in bytes that evaluating a block of so many voxels takes in a thread, beside the field."""
        first, widest = self.widths[1], max(self.widths)
        tables = sum(shape) * first * (4 * 8 + 4)  # the phase in float64, what reducing it makes of it, and float32
        rows = self._rows * (4 * 4 * widest + 8 * 8)
        return 4 * math.prod(shape) + tables + rows + 4 * 4 * sum(w.size for w in self.weights) + LIBRARY_BYTES

    def seconds_per_voxel(self) -> float:
        """About how long one core (or a graphics card) takes for a voxel: its products in fp32 and its sines."""
        if self.device != "cpu":
            return seconds_of_layers(self.widths, self.device)
        angles = np.linspace(-np.pi, np.pi, 2**16, dtype=np.float32)
        sine = least_seconds(lambda: np.sin(angles)) / angles.size
        return seconds_of_layers(self.widths, self.device) + sine * sum(self.widths[1:-1])

    def _tables(self, grid: Grid) -> list[NDArray[np.float32]]:
        """What each axis adds to the first layer's argument, (voxels, units) per axis, reduced to [-pi, pi]."""
        weight, bias = self.weights[0].astype(np.float64), self.biases[0].astype(np.float64)
        tables = []
        for axis, (place, n) in enumerate(zip(positions_in(self.grid, grid), self.grid.shape, strict=True)):
            unit = (2 * place + 1) / n - 1
            turns = OMEGA / (2 * np.pi) * (unit[:, None] * weight[:, axis] + (bias if axis == 0 else 0))
            tables.append((2 * np.pi * (turns - np.rint(turns))).astype(np.float32))
        return tables

    @property
    def _rows(self) -> int:
        return _ROWS[self.device.partition(":")[0]]

    @property
    def _evaluator(self) -> SirenEvaluator:
        from headsr.fields.evaluators import SirenEvaluator

        with _MOVING:  # to the device once, whichever thread comes first
            if "_moved" not in self.__dict__:
                self.__dict__["_moved"] = SirenEvaluator(
                    self.weights,
                    self.biases,
                    omega=OMEGA,
                    rows=self._rows,
                    device=self.device,
                    precision=self.precision,
                )
            return self.__dict__["_moved"]
