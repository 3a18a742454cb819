"""What a voxel metric sees: a volume beside its truth, inside a mask, and along which axes the scans were thick."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SOFT = 3.0  # voxels; the window rises from 0 to 1 within about twice as many


@dataclass(frozen=True, eq=False)
class Comparison:
    """A volume and its truth, both (X, Y, Z) in normalised intensities, compared inside ``mask`` (X, Y, Z).

    ``spacings`` are the distances of the scans' slices in voxels along each axis, 1 where no scan is thick; ``borders``
    say where the first two slices meet, in voxels from the volume's first face (None: one spacing from it).
    ``uncertainty`` (X, Y, Z) is half of the interval that is to hold 90 % of the volume's errors (None: not foretold).
    Raises ValueError for an empty mask and for shapes that differ.
    """

    volume: NDArray[np.float32]
    truth: NDArray[np.float32]
    mask: NDArray[np.bool_]
    data_range: float
    voxel_mm: tuple[float, float, float]
    spacings: tuple[float, float, float]
    borders: tuple[float, float, float] | None = None
    maps: dict[str, NDArray] = field(default_factory=dict, repr=False)  # what costs, made once for all masks
    uncertainty: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not self.volume.shape == self.truth.shape == self.mask.shape:
            raise ValueError(f"volume {self.volume.shape}, truth {self.truth.shape} and mask {self.mask.shape} differ")
        if not self.mask.any():
            raise ValueError("the mask is empty")

    @property
    def thick_axes(self) -> tuple[int, ...]:
        """The axes along which some scan has slices thicker than a voxel."""
        return tuple(axis for axis, spacing in enumerate(self.spacings) if spacing > 1.0 + 1e-6)

    @cached_property
    def window(self) -> NDArray[np.float32]:
        """Weights (X, Y, Z) that rise smoothly from 0 at the mask's border to 1 inside: spectra see no edge there."""
        smooth = ndimage.gaussian_filter(self.mask.astype(np.float32), _SOFT, mode="constant")
        return np.where(self.mask, np.maximum(2.0 * smooth - 1.0, 0.0) ** 2, np.float32(0.0))

    def box(self, margin: int) -> tuple[slice, ...]:
        """The box around the mask with a margin in voxels, cut off at the volume's faces."""
        (found,) = ndimage.find_objects(self.mask.astype(np.uint8))
        return tuple(
            slice(max(0, part.start - margin), min(size, part.stop + margin))
            for part, size in zip(found, self.mask.shape, strict=True)
        )


def worst_axis(
    comparison: Comparison,
    measure: Callable[[Comparison, int], float],
    worst: Callable[[list[float]], float],
) -> float:
    """The worst value of ``measure`` over the thick axes (``worst`` is max or min); NaN where it has none."""
    values = [measure(comparison, axis) for axis in comparison.thick_axes]
    known = [value for value in values if not math.isnan(value)]
    return worst(known) if known else math.nan


def steps_along(volume: NDArray, axis: int) -> NDArray:
    """The steps v[i + 1] - v[i] along an axis, with that axis first (n - 1, ...)."""
    return np.diff(np.moveaxis(volume, axis, 0), axis=0)


def steps_inside(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Which steps of ``steps_along`` have both ends inside the mask."""
    first = np.moveaxis(mask, axis, 0)
    return first[1:] & first[:-1]
