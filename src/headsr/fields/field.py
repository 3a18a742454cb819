"""What every continuous field is to those who evaluate it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headsr.volumes import Forms, Grid


class Field(Protocol):
    """Anything that has a normalised intensity everywhere: scan units = normalised * scale + offset.

    ``grid`` is the grid it was fitted on, ``projected`` (X, Y, Z) its voxels there, which are its means at every whole
    scale, and ``signed`` says that intensities may be below zero. ``record`` is how it came to be (plain JSON values,
    for the sidecar), ``forms`` what headers say that its places are in, and ``arithmetic`` what its numbers are
    computed with (device, precision), on which their last bits depend.
    """

    grid: Grid
    scale: float
    offset: float
    signed: bool
    projected: NDArray[np.float32]
    record: dict[str, Any]
    forms: Forms
    arithmetic: str

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Normalised intensities (X, Y, Z) at the voxel centres of a grid; a voxel's do not depend on the others."""
        ...

    def evaluation_bytes(self, grid: Grid) -> int:
        """Memory that evaluating a block of this size takes beside the field, at most."""
        ...

    def seconds_per_voxel(self, grid: Grid) -> float:
        """About how long one core takes for a voxel of a block of this size."""
        ...
