"""What a scan is taken of: an anatomy of any kind, and the box of space around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headsr.volumes import Grid

# From positions (3, X, Y, Z) in mm of the anatomy's own space to what is there (X, Y, Z).
Sampler = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class FieldOfView(NamedTuple):
    """A box in mm whose edges are parallel to the axes."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]

    def grid(self, voxel_mm: float | tuple[float, float, float]) -> Grid:
        """Voxels of exactly ``voxel_mm`` (one number, or one per axis) that cover the box from its centre."""
        voxel = np.broadcast_to(np.asarray(voxel_mm, dtype=np.float64), 3)
        shape = tuple(int(np.ceil(size / mm - 1e-6)) for size, mm in zip(self.size, voxel, strict=True))
        affine = np.diag([*voxel, 1.0])
        affine[:3, 3] = np.array(self.centre) - voxel * (np.array(shape) - 1) / 2
        return Grid(shape, affine)


class Anatomy(Protocol):
    """A head that can be imaged: in its own space, before a person's deformation."""

    field_of_view: FieldOfView
    sample_mm: float  # how far apart it must be sampled at the most
    # How people differ from it: correlation lengths and root-mean-square displacements of their deformations, in mm.
    scales_mm: tuple[tuple[float, float], ...]

    def imaged(
        self, suffix: str, *, seed: int, lesions: str, rng: np.random.Generator, spacing_mm: NDArray[np.float64]
    ) -> Sampler:
        """The noise-free signal of a contrast, for samples that are ``spacing_mm`` (per axis) apart.

        ``seed`` is the person, whose texture, vessels and lesions (a degree) are the same in every contrast; ``rng``
        draws how bright the tissues are in this scan.
        """
