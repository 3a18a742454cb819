"""How a low-resolution scan was made, as it stands beside it. Read without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from headsr.files import sidecar_of
from headsr.typed_json import read_as
from headsr.volumes import Grid


@dataclass(frozen=True)
class Protocol:
    """How one low-resolution scan was made; written beside it as JSON.

    ``view`` is axial, coronal or sagittal (the plane of its slices) or isotropic (coarse along all three axes),
    ``thickness`` in mm (None: as thick as its voxels), ``noise`` a standard deviation in the scan's normalised
    intensities, ``head_shape`` and ``head_affine`` the grid to reconstruct on, and normalised intensity * ``scale`` +
    ``offset`` gives the original scan's units. ``coarse`` are the axes along which it is coarse, where it is not across
    its slices alone. ``signed``: its intensities may be negative; magnitudes are not. ``skull_stripped``: it shows the
    brain alone. ``source`` is where its dataset keeps the scan that it was made from, '' where it has no dataset.
    """

    view: str
    profile: str
    thickness: float | None
    noise: float
    head_shape: tuple[int, int, int]
    head_affine: tuple[tuple[float, ...], ...]
    scale: float
    offset: float
    degradation: str
    source_key: str
    coarse: tuple[int, ...] | None = None
    signed: bool = False
    skull_stripped: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        if not self.head.is_of_a_head:
            raise ValueError(f"head_affine: voxels of {self.head.voxel_size} mm are not those of a head")
        if not self.scale > 0:
            raise ValueError(f"scale: {self.scale:g} is no scale; it must be above 0")
        if not self.noise >= 0 or not (self.thickness is None or self.thickness > 0):
            raise ValueError(f"noise {self.noise:g} and thickness {self.thickness} must not be below 0")

    @property
    def head(self) -> Grid:
        """The grid to reconstruct on."""
        return Grid(tuple(self.head_shape), self.head_affine)


def read_protocol(scan: str | os.PathLike[str]) -> Protocol:
    """The protocol beside a low-resolution scan. UnreadableError names a sidecar that says none."""
    return read_as(Protocol, sidecar_of(scan), "headsr")
