"""What every continuous field is to those who evaluate it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headsr.volumes import Grid


class Field(Protocol):
    """Anything that has a normalised intensity everywhere: scan units = normalised * scale + offset.

    ``grid`` is the grid it was fitted on, ``record`` how it came to be (plain JSON values, for the sidecar) and
    ``arithmetic`` what its numbers are computed with (device, precision), on which their last bits depend.
    """

    grid: Grid
    scale: float
    offset: float
    record: dict[str, Any]
    arithmetic: str

    def evaluate(self, grid: Grid) -> NDArray[np.float32]:
        """Normalised intensities (X, Y, Z) at the voxel centres of a grid; a voxel's do not depend on the others."""
        ...

    def evaluation_bytes(self, shape: tuple[int, int, int]) -> int:
        """Memory that evaluating a block of this shape takes beside the field, at most."""
        ...

    def seconds_per_voxel(self) -> float:
        """About how long one voxel takes on one core."""
        ...
